"""Statements about jobs: who does one, until when others have to wait, and when it was last done."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from remote.server.database.schema import jobs


def take(connection: Connection, name: str, holder: bytes, now_ns: int, every_ns: int, until_ns: int) -> bool:
    """Whether the job is due, and the holder's from now on. Nobody else takes one beside this transaction."""
    row = connection.execute(select(jobs).where(jobs.c.name == name)).one_or_none()
    if row is None:
        connection.execute(insert(jobs).values(name=name, holder=holder, until_ns=until_ns, done_ns=0))
        return True
    if (row.holder is not None and row.until_ns > now_ns) or now_ns - row.done_ns < every_ns:
        return False
    connection.execute(update(jobs).where(jobs.c.name == name).values(holder=holder, until_ns=until_ns))
    return True


def keep(connection: Connection, name: str, holder: bytes, until_ns: int) -> bool:
    """Whether the job is still the holder's, which then has until `until_ns`."""
    mine = (jobs.c.name == name) & (jobs.c.holder == holder)
    return connection.execute(update(jobs).where(mine).values(until_ns=until_ns)).rowcount == 1


def leave(connection: Connection, name: str, holder: bytes, done_ns: int | None) -> None:
    """`done_ns`: when it was done to its end; None: it was not."""
    mine = (jobs.c.name == name) & (jobs.c.holder == holder)
    done = {} if done_ns is None else {"done_ns": done_ns}
    connection.execute(update(jobs).where(mine).values(holder=None, **done))
