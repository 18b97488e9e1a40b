"""The merge: what the person sees after the service's changes arrived. Pure; the rules and their reasons are in sync.md.

Three trees take part: *base* (what the service was known to hold), *service* (what it holds now) and *local*. Each is a
lazy `Side`. An inode that only the service changed takes the service's state, one that only the person changed stays as it
is, however many there are of both: whoever applies the outcome copies the former in bulk. So only inodes are decided here
that both sides have to do with. `find_contacts` finds them from the rows that the service sent, and the fixpoint draws in
what it meets beyond them. Deciding more of them than necessary gives the same result.

The service's side must be a tree (`cache.guards` checks that first). Knows nothing of SQL, drafts, open files or the wire.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

from remote.protocol import Kind

Key = tuple[int, str]
"""An entry: the parent's ino, and the name."""
Names = frozenset[Key]

_NO_NAMES: Names = frozenset()


class MergeImpossible(Exception):
    """The rules led nowhere. It cannot happen with trees that are trees; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a file as far as it is known. A draft that is still written has neither hash: it equals nothing."""

    manifest_id: bytes | None
    size: int
    sha256: bytes | None = None

    def same(self, other: Content) -> bool:
        if self.manifest_id is not None and self.manifest_id == other.manifest_id:
            return True
        return self.sha256 is not None and self.sha256 == other.sha256 and self.size == other.size


@dataclass(frozen=True, slots=True)
class State:
    """An inode on one side. `content` only of files; kind, target and device number never change."""

    kind: Kind
    mode: int = 0o644
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int = 0
    xattrs: Mapping[str, str] = field(default_factory=dict)
    content: Content | None = None
    content_rev: int = 0
    target: str | None = None
    device_number: int | None = None

    @property
    def is_folder(self) -> bool:
        return self.kind is Kind.DIRECTORY

    def same_content(self, other: State | None) -> bool:
        """Whether a person would find the same in both: bytes, or a link's target, or a node's number."""
        if other is None or self.kind is not other.kind:
            return False
        if self.content is not None and other.content is not None:
            return self.content.same(other.content)
        if self.kind is Kind.FILE:
            return False
        return self.target == other.target and self.device_number == other.device_number


class Side(Protocol):
    """One of the three trees. The root is an inode without names that is always there."""

    def names(self, ino: int) -> Names: ...

    def holder(self, key: Key) -> int | None:
        """The inode that this name points at."""

    def state(self, ino: int) -> State | None: ...

    def children(self, ino: int) -> Iterable[tuple[str, int]]:
        """Name and inode of everything in a folder."""


class Fate(Enum):
    """What becomes of the local content of a dirty inode."""

    KEEP = "keep"
    """It stays, and stays to be pushed if it differs from the service's."""
    KEEP_BASE = "keep base"
    """It stays, and so does its base: nobody here saw the service's content, and somebody may yet name that again."""
    SETTLE = "settle"
    """It is the service's already, perhaps in another manifest: nothing to push, nothing changes for a reader."""
    REPLACE = "replace"
    """The service's content takes its place."""
    COPY = "copy"
    """It moves to a conflicted copy, and the service's takes its place."""


@dataclass(frozen=True, slots=True)
class Copy:
    """The content of `source` becomes a new file under `key`, with the attributes that it has locally."""

    source: int
    key: Key


@dataclass(frozen=True, slots=True)
class Merged:
    """The new local state of the inodes that were decided here. All others take the service's.

    `names[ino]` is complete: a local name that is not in it is gone. `fates` is about `states` with content.
    """

    names: Mapping[int, Names]
    states: Mapping[int, State]
    fates: Mapping[int, Fate]
    copies: tuple[Copy, ...]
    rules: Counter[str]
    """How often each rule decided something, for statistics and tests."""


FreeName = Callable[[str, bool, Callable[[str], bool]], str]
"""(name, is a folder, is taken) -> a name for a conflicted copy; see `remote.copynames`."""


@dataclass(frozen=True, slots=True)
class Contacts:
    """Where the changes of the two sides may meet: inodes to decide, and folders to which the service gave a name."""

    inodes: Set[int]
    moved_folders: Set[int]
    keep: Set[int] = frozenset()
    """Files among `inodes` that stay here though the service removed them: the person undid that."""


