"""Files and folders of plain clients, by path: list, look up, make, move, copy, delete. Blocking.

A change is one edit of the caller's personal space (`namespace`): it gets a revision, and the feed carries it to all devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import Connection

from remote.fileapi import (
    CopyRequest,
    CreateFolder,
    Deleted,
    FileInfo,
    FileList,
    MoveRequest,
    OnConflict,
    Order,
    Sort,
)
from remote.protocol import Kind, ProblemType
from remote.server import edits
from remote.server.access import member_of
from remote.server.database import listing as listing_rows
from remote.server.database import sharing
from remote.server.database.engine import Database
from remote.server.database.tree import InodeRow
from remote.server.devices import Caller
from remote.server.edits import Changes
from remote.server.mediatypes import media_type
from remote.server.namespace import Edit, Namespace
from remote.server.paths import Place, Reached, find, home_space, locate, place_of, reach, split_new_path, split_path
from remote.server.problems import Refused
from remote.server.tree import Tree

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Done(Generic[A]):
    answer: A
    space: bytes
    """Whoever follows it should look."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`If-Match`: the request is for these versions only; None: for whatever is there."""

    versions: frozenset[str] | None = None

    def require(self, row: InodeRow | None) -> None:
        """`Refused` (precondition failed)."""
        version = row.manifest_id.hex() if row is not None and row.manifest_id is not None else None
        if self.versions is not None and version not in self.versions:
            raise Refused(ProblemType.PRECONDITION_FAILED, "It is not the version that the request was made for: look again.")


Names = tuple[str, ...]


class Files:
    def __init__(
        self, database: Database, namespace: Namespace, clock: Callable[[], int], random: Callable[[int], bytes]
    ) -> None:
        self._database = database
        self._namespace = namespace
        self._clock = clock
        self._random = random

    def metadata(self, caller: Caller, path: str) -> FileInfo:
        names = split_path(path)
        with self._database.read() as connection:
            return file_info(*find(*open_path(connection, caller, names)))

    def listing(self, caller: Caller, path: str, sort: Sort, order: Order, after: str | None, limit: int) -> FileList:
        names, keyset = split_path(path), None if after is None else _keyset(after)
        with self._database.read() as connection:
            tree, inner = open_path(connection, caller, names, enter=True)
            place, row = find(tree, inner)
            if row.kind is not Kind.DIRECTORY:
                raise Refused(ProblemType.INVALID, f"{place.path} is no folder: ask for its metadata.", field="path")
            found = listing_rows.page(connection, tree.root, row.id, sort, order, keyset, limit + 1)
        last = found[limit - 1] if len(found) > limit else None
        above = tree.prefix if place.is_root else place.path
        return FileList(
            folder=file_info(place, row),
            entries=[_info(f"{above}/{each.name}", each.name, each.inode) for each in found[:limit]],
            next=None if last is None else f"{last.key}/{last.name}",
        )

    def make_folder(self, caller: Caller, request: CreateFolder) -> Done[FileInfo]:
        names = split_new_path(request.path)
        if request.on_conflict is OnConflict.REPLACE:
            raise Refused(ProblemType.INVALID, "A folder is not replaced: fail, or rename.", field="on_conflict")

        def make(_connection: Connection, tree: Tree, inner: Names) -> Edit[FileInfo]:
            changes = self._changes()
            place = edits.make_folder(tree, changes, inner, request.on_conflict, parents=request.parents)
            return Edit(changes.group(), lambda: info_after(tree, place))

        return self._edit(caller, names, make, enter=request.parents)

    def move(self, caller: Caller, request: MoveRequest, condition: Condition) -> Done[FileInfo]:
        source_names, target_names = split_path(request.source, "source"), split_new_path(request.target, "target")

        def make(_connection: Connection, tree: Tree, inner: Names, inner_target: Names) -> Edit[FileInfo]:
            source, row = find(tree, inner)
            condition.require(row)
            changes = self._changes()
            place = edits.move(tree, changes, source, row, locate(tree, inner_target), request.on_conflict)
            return Edit(changes.group(), lambda: info_after(tree, place))

        return self._edit_two(caller, source_names, target_names, make)

    def copy(self, caller: Caller, request: CopyRequest, condition: Condition) -> Done[FileInfo]:
        source_names, target_names = split_path(request.source, "source"), split_new_path(request.target, "target")

        def make(connection: Connection, tree: Tree, inner: Names, inner_target: Names) -> Edit[FileInfo]:
            source, row = find(tree, inner)
            condition.require(row)
            changes, target = self._changes(), locate(tree, inner_target)
            place = edits.copy(connection, tree, changes, source, row, target, request.on_conflict)
            return Edit(changes.group(), lambda: info_after(tree, place))

        return self._edit_two(caller, source_names, target_names, make)

    def delete(self, caller: Caller, path: str, condition: Condition, *, recursive: bool, partial: bool) -> Done[Deleted]:
        names = split_path(path)

        def make(connection: Connection, tree: Tree, inner: Names) -> Edit[Deleted]:
            place, row = find(tree, inner)
            condition.require(row)
            changes = self._changes()
            done = edits.delete(connection, tree, changes, place, row, recursive=recursive, partial=partial)
            return Edit(changes.group(), lambda: Deleted(removed=done.removed, complete=done.complete))

        return self._edit(caller, names, make)

    def _edit(
        self, caller: Caller, names: Names, make: Callable[[Connection, Tree, Names], Edit[A]], *, enter: bool = False
    ) -> Done[A]:
        with self._database.read() as connection:
            found = reach(connection, caller, names, enter=enter)

        def within(connection: Connection, tree: Tree) -> Edit[A]:
            return make(connection, tree, found.names)

        return Done(self._namespace.edit(caller, found.space, within, prefix=found.prefix), found.space)

    def _edit_two(
        self, caller: Caller, source: Names, target: Names, make: Callable[[Connection, Tree, Names, Names], Edit[A]]
    ) -> Done[A]:
        """`Refused` if the paths lead into different spaces."""
        with self._database.read() as connection:
            found, other = reach(connection, caller, source), reach(connection, caller, target)
        if found.space != other.space:
            text = "Only one of these is in this shared folder: get what you want to move, and put it there."
            raise Refused(ProblemType.INVALID, text, field="target")

        def within(connection: Connection, tree: Tree) -> Edit[A]:
            return make(connection, tree, found.names, other.names)

        return Done(self._namespace.edit(caller, found.space, within, prefix=found.prefix), found.space)

    def _changes(self) -> Changes:
        return Changes(self._clock(), self._random)


