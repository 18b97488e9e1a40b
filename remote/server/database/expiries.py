"""Statements about files and folders that go to the trash at a time that somebody chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from remote.server.database.schema import expiries, spaces


@dataclass(frozen=True, slots=True)
class ExpiryRow:
    space_id: bytes
    inode: bytes
    expires_ns: int
    account_id: bytes
    device_id: bytes
    warned_ns: int | None = None


def put(connection: Connection, row: ExpiryRow) -> None:
    """The space is locked."""
    forget(connection, row.space_id, row.inode)
    connection.execute(insert(expiries).values(asdict(row)))


def forget(connection: Connection, space: bytes, inode: bytes) -> bool:
    """Whether there was one."""
    here = (expiries.c.space_id == space) & (expiries.c.inode == inode)
    return connection.execute(delete(expiries).where(here)).rowcount == 1


def find(connection: Connection, space: bytes, inode: bytes) -> ExpiryRow | None:
    here = (expiries.c.space_id == space) & (expiries.c.inode == inode)
    row = connection.execute(select(expiries).where(here)).one_or_none()
    return None if row is None else _expiry(row)


def of_space(connection: Connection, space: bytes, limit: int) -> Sequence[ExpiryRow]:
    """The next ones first."""
    query = select(expiries).where(expiries.c.space_id == space).order_by(expiries.c.expires_ns, expiries.c.inode)
    return [_expiry(row) for row in connection.execute(query.limit(limit))]


def count(connection: Connection, space: bytes, *, but: bytes) -> int:
    """How many there are, beside that of one inode."""
    here = (expiries.c.space_id == space) & (expiries.c.inode != but)
    return int(connection.execute(select(func.count()).select_from(expiries).where(here)).scalar_one())


def due(connection: Connection, now_ns: int, limit: int) -> Sequence[tuple[ExpiryRow, bytes]]:
    """(expiry, owner of the space) of those whose time has come."""
    query = select(expiries, spaces.c.owner).join_from(expiries, spaces, spaces.c.id == expiries.c.space_id)
    found = connection.execute(query.where(expiries.c.expires_ns <= now_ns).order_by(expiries.c.expires_ns).limit(limit))
    return [(_expiry(row), row.owner) for row in found]


def unwarned(connection: Connection, before_ns: int, limit: int) -> Sequence[ExpiryRow]:
    """Those that expire before then, of which nobody was told."""
    here = (expiries.c.expires_ns < before_ns) & expiries.c.warned_ns.is_(None)
    found = connection.execute(select(expiries).where(here).order_by(expiries.c.expires_ns).limit(limit))
    return [_expiry(row) for row in found]


def warned(connection: Connection, row: ExpiryRow, now_ns: int) -> bool:
    """Whether it was still as `row` says."""
    here = (expiries.c.space_id == row.space_id) & (expiries.c.inode == row.inode)
    same = here & (expiries.c.expires_ns == row.expires_ns) & expiries.c.warned_ns.is_(None)
    return connection.execute(update(expiries).where(same).values(warned_ns=now_ns)).rowcount == 1


def _expiry(row: Row[Any]) -> ExpiryRow:
    return ExpiryRow(row.space_id, row.inode, row.expires_ns, row.account_id, row.device_id, row.warned_ns)
