"""What has to reach the service before `aloft sync` may return: everything that was closed or fsynced when it was asked.

A sync point is drawn once and then only shrinks: a row leaves it when the service has acknowledged something newer of it, so
that a file that is written all the time does not keep a sync waiting for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from cache.store.pending import PendingStore
from cache.store.tree import TreeStore

SHOWN = 100

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is still only here."""

    paths: tuple[str, ...]
    files: int
    bytes: int


class SyncPoint:
    """`is_finished(ino)`: whether everything that was written to the file was followed by a close or fsync."""

    def __init__(
        self,
        tree: TreeStore,
        pending: PendingStore,
        path_of: Callable[[int], str | None],
        is_finished: Callable[[int], bool],
    ) -> None:
        self._tree = tree
        self._pending = pending
        self._path_of = path_of
        self._drafts = {draft: ino for draft, ino in pending.drafts() if is_finished(ino)}
        self._entries: dict[tuple[int, str], int | None] = {}
        self._inodes: dict[int, int] = {}
        for space in pending.spaces():
            for entry in tree.dirty_entries(space):
                if entry.local is None or self._is_due(entry.local, is_finished):
                    self._entries[entry.parent, entry.name] = entry.base
            for ino in tree.dirty_inodes(space):
                row = tree.inode(ino)
                if row is not None and row.nlink > 0 and self._is_due(ino, is_finished):
                    self._inodes[ino] = row.rev

    def _is_due(self, ino: int, is_finished: Callable[[int], bool]) -> bool:
        """A new file goes to the service with its content; anything else may go before."""
        return self._tree.base_inode(ino) is not None or is_finished(ino)

    def reached(self) -> bool:
        """Whether all of it is on the service. Cheap when it is asked again and again: it stops at the first that is not."""
        return (
            _none_left(self._drafts, lambda draft, _: self._pending.is_pending_draft(draft))
            and _none_left(self._entries, self._is_waiting_entry)
            and _none_left(self._inodes, self._is_waiting_inode)
        )

    def waiting(self) -> Waiting:
        """What of it the service has not acknowledged yet."""
        drafts = {ino for draft, ino in self._drafts.items() if self._pending.is_pending_draft(draft)}
        inos = drafts | {ino for ino, rev in self._inodes.items() if self._is_waiting_inode(ino, rev)}
        entries = [key for key, base in self._entries.items() if self._is_waiting_entry(key, base)]
        named = {key for key in entries if self._tree.child(*key) not in inos}
        paths = [self._path_of(ino) for ino in islice(inos, SHOWN)] + [self._path(*key) for key in islice(named, SHOWN)]
        sizes = [row.size for ino in drafts if (row := self._tree.inode(ino)) is not None]
        return Waiting(tuple(sorted({path for path in paths if path})[:SHOWN]), len(inos) + len(named), sum(sizes))

    def _is_waiting_entry(self, key: tuple[int, str], base: int | None) -> bool:
        now = self._tree.base_entry(*key)
        return now == base and now != self._tree.child(*key)

    def _is_waiting_inode(self, ino: int, rev: int) -> bool:
        row = self._tree.inode(ino)
        return row is not None and row.nlink > 0 and row.rev == rev and self._pending.is_dirty(ino)

    def _path(self, parent: int, name: str) -> str | None:
        folder = self._path_of(parent)
        return None if folder is None else f"{folder}/{name}".lstrip("/")


def _none_left(waiting: dict[K, V], still: Callable[[K, V], bool]) -> bool:
    while waiting:
        key = next(iter(waiting))
        if still(key, waiting[key]):
            return False
        del waiting[key]
    return True
