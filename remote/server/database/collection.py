"""Statements of collection: notes of what each space had reached when, and old tombstones."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from remote.server.database.schema import entries, revision_marks, spaces
from remote.server.database.tree import lock_space


def all_spaces(connection: Connection) -> list[bytes]:
    return list(connection.execute(select(spaces.c.id).order_by(spaces.c.id)).scalars())


def note_revision(connection: Connection, space: bytes, now_ns: int) -> None:
    """Write down what the space has reached, unless a note says so already."""
    here = revision_marks.c.space_id == space
    now = lock_space(connection, space).rev
    if connection.execute(select(func.max(revision_marks.c.rev)).where(here)).scalar_one() != now:
        connection.execute(delete(revision_marks).where(here, revision_marks.c.noted_ns == now_ns))
        connection.execute(insert(revision_marks).values(space_id=space, noted_ns=now_ns, rev=now))


def revision_before(connection: Connection, space: bytes, ns: int) -> int:
    """The newest revision that a note of that time, or an older one, tells; older notes are dropped."""
    found = revision_at(connection, space, ns)
    here = revision_marks.c.space_id == space
    connection.execute(delete(revision_marks).where(here, revision_marks.c.noted_ns <= ns, revision_marks.c.rev < found))
    return found


def revision_at(connection: Connection, space: bytes, ns: int) -> int:
    """The newest revision that a note of that time, or an older one, tells; 0: none does."""
    here = (revision_marks.c.space_id == space) & (revision_marks.c.noted_ns <= ns)
    return int(connection.execute(select(func.max(revision_marks.c.rev)).where(here)).scalar_one() or 0)


def old_tombstones(connection: Connection, space: bytes, up_to: int, limit: int) -> Sequence[Row[bytes, str, int]]:
    """The oldest tombstones, of revisions up to `up_to`: (parent, name, rev)."""
    collected = select(spaces.c.collected).where(spaces.c.id == space).scalar_subquery()
    query = (
        select(entries.c.parent, entries.c.name, entries.c.rev)
        .where(entries.c.space_id == space, entries.c.rev >= collected, entries.c.rev <= up_to, entries.c.inode.is_(None))
        .order_by(entries.c.rev, entries.c.parent, entries.c.name)
        .limit(limit)
    )
    return connection.execute(query).all()


def forget_tombstones(connection: Connection, space: bytes, tombstones: Sequence[Row[bytes, str, int]]) -> None:
    """Forget those of them that did not change meanwhile. The space remembers how far it was collected."""
    lock_space(connection, space)
    here = (
        (entries.c.space_id == space)
        & (entries.c.parent == bindparam("this_parent"))
        & (entries.c.name == bindparam("this_name"))
        & (entries.c.rev == bindparam("this_rev"))
    )
    keys = [{"this_parent": row.parent, "this_name": row.name, "this_rev": row.rev} for row in tombstones]
    connection.execute(delete(entries).where(here), keys)
    collected = max(row.rev for row in tombstones)
    connection.execute(update(spaces).where(spaces.c.id == space, spaces.c.collected < collected).values(collected=collected))
