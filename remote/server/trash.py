"""The trash and former versions: what was deleted or replaced, and how it comes back. Blocking.

What loses its last name is written down with the commit that took it (`namespace`): where it was, when, and who removed it.
Its inode and versions stay until the time to live of its owner's tier is over (`expiry`), or somebody empties the trash.
To restore is an edit: a name is given again, or an old content written, so devices hear of it as of any change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from remote.fileapi import (
    MAX_ENTRIES,
    Emptied,
    FileInfo,
    FormerVersion,
    Restored,
    RestoreRequest,
    RestoreVersion,
    TrashEntry,
    TrashList,
    VersionList,
)
from remote.names import free_name
from remote.protocol import ContentChange, Kind, ProblemType
from remote.server.access import member_of
from remote.server.database import contents as content_rows
from remote.server.database import trash as rows
from remote.server.database.engine import Database
from remote.server.database.trash import TrashRow
from remote.server.database.tree import InodeRow, Key, lock_space
from remote.server.devices import Caller
from remote.server.edits import Changes
from remote.server.filedownloads import Wanted, find_file
from remote.server.files import Done, file_info, open_path, open_tree, open_trees
from remote.server.namespace import Edit, Namespace
from remote.server.paths import Place, locate, place_of, split_new_path
from remote.server.problems import Refused, not_found
from remote.server.tree import Tree

RESTORED_MAX = 100_000
"""Entries that one request brings back; a larger folder comes in several."""
EMPTIED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A folder that has its name again, and of which something may still be in the trash."""

    folder: bytes
    deleted_ns: int


