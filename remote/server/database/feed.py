"""Statements of the change feed, index scans over (space, revision), and of folders, one over (space, parent, name)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, func, literal, or_, select, tuple_

from remote.protocol import RIDE_ALONG_MAX
from remote.server.cursor import Position, Table
from remote.server.database.schema import entries, inodes, manifests

_RIDING = and_(
    manifests.c.space_id == inodes.c.space_id, manifests.c.id == inodes.c.manifest_id, manifests.c.length <= RIDE_ALONG_MAX
)

_SPACE, _ID = bindparam("space", type_=inodes.c.id.type), bindparam("id", type_=inodes.c.id.type)
_REV = bindparam("rev", type_=inodes.c.rev.type)


def inode_rows(connection: Connection, space: bytes, after: Position, limit: int) -> Sequence[Row[Any]]:
    """Inodes after the position, with the manifests that are small enough to ride along."""
    query = _inodes_query(after.table, full=after.full)
    return connection.execute(query, {"space": space, "limit": limit, **_place(after)}).all()


def entry_rows(connection: Connection, space: bytes, after: Position, up_to: int, limit: int) -> Sequence[Row[Any]]:
    """Entries after the position, of revisions up to `up_to`."""
    query = _entries_query(after.table, full=after.full)
    return connection.execute(query, {"space": space, "limit": limit, "up_to": up_to, **_place(after)}).all()


def _place(after: Position) -> dict[str, Any]:
    return {"rev": after.rev, "id": after.key[0], "name": after.key[1], "start": after.start}


# Built once for each kind of position: every poll asks, and building a statement takes longer than running it.


@cache
def _inodes_query(table: Table, *, full: bool) -> Select[Any]:
    query = (
        select(inodes, manifests.c.body.label("manifest"))
        .join_from(inodes, manifests, _RIDING, isouter=True)
        .where(inodes.c.space_id == _SPACE, _inodes_after(table))
    )
    if full:
        named = select(literal(1)).where(entries.c.space_id == _SPACE, entries.c.inode == inodes.c.id).exists()
        query = query.where(or_(inodes.c.rev > bindparam("start"), inodes.c.id == _SPACE, named))
    return query.order_by(inodes.c.rev, inodes.c.id).limit(bindparam("limit"))


@cache
def _entries_query(table: Table, *, full: bool) -> Select[Any]:
    query = select(entries).where(entries.c.space_id == _SPACE, _entries_after(table), entries.c.rev <= bindparam("up_to"))
    if full:
        query = query.where(or_(entries.c.rev > bindparam("start"), entries.c.inode.is_not(None)))
    return query.order_by(entries.c.rev, entries.c.parent, entries.c.name).limit(bindparam("limit"))


def _inodes_after(table: Table) -> ColumnElement[bool]:
    if table is Table.INODES:
        return tuple_(inodes.c.rev, inodes.c.id) > tuple_(_REV, _ID)
    return inodes.c.rev > _REV


def _entries_after(table: Table) -> ColumnElement[bool]:
    if table is Table.INODES:
        return entries.c.rev >= _REV
    if table is Table.END:
        return entries.c.rev > _REV
    return tuple_(entries.c.rev, entries.c.parent, entries.c.name) > tuple_(_REV, _ID, bindparam("name"))


def folder_rows(connection: Connection, space: bytes, folder: bytes, after: str, limit: int) -> Sequence[Row[Any]]:
    """Live entries (`name`, `entry_rev`) of a folder after a name, each with its inode as `inode_rows` has it."""
    named = and_(inodes.c.space_id == entries.c.space_id, inodes.c.id == entries.c.inode)
    query = (
        select(entries.c.name, entries.c.rev.label("entry_rev"), inodes, manifests.c.body.label("manifest"))
        .join_from(entries, inodes, named)
        .join(manifests, _RIDING, isouter=True)
        .where(entries.c.space_id == space, entries.c.parent == folder, entries.c.name > after, entries.c.inode.is_not(None))
    )
    return _page(connection, query.order_by(entries.c.name), limit)


def count_entries(connection: Connection, space: bytes) -> int:
    live = select(func.count()).select_from(entries).where(entries.c.space_id == space, entries.c.inode.is_not(None))
    return int(connection.execute(live).scalar_one())


def _page(connection: Connection, query: Select[Any], limit: int) -> Sequence[Row[Any]]:
    return connection.execute(query.limit(limit)).all()
