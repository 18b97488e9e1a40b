"""The commit check and the feed of sync.md, as plainly as they can be written: one space in memory.

Ids are whatever the test uses (any hashable), contents are opaque. `watch` sees what a commit does to contents, so that a
test can state its invariants where they would be broken.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from remote.protocol import ConflictKind, Kind

Id = Hashable
Key = tuple[Id, str]


class Sent(Enum):
    NO = "no"


NOT_SENT = Sent.NO
"""In place of a content that a change does not send. (An enum, because it survives copying.)"""


@dataclass
class Row:
    kind: Kind
    attributes: dict[str, Any]
    content: Any
    content_rev: int
    rev: int


@dataclass
class RowChange:
    kind: Kind
    attributes: dict[str, Any]
    content: Any = NOT_SENT
    full: bool = False
    base: int = 0


@dataclass
class PlainGroup:
    entries: dict[Key, tuple[Id | None, Id | None]] = field(default_factory=dict)
    inodes: dict[Id, RowChange] = field(default_factory=dict)
    seen: dict[Id, int] = field(default_factory=dict)
    last: set[Id] = field(default_factory=set)


@dataclass
class Outcome:
    conflict: ConflictKind | None = None
    entries: dict[Key, int] = field(default_factory=dict)
    inodes: dict[Id, tuple[int, int]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.conflict is None


@dataclass
class Page:
    full: bool
    entries: dict[Key, tuple[Id | None, int]]
    inodes: dict[Id, Row]
    cursor: int
    revision: int
    has_more: bool


class Watch:
    """Nothing by default; a test overrides what it wants to see."""

    def overwritten(self, device: Id, ino: Id, old: Any, new: Any) -> None: ...
    def lost_last_name(self, device: Id, ino: Id, row: Row) -> None: ...
    def revived(self, device: Id, ino: Id, row: Row) -> None: ...


class Invalid(AssertionError):
    """The service's own tree broke: the check let something through."""


class _Conflict(Exception):
    def __init__(self, kind: ConflictKind) -> None:
        self.kind = kind


class Overlay:
    """The entries as a group would leave them."""

    def __init__(self, service: ReferenceService, changes: Mapping[Key, Id | None]) -> None:
        self.service = service
        self.changes = changes

    def names(self, ino: Id) -> set[Key]:
        stay = {key for key in self.service.names(ino) if key not in self.changes}
        return stay | {key for key, new in self.changes.items() if new == ino}

    def has_child(self, folder: Id) -> bool:
        changed = any(key[0] == folder and new is not None for key, new in self.changes.items())
        return changed or any(
            key[0] == folder and ino is not None and key not in self.changes for key, (ino, _) in self.service.entries.items()
        )


