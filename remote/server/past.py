"""A space's tree as it was at a time, as far as it is asked for, and what of it is a folder's. Blocking; changes nothing.

Every folder belongs to where it was at that time; one that was nowhere, to where it is now. So what was moved into a folder
since does not belong to it, and what was moved out does, with what was made in it meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Set

from sqlalchemy import Connection

from remote.protocol import Kind
from remote.server.database import formernames as rows
from remote.server.database.tree import Key
from remote.server.paths import Place
from remote.server.tree import Tree


class Past:
    def __init__(self, connection: Connection, tree: Tree, at_ns: int, top: Place) -> None:
        """`tree`: as it is now, and stays while this is used; `top`: the folder, as it is now."""
        self._connection = connection
        self._tree = tree
        self._at_ns = at_ns
        self._top, self._top_path = top_id(tree, top), "" if top.is_root else top.path
        self._names: dict[bytes, Set[Key]] = {}
        self._ours: dict[bytes, bool] = {tree.root: False, self._top: True}

    def prefetch(self, ids: Collection[bytes]) -> None:
        """Read about these inodes, and about all folders that they were, or are, in."""
        while ids:
            wanted = [id_ for id_ in ids if id_ not in self._names]
            found = rows.names_at(self._connection, self._tree.root, self._at_ns, wanted)
            self._names.update((id_, found.get(id_, frozenset())) for id_ in wanted)
            self._tree.prefetch([], wanted)
            above = {key[0] for id_ in wanted for key in self._names[id_] or self._tree.names(id_)}
            ids = {folder for folder in above if folder and folder not in self._names}

    def homes(self, id_: bytes) -> Set[Key]:
        """The names that the inode had; none if it was not there, or in the trash."""
        if id_ not in self._names:
            self.prefetch([id_])
        names, row = self._names[id_], self._tree.inode(id_)
        if len(names) > 1 and (row is None or row.kind is Kind.DIRECTORY):  # only with a clock that was put back
            return {min(names)}
        return names

    def is_ours(self, folder: bytes) -> bool:
        """Whether it is the folder that this is about, or belongs into it."""
        met: list[bytes] = []
        while folder not in self._ours:
            key = self._belongs(folder)
            if key is None or folder in met:
                self._ours[folder] = False
                break
            met.append(folder)
            folder = key[0]
        ours = self._ours[folder]
        self._ours.update(dict.fromkeys(met, ours))
        return ours

    def path(self, key: Key) -> str:
        """Where a name of a folder that is ours was; in a folder that was not there, where it is."""
        names = [key[1]]
        folder = key[0]
        while folder != self._top:
            above = self._belongs(folder)
            if above is None:
                raise ValueError("the folder is not ours")
            names.append(above[1])
            folder = above[0]
        return f"{self._top_path}/{'/'.join(reversed(names))}"

    def _belongs(self, folder: bytes) -> Key | None:
        return min(self.homes(folder), default=None) or min(self._tree.names(folder), default=None)


def top_id(tree: Tree, top: Place) -> bytes:
    return tree.root if top.inode is None else top.inode.id
