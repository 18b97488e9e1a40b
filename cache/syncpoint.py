"""What has to reach the service before `aloft sync` may return: everything that was closed or fsynced when it was asked.

A sync point is drawn once and then only shrinks: a row leaves it when the service has acknowledged something newer of it, so
that a file that is written all the time does not keep a sync waiting for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import trio

from cache.store.pending import PendingStore
from cache.store.tree import TreeStore

SHOWN = 100
SLICE = 200
"""Rows between two checkpoints."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is still only here."""

    paths: tuple[str, ...]
    files: int
    bytes: int


class SyncPoint:
    """Draw it with `draw`."""

    def __init__(self, tree: TreeStore, pending: PendingStore, path_of: Callable[[int], str | None]) -> None:
        self._tree = tree
        self._pending = pending
        self._path_of = path_of
        self._drafts: dict[int, int] = {}
        self._entries: dict[tuple[int, str], int | None] = {}
        self._inodes: dict[int, int] = {}

    async def draw(self, is_finished: Callable[[int], bool]) -> None:
        """Take note of what waits now. `is_finished(ino)`: whether what was written to the file was closed or fsynced.

        A new file goes to the service with its content; anything else may go before.
        """
        draft, key, ino = 0, (0, ""), 0
        while drafts := self._pending.drafts_after(draft, SLICE):
            draft = drafts[-1][0]
            self._drafts.update((id_, owner) for id_, owner in drafts if is_finished(owner))
            await trio.lowlevel.checkpoint()
        while entries := self._pending.entries_after(key, SLICE):
            key = (entries[-1].parent, entries[-1].name)
            for entry in entries:
                if entry.base != entry.local and (
                    entry.local is None or is_finished(entry.local) or self._tree.base_inode(entry.local) is not None
                ):
                    self._entries[entry.parent, entry.name] = entry.base
            await trio.lowlevel.checkpoint()
        while inodes := self._pending.inodes_after(ino, SLICE):
            ino = inodes[-1].ino
            self._inodes.update((one.ino, one.rev) for one in inodes if one.dirty and (one.known or is_finished(one.ino)))
            await trio.lowlevel.checkpoint()

    async def reached(self) -> bool:
        """Whether all of it is on the service. Cheap when it is asked again and again: it stops at the first that is not."""
        return (
            await _none_left(self._drafts, self._is_waiting_draft)
            and await _none_left(self._entries, self._is_waiting_entry)
            and await _none_left(self._inodes, self._is_waiting_inode)
        )

    async def waiting(self) -> Waiting:
        """What of it is not on the service yet."""
        await _keep(self._drafts, self._is_waiting_draft)
        await _keep(self._entries, self._is_waiting_entry)
        await _keep(self._inodes, self._is_waiting_inode)
        files = {*self._drafts.values(), *self._inodes}
        paths = [self._path_of(ino) for ino in islice(files, SHOWN)] + [self._path(*key) for key in islice(self._entries, SHOWN)]
        size = 0
        for number, ino in enumerate(set(self._drafts.values())):
            row = self._tree.inode(ino)
            size += 0 if row is None else row.size
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()
        named = sum(self._tree.child(*key) not in files for key in self._entries)
        return Waiting(tuple(sorted({path for path in paths if path})[:SHOWN]), len(files) + named, size)

    def _is_waiting_draft(self, draft: int, _: int) -> bool:
        return self._pending.is_pending_draft(draft)

    def _is_waiting_entry(self, key: tuple[int, str], base: int | None) -> bool:
        now = self._tree.base_entry(*key)
        return now == base and now != self._tree.child(*key)

    def _is_waiting_inode(self, ino: int, rev: int) -> bool:
        row = self._tree.inode(ino)
        return row is not None and row.nlink > 0 and row.rev == rev and self._pending.is_dirty(ino)

    def _path(self, parent: int, name: str) -> str | None:
        folder = self._path_of(parent)
        return None if folder is None else f"{folder}/{name}".lstrip("/")


async def _none_left(waiting: dict[K, V], still: Callable[[K, V], bool]) -> bool:
    while waiting:
        for key in list(islice(waiting, SLICE)):
            if still(key, waiting[key]):
                return False
            del waiting[key]
        await trio.lowlevel.checkpoint()
    return True


async def _keep(waiting: dict[K, V], still: Callable[[K, V], bool]) -> None:
    """Drop what does not wait any more."""
    for number, key in enumerate(list(waiting)):
        if not still(key, waiting[key]):
            del waiting[key]
        if number % SLICE == SLICE - 1:
            await trio.lowlevel.checkpoint()