def open_tree(connection: Connection, caller: Caller) -> Tree:
    """The tree of the caller's personal space."""
    return _open(connection, caller, Reached(home_space(connection, caller), ()))


def open_path(connection: Connection, caller: Caller, names: Names, *, enter: bool = False) -> tuple[Tree, Names]:
    """The tree that a path leads into, and the names that are left there (`paths.reach`)."""
    found = reach(connection, caller, names, enter=enter)
    return _open(connection, caller, found), found.names


def open_trees(connection: Connection, caller: Caller) -> Iterator[Tree]:
    """All trees that the caller sees: the personal space's first."""
    home = open_tree(connection, caller)
    yield home
    for mount, membership in sharing.mounts(connection, caller.account).items():
        place = place_of(home, mount)
        if place is not None:
            yield Tree(connection, membership.space_id, place.path)


def _open(connection: Connection, caller: Caller, found: Reached) -> Tree:
    member_of(connection, caller, found.space)
    return Tree(connection, found.space, found.prefix)


def file_info(place: Place, row: InodeRow) -> FileInfo:
    return _info(place.path, place.name, row)


def info_after(tree: Tree, place: Place) -> FileInfo:
    """What is at the place now that the group is applied."""
    held = tree.root if place.is_root else tree.entry(place.key).inode
    row = None if held is None else tree.inode(held)
    if row is None:
        raise ValueError("something is there, or was put there")
    return file_info(place, row)


def _info(path: str, name: str, row: InodeRow) -> FileInfo:
    is_file, is_mount = row.kind is Kind.FILE, row.kind is Kind.MOUNT
    return FileInfo(
        path=path,
        name=name,
        id=row.id,
        kind=Kind.DIRECTORY if is_mount else row.kind,
        size=row.size or 0,
        version=row.manifest_id,
        sha256=row.sha256,
        content_type=media_type(name) if is_file else None,
        mode=row.attributes.mode,
        mtime_ns=row.attributes.mtime_ns,
        revision=row.rev,
        content_revision=row.content_rev,
        target=None if is_mount else row.target,
        shared_space=bytes.fromhex(row.target) if is_mount and row.target is not None else None,
    )


def _keyset(after: str) -> tuple[int, str]:
    key, _, name = after.partition("/")
    if not key.removeprefix("-").isdecimal() or len(key) > 20 or not name or "\0" in name:
        raise Refused(ProblemType.INVALID, "It is not the `next` of a page.", field="after")
    return int(key), name
