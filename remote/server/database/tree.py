"""Statements about the rows of a space: inodes, entries, the revision, and each device's last commit."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, and_, bindparam, insert, select, update

from remote.copynames import MARK
from remote.protocol import Attributes, Kind
from remote.server.database.engine import BATCH
from remote.server.database.schema import commits, entries, inodes, spaces

Key = tuple[bytes, str]
"""An entry's place: the folder's id and the name."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a key holds; `inode` None: a tombstone, or (with revision 0) nothing ever."""

    inode: bytes | None
    rev: int


NO_ENTRY = Entry(None, 0)


@dataclass(frozen=True, slots=True)
class InodeRow:
    id: bytes
    rev: int
    kind: Kind
    attributes: Attributes
    target: str | None
    device_number: int | None
    manifest_id: bytes | None
    size: int | None
    sha256: bytes | None
    content_rev: int
    created_ns: int


def batches(values: Collection[T]) -> Iterator[list[T]]:
    ordered = list(values)
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


# -------------------------------------------------------------------------------------------------- space and commits


@dataclass(frozen=True, slots=True)
class Reached:
    """What a space has come to: the revision, and the time, of its last commit."""

    rev: int
    changed_ns: int


def lock_space(connection: Connection, space: bytes) -> Reached:
    """Nobody else commits to the space until this transaction ends."""
    row = connection.execute(_LOCK, {"space": space}).one()
    return Reached(row.rev, row.changed_ns)


def last_change(connection: Connection, space: bytes) -> int:
    """The time of the space's last commit."""
    return int(connection.execute(select(spaces.c.changed_ns).where(spaces.c.id == space)).scalar_one())


def revision(connection: Connection, space: bytes) -> int:
    return int(connection.execute(_REVISION, {"space": space}).one().rev)


def revision_and_collected(connection: Connection, space: bytes) -> tuple[int, int]:
    """The space's revision, and up to which one tombstones may be gone."""
    row = connection.execute(_REVISION, {"space": space}).one()
    return row.rev, row.collected


def set_reached(connection: Connection, space: bytes, reached: Reached) -> None:
    connection.execute(_SET_REACHED, {"space": space, "new": reached.rev, "at": reached.changed_ns})


@dataclass(frozen=True, slots=True)
class RecordedCommit:
    number: int
    body_hash: bytes
    answer: bytes


def last_commit(connection: Connection, space: bytes, device: bytes, replica: bytes) -> RecordedCommit | None:
    row = connection.execute(_LAST_COMMIT, {"space": space, "device": device, "of_replica": replica}).one_or_none()
    return None if row is None else RecordedCommit(row.number, row.body_hash, row.answer)


def record_commit(
    connection: Connection, space: bytes, device: bytes, replica: bytes, commit: RecordedCommit, *, first: bool
) -> None:
    values = {"number": commit.number, "body_hash": commit.body_hash, "answer": commit.answer}
    if first:
        connection.execute(insert(commits).values(space_id=space, device_id=device, replica_id=replica, **values))
    else:
        connection.execute(_NEXT_COMMIT, {"space": space, "device": device, "of_replica": replica, **values})


# Built once, like those below: a commit runs a dozen statements, and building them takes longer than running them.
_SPACE_ID = bindparam("space", type_=spaces.c.id.type)
_REVISION = select(spaces.c.rev, spaces.c.collected).where(spaces.c.id == _SPACE_ID)
# All locks of rows share the key: a row that refers to a locked one can be inserted by others.
_LOCK = select(spaces.c.rev, spaces.c.changed_ns).where(spaces.c.id == _SPACE_ID).with_for_update(key_share=True)
_SET_REACHED = update(spaces).where(spaces.c.id == _SPACE_ID).values(rev=bindparam("new"), changed_ns=bindparam("at"))
_OF_REPLICA = and_(
    commits.c.space_id == _SPACE_ID,
    commits.c.device_id == bindparam("device"),
    commits.c.replica_id == bindparam("of_replica"),
)
_LAST_COMMIT = select(commits.c.number, commits.c.body_hash, commits.c.answer).where(_OF_REPLICA)
_NEXT_COMMIT = (
    update(commits)
    .where(_OF_REPLICA)
    .values(number=bindparam("number"), body_hash=bindparam("body_hash"), answer=bindparam("answer"))
)


# ------------------------------------------------------------------------------------------------------------ reading


def load_inodes(connection: Connection, space: bytes, ids: Collection[bytes]) -> dict[bytes, InodeRow]:
    found = {}
    for some in batches(ids):
        for row in connection.execute(_INODES, {"space": space, "ids": some}):
            found[row.id] = inode_row(row)
    return found


def load_names(connection: Connection, space: bytes, ids: Collection[bytes]) -> dict[bytes, set[Key]]:
    """The names that each of the inodes has."""
    found: defaultdict[bytes, set[Key]] = defaultdict(set)
    for some in batches(ids):
        for inode, parent, name in connection.execute(_NAMES, {"space": space, "ids": some}):
            found[inode].add((parent, name))
    return found


def load_entries(connection: Connection, space: bytes, keys: Iterable[Key]) -> dict[Key, Entry]:
    """One query for each folder: SQLite would answer a list of pairs by reading the whole space."""
    by_parent: defaultdict[bytes, set[str]] = defaultdict(set)
    for parent, name in keys:
        by_parent[parent].add(name)
    found = {}
    for parent, names in by_parent.items():
        for some in batches(names):
            for name, inode, rev in connection.execute(_ENTRIES, {"space": space, "folder": parent, "names": some}):
                found[parent, name] = Entry(inode, rev)
    return found