class ReferenceService:
    def __init__(self, root: Id, watch: Watch | None = None) -> None:
        self.root = root
        self.watch = watch or Watch()
        self.rows: dict[Id, Row] = {root: Row(Kind.DIRECTORY, {}, None, 0, 0)}
        self.entries: dict[Key, tuple[Id | None, int]] = {}
        self.revision = 0
        self.horizon = 0
        self.last: dict[tuple[Id, Id], tuple[int, list[Outcome]]] = {}
        self.contents: dict[Id, list[Any]] = {}  # every content that an inode ever had
        self.named: dict[Id, set[Key]] = {}  # the names of each inode, kept beside `entries`

    # ------------------------------------------------------------------------------------------------------ commit

    def commit(self, device: Id, number: int, groups: Iterable[PlainGroup], replica: Id = None) -> list[Outcome] | None:
        """The outcome of each group; None: refused, the number is an old one. Each replica of a device counts for itself."""
        recorded, outcome = self.last.get((device, replica), (0, []))
        if number < recorded:
            return None
        if number > recorded:
            outcome = [self.apply(device, group) for group in groups]
            self.last[device, replica] = (number, outcome)
            self.check()
        return copy.deepcopy(outcome)

    def apply(self, device: Id, group: PlainGroup) -> Outcome:
        if not self.is_as_asked(group):
            try:
                overlay, touched = self.check_entries(group)
                self.check_rows(group)
                self.check_names(group, overlay, touched)
                self.check_parents(group, overlay)
            except _Conflict as conflict:
                return Outcome(conflict.kind)
            self.write(device, group, touched)
        return Outcome(
            None,
            {key: self.entries.get(key, (None, 0))[1] for key in group.entries},
            {ino: (self.rows[ino].rev, self.rows[ino].content_rev) for ino in group.inodes},
        )

    def is_as_asked(self, group: PlainGroup) -> bool:
        if any(self.holder(key) != new for key, (_, new) in group.entries.items()):
            return False
        for ino, change in group.inodes.items():
            row = self.rows.get(ino)
            if row is None or (change.content is not NOT_SENT and row.content != change.content):
                return False
            if any(row.attributes.get(name) != value for name, value in change.attributes.items()):
                return False
        return True

    def check_entries(self, group: PlainGroup) -> tuple[Overlay, set[Id]]:
        touched: set[Id] = set()
        for key, (base, new) in group.entries.items():
            if self.holder(key) != base:
                raise _Conflict(ConflictKind.ENTRY)
            touched |= {ino for ino in (base, new) if ino is not None}
        return Overlay(self, {key: new for key, (_, new) in group.entries.items()}), touched

    def check_rows(self, group: PlainGroup) -> None:
        for ino, change in group.inodes.items():
            row = self.rows.get(ino)
            if row is None:
                if not change.full:
                    raise _Conflict(ConflictKind.UNKNOWN)
            elif ino == self.root or self.names(ino):
                if change.full:
                    raise _Conflict(ConflictKind.ALREADY_NAMED)
                if change.content is not NOT_SENT and change.content != row.content and change.base != row.content_rev:
                    raise _Conflict(ConflictKind.CONTENT)

    def check_names(self, group: PlainGroup, overlay: Overlay, touched: set[Id]) -> None:
        for ino in touched | group.inodes.keys():
            kind, names = self.kind(ino, group), overlay.names(ino)
            if kind is None:
                raise _Conflict(ConflictKind.UNKNOWN)
            if ino == self.root:
                continue
            if names:
                if kind is Kind.DIRECTORY and len(names) > 1:
                    raise _Conflict(ConflictKind.TWO_NAMES)
            elif ino in group.inodes:
                raise _Conflict(ConflictKind.TRASHED)
            elif kind is Kind.DIRECTORY:
                if overlay.has_child(ino):
                    raise _Conflict(ConflictKind.NOT_EMPTY)
            elif ino not in group.last:
                raise _Conflict(ConflictKind.LAST_NAME)
            elif self.rows[ino].content_rev > group.seen.get(ino, -1):
                raise _Conflict(ConflictKind.EDITED)

    def check_parents(self, group: PlainGroup, overlay: Overlay) -> None:
        for (parent, _), (_, new) in group.entries.items():
            if new is None:
                continue
            walked: set[Id] = set()
            while parent != self.root:
                if self.kind(parent, group) is not Kind.DIRECTORY or not overlay.names(parent):
                    raise _Conflict(ConflictKind.NO_PARENT)
                if parent == new or parent in walked:
                    raise _Conflict(ConflictKind.CYCLE)
                walked.add(parent)
                parent = min(overlay.names(parent), key=repr)[0]

    def write(self, device: Id, group: PlainGroup, touched: set[Id]) -> None:
        named_before = {ino for ino in touched | group.inodes.keys() if self.names(ino)}
        known_before = set(self.rows)
        self.revision += 1
        for key, (_, new) in group.entries.items():
            self.put(key, new)
        for ino, change in group.inodes.items():
            self.write_row(device, ino, change, ino in named_before)
        for ino in touched & known_before:
            if ino in named_before and not self.names(ino):
                self.watch.lost_last_name(device, ino, self.rows[ino])
            elif ino not in named_before and self.names(ino):
                self.rows[ino].rev = self.revision  # devices may have forgotten it: the feed says again what it is
                self.watch.revived(device, ino, self.rows[ino])

    def write_row(self, device: Id, ino: Id, change: RowChange, named: bool) -> None:
        row = self.rows.get(ino)
        if row is None:
            content = None if change.content is NOT_SENT else change.content
            self.rows[ino] = Row(change.kind, dict(change.attributes), content, self.revision, self.revision)
            self.contents.setdefault(ino, []).append(content)
            return
        row.attributes.update(change.attributes)
        row.rev = self.revision
        if change.content is not NOT_SENT and change.content != row.content:
            if named:
                self.watch.overwritten(device, ino, row.content, change.content)
            row.content, row.content_rev = change.content, self.revision
            self.contents.setdefault(ino, []).append(change.content)

    # -------------------------------------------------------------------------------------------------------- feed

    def feed(self, cursor: int | None, limit: int) -> Page:
        """At most `limit` revisions after `cursor`; everything that is live if it is None or older than the tombstones."""
        if cursor is None or cursor < self.horizon:
            live = {key: entry for key, entry in self.entries.items() if entry[0] is not None}
            rows = {ino: row for ino, row in self.rows.items() if ino == self.root or self.names(ino)}
            return Page(True, live, copy.deepcopy(rows), self.revision, self.revision, False)
        revisions = sorted(
            {rev for _, rev in self.entries.values() if rev > cursor} | {r.rev for r in self.rows.values() if r.rev > cursor}
        )
        taken, has_more = set(revisions[:limit]), len(revisions) > limit
        return Page(
            False,
            {key: entry for key, entry in self.entries.items() if entry[1] in taken},
            copy.deepcopy({ino: row for ino, row in self.rows.items() if row.rev in taken}),
            max(taken) if has_more else self.revision,
            self.revision,
            has_more,
        )

    def collect(self) -> None:
        """Forget tombstones and nameless inodes; devices that are behind have to list again."""
        self.entries = {key: entry for key, entry in self.entries.items() if entry[0] is not None}
        self.rows = {ino: row for ino, row in self.rows.items() if ino == self.root or self.names(ino)}
        self.horizon = self.revision

    # -------------------------------------------------------------------------------------------------------- state

    def holder(self, key: Key) -> Id | None:
        return self.entries.get(key, (None, 0))[0]

    def names(self, ino: Id) -> set[Key]:
        return self.named.get(ino, set())

    def put(self, key: Key, ino: Id | None) -> None:
        old = self.holder(key)
        if old is not None:
            self.named[old].discard(key)
        if ino is not None:
            self.named.setdefault(ino, set()).add(key)
        self.entries[key] = (ino, self.revision)

    def kind(self, ino: Id, group: PlainGroup) -> Kind | None:
        if ino in self.rows:
            return self.rows[ino].kind
        return group.inodes[ino].kind if ino in group.inodes else None

    def check(self) -> None:
        check_tree({key: ino for key, (ino, _) in self.entries.items() if ino is not None}, self.is_folder, self.root)

    def is_folder(self, ino: Id) -> bool:
        return ino in self.rows and self.rows[ino].kind is Kind.DIRECTORY


def names_of(entries: Mapping[Any, Any]) -> dict[Any, set[Any]]:
    names: dict[Any, set[Any]] = {}
    for key, ino in entries.items():
        if ino is not None:
            names.setdefault(ino, set()).add(key)
    return names


def check_tree(entries: Mapping[Any, Any], is_folder: Any, root: Any) -> None:
    """Raise `Invalid` unless every entry is reached from the root by folders with one name each."""
    names = names_of(entries)
    sound = {root}
    for key, ino in entries.items():
        if is_folder(ino) and len(names[ino]) != 1:
            raise Invalid(f"the folder {ino!r} has {len(names[ino])} names")
        walked: list[Any] = []
        folder = key[0]
        while folder not in sound:
            if folder in walked or not is_folder(folder) or len(names.get(folder, ())) != 1:
                raise Invalid(f"{key!r} is not reached from the root")
            walked.append(folder)
            folder = next(iter(names[folder]))[0]
        sound.update(walked)
