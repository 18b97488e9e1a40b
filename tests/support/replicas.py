"""A replica in memory: the push, pull and merge of sync.md over dicts, with the real `cache.merge` and `cache.groups`.

It stands for everything that the store does, so that the rules can be tried by the ten thousand.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from cache.groups import GroupPlan, keeps_name, plan_groups
from cache.merge import Contacts, Content, Fate, Key, Merged, Names, State, find_contacts, merge
from remote.copynames import CopyNames
from remote.protocol import Kind
from tests.support.reference_service import NOT_SENT, Outcome, Page, PlainGroup, ReferenceService, Row, RowChange, names_of

ROOT = 1
FIELDS = ("mode", "mtime_ns")


@dataclass
class Tree:
    """One side, as `cache.merge.Side` sees it."""

    entries: dict[Key, int] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names: dict[int, set[Key]] | None = None

    def names(self, ino: int) -> Names:
        if self._names is None:
            self._names = names_of(self.entries)
        return frozenset(self._names.get(ino, ()))

    def changed(self) -> None:
        self._names = None

    def holder(self, key: Key) -> int | None:
        return self.entries.get(key)

    def state(self, ino: int) -> State | None:
        return self.states.get(ino)

    def children(self, ino: int) -> Iterable[tuple[str, int]]:
        return [(key[1], child) for key, child in self.entries.items() if key[0] == ino]

    def is_folder(self, ino: int) -> bool:
        return ino in self.states and self.states[ino].is_folder


def state_of(row: Row) -> State:
    attributes = {name: row.attributes[name] for name in FIELDS if name in row.attributes}
    return State(row.kind, content=row.content, content_rev=row.content_rev, **attributes)


class Replica:
    def __init__(self, device: str, new_ino: object) -> None:
        self.device = device
        self.new_ino = new_ino
        self.base, self.local = Tree(), Tree()
        root = State(Kind.DIRECTORY)
        self.base.states[ROOT] = self.local.states[ROOT] = root
        self.entry_revs: dict[Key, int] = {}
        self.row_revs: dict[int, int] = {ROOT: 0}
        self.staged_entries: dict[Key, tuple[int | None, int]] = {}
        self.staged_rows: dict[int, Row] = {}
        self.listing = False
        self.cursor: int | None = 0
        self.snapshot = 0
        self.caught_up = True
        self.acknowledged = 0
        self.number = 0
        self.outstanding: tuple[int, list[PlainGroup]] | None = None
        self.uploaded: set[bytes] = set()
        self.names = CopyNames(device, "2026-11-20")

    @property
    def root(self) -> int:
        return ROOT

    # -------------------------------------------------------------------------------------------------------- dirty

    def dirty_keys(self) -> list[Key]:
        keys = self.base.entries.keys() | self.local.entries.keys()
        return sorted(key for key in keys if self.base.holder(key) != self.local.holder(key))

    def dirty_inodes(self) -> set[int]:
        dirty = {ino for ino, state in self.local.states.items() if not equal_states(state, self.base.state(ino))}
        for key in self.dirty_keys():
            dirty |= {ino for ino in (self.base.holder(key), self.local.holder(key)) if ino is not None}
        return dirty

    def is_complete(self, ino: int) -> bool:
        content = self.local.states[ino].content
        return content is None or content.manifest_id in self.uploaded

    def is_held(self, key: Key) -> bool:
        return False

    def dirty_keys_in(self, folder: int) -> list[Key]:
        return [key for key in self.dirty_keys() if key[0] == folder]

    def upload(self) -> None:
        """Seal what is written, and bring its bytes to the object store."""
        for ino in set(self.local.entries.values()):
            state = self.local.states[ino]
            if state.content is not None:
                sealed = sealed_content(state.content, self.device)
                self.local.states[ino] = replace(state, content=sealed)
                self.uploaded.add(sealed.manifest_id or b"")

    def waits(self) -> bool:
        """Whether anything local is not on the service yet."""
        self.changed()
        return bool(self.outstanding or self.groups() or self.dirty_keys()) or any(
            not self.local.states[ino].same_content(self.base.state(ino)) for ino in set(self.local.entries.values())
        )

    # --------------------------------------------------------------------------------------------------------- push

    def groups(self) -> list[PlainGroup]:
        self.changed()
        groups = [self.entry_group(plan) for plan in plan_groups(self, self.dirty_keys())]
        for ino in sorted(self.dirty_inodes()):
            if keeps_name(self, ino):
                change = self.row_change(ino)
                if change.attributes or change.content is not NOT_SENT:
                    groups.append(PlainGroup(inodes={ino: change}))
        return groups

    def entry_group(self, plan: GroupPlan) -> PlainGroup:
        group = PlainGroup({step.key: (step.base, step.new) for step in plan.entries}, {}, dict(plan.seen), set(plan.last))
        for ino in plan.full:
            state = self.local.states[ino]
            attributes = {name: getattr(state, name) for name in FIELDS}
            group.inodes[ino] = RowChange(state.kind, attributes, state.content, full=True)
        return group

    def row_change(self, ino: int) -> RowChange:
        state, base = self.local.states[ino], self.base.states[ino]
        attributes = {name: getattr(state, name) for name in FIELDS if getattr(state, name) != getattr(base, name)}
        change = RowChange(state.kind, attributes, base=base.content_rev)
        if not state.same_content(base):
            if self.is_complete(ino):
                change.content = state.content
            else:
                attributes.pop("mtime_ns", None)  # it belongs to a write, and travels with it
        return change

    def start_push(self) -> None:
        groups = [] if self.outstanding else self.groups()
        if groups:
            self.number += 1
            self.outstanding = (self.number, copy.deepcopy(groups))

    def record(self, number: int, outcomes: list[Outcome] | None) -> None:
        """The answer to a commit arrived."""
        if self.outstanding is None or number != self.outstanding[0]:
            return
        assert outcomes is not None, "a commit that is outstanding was refused as stale"
        for group, outcome in zip(self.outstanding[1], outcomes, strict=True):
            if outcome.ok:
                self.acknowledge(group, outcome)
        self.outstanding = None
        self.changed()

    def acknowledge(self, group: PlainGroup, outcome: Outcome) -> None:
        for key, (_, new) in group.entries.items():
            rev = outcome.entries[key]
            if rev >= self.entry_revs.get(key, 0):
                set_entry(self.base, key, new)
                self.entry_revs[key] = rev
            self.acknowledged = max(self.acknowledged, rev)
        for ino, change in group.inodes.items():
            rev, content_rev = outcome.inodes[ino]
            state = replace(self.base.states.get(ino, State(change.kind)), **change.attributes)
            if change.content is not NOT_SENT:
                state = replace(state, content=change.content, content_rev=content_rev)
            self.base.states[ino] = state
            self.row_revs[ino] = rev
            self.acknowledged = max(self.acknowledged, rev)

    # --------------------------------------------------------------------------------------------------------- pull

    def stage(self, page: Page) -> None:
        if page.cursor < (self.cursor or 0):
            return
        if page.full:
            self.staged_entries, self.staged_rows, self.listing = {}, {}, True
        for key, entry in page.entries.items():
            if entry[1] >= self.staged_entries.get(key, (None, 0))[1]:
                self.staged_entries[key] = entry
        for ino, row in page.inodes.items():
            if ino not in self.staged_rows or row.rev >= self.staged_rows[ino].rev:
                self.staged_rows[ino] = row
        self.cursor, self.snapshot, self.caught_up = page.cursor, page.revision, not page.has_more

    def may_merge(self) -> bool:
        ready = self.caught_up and self.outstanding is None and self.snapshot >= self.acknowledged
        return ready and bool(self.staged_entries or self.staged_rows or self.listing)

    def service_tree(self) -> tuple[Tree, dict[Key, int], dict[int, int]]:
        """What the service holds: base and what is staged on top; and the revisions of its rows."""
        tree = Tree({} if self.listing else dict(self.base.entries), dict(self.base.states))
        entry_revs, row_revs = ({} if self.listing else dict(self.entry_revs)), dict(self.row_revs)
        for key, (ino, rev) in self.staged_entries.items():
            if rev >= entry_revs.get(key, 0):
                set_entry(tree, key, ino)
                entry_revs[key] = rev
        for ino, row in self.staged_rows.items():
            if row.rev >= row_revs.get(ino, 0):
                tree.states[ino] = state_of(row)
                row_revs[ino] = row.rev
        return tree, entry_revs, row_revs

    def contacts(self, service: Tree) -> Contacts:
        keys = set(self.staged_entries)
        if self.listing:
            keys |= self.base.entries.keys()
        dirty = self.dirty_inodes()
        return find_contacts(self.base, service, self.local, keys, self.staged_rows, ROOT, dirty.__contains__)

    def all_dirty(self) -> Contacts:
        return Contacts(self.dirty_inodes(), set())

    def everything(self) -> Contacts:
        service = self.service_tree()[0]
        return Contacts({ino for tree in (self.base, service, self.local) for ino in tree.states}, set())

    def merge(self, contacts: Contacts | None = None) -> Merged:
        self.changed()
        service, entry_revs, row_revs = self.service_tree()
        contacts = contacts or self.contacts(service)
        merged = merge(self.base, service, self.local, contacts, ROOT, self.names.free_name)
        self.local = self.result(service, merged)
        for ino, fate in merged.fates.items():
            if fate is Fate.KEEP_BASE:
                old = self.base.states.get(ino, State(Kind.FILE))
                service.states[ino] = replace(service.states[ino], content=old.content, content_rev=old.content_rev)
        self.base, self.entry_revs, self.row_revs = service, entry_revs, row_revs
        self.staged_entries, self.staged_rows, self.listing = {}, {}, False
        return merged

    def result(self, service: Tree, merged: Merged) -> Tree:
        """The new local tree: what was decided; else the service's if the service changed it, and what is here if not."""
        result = Tree({}, dict(self.local.states))
        inodes = {ino for tree in (self.base, service, self.local) for ino in tree.states} | merged.names.keys()
        for ino in inodes:
            unchanged = service.names(ino) == self.base.names(ino)
            names = merged.names.get(ino, self.local.names(ino) if unchanged else service.names(ino))
            for key in names:
                assert key not in result.entries, f"two inodes are called {key}"
                result.entries[key] = ino
        for copied in merged.copies:
            ino = self.new_ino()  # type: ignore[operator]
            assert copied.key not in result.entries, f"two inodes are called {copied.key}"
            result.entries[copied.key] = ino
            result.states[ino] = self.local.states[copied.source]
        for ino, state in service.states.items():
            if state != self.base.states.get(ino):
                result.states[ino] = state
        result.states.update(merged.states)
        assert all(merged.states[ino].content is not None for ino, fate in merged.fates.items() if fate is Fate.COPY)
        return result

    def changed(self) -> None:
        self.base.changed()
        self.local.changed()


