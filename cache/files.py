"""All open files: which there are, and what sync's transactions mean for them. What one file does is `cache.openfile`.

Knows no kernel, no names, no commit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import outcome
import trio

from cache.chunks import Chunks
from cache.clock import Clock
from cache.disk import as_disk_error
from cache.downloads import Downloads
from cache.drafts import Draft, DraftFolder
from cache.errors import CacheError, DiskError, NoEntry, NotAFile
from cache.link import LinkDecisions
from cache.manifests import Manifests
from cache.openfile import File as File
from cache.openfile import base_of
from cache.store.content import ContentStore
from cache.store.tree import TreeStore
from remote.crashpoints import crash_point
from remote.protocol import Kind

_log = logging.getLogger(__name__)


class UploadQueue(Protocol):
    """What uploads want to hear of files."""

    def due(self, ino: int) -> None:
        """Closed or fsynced with something to send."""

    def written(self, ino: int) -> None:
        """Written for the first time since it was sealed, and still open."""


class Files:
    """All open files. `fork` gives a detached file that is written an inode of its own, and returns its ino."""

    def __init__(
        self,
        store: ContentStore,
        tree: TreeStore,
        folder: DraftFolder,
        chunks: Chunks,
        manifests: Manifests,
        downloads: Downloads,
        decisions: LinkDecisions,
        clock: Clock,
        fork: Callable[[File], int],
    ) -> None:
        self.store = store
        self.tree = tree
        self.folder = folder
        self.chunks = chunks
        self.manifests = manifests
        self.downloads = downloads
        self.decisions = decisions
        self.clock = clock
        self.queue: UploadQueue = _NoQueue()
        self._fork = fork
        self._open: dict[int, File] = {}
        self._detached: set[File] = set()

    def open(self, ino: int, *, writable: bool, truncate: bool = False) -> File:
        """A handle on the file's content. Never waits for the network. `release` it."""
        file = self._hold(ino)
        if truncate and writable:
            try:
                file.truncate_nowait(0)
            except BaseException:
                self._let_go(file)
                raise
        return file

    def get(self, ino: int) -> File | None:
        """The file, if it is open."""
        return self._open.get(ino)

    def any_open(self, which: Callable[[int], bool]) -> bool:
        return any(which(ino) for ino in self._open)

    async def truncate(self, ino: int, size: int) -> None:
        """truncate(2): without a handle."""
        file = self._hold(ino)
        try:
            await file.truncate(size)
        finally:
            self.released(file)

    def hold(self, ino: int) -> File:
        """Keep a file open for work inside; `unhold` it."""
        file = self._hold(ino)
        file.held_inside += 1
        return file

    def unhold(self, file: File) -> None:
        file.held_inside -= 1
        self._let_go(file)

    def _hold(self, ino: int) -> File:
        file = self._open.get(ino)
        if file is None:
            row = self.store.file(ino)
            if row is None:
                raise NoEntry("there is no such file")
            if row.kind != Kind.FILE:
                raise NotAFile("only regular files have content")
            file = self._open[ino] = File(self, ino, row, self.store.drafts(ino))
        file.handles += 1
        return file

    def _let_go(self, file: File) -> None:
        file.handles -= 1
        if file.handles == 0 and not file.unsaved:
            self._forget(file)

    def released(self, file: File) -> None:
        """A handle was closed. What FLUSH did not save is saved here, since a FLUSH may never have come."""
        try:
            if file.handles == 1 and self._discard_if_nameless(file):
                return
            if file.handles - file.held_inside == 1:
                file.save()
                file.ask_upload()
        finally:
            self._let_go(file)

    def fork(self, file: File) -> None:
        """A detached file is about to be written: it becomes a file of its own."""
        with self.store.database.transaction():
            ino = self._fork(file)
            file.forked(ino)
        self._detached.discard(file)
        self._open[ino] = file
        if file.layers:
            self.queue.due(ino)

    def save_open(self) -> None:
        """Let the replica know what was written to open files, though nobody closed them yet: a merge has to see it."""
        failure: DiskError | None = None
        for ino, file in self._open.items():
            row = self.store.content(ino)
            file.deleted_here = row is not None and row.nlink == 0
            try:
                file.save()
            except DiskError as full:  # the others may be smaller
                failure = full
        if failure is not None:
            raise failure
        crash_point("files.saved-open")

    def manifests_in_use(self) -> set[bytes]:
        """Those beneath files that are open here, though their rows may have gone on to others."""
        bases = (file.base.manifest_id for file in (*self._open.values(), *self._detached))
        return {id_ for id_ in bases if id_ is not None}

    def save_unsaved(self) -> None:
        """Try again with files that could not be saved when they were closed. Raises `DiskError` if the disk still refuses."""
        for file in [file for file in (*self._open.values(), *self._detached) if file.handles == 0 and file.unsaved]:
            file.handles += 1
            self.released(file)

    async def settle_before_replacing(self, ino: int) -> None:
        """A file is about to take the name of another one: sync what was written to it, so that power loss leaves the one or
        the other whole, also where nobody asked for an fsync."""
        if ino in self._open or self.store.is_unsynced(ino):
            await self._settle(ino)

    async def settle_closed(self, *, quiet_seconds: float = 0.0) -> None:
        """Sync what was written, closed and not synced. Files that are open come later: when they are closed or quiet."""
        for ino in self.store.unsynced():
            file = self._open.get(ino)
            writing = None if file is None or file.handles == file.held_inside else file.writing
            if writing is None or self.clock.monotonic() - writing.last >= quiet_seconds:
                try:
                    await self._settle(ino)
                except (CacheError, OSError) as error:  # it is said to whoever reads, writes or syncs the file
                    _log.warning("a draft of inode %d could not be synced: %s", ino, error)

    async def _settle(self, ino: int) -> None:
        file = self.hold(ino)
        try:
            await file.settle()
        finally:
            self.unhold(file)

    # -------------------------------------------------------------------------------------- after sync's transactions

    def acknowledged(self, ino: int, draft_ids: list[int]) -> None:
        """The service has these drafts' content, and their rows are gone."""
        file = self._open.get(ino)
        if file is not None:
            row = self.store.file(ino)
            gone = file.dropped(draft_ids, None if row is None else base_of(ino, row))
            for draft in gone:
                draft.close()
        held = {draft.id for detached in self._detached for draft in detached.layers}
        self._unlink_ids([draft for draft in draft_ids if draft not in held and self.store.draft(draft) is None])
        if self.store.has_drafts(ino):
            self.queue.due(ino)

    def content_moved(self, from_ino: int, to_ino: int) -> None:
        """A merge gave the drafts of one file to another: the conflicted copy. Open handles go with them."""
        file = self._open.pop(from_ino, None)
        if file is not None:
            row = self.store.file(to_ino)
            if row is None:
                raise NoEntry("the conflicted copy is gone")
            self._open[to_ino] = file
            file.moved(to_ino, base_of(to_ino, row))
        self.queue.due(to_ino)

    def content_replaced(self, ino: int) -> None:
        """A merge put the service's content into a file. Open handles keep what they opened."""
        self._detach(ino, next(iter(self.tree.names(ino)), None))

    def name_lost(self, ino: int, name: tuple[int, str]) -> None:
        """A merge took the last name of a file away, because it was deleted elsewhere. What an application writes to it from
        now on is an edit, which beats the deletion (P3)."""
        self._detach(ino, name)

    def _detach(self, ino: int, name: tuple[int, str] | None) -> None:
        """The open file, if it is one, is no more what has this ino: it stays as it is, and becomes a file of its own, beside
        this name, if it is written."""
        file = self._open.pop(ino, None)
        if file is None:
            return
        row = self.tree.inode(ino)
        if row is None:
            raise NoEntry("an open file that a merge changed is gone")
        file.detach(row, name)
        self._detached.add(file)
        if file.unsaved or file.writing is not None:
            try:
                self.fork(file)  # what was written to it, and never reached a row, is nowhere else
            except DiskError as full:  # it is only in memory; its next write, or its end, tries again
                _log.error("there is no room for what was written to a file that was replaced: %s", full)

    def drop_drafts(self, ino: int) -> None:
        """Discard what was written to a file that has no name any more, unless a commit or a handle still needs it."""
        if ino not in self._open and not self.store.is_outstanding(ino):
            self._unlink_ids(self.store.drop_drafts(ino))

    def unlink(self, drafts: Iterable[Draft]) -> None:
        """The rows of these drafts are gone."""
        ids = []
        for draft in drafts:
            draft.close()
            if draft.id is not None:
                ids.append(draft.id)
        self._unlink_ids(ids)

    # ---------------------------------------------------------------------------------------------------------- inside

    def _forget(self, file: File) -> None:
        if file.ino is not None and self._open.get(file.ino) is file:
            del self._open[file.ino]
        file.close()
        if file in self._detached:
            self._detached.discard(file)
            self._unlink_ids([draft.id for draft in file.layers if draft.id is not None and self.store.draft(draft.id) is None])

    def _discard_if_nameless(self, file: File) -> bool:
        """A file whose last name is gone loses its drafts with its last handle."""
        if file.ino is None or not (file.layers or file.base.manifest_id is None):
            return False
        row = self.store.content(file.ino)
        if (row is not None and row.nlink > 0) or self.store.is_outstanding(file.ino):
            return False
        ids = self.store.drop_drafts(file.ino)
        self.unlink(file.discarded())
        self._unlink_ids(ids)
        return True

    @staticmethod
    def _log_unlink(result: outcome.Outcome[None]) -> None:
        try:
            result.unwrap()
        except Exception as error:
            refused = as_disk_error(error)
            if refused is None:
                raise
            _log.warning("the file of a draft stays until the next start: %s", refused)

    def _unlink_ids(self, draft_ids: list[int]) -> None:
        """After the transaction that drops their rows, if it is still under way: `unlink` makes durable what is committed."""
        if draft_ids:
            work = partial(self.folder.unlink, draft_ids, self.store.database.make_durable)
            start = partial(trio.lowlevel.start_thread_soon, work, self._log_unlink)
            self.store.database.transaction().afterwards(start)


class _NoQueue:
    def due(self, ino: int) -> None:
        pass

    def written(self, ino: int) -> None:
        pass