def find_contacts(
    base: Side,
    service: Side,
    local: Side,
    keys: Iterable[Key],
    inodes: Iterable[int],
    root: int,
    is_dirty: Callable[[int], bool],
) -> Contacts:
    """From the `keys` and `inodes` that the service sent, the inodes that `merge` has to decide.

    `is_dirty`: whether an inode's state or names differ between base and local.
    """
    sent, met, moved, parents = set(inodes), set[int](), set[int](), set[int]()
    for key in keys:
        old, new, here = base.holder(key), service.holder(key), local.holder(key)
        sent.update(ino for ino in (old, new) if ino is not None)
        if here is not None and here != old:
            met.add(here)
        if new is not None:
            parents.add(key[0])
            state = service.state(new)
            if state is not None and state.is_folder:
                moved.add(new)
        if old is not None and old != new:
            met.update(_put_into_removed_folder(base, service, local, old))
    met.update(parent for parent in parents if parent != root and not local.names(parent) and is_dirty(parent))
    met.update(ino for ino in sent if is_dirty(ino))
    return Contacts(met, moved)


def _put_into_removed_folder(base: Side, service: Side, local: Side, folder: int) -> Iterable[int]:
    """What this device put into a folder that the service removed."""
    state = base.state(folder)
    if state is None or not state.is_folder or service.names(folder):
        return ()
    return [child for name, child in local.children(folder) if base.holder((folder, name)) != child]


def merge(base: Side, service: Side, local: Side, contacts: Contacts, root: int, free_name: FreeName) -> Merged:
    """Decide the new local state of whatever both sides have to do with."""
    return _Merge(base, service, local, root, free_name).run(contacts)


