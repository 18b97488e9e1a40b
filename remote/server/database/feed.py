"""Statements of the change feed, index scans over (space, revision), and of folders, one over (space, parent, name)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, literal, or_, select, tuple_

from remote.protocol import RIDE_ALONG_MAX
from remote.server.cursor import Position, Table
from remote.server.database.schema import entries, inodes, manifests

_RIDING = and_(
    manifests.c.space_id == inodes.c.space_id, manifests.c.id == inodes.c.manifest_id, manifests.c.length <= RIDE_ALONG_MAX
)


def inode_rows(connection: Connection, space: bytes, after: Position, limit: int) -> Sequence[Row[Any]]:
    """Inodes after the position, with the manifests that are small enough to ride along."""
    query = (
        select(inodes, manifests.c.body.label("manifest"))
        .join_from(inodes, manifests, _RIDING, isouter=True)
        .where(inodes.c.space_id == space, _inodes_after(after))
    )
    if after.full:
        named = select(literal(1)).where(entries.c.space_id == space, entries.c.inode == inodes.c.id).exists()
        query = query.where(or_(inodes.c.rev > after.start, inodes.c.id == space, named))
    return _page(connection, query.order_by(inodes.c.rev, inodes.c.id), limit)


def entry_rows(connection: Connection, space: bytes, after: Position, up_to: int, limit: int) -> Sequence[Row[Any]]:
    """Entries after the position, of revisions up to `up_to`."""
    query = select(entries).where(entries.c.space_id == space, _entries_after(after), entries.c.rev <= up_to)
    if after.full:
        query = query.where(or_(entries.c.rev > after.start, entries.c.inode.is_not(None)))
    return _page(connection, query.order_by(entries.c.rev, entries.c.parent, entries.c.name), limit)


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


def _inodes_after(after: Position) -> ColumnElement[bool]:
    if after.table is Table.INODES:
        return tuple_(inodes.c.rev, inodes.c.id) > tuple_(literal(after.rev), literal(after.key[0], inodes.c.id.type))
    return inodes.c.rev > after.rev


def _entries_after(after: Position) -> ColumnElement[bool]:
    if after.table is Table.INODES:
        return entries.c.rev >= after.rev
    if after.table is Table.END:
        return entries.c.rev > after.rev
    place = (literal(after.rev), literal(after.key[0], entries.c.parent.type), literal(after.key[1]))
    return tuple_(entries.c.rev, entries.c.parent, entries.c.name) > tuple_(*place)


def _page(connection: Connection, query: Select[Any], limit: int) -> Sequence[Row[Any]]:
    return connection.execute(query.limit(limit)).all()
