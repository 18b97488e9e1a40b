"""A file of its own for a content that lost its inode: an application writes through a handle that it opened before the
service's content took the place of what it had opened, or before the file was deleted elsewhere. The result is a conflicted copy
beside the original, or a file in its place (P3). Of a file that was deleted here it has no name: nobody wants it."""

from __future__ import annotations

from collections.abc import Callable

from cache.clock import Clock, Randomness
from cache.files import File
from cache.model import Change, EntryChanged
from cache.recovery import FOLDER
from cache.store.schema import ROOT
from cache.store.tree import TreeStore
from remote.copynames import CopyNames
from remote.protocol import INODE_ID_BYTES, Kind


class Forks:
    """`told` hears what appeared in the tree, after the transaction; `pushed` the space that has something to push."""

    def __init__(
        self,
        tree: TreeStore,
        clock: Clock,
        randomness: Randomness,
        copy_names: Callable[[], CopyNames],
        told: Callable[[list[Change]], None],
        pushed: Callable[[int], None],
    ) -> None:
        self._tree = tree
        self._clock = clock
        self._randomness = randomness
        self._copy_names = copy_names
        self._told = told
        self._pushed = pushed

    def fork(self, file: File) -> int:
        """An inode with the content that `file` has, under the name that it had or one beside it. Its ino."""
        node, base = file.node(), file.base
        key = None if file.deleted_here else self._beside(node.ino, file.last_name)
        row = self._tree.inode(node.ino)
        with self._tree.database.transaction():
            ino = self._tree.insert_inode(
                self._randomness.bytes(INODE_ID_BYTES),
                base.space,
                Kind.FILE,
                mode=node.mode,
                uid=node.uid,
                gid=node.gid,
                now_ns=self._clock.wall_ns(),
                name=key,
                mtime_ns=node.mtime_ns,
                size=base.size,
                xattrs=None if row is None else row.xattrs,
                manifest_id=base.manifest_id,
                manifest_size=base.size,
                sha256=base.sha256,
            )
            if key is not None:
                self._tree.touch(key[0], self._clock.wall_ns())
        if key is not None:
            self._pushed(base.space)
            self._told([EntryChanged(*key, gone=False)])
        return ino

    def _beside(self, ino: int, last_name: tuple[int, str] | None) -> tuple[int, str]:
        names = self._tree.names(ino)
        parent, name = names[0] if names else last_name or (ROOT, FOLDER)
        folder = self._tree.inode(parent)
        if folder is None or (folder.nlink == 0 and not self._tree.is_root(parent)):
            parent = ROOT
        if not self._is_taken(parent, name):
            return parent, name
        return parent, self._copy_names().free_name(name, False, lambda taken: self._is_taken(parent, taken))

    def _is_taken(self, parent: int, name: str) -> bool:
        return self._tree.child(parent, name) is not None or self._tree.base_entry(parent, name) is not None
