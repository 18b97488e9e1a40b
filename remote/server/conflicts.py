"""Conflicted copies: found by the names that devices give them, and resolved as one edit. Blocking."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from remote.copynames import read_copy_name
from remote.fileapi import OnConflict
from remote.protocol import ContentChange, Kind, ProblemType
from remote.server import edits
from remote.server.database import contents as content_rows
from remote.server.database import tree as tree_rows
from remote.server.database.engine import Database
from remote.server.database.tree import InodeRow, Key
from remote.server.devices import Caller
from remote.server.edits import Changes
from remote.server.files import Done, file_info, info_after, open_trees
from remote.server.namespace import Edit, Namespace
from remote.server.paths import Place, child, place_of
from remote.server.problems import Refused, not_found
from remote.server.tree import Tree
from remote.syncapi import CONFLICTS_MAX, Conflict, ConflictList, ResolveConflict, Resolved


class Conflicts:
    def __init__(
        self, database: Database, namespace: Namespace, clock: Callable[[], int], random: Callable[[int], bytes]
    ) -> None:
        self._database = database
        self._namespace = namespace
        self._clock = clock
        self._random = random

    def listing(self, caller: Caller) -> ConflictList:
        with self._database.read() as connection:
            found: list[Conflict] = []
            room = CONFLICTS_MAX
            for tree in open_trees(connection, caller):
                keys = tree_rows.copy_names(connection, tree.root, room + 1)
                originals = [(key[0], name.original) for key in keys if (name := read_copy_name(key[1])) is not None]
                tree.prefetch([*keys, *originals], [])
                found += [conflict for key in keys[:room] if (conflict := _conflict(tree, key)) is not None]
                room -= len(keys)
                if room < 0:
                    break
        return ConflictList(conflicts=found, complete=room >= 0)

    def resolve(self, caller: Caller, request: ResolveConflict) -> Done[Resolved]:
        """`Refused`: not found, a version has changed, or a folder would have to be put together with another."""
        with self._database.read() as connection:
            trees = open_trees(connection, caller)
            held = next((tree for tree in trees if tree.names(request.id)), None)
        if held is None:
            raise not_found("There is no such conflicted copy.")

        def make(connection: Connection, tree: Tree) -> Edit[Resolved]:
            copied, original = _find(tree, request.id)
            _require(copied, request.copy_version, "copy_version")
            _require(original, request.original_version, "original_version")
            changes = Changes(self._clock(), self._random)
            kept = _keep(connection, tree, changes, copied, original, request.keep)
            return Edit(changes.group(), lambda: Resolved(file=info_after(tree, kept)))

        return Done(self._namespace.edit(caller, held.root, make, prefix=held.prefix), held.root)


def _conflict(tree: Tree, key: Key) -> Conflict | None:
    """None: it hangs on nothing, or its name only looks so."""
    name, folder = read_copy_name(key[1]), place_of(tree, key[0])
    if name is None or folder is None:
        return None
    copied, original = child(tree, folder, key[1]), child(tree, folder, name.original)
    if copied.inode is None:
        return None
    return Conflict(
        copied=file_info(copied, copied.inode),
        original=None if original.inode is None else file_info(original, original.inode),
        device=name.device,
    )


def _find(tree: Tree, id_: bytes) -> tuple[Place, Place]:
    """The copy, and the place of its original."""
    for key in sorted(tree.names(id_)):
        name, folder = read_copy_name(key[1]), place_of(tree, key[0])
        if name is not None and folder is not None:
            return child(tree, folder, key[1]), child(tree, folder, name.original)
    raise not_found("There is no such conflicted copy.")


def _require(place: Place, version: bytes | None, field: str) -> None:
    if version is not None and (place.inode is None or place.inode.manifest_id != version):
        raise Refused(ProblemType.PRECONDITION_FAILED, f"{place.path} has changed meanwhile: look again.", field=field)


def _keep(connection: Connection, tree: Tree, changes: Changes, copied: Place, original: Place, keep: str) -> Place:
    """Where what is kept is then."""
    row, other = copied.inode, original.inode
    assert row is not None
    if keep == "both" or (keep == "copy" and other is None):
        return edits.move(tree, changes, copied, row, original, OnConflict.RENAME)
    if other is None:
        raise not_found(f"There is nothing at {original.path}: keep the copy.")
    if keep == "original":
        edits.delete(connection, tree, changes, copied, row, recursive=False, partial=False)
        return original
    if row.kind is not Kind.FILE or other.kind is not Kind.FILE:
        raise Refused(ProblemType.INVALID, "Only files take each other's place: move what you want to keep.", field="keep")
    if row.manifest_id != other.manifest_id:
        changes.write(other, _content(connection, tree.root, row, other.content_rev), row.attributes.mtime_ns)
    changes.unname(copied)
    return original


def _content(connection: Connection, space: bytes, row: InodeRow, base: int) -> ContentChange:
    assert row.manifest_id is not None
    body = content_rows.manifest_bodies(connection, space, [row.manifest_id])[row.manifest_id]
    return ContentChange(manifest=body, sha256=row.sha256, base=base)
