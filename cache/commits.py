"""What the next commit says: groups of local changes as the wire wants them. Reads rows, writes none.

Which changes belong together is `cache.groups`'s; here the groups get their rows and contents, as many as fit into one commit.
Knows nothing of sending.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import chain, takewhile
from typing import Any

from cache.clock import Clock
from cache.groups import GroupPlan, keeps_name, plan_groups
from cache.guards import Breaker, Direction, Minutes
from cache.merge import Content, Key
from cache.store.content import ContentStore
from cache.store.sides import CompleteContent, LocalChanges
from cache.store.sync import SpaceRow, SyncStore
from cache.store.tree import BaseRow, InodeRow, TreeStore, decode_xattrs, encode_xattrs
from remote.protocol import (
    Attributes,
    CommitRequest,
    ContentChange,
    EntryChange,
    FullRow,
    Group,
    InodeChange,
    Kind,
    SeenContent,
)

GROUPS_MAX = 1000
BYTES_MAX = 4 * 2**20
SECONDS_MAX = 0.01
"""Building happens on the loop: after so long the commit is as big as it gets."""
LOOKS_MIN = 100
"""Changes that are looked at however long it takes: on a busy machine the clock goes on while this process waits for its turn,
and commits of a few changes each would make it busier still."""
_SLICE = 250
_START: Key = (0, "")


@dataclass(frozen=True, slots=True)
class Made:
    """By which replica a commit is made, in which epoch, and the newest revision of the space that is known here."""

    replica: bytes
    epoch: str
    known: int


@dataclass(slots=True)
class Commit:
    """A commit that is not stored yet."""

    groups: list[Group] = field(default_factory=list)
    contents: list[tuple[int, CompleteContent]] = field(default_factory=list)
    settled: list[tuple[int, CompleteContent]] = field(default_factory=list)
    """Contents that were written here, and that the service has already: nothing needs to be sent."""
    missing_manifests: Mapping[int, bytes] = field(default_factory=dict)
    unfinished: bool = False
    """There was no time to look at all changes, and those not looked at may be worth it."""
    size: int = 0

    def request(self, number: int, made: Made) -> CommitRequest:
        return CommitRequest.model_construct(
            number=number, replica=made.replica, epoch=made.epoch, known=made.known, groups=self.groups
        )


@dataclass(slots=True)
class Held:
    """What is not to be sent for now, because the service refused it. Seconds of the loop's clock."""

    names: dict[Key, float] = field(default_factory=dict)
    inodes: dict[int, float] = field(default_factory=dict)

    def expire(self, now: float) -> None:
        self.names = {key: until for key, until in self.names.items() if until > now}
        self.inodes = {ino: until for ino, until in self.inodes.items() if until > now}

    def until(self) -> float | None:
        return min(chain(self.names.values(), self.inodes.values()), default=None)


class CommitBuilder:
    def __init__(self, store: SyncStore, tree: TreeStore, contents: ContentStore, clock: Clock) -> None:
        self._store = store
        self._tree = tree
        self._contents = contents
        self._clock = clock
        self._minutes = Minutes(clock)
        self._entries_after: dict[int, Key] = {}
        self._inodes_after: dict[int, int] = {}
        self._name_rounds = self._inode_rounds = 0

    def build(self, space: SpaceRow, held: Held, groups_max: int = GROUPS_MAX) -> Commit:
        """The next commit of a space; without groups if there is nothing to send."""
        held_removals = self._deletions_not_admitted(space.number)
        changes = LocalChanges(self._tree, self._contents, space.root, held.names.keys(), held_removals)
        commit = Commit()
        deadline, looks = self._clock.monotonic() + SECONDS_MAX, 0
        rows = _Rows(self._tree, self._contents, changes)

        def is_full() -> bool:
            nonlocal looks
            looks += 1
            full = len(commit.groups) >= groups_max or commit.size >= BYTES_MAX
            if not full and looks > LOOKS_MIN and self._clock.monotonic() > deadline:
                commit.unfinished = full = True
            return full

        for plan in plan_groups(changes, self._seeds(space.number, held_removals, is_full)):
            rows.add_plan(commit, plan)
            if is_full():
                break
        deadline, looks = self._clock.monotonic() + SECONDS_MAX, 0  # inodes get their turn however many names wait
        for ino in self._inodes(space.number, is_full):
            if ino not in held.inodes and keeps_name(changes, ino):
                rows.add_change(commit, ino)
            if is_full():
                break
        commit.missing_manifests = changes.missing_manifests
        self._end_fruitless_rounds(commit)
        return commit

    def _end_fruitless_rounds(self, commit: Commit) -> None:
        """Changes that wait for the person, or for bytes, must not be looked at for ever."""
        if commit.groups or not commit.unfinished:
            self.start_over()
        elif min(self._name_rounds, self._inode_rounds) >= 2:
            self.start_over()
            commit.unfinished = False

    def start_over(self) -> None:
        """Something changed: it may stand where the search has been already, so a whole round is due again."""
        self._name_rounds = self._inode_rounds = 0

    def breaker(self, space: int) -> Breaker:
        return Breaker(self._store.database, space, Direction.PUSH, self._minutes)

    def _deletions_not_admitted(self, space: int) -> frozenset[int]:
        gone = self._store.files_to_disappear(space)
        return self.breaker(space).admit(gone, lambda: self._store.count_files(space))

    def _seeds(self, space: int, held_removals: Set[int], is_full: Callable[[], bool]) -> Iterator[Key]:
        """Names to look at, going round: each call goes on where the last one had no time to."""
        began = after = self._entries_after.get(space, _START)
        passes = 1 if began == _START else 2
        while passes and not is_full():
            keys, end = self._store.ready_entries(space, after, _SLICE, held_removals)
            for key in keys:
                yield key
                self._entries_after[space] = key
                if is_full():
                    return
            if end is None:
                passes -= 1
                self._name_rounds += 1
            after = self._entries_after[space] = end or _START

    def _inodes(self, space: int, is_full: Callable[[], bool]) -> Iterator[int]:
        """Inodes to look at, going round like the names, but none twice: a commit says of each content once what it is."""
        began = self._inodes_after.get(space, 0)
        yield from self._inodes_from(space, began, is_full)
        if began and not is_full():
            yield from takewhile(lambda ino: ino <= began, self._inodes_from(space, 0, is_full))

    def _inodes_from(self, space: int, after: int, is_full: Callable[[], bool]) -> Iterator[int]:
        while not is_full():
            inodes, end = self._store.ready_inodes(space, after, _SLICE)
            for ino in inodes:
                self._inodes_after[space] = ino  # whoever has no time for all of a slice goes on in its middle
                yield ino
            self._inodes_after[space] = after = end or 0
            if end is None:
                self._inode_rounds += 1
                return


