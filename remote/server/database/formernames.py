"""Statements about what names held before, and so about the tree as it was at a time.

A key (folder, name) held at a time what the first of its rows that is later says; without one, what it holds now. An inode that
was made later than the time does not count: then it held nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Connection,
    Exists,
    and_,
    bindparam,
    case,
    delete,
    exists,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from remote.protocol import Kind
from remote.server.database.contents import Version, version_row
from remote.server.database.schema import entries, former_names, inodes, spaces, versions
from remote.server.database.tree import Key, batches


@dataclass(frozen=True, slots=True)
class FormerName:
    """What a key held until a commit; None: nothing."""

    key: Key
    inode: bytes | None
    inode_created_ns: int | None


Mark = tuple[int, bytes, str]
"""Where a page of keys ended."""
START: Mark = (0, b"", "")
_END_OF_TIME = 2**63 - 1


# ------------------------------------------------------------------------------------------------------------- writing


def add(connection: Connection, space: bytes, rev: int, changed_ns: int, names: Collection[FormerName]) -> None:
    if names:
        connection.execute(
            insert(former_names),
            [
                {
                    "space_id": space,
                    "parent": each.key[0],
                    "name": each.key[1],
                    "rev": rev,
                    "changed_ns": changed_ns,
                    "inode": each.inode,
                    "inode_created_ns": each.inode_created_ns,
                }
                for each in names
            ],
        )


def since(connection: Connection, space: bytes) -> int:
    """The first time of which it is known what the tree was."""
    return int(connection.execute(select(spaces.c.names_since_ns).where(spaces.c.id == space)).scalar_one())


def forget_before(connection: Connection, space: bytes, before_ns: int) -> None:
    """Of earlier times nobody may ask any more: what they need may go."""
    here = (spaces.c.id == space) & (spaces.c.names_since_ns < before_ns)
    connection.execute(update(spaces).where(here).values(names_since_ns=before_ns))


def has_before(connection: Connection, space: bytes, before_ns: int) -> bool:
    """Whether there are rows that no time from then on needs."""
    here = (former_names.c.space_id == space) & (former_names.c.changed_ns <= before_ns)
    return connection.execute(select(former_names.c.rev).where(here).limit(1)).first() is not None


def remove_before(connection: Connection, space: bytes, before_ns: int, limit: int) -> int:
    """Remove the oldest rows that no time from then on needs; how many."""
    here = former_names.c.space_id == space
    query = select(former_names.c.parent, former_names.c.name, former_names.c.rev)
    query = query.where(here, former_names.c.changed_ns <= before_ns).order_by(former_names.c.changed_ns).limit(limit)
    keys = [{"folder": row.parent, "this": row.name, "the_rev": row.rev} for row in connection.execute(query)]
    if keys:
        row = (former_names.c.parent == bindparam("folder")) & (former_names.c.name == bindparam("this"))
        connection.execute(delete(former_names).where(here, row, former_names.c.rev == bindparam("the_rev")), keys)
    return len(keys)


def remove_of(connection: Connection, space: bytes, limit: int) -> int:
    """Remove at most so many rows of a space without members; how many."""
    return remove_before(connection, space, _END_OF_TIME, limit)


# ------------------------------------------------------------------------------------------------------------- reading


def names_at(connection: Connection, space: bytes, at_ns: int, ids: Collection[bytes]) -> dict[bytes, set[Key]]:
    """The names that each of the inodes had."""
    found: defaultdict[bytes, set[Key]] = defaultdict(set)
    former = select(former_names.c.inode, former_names.c.parent, former_names.c.name).where(
        former_names.c.space_id == space,
        former_names.c.inode.in_(bindparam("ids", expanding=True)),
        former_names.c.inode_created_ns <= at_ns,
        _is_after(former_names.c.changed_ns, at_ns),
        _is_first_after(at_ns),
    )
    kept = (
        select(entries.c.inode, entries.c.parent, entries.c.name)
        .join_from(entries, inodes, (inodes.c.space_id == entries.c.space_id) & (inodes.c.id == entries.c.inode))
        .where(
            entries.c.space_id == space,
            entries.c.inode.in_(bindparam("ids", expanding=True)),
            inodes.c.created_ns <= at_ns,
            ~_changed_after(at_ns),
        )
    )
    for some in batches(ids):
        for query in (former, kept):
            for inode, parent, name in connection.execute(query, {"ids": some}):
                found[inode].add((parent, name))
    return found


def differing(connection: Connection, space: bytes, at_ns: int, after: Mark, limit: int) -> list[tuple[Mark, FormerName]]:
    """Keys that held an inode, or nothing, and were changed, and do not hold the same now; from the first after `after` on."""
    wanted = case((former_names.c.inode_created_ns <= at_ns, former_names.c.inode), else_=None)
    keyset = former_names.c.changed_ns, former_names.c.parent, former_names.c.name
    now = and_(
        entries.c.space_id == former_names.c.space_id,
        entries.c.parent == former_names.c.parent,
        entries.c.name == former_names.c.name,
    )
    query = (
        select(*keyset, wanted.label("wanted"), former_names.c.inode_created_ns)
        .join_from(former_names, entries, now, isouter=True)
        .where(former_names.c.space_id == space, _is_first_after(at_ns), wanted.is_distinct_from(entries.c.inode))
        .where(former_names.c.changed_ns >= max(after[0], at_ns + 1), tuple_(*keyset) > tuple_(*map(literal, after)))
        .order_by(*keyset)
        .limit(limit)
    )
    return [
        ((row.changed_ns, row.parent, row.name), FormerName((row.parent, row.name), row.wanted, row.inode_created_ns))
        for row in connection.execute(query)
    ]


def made_since(
    connection: Connection, space: bytes, at_ns: int, rev: int, after: Mark, limit: int
) -> list[tuple[Mark, Key, bytes]]:
    """Keys that held nothing, and hold what was made since; `rev`: one that the space had then. In pages as above."""
    keyset = entries.c.rev, entries.c.parent, entries.c.name
    query = (
        select(*keyset, entries.c.inode)
        .join_from(entries, inodes, (inodes.c.space_id == entries.c.space_id) & (inodes.c.id == entries.c.inode))
        .where(entries.c.space_id == space, entries.c.rev > rev, inodes.c.created_ns > at_ns, ~_changed_after(at_ns))
        .where(entries.c.rev >= after[0], tuple_(*keyset) > tuple_(*map(literal, after)))
        .order_by(*keyset)
        .limit(limit)
    )
    return [((row.rev, row.parent, row.name), (row.parent, row.name), row.inode) for row in connection.execute(query)]


def written_since(
    connection: Connection, space: bytes, at_ns: int, rev: int, after: tuple[int, bytes], limit: int
) -> list[tuple[int, bytes]]:
    """(revision, id) of files that were there, and got a content since; `rev`, and pages, as above."""
    written = exists().where(
        versions.c.space_id == inodes.c.space_id,
        versions.c.inode == inodes.c.id,
        versions.c.content_rev == inodes.c.content_rev,
        versions.c.created_ns > at_ns,
    )
    keyset = inodes.c.rev, inodes.c.id
    query = (
        select(*keyset)
        .where(inodes.c.space_id == space, inodes.c.rev > rev, inodes.c.content_rev > rev)
        .where(inodes.c.kind == Kind.FILE.value, inodes.c.created_ns <= at_ns, written)
        .where(inodes.c.rev >= after[0], tuple_(*keyset) > tuple_(*map(literal, after)))
        .order_by(*keyset)
        .limit(limit)
    )
    return [(row.rev, row.id) for row in connection.execute(query)]


def contents_at(connection: Connection, space: bytes, at_ns: int, ids: Collection[bytes]) -> dict[bytes, Version]:
    """The versions that the files held, as far as they are kept."""
    found: dict[bytes, Version] = {}
    later = versions.alias()
    newer = exists().where(
        later.c.space_id == versions.c.space_id,
        later.c.inode == versions.c.inode,
        later.c.content_rev > versions.c.content_rev,
        later.c.created_ns <= at_ns,
    )
    for some in batches(ids):
        query = select(versions).where(
            versions.c.space_id == space, versions.c.inode.in_(some), versions.c.created_ns <= at_ns, ~newer
        )
        for row in connection.execute(query.order_by(versions.c.inode, versions.c.created_ns)):
            found.setdefault(row.inode, version_row(row))
    return found


def _is_first_after(at_ns: int) -> ColumnElement[bool]:
    """Of the rows of a key after then: whether it says what the key held then."""
    other = former_names.alias()
    earlier = exists().where(
        other.c.space_id == former_names.c.space_id,
        other.c.parent == former_names.c.parent,
        other.c.name == former_names.c.name,
        other.c.rev < former_names.c.rev,
        _is_after(other.c.changed_ns, at_ns),
    )
    return ~earlier


def _changed_after(at_ns: int) -> Exists:
    """Of an entry: whether a row says what it held then."""
    return exists().where(
        former_names.c.space_id == entries.c.space_id,
        former_names.c.parent == entries.c.parent,
        former_names.c.name == entries.c.name,
        _is_after(former_names.c.changed_ns, at_ns),
    )


def _is_after(changed_ns: ColumnElement[int], at_ns: int) -> ColumnElement[bool]:
    """As a sum it keeps SQLite from taking the index of times, and so reading all rows of a space, where the key is given."""
    return changed_ns + 0 > at_ns