class Trash:
    def __init__(
        self, database: Database, namespace: Namespace, clock: Callable[[], int], random: Callable[[int], bytes]
    ) -> None:
        self._database = database
        self._namespace = namespace
        self._clock = clock
        self._random = random

    # ------------------------------------------------------------------------------------------------------- the trash

    def listing(self, caller: Caller, after: str | None, limit: int) -> TrashList:
        keyset = None if after is None else parse_after(after)
        with self._database.read() as connection:
            trees = {tree.root: tree for tree in open_trees(connection, caller)}
            found = rows.page(connection, trees.keys(), keyset, limit + 1)
            entries = [_entry(row, _path_of(connection, trees[row.space], row)) for row in found[:limit]]
        return TrashList(entries=entries, next=page_after(found, limit))

    def restore(self, caller: Caller, request: RestoreRequest) -> Done[Restored]:
        """To its place, or beside what is there now, or to `target`; a folder with all that went with it. A request that
        died half way has restored a part, and the rest is in the trash."""
        names = None if request.target is None else split_new_path(request.target, "target")
        with self._database.read() as connection:
            if names is None:
                held = _tree_with(connection, caller, request.id)
                inner: tuple[str, ...] | None = None
            else:
                held, inner = open_path(connection, caller, names)
        space, prefix = held.root, held.prefix
        waiting: deque[_Waiting] = deque()

        def first(connection: Connection, tree: Tree) -> Edit[Place]:
            row = rows.find(connection, space, request.id)
            if row is None:
                raise not_found("There is no such thing in the trash.")
            changes = self._changes()
            place = self._former_place(connection, tree, changes, row) if inner is None else locate(tree, inner)
            if not _is_free(place):
                if names is not None:
                    raise Refused(ProblemType.EXISTS, f"There is something at {place.path} already.", field="target")
                place = _beside(tree, place)
            changes.name(place, row.inode)
            if row.kind is Kind.DIRECTORY:
                waiting.append(_Waiting(row.inode, row.deleted_ns))
            return Edit(changes.group(), lambda: place)

        place = self._namespace.edit(caller, space, first, prefix=prefix)
        count = 1
        while waiting and count < RESTORED_MAX:
            count += self._namespace.edit(
                caller, space, lambda connection, _tree: self._restore_inside(connection, space, waiting)
            )
        with self._database.read() as connection:
            row = Tree(connection, space).inode(request.id)
            if row is None:
                raise not_found("Somebody removed it again.")
            return Done(Restored(file=file_info(place, row), restored=count, complete=not waiting), space)

    def _restore_inside(self, connection: Connection, space: bytes, waiting: deque[_Waiting]) -> Edit[int]:
        """Name up to `MAX_ENTRIES` of what went with folders that are named again."""
        changes, count = self._changes(), 0
        while waiting and count < MAX_ENTRIES:
            folder = waiting.popleft()
            found = rows.inside(connection, space, folder.folder, folder.deleted_ns, MAX_ENTRIES - count)
            taken: set[str] = set()
            for row in found:
                name = free_name(row.key[1], taken.__contains__)
                taken.add(name)
                changes.name(Place("", (folder.folder, name), None, ()), row.inode, touch=False)
                if row.kind is Kind.DIRECTORY:
                    waiting.append(_Waiting(row.inode, row.deleted_ns))
            count += len(found)
            if count == MAX_ENTRIES:
                waiting.appendleft(folder)
        return Edit(changes.group(), lambda: count)

    def _former_place(self, connection: Connection, tree: Tree, changes: Changes, row: TrashRow) -> Place:
        """Where it was. Folders above it that are in the trash, too, come back without what else was in them; if one of them
        is gone, everything hangs on the root."""
        above: list[TrashRow] = []
        folder, name = row.key
        place = place_of(tree, folder)
        while place is None:
            higher = rows.find(connection, tree.root, folder)
            if higher is None:
                place, folder = place_of(tree, tree.root), tree.root
                break
            above.append(higher)
            folder = higher.key[0]
            place = place_of(tree, folder)
        if place is None:
            raise ValueError("a space has a root")
        for higher in reversed(above):
            key = (folder, higher.key[1])
            path = f"{tree.prefix if place.is_root else place.path}/{key[1]}"
            spot = Place(path, key, _held(tree, key), (*place.above, folder))
            spot = spot if _is_free(spot) else _beside(tree, spot)
            changes.name(spot, higher.inode, touch=folder not in {each.inode for each in above})
            place, folder = spot, higher.inode
        key = (folder, name)
        return Place(f"{tree.prefix if place.is_root else place.path}/{name}", key, _held(tree, key), (*place.above, folder))

    def empty(self, caller: Caller, id_: bytes | None) -> Emptied:
        """Remove what is in the trash for good: all of it, or one entry with what went with it."""
        with self._database.write() as connection:
            tree = open_tree(connection, caller) if id_ is None else _tree_with(connection, caller, id_)
            if member_of(connection, caller, tree.root).owner != caller.account:
                raise Refused(ProblemType.FORBIDDEN, "Only the owner of a shared folder empties its trash.", field="id")
            lock_space(connection, tree.root)
            if id_ is None:
                ids = rows.removed_before(connection, tree.root, self._clock(), EMPTIED_MAX + 1)
            else:
                row = rows.find(connection, tree.root, id_)
                if row is None:
                    raise not_found("There is no such thing in the trash.")
                ids = list(_with_inside(connection, tree.root, row, EMPTIED_MAX + 1))
            removed = rows.purge(connection, tree.root, ids[:EMPTIED_MAX], self._clock())
        return Emptied(removed=removed, complete=len(ids) <= EMPTIED_MAX)

    # -------------------------------------------------------------------------------------------------------- versions

    def versions(self, caller: Caller, wanted: Wanted) -> VersionList:
        """The contents that a file had, the newest first; also of a file in the trash, by its id."""
        with self._database.read() as connection:
            tree, path, row = find_file(connection, caller, wanted)
            found = content_rows.versions_of(connection, tree.root, row.id)
        listed: list[FormerVersion] = []
        replaced_ns: int | None = None
        for version in found:
            listed.append(
                FormerVersion(
                    version=version.manifest_id,
                    size=version.size,
                    sha256=version.sha256,
                    mtime_ns=version.mtime_ns,
                    created_ns=version.created_ns,
                    replaced_ns=replaced_ns,
                    device=version.device,
                )
            )
            replaced_ns = version.created_ns
        return VersionList(id=row.id, path=path, current=row.manifest_id, versions=listed)

    def restore_version(self, caller: Caller, request: RestoreVersion) -> Done[FileInfo]:
        """Write a former content: it is the newest version then, and the present one a former."""
        with self._database.read() as connection:
            found, _, file = find_file(connection, caller, Wanted(request.path, request.id, None))
        space = found.root

        def make(connection: Connection, tree: Tree) -> Edit[FileInfo]:
            row, place = tree.inode(file.id), place_of(tree, file.id)
            if row is None or place is None:
                raise Refused(ProblemType.INVALID, "It is in the trash: restore the file first.", field="id")
            former = content_rows.version(connection, space, row.id, request.version)
            if former is None:
                raise not_found("The file has no such version.")
            changes = self._changes()
            if former.manifest_id != row.manifest_id:
                body = content_rows.manifest_bodies(connection, space, [former.manifest_id])[former.manifest_id]
                content = ContentChange(manifest=body, sha256=former.sha256, base=row.content_rev)
                changes.write(row, content, self._clock())
            return Edit(changes.group(), lambda: file_info(place, tree.inode(row.id) or row))

        return Done(self._namespace.edit(caller, space, make, prefix=found.prefix), space)

    def _changes(self) -> Changes:
        return Changes(self._clock(), self._random)


