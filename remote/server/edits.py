"""What plain clients do to a tree, as groups of changes: make a folder, move, copy, delete. Builds groups, applies nothing.

A group is made from the tree while its space is locked, so its bases are right by construction; what it may not do is refused
here, in the words of paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from remote.fileapi import MAX_ENTRIES, OnConflict
from remote.names import free_name
from remote.protocol import Attributes, ContentChange, EntryChange, FullRow, Group, InodeChange, Kind, ProblemType, SeenContent
from remote.server.database import contents as content_rows
from remote.server.database import tree as rows
from remote.server.database.tree import InodeRow
from remote.server.paths import Place, child, root
from remote.server.problems import Refused
from remote.server.tree import Tree

FOLDER_MODE = 0o755
FILE_MODE = 0o644
COPIED_MANIFESTS_MAX = 64 * 2**20
"""Bytes of manifests that one copy may name."""


class Changes:
    """A group that grows. `random` makes inode ids; `now_ns` becomes the mtime of the folders that change."""

    def __init__(self, now_ns: int, random: Callable[[int], bytes]) -> None:
        self._now_ns = now_ns
        self._random = random
        self._entries: list[EntryChange] = []
        self._inodes: dict[bytes, InodeChange] = {}
        self._seen: list[SeenContent] = []

    def group(self) -> Group | None:
        """None: nothing changes."""
        if not self._inodes and not self._entries:
            return None
        return Group(
            entries=self._entries,
            inodes=list(self._inodes.values()),
            seen=self._seen,
            last=[seen.inode for seen in self._seen],
        )

    def name(self, place: Place, inode: bytes, *, touch: bool = True) -> None:
        """Point the place at the inode, instead of at what it holds now."""
        self._point(place, inode)
        if touch:
            self._touch(place.key[0])

    def unname(self, place: Place, *, touch: bool = True) -> None:
        self._point(place, None)
        if touch:
            self._touch(place.key[0])

    def add(self, full: FullRow, attributes: Attributes, content: ContentChange | None = None) -> bytes:
        """A new inode's id; something has to name it."""
        id_ = self._random(16)
        self._inodes[id_] = InodeChange(id=id_, full=full, attributes=attributes, content=content)
        return id_

    def add_folder(self) -> bytes:
        return self.add(FullRow(kind=Kind.DIRECTORY), Attributes(mode=FOLDER_MODE, mtime_ns=self._now_ns))

    def write(self, row: InodeRow, content: ContentChange, mtime_ns: int) -> None:
        self._inodes[row.id] = InodeChange(id=row.id, attributes=Attributes(mtime_ns=mtime_ns), content=content)

    def change(self, inode: bytes, attributes: Attributes) -> None:
        self._inodes[inode] = InodeChange(id=inode, attributes=attributes)

    def _point(self, place: Place, inode: bytes | None) -> None:
        parent, name = place.key
        old = place.inode
        self._entries.append(EntryChange(parent=parent, name=name, base=None if old is None else old.id, inode=inode))
        if old is not None and old.kind is not Kind.DIRECTORY:
            self._seen.append(SeenContent(inode=old.id, content_rev=old.content_rev))

    def _touch(self, folder: bytes) -> None:
        if folder not in self._inodes:
            self._inodes[folder] = InodeChange(id=folder, attributes=Attributes(mtime_ns=self._now_ns))


def resolve_conflict(tree: Tree, target: Place, on_conflict: OnConflict, *, is_file: bool) -> Place:
    """Where to put what was meant for `target`. `Refused` (exists) if it is to fail, or cannot replace what is there."""
    if target.inode is None:
        return target
    if on_conflict is OnConflict.RENAME and not target.is_root:
        folder = target.key[0]
        name = free_name(target.name, lambda name: tree.entry((folder, name)).inode is not None)
        path = f"{target.path.rpartition('/')[0]}/{name}"
        return Place(path, (folder, name), None, target.above)
    if on_conflict is OnConflict.REPLACE and is_file and target.inode.kind is Kind.FILE:
        return target
    why = " A folder is not replaced: delete it first." if on_conflict is OnConflict.REPLACE else ""
    raise Refused(ProblemType.EXISTS, f"There is something at {target.path} already.{why}")


# ------------------------------------------------------------------------------------------------------------- folders


def make_folder(tree: Tree, changes: Changes, names: tuple[str, ...], on_conflict: OnConflict, *, parents: bool) -> Place:
    """Where the folder is; with `parents`, it may have been there, and those above it are made, too."""
    place = root(tree)
    for name in names[:-1]:
        place = child(tree, place, name)
        if place.inode is None and parents:
            place = _new_folder(place, changes)
    place = child(tree, place, names[-1]) if names else place
    if parents and place.inode is not None and place.inode.kind is Kind.DIRECTORY:
        return place
    return _new_folder(resolve_conflict(tree, place, on_conflict, is_file=False), changes)


def _new_folder(place: Place, changes: Changes) -> Place:
    id_ = changes.add_folder()
    changes.name(place, id_)
    return Place(place.path, place.key, _made(id_), place.above)


def _made(id_: bytes) -> InodeRow:
    """Stands for a folder of the group while the group grows."""
    return InodeRow(id_, 0, Kind.DIRECTORY, Attributes(), None, None, None, None, None, 0, 0)


# ---------------------------------------------------------------------------------------------------------------- move


