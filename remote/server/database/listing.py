"""One statement: a page of a folder in the order that a person asked for. The keyset is (sort key, name)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, func, literal, or_, select

from remote.fileapi import Order, Sort
from remote.server.database.schema import entries, inodes
from remote.server.database.tree import InodeRow, inode_row


@dataclass(frozen=True, slots=True)
class ListedEntry:
    name: str
    key: int
    """What it is sorted by, before the name."""
    inode: InodeRow


def page(
    connection: Connection, space: bytes, folder: bytes, sort: Sort, order: Order, after: tuple[int, str] | None, limit: int
) -> Sequence[ListedEntry]:
    """At most `limit` entries of the folder that come after the keyset `after`."""
    key: ColumnElement[int] = literal(0)
    if sort is Sort.SIZE:
        key = func.coalesce(inodes.c.size, 0)
    elif sort is Sort.MODIFIED:
        key = inodes.c.mtime_ns
    named = and_(inodes.c.space_id == entries.c.space_id, inodes.c.id == entries.c.inode)
    query = (
        select(entries.c.name.label("entry_name"), key.label("sort_key"), inodes)
        .join_from(entries, inodes, named)
        .where(entries.c.space_id == space, entries.c.parent == folder, entries.c.inode.is_not(None))
    )
    down = order is Order.DESC
    if after is not None:
        last, name = after
        beyond = entries.c.name < name if down else entries.c.name > name
        query = query.where(beyond if sort is Sort.NAME else or_(key < last if down else key > last, and_(key == last, beyond)))
    columns = [entries.c.name] if sort is Sort.NAME else [key, entries.c.name]
    query = query.order_by(*(column.desc() if down else column for column in columns)).limit(limit)
    return [ListedEntry(row.entry_name, int(row.sort_key), inode_row(row)) for row in connection.execute(query)]