class _Rows:
    """Turns rows into changes on the wire."""

    def __init__(self, tree: TreeStore, contents: ContentStore, changes: LocalChanges) -> None:
        self._tree = tree
        self._contents = contents
        self._changes = changes

    def add_plan(self, commit: Commit, plan: GroupPlan) -> None:
        id_of = self._tree.id_of
        entries = [
            EntryChange.model_construct(
                parent=id_of(step.key[0]),
                name=step.key[1],
                base=None if step.base is None else id_of(step.base),
                inode=None if step.new is None else id_of(step.new),
            )
            for step in plan.entries
        ]
        inodes = [self._full(commit, ino) for ino in plan.full]
        seen = [SeenContent.model_construct(inode=id_of(ino), content_rev=rev) for ino, rev in plan.seen]
        last = [id_of(ino) for ino in plan.last]
        commit.groups.append(Group.model_construct(entries=entries, inodes=inodes, seen=seen, last=last))
        commit.size += 300 * len(entries)

    def add_change(self, commit: Commit, ino: int) -> None:
        """Attributes and content of an inode that keeps its name, if they differ."""
        row, base = self._tree.inode(ino), self._tree.base_inode(ino)
        if row is None or base is None:
            return
        fields: dict[str, Any] = {}
        attributes = attributes_of(row).change_from(attributes_of(base))
        content = self._changes.complete_content(ino) if row.kind is Kind.FILE else None
        if content is not None and content.content().same(Content(base.manifest_id, base.manifest_size, base.sha256)):
            if content.draft is not None:
                commit.settled.append((ino, content))
        elif content is not None and self._changes.is_complete(ino):
            fields["content"] = self._content(commit, ino, content, row.content_rev)
        if "content" not in fields and row.kind is Kind.FILE and self._contents.has_drafts(ino):
            attributes = _without_mtime(attributes)  # it belongs to a write, and travels with it
        if attributes.model_fields_set:
            fields["attributes"] = attributes
        if fields:
            change = InodeChange.model_construct(id=self._tree.id_of(ino), **fields)
            commit.groups.append(Group.model_construct(inodes=[change]))
            commit.size += 300

    def _full(self, commit: Commit, ino: int) -> InodeChange:
        row = self._tree.inode(ino)
        assert row is not None, "an entry points at an inode that is not here"
        full: dict[str, Any] = {"kind": row.kind}
        if row.target is not None:
            full["target"] = row.target
        if row.device_number is not None:
            full["device_number"] = row.device_number
        fields: dict[str, Any] = {"full": FullRow.model_construct(**full), "attributes": attributes_of(row)}
        content = self._changes.complete_content(ino) if row.kind is Kind.FILE else None
        if content is not None:
            fields["content"] = self._content(commit, ino, content, 0)
        return InodeChange.model_construct(id=self._tree.id_of(ino), **fields)

    def _content(self, commit: Commit, ino: int, content: CompleteContent, base: int) -> ContentChange:
        manifest = self._contents.manifest(content.manifest_id)
        assert manifest is not None, "the manifest of a complete content is not here"
        commit.contents.append((ino, content))
        commit.size += len(manifest) * 4 // 3
        return ContentChange.model_construct(manifest=manifest, sha256=content.sha256, base=base)


def encoded(request: CommitRequest) -> bytes:
    """As it is sent, and kept until it is answered."""
    return request.model_dump_json(exclude_unset=True).encode()


def attributes_of(row: InodeRow | BaseRow) -> Attributes:
    xattrs = decode_xattrs(row.xattrs)
    return Attributes.model_construct(mode=row.mode, uid=row.uid, gid=row.gid, mtime_ns=row.mtime_ns, xattrs=xattrs)


def _without_mtime(attributes: Attributes) -> Attributes:
    kept = {name: getattr(attributes, name) for name in attributes.model_fields_set if name != "mtime_ns"}
    return Attributes.model_construct(**kept)


def base_after(base: BaseRow | None, change: InodeChange, sent: CompleteContent | None) -> BaseRow:
    """The base of an inode once the service accepted `change`: what was sent, and nothing else."""
    attributes = change.attributes
    if base is not None:
        attributes = attributes_of(base).changed(change.attributes)
    if sent is not None:
        content: tuple[bytes | None, int, bytes | None] = (sent.manifest_id, sent.size, sent.sha256)
    elif base is not None:
        content = (base.manifest_id, base.manifest_size, base.sha256)
    else:
        content = (None, 0, None)
    return BaseRow(attributes.mode, attributes.uid, attributes.gid, attributes.mtime_ns, _encoded(attributes), *content)


def _encoded(attributes: Attributes) -> str | None:
    return encode_xattrs({name: value for name, value in attributes.xattrs.items() if value is not None})
