"""Statements about the trash: inodes that have no name any more, with the one that they lost last."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, exists, insert, or_, select

from remote.protocol import Kind
from remote.server.database.schema import expiries, inodes, trash, versions
from remote.server.database.tree import Key, batches

TOGETHER_NS = 3600 * 10**9
"""What was in a folder, and went so short before it, went with it: `rm -r` removes from below."""


@dataclass(frozen=True, slots=True)
class TrashRow:
    space: bytes
    inode: bytes
    key: Key
    deleted_ns: int
    device: bytes
    kind: Kind
    size: int


def update(
    connection: Connection, space: bytes, lost: Mapping[bytes, Key], named: Collection[bytes], device: bytes, now_ns: int
) -> None:
    """`lost`: inodes without a name, and the one that each lost; `named`: those that have one again."""
    remove(connection, space, {*lost, *named})
    if lost:
        connection.execute(
            insert(trash),
            [
                {"space_id": space, "inode": id_, "parent": key[0], "name": key[1], "deleted_ns": now_ns, "device_id": device}
                for id_, key in lost.items()
            ],
        )


def remove(connection: Connection, space: bytes, ids: Collection[bytes]) -> None:
    for some in batches(ids):
        connection.execute(delete(trash).where(trash.c.space_id == space, trash.c.inode.in_(some)))


def page(connection: Connection, spaces: Collection[bytes], after: tuple[int, bytes] | None, limit: int) -> Sequence[TrashRow]:
    """What was removed by itself, the latest first: not what went with its folder. `after`: (when, inode) of the last one."""
    above = trash.alias()
    with_folder = exists().where(
        above.c.space_id == trash.c.space_id,
        above.c.inode == trash.c.parent,
        above.c.deleted_ns <= trash.c.deleted_ns + TOGETHER_NS,
    )
    query = _ROWS.where(trash.c.space_id.in_(spaces), ~with_folder)
    return _latest(connection, query, after, limit)


def find(connection: Connection, space: bytes, inode: bytes) -> TrashRow | None:
    row = connection.execute(_ROWS.where(trash.c.space_id == space, trash.c.inode == inode)).one_or_none()
    return None if row is None else _row(row)


def inside(
    connection: Connection,
    space: bytes,
    folder: bytes,
    folder_deleted_ns: int,
    limit: int,
    after: tuple[int, bytes] | None = None,
) -> Sequence[TrashRow]:
    """What went with a folder that was removed then, the latest first; at most `limit`, after as in `page`."""
    query = _ROWS.where(
        trash.c.space_id == space, trash.c.parent == folder, trash.c.deleted_ns >= folder_deleted_ns - TOGETHER_NS
    )
    return _latest(connection, query, after, limit)


def removed_before(connection: Connection, space: bytes, before_ns: int, limit: int) -> Sequence[bytes]:
    """The inodes of the oldest rows."""
    query = select(trash.c.inode).where(trash.c.space_id == space, trash.c.deleted_ns <= before_ns)
    return connection.execute(query.order_by(trash.c.deleted_ns).limit(limit)).scalars().all()


def purge(connection: Connection, space: bytes, ids: Collection[bytes], before_ns: int) -> int:
    """Nothing is left of those that are in the trash since before then: no row, no version. The space is locked. How many
    they were."""
    count = 0
    for some in batches(ids):
        there = (trash.c.space_id == space) & trash.c.inode.in_(some) & (trash.c.deleted_ns <= before_ns)
        dead = connection.execute(select(trash.c.inode).where(there)).scalars().all()
        connection.execute(delete(versions).where(versions.c.space_id == space, versions.c.inode.in_(dead)))
        connection.execute(delete(expiries).where(expiries.c.space_id == space, expiries.c.inode.in_(dead)))
        connection.execute(delete(inodes).where(inodes.c.space_id == space, inodes.c.id.in_(dead)))
        connection.execute(delete(trash).where(trash.c.space_id == space, trash.c.inode.in_(dead)))
        count += len(dead)
    return count


_ROWS = select(trash, inodes.c.kind, inodes.c.size).join_from(
    trash, inodes, (inodes.c.space_id == trash.c.space_id) & (inodes.c.id == trash.c.inode)
)


def _latest(connection: Connection, query: Select[Any], after: tuple[int, bytes] | None, limit: int) -> Sequence[TrashRow]:
    if after is not None:
        when, inode = after
        query = query.where(or_(trash.c.deleted_ns < when, and_(trash.c.deleted_ns == when, trash.c.inode < inode)))
    query = query.order_by(trash.c.deleted_ns.desc(), trash.c.inode.desc()).limit(limit)
    return [_row(row) for row in connection.execute(query)]


def _row(row: Row[Any]) -> TrashRow:
    return TrashRow(row.space_id, row.inode, (row.parent, row.name), row.deleted_ns, row.device_id, Kind(row.kind), row.size or 0)
