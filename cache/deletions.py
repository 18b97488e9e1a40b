"""What the person says to the mass-delete breaker: let the deletions pass, or undo them, in either direction."""

from __future__ import annotations

from collections.abc import Callable

from cache.clock import Clock
from cache.commits import CommitBuilder
from cache.guards import Tripped
from cache.merge import Key
from cache.merger import Merger
from cache.model import AttributesChanged, Change, EntryChanged
from cache.store.sync import SpaceRow, SyncStore
from cache.store.tree import TreeStore
from remote.copynames import CopyNames
from remote.protocol import Kind


class Deletions:
    """`told` hears which names came back; `wake` that there may be something to push."""

    def __init__(
        self,
        store: SyncStore,
        tree: TreeStore,
        builder: CommitBuilder,
        merger: Merger,
        clock: Clock,
        copy_names: Callable[[], CopyNames],
        told: Callable[[list[Change]], None],
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._tree = tree
        self._builder = builder
        self._merger = merger
        self._clock = clock
        self._copy_names = copy_names
        self._told = told
        self._wake = wake

    def tripped(self) -> list[Tripped]:
        """What is stopped now, and waits for the person."""
        breakers = [
            breaker
            for space in self._store.spaces()
            for breaker in (self._builder.breaker(space.number), self._merger.breaker(space.number))
        ]
        return [tripped for breaker in breakers if (tripped := breaker.tripped()) is not None]

    def show_all(self) -> None:
        """What was deleted here since the breaker tripped is shown as well, and so becomes part of what is confirmed."""
        for space in self._store.spaces():
            self._builder.breaker(space.number).show_all(self._store.files_to_disappear(space.number))

    def confirm(self) -> int:
        """Let the files that were shown disappear, and no others. How many they are."""
        count = 0
        for space in self._store.spaces():
            count += self._builder.breaker(space.number).confirm()
            count += self._merger.breaker(space.number).confirm()
        self._merger.try_merge()
        self._wake()
        return count

    def undo(self) -> int:
        """Bring the files that were shown back: those deleted here from what the service has, those deleted elsewhere by
        keeping them here and giving them to the service again. How many they are."""
        count = 0
        for space in self._store.spaces():
            breaker = self._builder.breaker(space.number)
            lost = sorted(breaker.shown())
            if lost:
                self._restore(space, lost)
                breaker.reset()
                count += len(lost)
            if self._merger.breaker(space.number).tripped() is not None:
                count += self._merger.keep_files(space.number)
        self._wake()
        return count

    def _restore(self, space: SpaceRow, inodes: list[int]) -> None:
        restored: list[Key] = []
        with self._store.database.transaction():
            for ino in inodes:
                self._restore_names(space, ino, restored)
            now = self._clock.wall_ns()
            for parent in {parent for parent, _ in restored}:
                self._tree.touch(parent, now)
        changes: list[Change] = [EntryChanged(*key, gone=False) for key in restored]
        changes += [AttributesChanged(parent) for parent in sorted({parent for parent, _ in restored})]
        self._told(changes)

    def _restore_names(self, space: SpaceRow, ino: int, restored: list[Key]) -> None:
        """Give an inode that has no name here the names back that the service knows, and its folders before it."""
        if ino == space.root or self._tree.names(ino):
            return
        row = self._tree.inode(ino)
        for parent, name in sorted(self._tree.base_names(ino)):
            self._restore_names(space, parent, restored)
            free = self._free_name(parent, name, row is not None and row.kind is Kind.DIRECTORY)
            self._tree.put_entry(parent, free, ino)
            restored.append((parent, free))

    def _free_name(self, parent: int, name: str, is_folder: bool) -> str:
        def is_taken(candidate: str) -> bool:
            return self._tree.child(parent, candidate) is not None or self._tree.base_entry(parent, candidate) is not None

        if self._tree.child(parent, name) is None:
            return name
        return self._copy_names().free_name(name, is_folder, is_taken)