def set_entry(tree: Tree, key: Key, ino: int | None) -> None:
    if ino is None:
        tree.entries.pop(key, None)
    else:
        tree.entries[key] = ino
    tree.changed()


def equal_states(mine: State, theirs: State | None) -> bool:
    return theirs is not None and mine.same_content(theirs) and all(getattr(mine, f) == getattr(theirs, f) for f in FIELDS)


def sealed_content(content: Content, device: str) -> Content:
    """The same bytes, hashed. `size` is what tells the contents of these tests apart."""
    if content.manifest_id is not None:
        return content
    sha256 = b"sha %d" % content.size
    return Content(b"manifest %d by %s" % (content.size, device.encode()), content.size, sha256)


def sync(replica: Replica, service: ReferenceService) -> None:
    """Push and pull undisturbed, twice, as a device that is online does."""
    for _ in range(2):
        replica.start_push()
        if replica.outstanding:
            number, groups = replica.outstanding
            replica.record(number, service.commit(replica.device, number, copy.deepcopy(groups)))
        pull(replica, service)


def pull(replica: Replica, service: ReferenceService) -> None:
    for _ in range(200):
        replica.stage(service.feed(replica.cursor, 2))
        if replica.caught_up:
            break
    if replica.may_merge():
        replica.merge()
