"""The commit check: may a group of changes be applied to a tree? Pure: it asks a view, and changes nothing.

This is `group` of the sync protocol (docs/design.md), in its order. The view is the space as the commit's earlier groups left
it; the check lays the group over it, and never looks at more than the rows that the group touches and the folders above.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from typing import Protocol

from remote.protocol import ConflictKind, Group, InodeChange, Kind
from remote.server.database.tree import Entry, InodeRow, Key


class View(Protocol):
    @property
    def root(self) -> bytes: ...

    @property
    def prefix(self) -> str: ...

    def entry(self, key: Key) -> Entry: ...

    def inode(self, id_: bytes) -> InodeRow | None: ...

    def names(self, id_: bytes) -> Set[Key]: ...

    def has_child_besides(self, folder: bytes, names: Collection[str]) -> bool: ...


@dataclass(frozen=True, slots=True)
class NewContent:
    """A content that a group brings, decoded."""

    manifest_id: bytes
    body: bytes
    size: int
    sha256: bytes | None
    objects: Mapping[bytes, int]
    """The objects that it is made of, with their stored lengths."""

    def equals(self, row: InodeRow) -> bool:
        """Whether the inode holds these bytes already, by the manifest or by the sum of the whole."""
        if row.manifest_id == self.manifest_id:
            return True
        return self.sha256 is not None and row.sha256 == self.sha256


@dataclass(frozen=True, slots=True)
class PreparedGroup:
    """A group with what can be found out about it without the tree."""

    group: Group
    changes: Mapping[Key, bytes | None]
    inodes: Mapping[bytes, InodeChange]
    contents: Mapping[bytes, NewContent]
    refusal: str | None
    """Why it can never be right."""


def is_as_asked(prepared: PreparedGroup, view: View) -> bool:
    """Whether every entry and every sent field is as the group wants it: then it is accepted as a whole, without a revision."""
    if any(view.entry(key).inode != inode for key, inode in prepared.changes.items()):
        return False
    return all(_row_is_as_asked(change, prepared, view.inode(id_)) for id_, change in prepared.inodes.items())


def _row_is_as_asked(change: InodeChange, prepared: PreparedGroup, row: InodeRow | None) -> bool:
    if row is None:
        return False
    full = change.full
    if full is not None and (full.kind, full.target, full.device_number) != (row.kind, row.target, row.device_number):
        return False
    content = prepared.contents.get(change.id)
    if content is not None and not content.equals(row):
        return False
    return not change.attributes.model_fields_set or row.attributes.changed(change.attributes) == row.attributes


class Check:
    """One group against one view. `run` gives the conflict, if there is one."""

    def __init__(self, prepared: PreparedGroup, view: View, rooted: Set[bytes]) -> None:
        """`rooted`: folders of the view that are known to hang on the root."""
        self._group = prepared
        self._view = view
        self._rooted = rooted
        self._walked: set[bytes] = set()
        self._lost: defaultdict[bytes, set[Key]] = defaultdict(set)
        self.gained: defaultdict[bytes, set[Key]] = defaultdict(set)
        """Inodes that get a name, and where."""

    def run(self) -> ConflictKind | None:
        return self._entries() or self._rows() or self._names() or self._parents()

    def update_rooted(self, rooted: set[bytes]) -> None:
        """Make `rooted` true again, now that the group is applied."""
        if self._moves_folders():
            rooted.clear()
        rooted |= self._walked

    def named_anew(self) -> set[bytes]:
        """Known inodes that had no name before, and have one now."""
        return {id_ for id_ in self.gained if not self._view.names(id_) and self._view.inode(id_) is not None}

    def names_after(self, id_: bytes) -> Set[Key]:
        """The names that the inode has when the group is applied."""
        names = self._view.names(id_)
        if id_ not in self._lost and id_ not in self.gained:
            return names
        return (names - self._lost.get(id_, set())) | self.gained.get(id_, set())

    def touched(self) -> Set[bytes]:
        """Inodes that get or lose a name."""
        return self._lost.keys() | self.gained.keys()

    def _entries(self) -> ConflictKind | None:
        for change in self._group.group.entries:
            key = (change.parent, change.name)
            if self._view.entry(key).inode != change.base:
                return ConflictKind.ENTRY
            if change.base is not None:
                self._lost[change.base].add(key)
            if change.inode is not None:
                self.gained[change.inode].add(key)
        return None

    def _rows(self) -> ConflictKind | None:
        for id_, change in self._group.inodes.items():
            row = self._view.inode(id_)
            if row is None:
                if change.full is None:
                    return ConflictKind.UNKNOWN
            elif self._view.names(id_):
                if change.full is not None:
                    return ConflictKind.ALREADY_NAMED
                content = self._group.contents.get(id_)
                if content is not None and not content.equals(row) and change.content and row.content_rev != change.content.base:
                    return ConflictKind.CONTENT
        return None

    def _names(self) -> ConflictKind | None:
        seen = {row.inode: row.content_rev for row in self._group.group.seen}
        last = set(self._group.group.last)
        for id_ in dict.fromkeys((*self._lost, *self.gained, *self._group.inodes)):
            kind = self._kind(id_)
            if kind is None:
                return ConflictKind.UNKNOWN
            names = self.names_after(id_)
            if not names:
                conflict = self._nameless(id_, kind, seen, last)
                if conflict is not None:
                    return conflict
            elif kind is Kind.DIRECTORY and len(names) > 1:
                return ConflictKind.TWO_NAMES
        return None

    def _nameless(self, id_: bytes, kind: Kind, seen: Mapping[bytes, int], last: Set[bytes]) -> ConflictKind | None:
        if id_ in self._group.inodes:
            return ConflictKind.TRASHED
        if kind is Kind.DIRECTORY:
            return ConflictKind.NOT_EMPTY if self._has_child(id_) else None
        if id_ not in last:
            return ConflictKind.LAST_NAME
        row = self._view.inode(id_)
        return ConflictKind.EDITED if row is not None and row.content_rev > seen.get(id_, 0) else None

    def _parents(self) -> ConflictKind | None:
        for (parent, _), inode in self._group.changes.items():
            if inode is not None:
                conflict = self._walk(parent, inode)
                if conflict is not None:
                    return conflict
        return None

    def _walk(self, parent: bytes, inode: bytes) -> ConflictKind | None:
        """From a new entry to the root: each a named folder, and none of them twice (as when the entry's own inode is met).

        For what is no folder the walk may end where an earlier group's did: if this group moved a folder on the way, then the
        walk from that folder's new entry sees it; and a folder cannot lose its name while something is put into it.
        """
        may_stop_early = self._kind(inode) is not Kind.DIRECTORY
        folder, met = parent, set[bytes]()
        while folder != self._view.root:
            if folder in met:
                return ConflictKind.CYCLE
            if may_stop_early and folder in self._rooted:
                break
            met.add(folder)
            names = self.names_after(folder)
            if self._kind(folder) is not Kind.DIRECTORY or not names:
                return ConflictKind.NO_PARENT
            folder = next(iter(names))[0]
        self._walked |= met
        return None

    def _moves_folders(self) -> bool:
        """Whether a folder that the space knows loses a name."""
        return any(self._kind(id_) is Kind.DIRECTORY for id_ in self._lost)

    def _kind(self, id_: bytes) -> Kind | None:
        row = self._view.inode(id_)
        if row is not None:
            return row.kind
        change = self._group.inodes.get(id_)
        return change.full.kind if change is not None and change.full is not None else None

    def _has_child(self, folder: bytes) -> bool:
        here = {name: inode for (parent, name), inode in self._group.changes.items() if parent == folder}
        return any(inode is not None for inode in here.values()) or self._view.has_child_besides(folder, here.keys())
