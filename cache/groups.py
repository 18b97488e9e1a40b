"""Which local changes go to the service together, and in which order. Pure; the rules and their reasons are in sync.md.

Dirty entries that share an inode are one component. A component depends on another if the service would refuse it before
the other: its parent is new, it moves a folder below one that moves too, or it removes a folder that the other empties.
Components that depend on each other in a circle become one group. Groups come out after those that they depend on, one
by one and only as far as they are asked for, so that a thousand of a hundred thousand changes cost a thousand.

Knows nothing of SQL, the wire, or how big a commit may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from cache.merge import Key, Side
from remote.protocol import Kind


class Pending(Protocol):
    """The local changes, as a lazy view."""

    @property
    def base(self) -> Side: ...

    @property
    def local(self) -> Side: ...

    @property
    def root(self) -> int: ...

    def is_complete(self, ino: int) -> bool:
        """Whether the service holds all bytes of this new file, so that it may be told of the file."""

    def is_held(self, key: Key) -> bool:
        """Whether the service must not be told of this entry now: a guard stands in the way, or it was refused."""

    def dirty_keys_in(self, folder: int) -> Iterable[Key]:
        """The entries of a folder that differ between base and local."""


@dataclass(frozen=True, slots=True)
class EntryStep:
    key: Key
    base: int | None
    new: int | None


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """Entries that change together. `full`: inodes that the service does not have, or has no name for. `seen`: the content
    revision that the person saw of each inode that loses a name here; `last`: those of them that have none left."""

    entries: tuple[EntryStep, ...]
    full: tuple[int, ...]
    seen: tuple[tuple[int, int], ...]
    last: tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Component:
    keys: list[Key]
    held: bool = False
    index: int = -1
    low: int = -1
    on_stack: bool = False
    needs: list[_Component] = field(default_factory=list)


def keeps_name(pending: Pending, ino: int) -> bool:
    """Whether content and attributes of `ino` are a group of their own: it has a name on the service, and one here."""
    if pending.base.state(ino) is None:
        return False
    return ino == pending.root or bool(pending.local.names(ino) and pending.base.names(ino))


def plan_groups(pending: Pending, seeds: Iterable[Key]) -> Iterator[GroupPlan]:
    """Groups of the dirty entries in `seeds`, with whatever belongs to them or has to go before them; none twice.

    Groups that wait for the bytes of a new file are left out, and with them those that depend on them.
    """
    return _Planner(pending).plan(seeds)


class _Planner:
    """Tarjan's algorithm for strongly connected components, on components that are found as they are needed. It completes
    a circle only after everything that it depends on, which is the order that is wanted here."""

    def __init__(self, pending: Pending) -> None:
        self.pending = pending
        self.base, self.local, self.root = pending.base, pending.local, pending.root
        self.component_of: dict[Key, _Component] = {}
        self.owners: dict[int, Key | None] = {}
        self.stack: list[_Component] = []
        self.count = 0

    def plan(self, seeds: Iterable[Key]) -> Iterator[GroupPlan]:
        for seed in seeds:
            if self.base.holder(seed) == self.local.holder(seed):
                continue
            start = self.component(seed)
            if start.index < 0:
                yield from self.visit(start)

    def visit(self, start: _Component) -> Iterator[GroupPlan]:
        path = [(start, self.enter(start))]
        while path:
            component, needs = path[-1]
            for needed in needs:
                if needed.index < 0:
                    path.append((needed, self.enter(needed)))
                    break
                if needed.on_stack:
                    component.low = min(component.low, needed.index)
            else:
                path.pop()
                if path:
                    path[-1][0].low = min(path[-1][0].low, component.low)
                if component.low == component.index:
                    members = self.leave(component)
                    if not component.held:
                        yield self.group(members)

    def enter(self, component: _Component) -> Iterator[_Component]:
        component.index = component.low = self.count
        component.on_stack = True
        self.count += 1
        self.stack.append(component)
        return self.find_needs(component)

    def leave(self, component: _Component) -> list[_Component]:
        """Take the circle that `component` is the entrance of off the stack; held if anything in or before it is held."""
        members: list[_Component] = []
        while not members or members[-1] is not component:
            members.append(self.stack.pop())
        held = any(member.held or any(needed.held for needed in member.needs) for member in members)
        for member in members:
            member.on_stack = False
            member.held = held
        return members

    # -------------------------------------------------------------------------------------------------- components

    def component(self, key: Key) -> _Component:
        known = self.component_of.get(key)
        if known is not None:
            return known
        component = _Component(keys=[key])
        self.component_of[key] = component
        inodes: set[int] = set()
        for member in component.keys:  # grows while it is walked
            for ino in (self.base.holder(member), self.local.holder(member)):
                if ino is None or ino in inodes:
                    continue
                inodes.add(ino)
                for other in sorted(self.base.names(ino) ^ self.local.names(ino)):
                    if other not in self.component_of:
                        self.component_of[other] = component
                        component.keys.append(other)
        component.held = any(self.pending.is_held(key) or self.waits_for_bytes(key) for key in component.keys)
        return component

    def waits_for_bytes(self, key: Key) -> bool:
        ino = self.local.holder(key)
        if ino is None or not self.needs_full_row(ino):
            return False
        state = self.local.state(ino)
        return state is not None and state.kind is Kind.FILE and not self.pending.is_complete(ino)

    def needs_full_row(self, ino: int) -> bool:
        return self.base.state(ino) is None or not self.base.names(ino)

    def find_needs(self, component: _Component) -> Iterator[_Component]:
        for key in self.keys_before(component):
            needed = self.component(key)
            if needed is not component:
                component.needs.append(needed)
                yield needed

    def keys_before(self, component: _Component) -> Iterator[Key]:
        for key in component.keys:
            new, old = self.local.holder(key), self.base.holder(key)
            if new is not None:
                owner = self.owner_of_place(key[0], self.is_folder(self.local, new))
                if owner is not None:
                    yield owner
            if old is not None and self.is_folder(self.base, old) and not self.local.names(old):
                yield from self.pending.dirty_keys_in(old)

    def owner_of_place(self, parent: int, for_folder: bool) -> Key | None:
        """The entry that must be there before something can lie in `parent`: of a new parent, for a folder of any ancestor
        that moves (else the service could see a circle)."""
        if not for_folder:
            return None if parent == self.root or self.base.names(parent) else self.gained_name(parent)
        walked = []
        owner: Key | None = None
        while parent != self.root:
            if parent in self.owners:
                owner = self.owners[parent]
                break
            walked.append(parent)
            owner = self.gained_name(parent)
            if owner is not None:
                break
            parent = min(self.local.names(parent))[0]
        for folder in walked:
            self.owners[folder] = owner
        return owner

    def gained_name(self, ino: int) -> Key | None:
        return min(self.local.names(ino) - self.base.names(ino), default=None)

    @staticmethod
    def is_folder(side: Side, ino: int) -> bool:
        state = side.state(ino)
        return state is not None and state.is_folder

    # ------------------------------------------------------------------------------------------------------ groups

    def group(self, members: list[_Component]) -> GroupPlan:
        entries = []
        full: dict[int, None] = {}
        seen: dict[int, int] = {}
        for key in (key for member in members for key in member.keys):
            old, new = self.base.holder(key), self.local.holder(key)
            entries.append(EntryStep(key, old, new))
            if old is not None:
                state = self.base.state(old)
                if state is not None:
                    seen[old] = state.content_rev
            if new is not None and self.needs_full_row(new):
                full[new] = None
        last = tuple(ino for ino in seen if not self.local.names(ino))
        return GroupPlan(tuple(entries), tuple(full), tuple(seen.items()), last)
