"""Statements about the index for search, the same on both databases: what it has still to follow, what it knows, what is found.

What is found is always joined with the tree as it is: what has no name any more, or another content, is not found whatever the
index says.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from sqlalchemy import CTE, Connection, Select, and_, delete, func, insert, select, update

from remote.protocol import Kind
from remote.server.database.fulltext import full_text
from remote.server.database.schema import entries, inodes, search_contents, search_names, search_state, spaces
from remote.server.database.tree import InodeRow, Key, batches, inode_row
from remote.server.searchwords import fold_name


class TextState(IntEnum):
    """Of a content."""

    WAITING = 0
    """It is still to be read."""
    INDEXED = 1
    NONE = 2
    """There is no text in it, or none that could be read: that is not tried again."""


_ENTRIES = search_names.join(
    entries,
    and_(
        entries.c.space_id == search_names.c.space_id,
        entries.c.parent == search_names.c.parent,
        entries.c.name == search_names.c.name,
    ),
)

# ------------------------------------------------------------------------------------------------------- following


@dataclass(frozen=True, slots=True)
class Behind:
    """A space that has changed since it was looked at."""

    space: bytes
    indexed: int
    revision: int


def behind(connection: Connection) -> list[Behind]:
    indexed = func.coalesce(search_state.c.indexed_rev, 0)
    query = (
        select(spaces.c.id, indexed.label("indexed"), spaces.c.rev)
        .outerjoin_from(spaces, search_state, search_state.c.space_id == spaces.c.id)
        .where(spaces.c.rev > indexed)
        .order_by(spaces.c.id)
    )
    return [Behind(row.id, row.indexed, row.rev) for row in connection.execute(query)]


def is_up_to_date(connection: Connection, space: bytes) -> bool:
    """Whether all that is there is in the index."""
    indexed = select(search_state.c.indexed_rev).where(search_state.c.space_id == space)
    reached = connection.execute(indexed).scalar_one_or_none() or 0
    if reached < connection.execute(select(spaces.c.rev).where(spaces.c.id == space)).scalar_one():
        return False
    here = (search_contents.c.space_id == space) & (search_contents.c.state == TextState.WAITING)
    return connection.execute(select(search_contents.c.id).where(here).limit(1)).first() is None


def lock(connection: Connection, space: bytes) -> int:
    """How far the index of the space is; nobody else moves it until this transaction ends."""
    if connection.execute(select(search_state).where(search_state.c.space_id == space)).first() is None:
        connection.execute(insert(search_state).values(space_id=space, indexed_rev=0))
    query = select(search_state.c.indexed_rev).where(search_state.c.space_id == space).with_for_update(key_share=True)
    return int(connection.execute(query).scalar_one())


def set_indexed(connection: Connection, space: bytes, rev: int) -> None:
    connection.execute(update(search_state).where(search_state.c.space_id == space).values(indexed_rev=rev))


def end_of_step(connection: Connection, space: bytes, after: int, up_to: int, count: int) -> int:
    """The revision up to which there are some `count` changes after `after`."""
    ends = [up_to]
    for table in (entries, inodes):
        query = select(table.c.rev).where(table.c.space_id == space, table.c.rev > after, table.c.rev <= up_to)
        row = connection.execute(query.order_by(table.c.rev).offset(count).limit(1)).first()
        if row is not None:
            ends.append(row.rev)
    return min(ends)


def changed_names(connection: Connection, space: bytes, after: int, up_to: int) -> dict[Key, bytes | None]:
    """Which inode each entry that changed in these revisions has."""
    query = select(entries.c.parent, entries.c.name, entries.c.inode).where(
        entries.c.space_id == space, entries.c.rev > after, entries.c.rev <= up_to
    )
    return {(row.parent, row.name): row.inode for row in connection.execute(query)}


def changed_inodes(connection: Connection, space: bytes, after: int, up_to: int) -> list[bytes]:
    query = select(inodes.c.id).where(inodes.c.space_id == space, inodes.c.rev > after, inodes.c.rev <= up_to)
    return list(connection.execute(query).scalars())


def known_names(connection: Connection, space: bytes, after: int, up_to: int) -> dict[Key, int]:
    """The ids of those of the entries that changed in these revisions that are in the index."""
    query = select(search_names.c.id, search_names.c.parent, search_names.c.name).select_from(_ENTRIES)
    query = query.where(entries.c.space_id == space, entries.c.rev > after, entries.c.rev <= up_to)
    return {(row.parent, row.name): row.id for row in connection.execute(query)}


def add_names(connection: Connection, space: bytes, keys: Collection[Key]) -> None:
    for some in batches(keys):
        rows = [{"space_id": space, "parent": parent, "name": name, "extension": extension(name)} for parent, name in some]
        adding = insert(search_names).returning(search_names.c.id, search_names.c.name)
        added = [(row.id, fold_name(row.name)) for row in connection.execute(adding, rows)]
        full_text(connection).add_names(connection, space, added)


def remove_names(connection: Connection, ids: Collection[int]) -> None:
    for some in batches(ids):
        connection.execute(delete(search_names).where(search_names.c.id.in_(some)))


@dataclass(frozen=True, slots=True)
class KnownContent:
    id: int
    manifest_id: bytes
    state: TextState


def known_contents(connection: Connection, space: bytes, after: int, up_to: int) -> dict[bytes, KnownContent]:
    """By their inodes: of inodes, and of what has entries, that changed in these revisions.

    By joins, not by a list of ids: PostgreSQL looks for each of a list in the whole table while it takes that for small.
    """
    same_space = search_contents.c.space_id == space
    found = {}
    for table, column in ((inodes, inodes.c.id), (entries, entries.c.inode)):
        joined = table.join(search_contents, (search_contents.c.inode == column) & same_space)
        query = select(search_contents).select_from(joined)
        query = query.where(table.c.space_id == space, table.c.rev > after, table.c.rev <= up_to)
        for row in connection.execute(query):
            found[row.inode] = KnownContent(row.id, row.manifest_id, TextState(row.state))
    return found


def add_contents(connection: Connection, space: bytes, contents: Collection[tuple[bytes, bytes]]) -> None:
    """(inode, manifest) that wait to be read."""
    rows = [{"space_id": space, "inode": inode, "manifest_id": id_, "state": TextState.WAITING} for inode, id_ in contents]
    if rows:
        connection.execute(insert(search_contents), rows)


def remove_contents(connection: Connection, ids: Collection[int]) -> None:
    for some in batches(ids):
        connection.execute(delete(search_contents).where(search_contents.c.id.in_(some)))


@dataclass(frozen=True, slots=True)
class Waiting:
    """A content that is to be read."""

    id: int
    space: bytes
    owner: bytes
    inode: bytes
    manifest_id: bytes


def any_waiting(connection: Connection) -> bool:
    query = select(search_contents.c.id).where(search_contents.c.state == TextState.WAITING).limit(1)
    return connection.execute(query).first() is not None


def waiting(connection: Connection, of_each: int) -> list[Waiting]:
    """The first contents of each space that has some: nobody waits until all of somebody else's are read."""
    here = search_contents.c.state == TextState.WAITING
    query = (
        select(spaces.c.id, spaces.c.owner)
        .where(select(search_contents.c.id).where(here, search_contents.c.space_id == spaces.c.id).exists())
        .order_by(spaces.c.id)
    )
    found = []
    for space, owner in connection.execute(query).all():
        first = select(search_contents).where(here, search_contents.c.space_id == space)
        for row in connection.execute(first.order_by(search_contents.c.id).limit(of_each)):
            found.append(Waiting(row.id, space, owner, row.inode, row.manifest_id))
    return found