def has_child_besides(connection: Connection, space: bytes, parent: bytes, names: Collection[str]) -> bool:
    """Whether the folder has a live entry that is not one of `names`."""
    here = (entries.c.space_id == space) & (entries.c.parent == parent) & entries.c.inode.is_not(None)
    first = connection.execute(select(entries.c.name).where(here).limit(len(names) + 1)).scalars()
    return any(name not in names for name in first)


def names_in(connection: Connection, space: bytes, folder: bytes, limit: int) -> Sequence[str]:
    """The first names in the folder, in the order of their bytes."""
    here = (entries.c.space_id == space) & (entries.c.parent == folder) & entries.c.inode.is_not(None)
    return connection.execute(select(entries.c.name).where(here).order_by(entries.c.name).limit(limit)).scalars().all()


def copy_names(connection: Connection, space: bytes, limit: int) -> Sequence[Key]:
    """Live entries whose names have the mark of a conflicted copy. Reads the names of the whole space."""
    here = (entries.c.space_id == space) & entries.c.inode.is_not(None) & entries.c.name.contains(MARK, autoescape=True)
    query = select(entries.c.parent, entries.c.name).where(here).order_by(entries.c.parent, entries.c.name)
    return [(row.parent, row.name) for row in connection.execute(query.limit(limit))]


_INODES = select(inodes).where(inodes.c.space_id == _SPACE_ID, inodes.c.id.in_(bindparam("ids", expanding=True)))
_NAMES = select(entries.c.inode, entries.c.parent, entries.c.name).where(
    entries.c.space_id == _SPACE_ID, entries.c.inode.in_(bindparam("ids", expanding=True))
)
_ENTRIES = select(entries.c.name, entries.c.inode, entries.c.rev).where(
    entries.c.space_id == _SPACE_ID,
    entries.c.parent == bindparam("folder"),
    entries.c.name.in_(bindparam("names", expanding=True)),
)


def inode_row(row: Row[Any]) -> InodeRow:
    return InodeRow(
        row.id,
        row.rev,
        Kind(row.kind),
        attributes(row),
        row.target,
        None if row.device_number is None else row.device_number % 2**64,
        row.manifest_id,
        row.size,
        row.sha256,
        row.content_rev,
        row.created_ns,
    )


def attributes(row: Row[Any]) -> Attributes:
    xattrs = {} if row.xattrs is None else {name: b64decode(value) for name, value in json.loads(row.xattrs).items()}
    return Attributes.model_construct(mode=row.mode, uid=row.uid, gid=row.gid, mtime_ns=row.mtime_ns, xattrs=xattrs)


# ------------------------------------------------------------------------------------------------------------ writing


def write_inodes(connection: Connection, space: bytes, new: Sequence[InodeRow], changed: Sequence[InodeRow]) -> None:
    if new:
        connection.execute(insert(inodes), [{"space_id": space, "id": row.id, **_values(row)} for row in new])
    if changed:
        connection.execute(_CHANGE_INODE, [{"space": space, "this": row.id, **_values(row)} for row in changed])


def write_entries(
    connection: Connection, space: bytes, new: Iterable[tuple[Key, Entry]], changed: Iterable[tuple[Key, Entry]]
) -> None:
    rows = [_entry_values(key, entry) for key, entry in new]
    if rows:
        connection.execute(insert(entries), [{"space_id": space, **row} for row in rows])
    rows = [_entry_values(key, entry) for key, entry in changed]
    if rows:
        connection.execute(
            _CHANGE_ENTRY,
            [
                {"space": space, "folder": row["parent"], "this": row["name"], "inode": row["inode"], "rev": row["rev"]}
                for row in rows
            ],
        )


_CHANGE_INODE = (
    update(inodes)
    .where(inodes.c.space_id == _SPACE_ID, inodes.c.id == bindparam("this"))
    .values({column.name: bindparam(column.name) for column in inodes.c if column.name not in ("space_id", "id")})
)
_CHANGE_ENTRY = (
    update(entries)
    .where(entries.c.space_id == _SPACE_ID, entries.c.parent == bindparam("folder"), entries.c.name == bindparam("this"))
    .values(inode=bindparam("inode"), rev=bindparam("rev"))
)


def _entry_values(key: Key, entry: Entry) -> dict[str, Any]:
    return {"parent": key[0], "name": key[1], "inode": entry.inode, "rev": entry.rev}


def _values(row: InodeRow) -> dict[str, Any]:
    attributes = row.attributes
    number = row.device_number
    return {
        "rev": row.rev,
        "kind": row.kind.value,
        "mode": attributes.mode,
        "uid": attributes.uid,
        "gid": attributes.gid,
        "mtime_ns": attributes.mtime_ns,
        "xattrs": _dump_xattrs(attributes),
        "target": row.target,
        "device_number": number if number is None or number < 2**63 else number - 2**64,
        "manifest_id": row.manifest_id,
        "size": row.size,
        "sha256": row.sha256,
        "content_rev": row.content_rev,
        "created_ns": row.created_ns,
    }


def _dump_xattrs(attributes: Attributes) -> bytes | None:
    if not attributes.xattrs:
        return None
    return json.dumps({name: b64encode(value or b"").decode() for name, value in attributes.xattrs.items()}).encode()