def move(tree: Tree, changes: Changes, source: Place, row: InodeRow, target: Place, on_conflict: OnConflict) -> Place:
    """Where it then is."""
    _refuse_root(source, "moved")
    if target.inode is not None and target.inode.id == row.id:  # as rename(2): nothing is to be done
        return target
    if row.id in target.above:
        raise Refused(ProblemType.INVALID, f"{source.path} cannot be moved into itself.", field="target")
    target = resolve_conflict(tree, target, on_conflict, is_file=row.kind is not Kind.DIRECTORY)
    changes.unname(source)
    changes.name(target, row.id)
    return target


# ---------------------------------------------------------------------------------------------------------------- copy


def copy(
    connection: Connection, tree: Tree, changes: Changes, source: Place, row: InodeRow, target: Place, on_conflict: OnConflict
) -> Place:
    """Where the copy is."""
    _refuse_root(source, "copied")
    if row.id in target.above or (
        target.inode is not None and target.inode.id == row.id and on_conflict is not OnConflict.RENAME
    ):
        raise Refused(ProblemType.INVALID, f"{source.path} cannot be copied onto, or into, itself.", field="target")
    target = resolve_conflict(tree, target, on_conflict, is_file=row.kind is Kind.FILE)
    found = list(descend(connection, tree, source, MAX_ENTRIES))
    if len(found) > MAX_ENTRIES:
        raise Refused(
            ProblemType.TOO_LARGE,
            f"{source.path} holds more than {MAX_ENTRIES - 1} entries: make the folder, and copy what is in it piece by piece.",
        )
    inodes = list({place.inode.id: place.inode for place in found if place.inode is not None}.values())
    bodies = _manifests(connection, tree.root, inodes)
    if target.inode is not None:  # a file takes the place of a file: the same inode, so that its history goes on
        changes.write(target.inode, _content(row, bodies, target.inode.content_rev), row.attributes.mtime_ns)
        return target
    copies = {inode.id: _add_copy(changes, inode, bodies) for inode in inodes}
    for place in reversed(found):  # folders before what is in them
        inode = place.inode
        if inode is not None:
            key = target.key if place is found[-1] else (copies[place.key[0]], place.name)
            changes.name(Place("", key, None, ()), copies[inode.id])
    return target


def _add_copy(changes: Changes, row: InodeRow, bodies: Mapping[bytes, bytes]) -> bytes:
    full = FullRow(kind=row.kind, target=row.target, device_number=row.device_number)
    return changes.add(full, row.attributes, _content(row, bodies, 0) if row.kind is Kind.FILE else None)


def _content(row: InodeRow, bodies: Mapping[bytes, bytes], base: int) -> ContentChange:
    if row.manifest_id is None:
        raise ValueError("a file always has a content")
    return ContentChange(manifest=bodies[row.manifest_id], sha256=row.sha256, base=base)


def _manifests(connection: Connection, space: bytes, inodes: list[InodeRow]) -> Mapping[bytes, bytes]:
    ids = {inode.manifest_id for inode in inodes if inode.manifest_id is not None}
    if content_rows.length_of_manifests(connection, space, ids) > COPIED_MANIFESTS_MAX:
        raise Refused(ProblemType.TOO_LARGE, "These files have too many chunks for one request: copy fewer at a time.")
    return content_rows.manifest_bodies(connection, space, ids)


# -------------------------------------------------------------------------------------------------------------- delete


@dataclass(frozen=True, slots=True)
class Removal:
    removed: int
    complete: bool


def delete(
    connection: Connection, tree: Tree, changes: Changes, place: Place, row: InodeRow, *, recursive: bool, partial: bool
) -> Removal:
    """`partial`: of a folder that holds too much for one request, remove as much as one may, from below."""
    _refuse_root(place, "deleted")
    found: list[Place] = []
    complete = True
    for each in descend(connection, tree, place, MAX_ENTRIES):
        if len(found) == MAX_ENTRIES:
            complete = False
            break
        found.append(each)
    if not recursive and len(found) > 1:
        raise Refused(ProblemType.NOT_EMPTY, f"{place.path} is not empty: delete it recursively (recursive=true).")
    if not complete and not partial:
        raise Refused(
            ProblemType.TOO_LARGE,
            f"{place.path} holds more than {MAX_ENTRIES - 1} entries: delete it with partial=true, again until it is complete.",
        )
    gone = {each.inode.id for each in found if each.inode is not None}
    for each in found:
        changes.unname(each, touch=each.key[0] not in gone)
    return Removal(len(found), complete)


def descend(connection: Connection, tree: Tree, top: Place, entries_max: int) -> Iterator[Place]:
    """`top` and all below it, what is in a folder before the folder; only as far as it is asked for, and little further.

    Of a folder with more than `entries_max` names it brings one more than that: whoever counts knows by it.
    """
    pending: list[tuple[Place, bool]] = [(top, False)]
    while pending:
        place, opened = pending.pop()
        if opened or place.inode is None or place.inode.kind is not Kind.DIRECTORY:
            yield place
            continue
        pending.append((place, True))
        names = rows.names_in(connection, tree.root, place.inode.id, entries_max + 1)
        tree.prefetch([(place.inode.id, name) for name in names], [])
        pending += [(child(tree, place, name), False) for name in names]


def _refuse_root(place: Place, what: str) -> None:
    if place.is_root:
        raise Refused(ProblemType.INVALID, f"The root folder cannot be {what}.", field="path")