def text_of_same(connection: Connection, content: Waiting) -> str | None:
    """The text of another file of the space with this content, if it is known."""
    query = select(search_contents.c.id).where(
        search_contents.c.space_id == content.space,
        search_contents.c.manifest_id == content.manifest_id,
        search_contents.c.state == TextState.INDEXED,
    )
    row = connection.execute(query.limit(1)).first()
    return None if row is None else full_text(connection).body(connection, row.id)


def finish(connection: Connection, content: Waiting, text: str | None) -> None:
    """It was read; None: there is no text. Nothing happens if it does not wait any more."""
    state = TextState.NONE if text is None else TextState.INDEXED
    here = (search_contents.c.id == content.id) & (search_contents.c.state == TextState.WAITING)
    done = connection.execute(update(search_contents).where(here).values(state=state))
    if done.rowcount == 1 and text is not None:
        full_text(connection).add_text(connection, content.space, content.id, text)


def extension(name: str) -> str:
    """What the name ends with, in small letters and without the dot; empty if there is no such thing."""
    stem, _, last = fold_name(name).rpartition(".")
    return last if stem else ""


# --------------------------------------------------------------------------------------------------------- finding


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a hit has to be, beside its words. None: anything."""

    kind: Kind | None = None
    extensions: Collection[str] | None = None
    size_min: int | None = None
    size_max: int | None = None
    modified_after_ns: int | None = None
    modified_before_ns: int | None = None


@dataclass(frozen=True, slots=True)
class FoundEntry:
    key: Key
    inode: InodeRow
    score: float
    text: int | None = None
    """The id of its text, if that was asked for."""


def find_all(connection: Connection, space: bytes, criteria: Criteria, limit: int) -> Sequence[FoundEntry]:
    """What was modified last first."""
    score = (-inodes.c.mtime_ns).label("score")
    query = _where(select(search_names.c.parent, _NAME, score, inodes).select_from(_NAMED), space, criteria)
    return _entries(connection, query.order_by(score, search_names.c.id).limit(limit))


def find_names(connection: Connection, space: bytes, found: CTE, criteria: Criteria, limit: int) -> Sequence[FoundEntry]:
    """Those whose name is among `found`."""
    joined = _NAMED.join(found, found.c.id == search_names.c.id)
    query = select(search_names.c.parent, _NAME, found.c.score, inodes).select_from(joined)
    return _entries(connection, _where(query, space, criteria).order_by(found.c.score, search_names.c.id).limit(limit))


def find_texts(connection: Connection, space: bytes, found: CTE, criteria: Criteria, limit: int) -> Sequence[FoundEntry]:
    """Those whose content is among `found`."""
    same = and_(
        search_contents.c.space_id == inodes.c.space_id,
        search_contents.c.inode == inodes.c.id,
        search_contents.c.manifest_id == inodes.c.manifest_id,
    )
    joined = _NAMED.join(search_contents, same).join(found, found.c.id == search_contents.c.id)
    columns = (search_names.c.parent, _NAME, found.c.score, found.c.id.label("text_id"), inodes)
    query = _where(select(*columns).select_from(joined), space, criteria)
    return _entries(connection, query.order_by(found.c.score, search_names.c.id).limit(limit))


_NAME = search_names.c.name.label("entry_name")
_NAMED = _ENTRIES.join(inodes, and_(inodes.c.space_id == entries.c.space_id, inodes.c.id == entries.c.inode))


def _where(query: Select[Any], space: bytes, criteria: Criteria) -> Select[Any]:
    query = query.where(search_names.c.space_id == space)
    if criteria.kind is not None:
        query = query.where(inodes.c.kind == criteria.kind.value)
    if criteria.extensions is not None:
        query = query.where(search_names.c.extension.in_(criteria.extensions), inodes.c.kind == Kind.FILE.value)
    if criteria.size_min is not None:
        query = query.where(inodes.c.size >= criteria.size_min)
    if criteria.size_max is not None:
        query = query.where(inodes.c.size <= criteria.size_max)
    if criteria.modified_after_ns is not None:
        query = query.where(inodes.c.mtime_ns >= criteria.modified_after_ns)
    if criteria.modified_before_ns is not None:
        query = query.where(inodes.c.mtime_ns <= criteria.modified_before_ns)
    return query


def _entries(connection: Connection, query: Select[Any]) -> list[FoundEntry]:
    return [
        FoundEntry((row.parent, row.entry_name), inode_row(row), float(row.score), row._mapping.get("text_id"))
        for row in connection.execute(query)
    ]
