"""The tree of one space while a commit is being checked: looked up lazily, changed in memory, written at the end.

Only rows that the commit touches, and the folders above them, are ever read; `prefetch` reads most of them in a few queries.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Set

from sqlalchemy import Connection

from remote.server.database import tree as rows
from remote.server.database.tree import NO_ENTRY, Entry, InodeRow, Key

ROOT_KEY: Key = (b"", "")
"""The name that a space's root folder always has."""


class Tree:
    def __init__(self, connection: Connection, space: bytes, prefix: str = "") -> None:
        """`prefix`: the path by which a plain client reaches the space's root; empty for a personal space."""
        self._connection = connection
        self.root = space
        self.prefix = prefix
        self._entries: dict[Key, Entry] = {}
        self._inodes: dict[bytes, InodeRow | None] = {}
        self._names: dict[bytes, set[Key]] = {space: {ROOT_KEY}}
        self._new_entries: dict[Key, Entry] = {}
        self._changed_entries: dict[Key, Entry] = {}
        self._new_inodes: dict[bytes, InodeRow] = {}
        self._changed_inodes: dict[bytes, InodeRow] = {}
        self._named_here: defaultdict[bytes, set[Key]] = defaultdict(set)  # the entries that were written, by what they hold
        self._written_names: defaultdict[bytes, dict[str, bytes | None]] = defaultdict(dict)

    # --------------------------------------------------------------------------------------------------- looking up

    def entry(self, key: Key) -> Entry:
        known = self._entries.get(key)
        if known is None:
            self._load_entries([key])
            known = self._entries[key]
        return known

    def inode(self, id_: bytes) -> InodeRow | None:
        if id_ not in self._inodes:
            self._load_inodes([id_])
        return self._inodes[id_]

    def names(self, id_: bytes) -> Set[Key]:
        if id_ not in self._names:
            self._load_names([id_])
        return self._names[id_]

    def has_child_besides(self, folder: bytes, names: Collection[str]) -> bool:
        """Whether the folder has an entry that is not one of `names`."""
        written = self._written_names.get(folder, {})
        if any(inode is not None and name not in names for name, inode in written.items()):
            return True
        return rows.has_child_besides(self._connection, self.root, folder, {*names, *written})

    def prefetch(self, keys: Collection[Key], ids: Collection[bytes]) -> None:
        """Read the rows of these keys and ids, what the keys hold, and all folders above them."""
        parents = {parent for parent, _ in keys}
        self._load_inodes({*ids, *parents})
        # A folder that the space does not know holds nothing, and never did.
        self._load_entries(key for key in keys if self._inodes[key[0]] is not None)
        for key in keys:
            self._entries.setdefault(key, NO_ENTRY)
        held = {inode for key in keys if (inode := self._entries[key].inode) is not None}
        self._load_inodes(held)
        self._load_names({*held, *ids, *parents})
        while parents:
            above = {parent for folder in parents for parent, _ in self._names[folder] if parent and parent not in self._names}
            self._load_inodes(above)
            self._load_names(above)
            parents = above

    def _load_inodes(self, ids: Iterable[bytes]) -> None:
        wanted = [id_ for id_ in ids if id_ not in self._inodes]
        if wanted:
            found = rows.load_inodes(self._connection, self.root, wanted)
            self._inodes.update((id_, found.get(id_)) for id_ in wanted)

    def _load_entries(self, keys: Iterable[Key]) -> None:
        wanted = [key for key in keys if key not in self._entries]
        if wanted:
            found = rows.load_entries(self._connection, self.root, wanted)
            self._entries.update((key, found.get(key, NO_ENTRY)) for key in wanted)

    def _load_names(self, ids: Iterable[bytes]) -> None:
        wanted = {id_ for id_ in ids if id_ not in self._names}
        known = [id_ for id_ in wanted if self.inode(id_) is not None and id_ not in self._new_inodes]
        found = rows.load_names(self._connection, self.root, known) if known else {}
        for id_ in wanted:
            names = {key for key in found.get(id_, ()) if not self._written(key)}
            self._names[id_] = names | self._named_here.get(id_, set())

    def _written(self, key: Key) -> bool:
        return key in self._new_entries or key in self._changed_entries

    # ----------------------------------------------------------------------------------------------------- changing

    def put_entry(self, key: Key, inode: bytes | None, rev: int) -> None:
        """Point the entry at the inode, or at nothing. What never was anything gets no tombstone: its folder may be unknown."""
        old = self.entry(key)
        if inode is None and old.rev == 0:
            return
        new = Entry(inode, rev)
        fresh = old.rev == 0 or key in self._new_entries
        if old.inode is not None:
            self._forget_name(old.inode, key)
        if inode is not None:
            self._learn_name(inode, key)
        self._entries[key] = new
        (self._new_entries if fresh else self._changed_entries)[key] = new
        self._written_names[key[0]][key[1]] = inode

    def put_inode(self, row: InodeRow) -> None:
        fresh = self.inode(row.id) is None or row.id in self._new_inodes
        self._inodes[row.id] = row
        (self._new_inodes if fresh else self._changed_inodes)[row.id] = row

    def _forget_name(self, id_: bytes, key: Key) -> None:
        self._named_here[id_].discard(key)
        names = self._names.get(id_)
        if names is not None:
            names.discard(key)

    def _learn_name(self, id_: bytes, key: Key) -> None:
        self._named_here[id_].add(key)
        names = self._names.get(id_)
        if names is not None:
            names.add(key)

    def flush(self) -> None:
        """Write what was changed."""
        space, connection = self.root, self._connection
        rows.write_inodes(connection, space, list(self._new_inodes.values()), list(self._changed_inodes.values()))
        rows.write_entries(connection, space, self._new_entries.items(), self._changed_entries.items())
