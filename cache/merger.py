"""When staged pages are merged, and who has to hear of it.

The conditions are those of docs/design.md: the newest page was the last one, no commit is outstanding, and what the feed
brought is at least as new as what was acknowledged, and as any folder that was fetched by itself. The mass-delete breaker
stands before the merge, the kernel's caches and open files are told after its transaction. Knows no network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from cache.clock import Clock
from cache.connection import Connection
from cache.guards import FILES_MAX, REPLACED_MAX, Breaker, Contradiction, Direction, Minutes
from cache.merge import MergeImpossible
from cache.model import Change
from cache.signal import Signal
from cache.store.merging import Applied, MergeStore
from cache.store.sync import Replacing, SpaceRow, SyncStore
from remote.copynames import CopyNames
from remote.crashpoints import crash_point


class OpenFiles(Protocol):
    """What the exchange with the service tells open files, always after the transaction. See `cache.files.Files`."""

    def acknowledged(self, ino: int, draft_ids: list[int]) -> None: ...

    def content_moved(self, from_ino: int, to_ino: int) -> None: ...

    def content_replaced(self, ino: int) -> None: ...

    def name_lost(self, ino: int, name: tuple[int, str]) -> None: ...


class Merger:
    """`told` hears what changed in the tree. `on_merged` (set by whoever wires the parts) is called after each merge, since
    it may leave something to push, or rows that nobody needs any more."""

    def __init__(
        self,
        store: SyncStore,
        rows: MergeStore,
        connection: Connection,
        files: OpenFiles,
        clock: Clock,
        copy_names: Callable[[], CopyNames],
        told: Callable[[list[Change]], None],
    ) -> None:
        self._store = store
        self._rows = rows
        self._connection = connection
        self._files = files
        self._minutes = Minutes(clock)
        self._copy_names = copy_names
        self._told = told
        self.before_merge: Callable[[], None] = lambda: None
        """Brings what open files hold into the replica, since a merge would take an edited file for an untouched one."""
        self.on_merged: Callable[[], None] = lambda: None
        self.merged = Signal()
        """Something was merged, or a listing went on."""
        self.conflicts = 0
        """Conflicted copies and renamed entries that were made since the start."""

    def try_merge(self) -> None:
        """Merge whatever may be merged now. Called after each page and each answer to a commit."""
        for space in self._store.spaces():
            if self._connection.stopped_because is None and self._is_ready(space):
                self._merge_guarded(space)

    def is_merged(self, space: int, revision: int) -> bool:
        """Whether everything that the service had at `revision` is merged."""
        return self._store.space(space).snapshot >= revision and not self._store.has_staged(space)

    def breaker(self, space: int) -> Breaker:
        return Breaker(self._store.database, space, Direction.APPLY, self._minutes)

    def keep_files(self, space: int) -> int:
        """The person wants to keep the files whose deletion the breaker stopped; they go to the service again. Their number."""
        breaker = self.breaker(space)
        keep = breaker.shown()
        breaker.reset()
        self._merge(self._store.space(space), keep)
        return len(keep)

    def _is_ready(self, space: SpaceRow) -> bool:
        if not space.caught_up or space.snapshot < space.acknowledged:
            return False
        if not space.listed and space.snapshot < self._store.newest_folder_page(space.number):
            return False
        if self._store.outstanding(space.number) is not None:
            return False
        replaces = space.listing or self._store.replacing(space.number) is not None
        return replaces or not space.listed or self._store.has_staged(space.number)

    def _merge_guarded(self, space: SpaceRow) -> None:
        self.before_merge()
        replacing = self._store.replacing(space.number)
        if space.listing:
            try:
                self._rows.finish_listing(space.number, replacing or Replacing())
            except Contradiction as error:
                self._connection.stop(str(error))
                return
            if replacing is not None and replacing.reconnecting:
                crash_point("reconnect.forgotten")
        self._rows.drop_known(space.number)
        vanishing = [ino for ino in self._store.files_to_vanish(space.number) if not self._rows.service.names(ino)]
        if vanishing:
            shared = self._store.vanishing_into_shares(space.number)
            vanishing = [ino for ino in vanishing if ino not in shared]
        breaker = self.breaker(space.number)
        most = FILES_MAX if replacing is None else REPLACED_MAX
        if not breaker.admit(vanishing, lambda: self._store.count_files(space.number), most):
            self._merge(space, frozenset(), vanishing)

    def _merge(self, space: SpaceRow, keep: frozenset[int], vanishing: Iterable[int] = ()) -> None:
        names = self._copy_names()

        def count_vanished() -> None:
            self.breaker(space.number).passed([ino for ino in vanishing if not self._rows.local.names(ino)])

        try:
            applied = self._rows.merge(space.number, space.root, names.free_name, keep, count_vanished)
        except (Contradiction, MergeImpossible) as error:
            self._connection.stop(str(error))
            return
        crash_point("merge.merged")
        self._tell(applied)

    def _tell(self, applied: Applied) -> None:
        self.conflicts += applied.conflicts
        for source, copied in applied.moved:
            self._files.content_moved(source, copied)
        for ino in applied.replaced:
            self._files.content_replaced(ino)
        for ino, name in applied.vanished:
            self._files.name_lost(ino, name)
        for ino, drafts in applied.dropped:
            self._files.acknowledged(ino, drafts)
        crash_point("merge.told")
        if applied.changes:
            self._told(applied.changes)
        self.merged.notify()
        self.on_merged()