class _Merge:
    def __init__(self, base: Side, service: Side, local: Side, root: int, free_name: FreeName) -> None:
        self.base, self.service, self.local = base, service, local
        self.root = root
        self.free_name = free_name
        self.keep: Set[int] = frozenset()
        self.rules: Counter[str] = Counter()
        self.decided: dict[int, set[Key]] = {}  # names of the inodes that are decided here
        self.states: dict[int, State] = {}
        self.fates: dict[int, Fate] = {}
        self.into: dict[int, int] = {}  # folder that was merged -> folder that took its children
        self.unchecked: set[int] = set()  # decided inodes whose parents may be gone
        self.revived: dict[int, None] = {}  # folders that have names only for what lies in them

    def run(self, contacts: Contacts) -> Merged:
        self.keep = contacts.keep
        for ino in sorted(contacts.inodes):
            self.decide(ino)
        for ino in sorted(contacts.inodes):
            self.keep_folder_in_use(ino)
        self.reach_fixpoint(contacts.moved_folders)
        self.let_unused_go()
        copies = self.name_copies()
        return Merged({i: frozenset(names) for i, names in self.decided.items()}, self.states, self.fates, copies, self.rules)

    # ------------------------------------------------------------------------------------------ one inode at a time

    def decide(self, ino: int) -> None:
        if ino not in self.states:
            self.decide_state(ino)
            if ino != self.root:
                self.decided[ino] = self.decide_names(ino)
                self.unchecked.add(ino)

    def decide_state(self, ino: int) -> None:
        base, service, local = self.base.state(ino), self.service.state(ino), self.local.state(ino)
        if local is None or service is None:
            known = local or service
            if known is not None:
                self.states[ino] = known
                self.fates[ino] = Fate.KEEP if local is not None else Fate.REPLACE
            return
        fate = self.decide_content(ino, base, service, local)
        state = service if fate is Fate.COPY else merge_attributes(base, service, local)
        if fate in (Fate.KEEP, Fate.KEEP_BASE):
            state = replace(state, content=local.content)
        self.fates[ino] = fate
        self.states[ino] = replace(state, kind=local.kind)

    def decide_content(self, ino: int, base: State | None, service: State, local: State) -> Fate:
        if service.same_content(local):
            return Fate.SETTLE
        if local.same_content(base):
            return Fate.REPLACE
        if service.same_content(base):
            return Fate.KEEP
        named_here = bool(self.local.names(ino))
        if not self.service.names(ino):
            return Fate.KEEP_BASE if named_here else Fate.REPLACE
        if not named_here:
            return Fate.REPLACE
        self.rules["content conflict"] += 1
        return Fate.COPY

    def decide_names(self, ino: int) -> set[Key]:
        base, service, local = self.base.names(ino), self.service.names(ino), self.local.names(ino)
        removed, added = base - local, local - base
        names = set((service - removed) | added)
        names -= self.moves_to_undo(base, service, local)
        if self.is_folder(ino):
            if len(names) > 1:
                self.rules["folder with two names"] += 1
                names = set(service) or {min(names)}
        elif not names:
            names = self.names_against_deletion(ino, service, local)
        return names

    def moves_to_undo(self, base: Names, service: Names, local: Names) -> set[Key]:
        """Where both sides moved the same name away, the service's move stays and the local one is undone. So it is with each
        name that both gave to what had none."""
        both_removed = len((base - local) & (base - service)) if base else len(service)
        count = min(both_removed, len(service - base))
        undone = set(sorted(local - base - service)[:count])
        self.rules["move undone"] += len(undone)
        return undone

    def names_against_deletion(self, ino: int, service: Names, local: Names) -> set[Key]:
        """Edit beats delete. `ino` would be left without a name."""
        base_state, local_state, service_state = self.base.state(ino), self.local.state(ino), self.service.state(ino)
        if local and ino in self.keep:
            self.rules["deletion undone"] += 1
            return set(local)
        edited_here = local_state is not None and not local_state.same_content(base_state)
        if local and local_state is not None and edited_here and not local_state.same_content(service_state):
            self.rules["local edit beats deletion"] += 1
            return set(local)
        if service and service_state is not None and not service_state.same_content(base_state):
            self.rules["service's edit beats deletion"] += 1
            return set(service)
        if local and service:  # hard links: each side removed another name, and nobody removed the file
            self.rules["both unlinked"] += 1
            return set(service)
        return set()

    # ------------------------------------------------------------------------------------------------- the fixpoint

    def names(self, ino: int) -> Set[Key]:
        """The names of any inode in the result. If it is not decided, one of the two sides left it alone."""
        decided = self.decided.get(ino)
        if decided is not None:
            return decided
        service = self.service.names(ino)
        return self.local.names(ino) if service == self.base.names(ino) else service

    def state(self, ino: int) -> State | None:
        decided = self.states.get(ino)
        if decided is not None:
            return decided
        service, base = self.service.state(ino), self.base.state(ino)
        return self.local.state(ino) if service == base else service

    def is_folder(self, ino: int) -> bool:
        state = self.state(ino)
        return state is not None and state.is_folder

    def keep_folder_in_use(self, ino: int) -> None:
        """A folder that was removed here stays if the service has something in it that stays."""
        if ino == self.root or self.decided[ino] or not self.service.names(ino) or not self.is_folder(ino):
            return
        if any((ino, name) in self.names(child) for name, child in self.service.children(ino)):
            self.revive(ino)

    def reach_fixpoint(self, moved_folders: Set[int]) -> None:
        for _ in range(len(self.decided) * 4 + 1000):
            self.redirect_children()
            self.revive_parents()
            if not self.undo_a_cycle(moved_folders) and not self.separate_names():
                return
        raise MergeImpossible("the changes of this device and of the service cannot be brought together")

    def target(self, folder: int) -> int:
        while folder in self.into:
            folder = self.into[folder]
        return folder

    def redirect_children(self) -> None:
        if not self.into:
            return
        for ino, names in self.decided.items():
            if any(parent in self.into for parent, _ in names):
                self.decided[ino] = {(self.target(parent), name) for parent, name in names}
                self.unchecked.add(ino)

    def revive_parents(self) -> None:
        while self.unchecked:
            ino = self.unchecked.pop()
            for parent, _ in list(self.decided[ino]):
                if parent != self.root and not self.names(parent):
                    self.revive(parent)

    def revive(self, folder: int) -> None:
        known = self.service.names(folder) or self.local.names(folder) or self.base.names(folder)
        if not known:
            raise MergeImpossible("a folder that something lies in never had a name")
        self.decide(folder)
        self.decided[folder] = {min(known)}
        self.unchecked.add(folder)
        self.revived[folder] = None
        self.rules["folder revived"] += 1

    def undo_a_cycle(self, moved_folders: Set[int]) -> bool:
        """Undo one local move that closes a cycle of folders; false if there is none."""
        sound = {self.root}
        for ino in sorted(self.decided.keys() | moved_folders):
            if not self.names(ino) or not self.is_folder(ino):
                continue
            path: dict[int, None] = {}
            folder = ino
            while folder not in sound and folder not in path:
                path[folder] = None
                folder = self.parent(folder)
            if folder in sound:
                sound.update(path)
                continue
            walked = list(path)
            self.undo_move_in(walked[walked.index(folder) :])
            return True
        return False

    def parent(self, folder: int) -> int:
        names = self.names(folder)
        if not names:
            raise MergeImpossible("a folder that something lies in has no name")
        return min(names)[0]

    def undo_move_in(self, cycle: list[int]) -> None:
        for ino in sorted(cycle):  # not as walked: the choice must not depend on where the walk began
            service = self.service.names(ino)
            if service and self.names(ino) != {(self.target(parent), name) for parent, name in service}:
                self.decide(ino)
                self.decided[ino] = {min(service)}
                self.unchecked.add(ino)
                self.rules["cycle undone"] += 1
                return
        raise MergeImpossible("folders lie in each other, and no move of this device is to blame")

    def let_unused_go(self) -> None:
        """A folder that was revived for what an undone move took out of it again stays removed."""
        used = Counter(parent for names in self.decided.values() for parent, _ in names)
        waiting = list(self.revived)
        while waiting:
            folder = waiting.pop()
            if not used[folder] and not self.has_undecided_child(folder):
                for parent, _ in self.decided[folder]:
                    used[parent] -= 1
                    if parent in self.revived:
                        waiting.append(parent)
                self.decided[folder] = set()

    def has_undecided_child(self, folder: int) -> bool:
        children = [*self.service.children(folder), *self.local.children(folder)]
        return any(child not in self.decided and (folder, name) in self.names(child) for name, child in children)

    def separate_names(self) -> bool:
        """Give every name to one inode; false if it was so already."""
        claims: dict[Key, list[int]] = {}
        for ino in sorted(self.decided):
            for key in self.decided[ino]:
                claims.setdefault(key, []).append(ino)
        contested = []
        for key, claimants in claims.items():
            for holder in {self.service.holder(key), self.local.holder(key)}:
                if holder is not None and holder not in self.decided and key in self.names(holder):
                    claimants.append(holder)
            if len(claimants) > 1:
                contested.append(key)
        for key in sorted(contested):
            if key[0] not in self.into:  # else its children are redirected first
                self.settle_claims(key, claims)
        return bool(contested)

    def settle_claims(self, key: Key, claims: dict[Key, list[int]]) -> None:
        claimants = [ino for ino in claims[key] if key in self.names(ino)]
        if len(claimants) < 2:
            return
        holder = self.service.holder(key)
        winner = holder if holder in claimants else min(claimants, key=lambda ino: (not self.service.names(ino), ino))
        winning = self.state(winner)
        for loser in claimants:
            losing = self.state(loser)
            if loser == winner or losing is None or winning is None:
                continue
            self.decide(loser)
            live = bool(self.service.names(loser))
            if losing.is_folder and winning.is_folder and not live:
                self.rules["folders merged"] += 1
                self.into[loser] = winner
                self.decided[loser] = set()
                for _, child in self.local.children(loser):
                    self.decide(child)
            elif not losing.is_folder and not live and losing.same_content(winning):
                self.rules["equal file dropped"] += 1
                self.decided[loser].discard(key)
            else:
                self.rules["renamed"] += 1
                free = self.free_key(key, losing.is_folder, claims)
                self.decided[loser].discard(key)
                self.decided[loser].add(free)
                claims[free] = [loser]

    def free_key(self, key: Key, is_folder: bool, claims: Mapping[Key, object]) -> Key:
        parent = key[0]

        def taken(name: str) -> bool:
            wanted = (parent, name)
            return wanted in claims or any(side.holder(wanted) is not None for side in (self.service, self.local, self.base))

        return parent, self.free_name(key[1], is_folder, taken)

    def name_copies(self) -> tuple[Copy, ...]:
        claims: dict[Key, object] = {key: None for names in self.decided.values() for key in names}
        copies = []
        for ino in sorted(self.decided):
            if self.fates.get(ino) is not Fate.COPY:
                continue
            parent, name = min(self.decided[ino] or self.local.names(ino))
            parent = self.target(parent)
            if parent != self.root and not self.names(parent):
                parent = self.root
            key = self.free_key((parent, name), False, claims)
            claims[key] = None
            copies.append(Copy(ino, key))
        return tuple(copies)


def merge_attributes(base: State | None, service: State, local: State) -> State:
    """Field by field, what was changed here stays, the rest is the service's. Content is the service's."""

    def field_of(name: str) -> object:
        mine = getattr(local, name)
        return mine if base is None or mine != getattr(base, name) else getattr(service, name)

    old = {} if base is None else base.xattrs
    xattrs = dict(service.xattrs)
    for name in old.keys() | local.xattrs.keys():
        if local.xattrs.get(name) != old.get(name):
            xattrs.pop(name, None)
            if name in local.xattrs:
                xattrs[name] = local.xattrs[name]
    return replace(
        service,
        mode=field_of("mode"),  # type: ignore[arg-type]
        uid=field_of("uid"),  # type: ignore[arg-type]
        gid=field_of("gid"),  # type: ignore[arg-type]
        mtime_ns=field_of("mtime_ns"),  # type: ignore[arg-type]
        xattrs=xattrs,
    )