def _with_inside(connection: Connection, space: bytes, row: TrashRow, limit: int) -> Iterable[bytes]:
    """A row's inode and those of all that went with it, folders last; at most `limit`."""
    found, at = [row], 0
    while at < len(found) and len(found) < limit:
        if found[at].kind is Kind.DIRECTORY:
            found += rows.inside(connection, space, found[at].inode, found[at].deleted_ns, limit - len(found))
        at += 1
    return (each.inode for each in reversed(found))


def _tree_with(connection: Connection, caller: Caller, id_: bytes) -> Tree:
    """The tree in whose trash it is."""
    for tree in open_trees(connection, caller):
        if rows.find(connection, tree.root, id_) is not None:
            return tree
    raise not_found("There is no such thing in the trash.")


def _held(tree: Tree, key: Key) -> InodeRow | None:
    held = tree.entry(key).inode
    return None if held is None else tree.inode(held)


def _is_free(place: Place) -> bool:
    return place.inode is None and not place.is_root and not place.is_reserved


def _beside(tree: Tree, place: Place) -> Place:
    """Under a name like it that is free."""
    folder = place.key[0]

    def at(name: str) -> Place:
        return Place(f"{place.path.rpartition('/')[0]}/{name}", (folder, name), _held(tree, (folder, name)), place.above)

    return at(free_name(place.name, lambda name: not _is_free(at(name))))


def _path_of(connection: Connection, tree: Tree, row: TrashRow) -> str:
    """Where it would go: its folder's path as it is now, or was."""
    names: list[str] = []
    while True:
        names.append(row.key[1])
        place = place_of(tree, row.key[0])
        higher = None if place is not None else rows.find(connection, tree.root, row.key[0])
        if higher is None:
            above = tree.prefix if place is None or place.is_root else place.path
            return f"{above}/{'/'.join(reversed(names))}"
        row = higher


def _entry(row: TrashRow, path: str) -> TrashEntry:
    return TrashEntry(id=row.inode, path=path, kind=row.kind, size=row.size, deleted_ns=row.deleted_ns, device=row.device)


def page_after(found: Sequence[TrashRow], limit: int) -> str | None:
    """What to ask with for the page after the first `limit` rows; None: there are no more."""
    if len(found) <= limit:
        return None
    last = found[limit - 1]
    return f"{last.deleted_ns}/{last.inode.hex()}"


def parse_after(after: str) -> tuple[int, bytes]:
    """Of `page_after`. `Refused` (invalid)."""
    when, _, inode = after.partition("/")
    if not when.isdecimal() or len(when) > 20 or len(inode) != 32 or set(inode) - set("0123456789abcdef"):
        raise Refused(ProblemType.INVALID, "It is not the `next` of a page.", field="after")
    return int(when), bytes.fromhex(inode)
