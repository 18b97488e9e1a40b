"""What is done with a file that is due: sealed, sent, recorded, or tried again.

When it is due: `cache.uploadqueue`. How contents are sent: `cache.uploading` (one), `cache.packuploads` (many).

A file is due a short quiet time after it was closed or fsynced; while it stays open, also after ten seconds without a write,
or a minute if it is only appended to. Small files go first and together, then the smallest of the others. Whatever fails
stays a draft, and is tried again: at once when the connection is back, with back-off otherwise.

    queued ──due──▶ sealed ──▶ cut, encoded, sent ──▶ complete (a row; the push takes over) ──▶ acknowledged (sync)
                       ▲                 │ failed
                       └── squashed with what was written since ◀┘

Owns the drafts under way, whose files it holds. Knows nothing of commits but whether one speaks of a file.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from cache.clock import Clock
from cache.disk import as_disk_error
from cache.drafts import Draft
from cache.errors import CacheError, DiskError, NoEntry, NotAFile, Offline, Unavailable, first_cause
from cache.files import File, Files
from cache.link import Reachability
from cache.packuploads import PackUploads, Small
from cache.sending import Sender
from cache.store.content import ContentStore
from cache.uploading import ContentUploader, Job, Uploaded, read_all
from cache.uploadqueue import Entry, UploadQueue
from remote.api import QuotaExceeded, RemoteError, Transient
from remote.crashpoints import crash_point
from remote.manifest import INLINE_MAX, Manifest, manifest_id

QUIET_OPEN = 10.0
"""Seconds without a write after which an open file is sealed."""
APPENDED_FOR = 60.0
"""Seconds after which one that is only appended to is sealed though it is still written."""
BATCH_FILES = 256
TAKEN_AT_ONCE = 16
"""Files of a batch that are sealed, or recorded, in one transaction: rows with 64 KiB each take their time."""
WAITING_AT_ONCE = 200
"""Rows of drafts looked at before others get their turn."""
SQUASH_MAX = 64 * 2**20
"""Bytes that may be copied so that an upload can be given up: nobody can write the file meanwhile."""
COMMIT_PATIENCE = 2.0
"""Seconds for the push to take up a complete draft before what was written on top is merged into it."""
HOUSEKEEPING = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QueuedUpload:
    """For status. `size` in bytes; `error`: why it does not go on."""

    ino: int
    size: int
    uploading: bool
    error: str | None


class Uploads:
    def __init__(
        self,
        files: Files,
        store: ContentStore,
        uploader: ContentUploader,
        sender: Sender,
        reachability: Reachability,
        clock: Clock,
        random: Callable[[], float],
        *,
        upload_delay: float = 0.5,
        on_complete: Callable[[], None] = lambda: None,
    ) -> None:
        self.on_complete = on_complete
        self._files = files
        self._store = store
        self._uploader = uploader
        self._packs = PackUploads(store, uploader, sender)
        self._sender = sender
        self._reachability = reachability
        self._clock = clock
        self._queue = UploadQueue(clock, random, upload_delay)
        self._sending: dict[int, File] = {}
        """Drafts under way, and their files, which are held: a merge may give one to another inode meanwhile."""
        self._large = 0
        self._batching = False

    # ----------------------------------------------------------------------------------------------- what others tell

    def due(self, ino: int) -> None:
        """Closed or fsynced: goes up after the quiet time."""
        self._queue.ask(ino)

    def written(self, ino: int) -> None:
        """Written and still open."""
        if ino not in self._queue:
            self._queue.add(ino, QUIET_OPEN)

    def skip_quiet(self) -> None:
        """What was closed or fsynced so far goes up now."""
        self._queue.skip_quiet()

    def retry_now(self) -> None:
        """What failed is tried again without waiting for its time."""
        self._queue.retry_now()

    def objects_missing(self, ino: int, object_ids: Iterable[bytes]) -> None:
        """A commit was refused because the service does not hold these objects of the file's content."""
        lost = set(object_ids)
        with suppress(NoEntry, NotAFile):
            file = self._files.hold(ino)
            try:
                self._store.forget_objects(file.base.space, lost)
                self._store.incomplete(ino)
                file.objects_missing()
                crash_point("upload.doubted")
            finally:
                self._files.unhold(file)
            self._queue.ask(ino).unusable |= lost

    def set_paused(self, paused: bool) -> None:
        """The connection was paused or resumed. What is being sent is finished."""
        if not paused:
            self._sender.turns.changed()
        self._queue.wake()

    def queue(self) -> list[QueuedUpload]:
        """Files whose content is not yet on the service, as far as they are saved."""
        return [
            QueuedUpload(row.ino, row.size, self._queue.is_active(row.ino), row.error or self._queue.why_not(row.ino))
            for row in self._store.waiting()
        ]

    def why_not(self, ino: int) -> str | None:
        """Why the last attempt to upload a file failed, if it is tried again later."""
        return self._queue.why_not(ino)

    @property
    def trouble(self) -> str | None:
        """Why uploads fail, if some do and none of those is under way now."""
        return self._queue.trouble

    def is_uploading(self, ino: int) -> bool:
        return self._queue.is_active(ino)

    @property
    def idle(self) -> bool:
        """Nothing that was closed or fsynced waits or is under way."""
        return self._queue.idle

    # ------------------------------------------------------------------------------------------------------- the loop

    async def run(self) -> None:
        while self._sending:  # of work that ended with the last run
            self._files.unhold(self._sending.popitem()[1])
        self._large, self._batching = 0, False
        self._queue.begin_anew()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_house)
            while True:
                self._queue.begin_look()
                if not self._reachability.may_push:
                    await self._reachability.wait_may_push()
                    self._sender.turns.changed()
                    self._queue.retry_now()
                now = self._clock.monotonic()
                look_again = self._queue.collect_due(now, self._size_if_ready, HOUSEKEEPING)
                self._start(nursery)
                await self._queue.sleep(now, look_again)

    async def _keep_house(self) -> None:
        """What no event announces: a disk that has room again, deleted files that still have drafts, revived ones that wait."""
        while True:
            await self._queue_what_waits()
            for ino in self._store.nameless_with_drafts():
                self._files.drop_drafts(ino)
            try:
                self._files.save_unsaved()
            except DiskError as error:
                _log.warning("a closed file is only in memory: %s", error)
            await trio.sleep(HOUSEKEEPING)

    async def _queue_what_waits(self) -> None:
        after = 0
        while slice_ := self._store.waiting(after, WAITING_AT_ONCE):
            for waiting in slice_:
                if waiting.ino not in self._queue:
                    self.due(waiting.ino)
            after = slice_[-1].ino
            await trio.lowlevel.checkpoint()

    def _start(self, nursery: trio.Nursery) -> None:
        if not self._batching and (batch := self._queue.take_small(BATCH_FILES)):
            self._batching = True
            nursery.start_soon(self._upload_batch, batch)
        for ino in self._queue.take_large(self._large):
            self._large += 1
            nursery.start_soon(self._upload_large, ino)

    def _size_if_ready(self, ino: int, entry: Entry, now: float) -> int | None:
        """The size of what is to be uploaded now. None: not yet (`entry.due` says when), or not at all (no entry any more)."""
        file = self._files.get(ino)
        row = self._store.content(ino)
        if row is None or row.nlink == 0:
            self._queue.drop(ino)
            if file is None and row is not None:
                self._files.drop_drafts(ino)
            return None
        if file is not None and file.handles > 0 and file.writing is not None and not file.writing.asked and not entry.failed:
            if not file.was_closed:  # a new file says itself when it is closed or fsynced for the first time
                self._queue.drop(ino)
                return None
            at = file.writing.last + QUIET_OPEN
            if file.writing.appended_only:
                at = min(at, file.writing.first + APPENDED_FOR)
            if at > now:
                entry.asked = False
                self._queue.schedule(ino, entry, at)
                return None
        return row.size if file is None else file.size

    # ------------------------------------------------------------------------------------------------ one file's stages

    async def _take(self, ino: int) -> tuple[File, Draft] | None:
        """Hold the file and seal what is to be uploaded. None: nothing is, or not now."""
        entry = self._queue[ino]
        try:
            file = self._files.hold(ino)
        except (NoEntry, NotAFile):
            return None
        try:
            draft = await self._sealed(ino, file, entry)
        except BaseException:
            self._files.unhold(file)
            raise
        if draft is None:
            self._files.unhold(file)
            return None
        assert draft.id is not None
        self._sending[draft.id] = file
        crash_point("upload.sealed")
        return file, draft

    def _give_back(self, file: File, draft: Draft) -> None:
        assert draft.id is not None
        del self._sending[draft.id]
        self._files.unhold(file)

    async def _sealed(self, ino: int, file: File, entry: Entry) -> Draft | None:
        layers = file.layers
        if layers and layers[0].sealed and len(layers) > 1 and not self._store.is_outstanding(ino):
            waited = layers[0].complete and entry.passed_over == layers[0].id
            given_up = waited or (entry.failed and not layers[0].complete)
            if given_up and layers[1].bytes_to_take(layers[0]) <= SQUASH_MAX:
                await file.squash()
        draft = await file.seal()
        if draft is None:
            return None
        if draft.complete:  # the push has it; what was written on top goes up after the acknowledgement
            entry.passed_over = draft.id if len(file.layers) > 1 else None
            return None
        entry.passed_over = None
        return None if draft.id in self._sending else draft

    def _completed(self, ino: int, file: File, draft: Draft, uploaded: Uploaded) -> list[int] | None:
        """Record that the service holds the content. Joins the caller's transaction, if there is one.

        Returns drafts that are gone already, because nothing changed after all: then there is nothing to commit, and nobody
        would acknowledge them. The caller tells `Files` after the transaction.
        """
        encoded = uploaded.manifest.encode()
        id_ = manifest_id(encoded)
        assert draft.id is not None
        if uploaded.manifest.size != draft.size:
            raise AssertionError("a manifest that is not as long as its content")
        if id_ == file.base.manifest_id and file.ino == ino and not self._store.is_outstanding(ino):
            return self._store.acknowledge(ino, draft.id, id_, draft.size, uploaded.sha256 or file.base.sha256)
        if self._store.complete(draft.id, id_, encoded, uploaded.sha256):
            draft.complete = True
            crash_point("upload.completing")
        return None

    def _done(self, ino: int) -> None:
        entry = self._queue.done(ino)
        file = self._files.get(ino)
        writing = None if file is None else file.writing
        if entry is not None and entry.passed_over is not None:
            renewed = self._queue.add(ino, COMMIT_PATIENCE)
            renewed.asked, renewed.passed_over = True, entry.passed_over
        elif (entry is not None and entry.again) or (writing is not None and writing.asked):
            self.due(ino)
        elif writing is not None:
            self.written(ino)
        self._queue.wake()

    def _not_done(self, ino: int, error: Exception) -> None:
        """It stays a draft, and in the queue."""
        error = as_disk_error(error) or error
        if isinstance(error, RemoteError):
            self._reachability.failed(error)
        elif not isinstance(error, CacheError | OSError):
            _log.error("a file could not be uploaded", exc_info=error)
        self._queue.not_done(ino, _said(error), error.retry_after if isinstance(error, Transient) else None)
        if not isinstance(error, Transient | Offline):
            with suppress(DiskError):
                self._store.set_error(ino, _said(error))
        self._queue.wake()

    # ---------------------------------------------------------------------------------------------------- large files

    async def _upload_large(self, ino: int) -> None:
        try:
            taken = await self._take(ino)
            if taken is not None:
                file, draft = taken
                try:
                    uploaded = await self._uploader.upload(self._job(ino, file, draft, priority=1))
                    gone = self._completed(ino, file, draft, uploaded)
                    crash_point("upload.completed")
                    if gone is not None:
                        self._files.acknowledged(ino, gone)
                finally:
                    self._give_back(file, draft)
                self.on_complete()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this file's: the other uploads go on
            self._not_done(ino, error)
        else:
            self._done(ino)
        finally:
            self._large -= 1

    def _job(self, ino: int, file: File, draft: Draft, *, priority: int) -> Job:
        row = self._store.content(ino)
        return Job(
            file,
            draft,
            next((name for _, name in self._files.tree.names(ino)), None),
            None if row is None else row.split,
            self._queue.unusable(ino),
            self._store.is_pinned(ino),
            priority,
        )

    # ---------------------------------------------------------------------------------------------------- small files

    async def _upload_batch(self, inos: list[int]) -> None:
        """Many small files at once: those that fit into their manifests need no request, the others share objects."""
        try:
            batch = _Batch()
            for at in range(0, len(inos), TAKEN_AT_ONCE):
                taken, others = self._take_many(inos[at : at + TAKEN_AT_ONCE])
                for ino, file, draft in taken:
                    await self._add_to_batch(batch, ino, file, draft)
                for ino in others:
                    await self._take_into_batch(batch, ino)
                await trio.lowlevel.checkpoint()
            await self._finish(batch.inline)
            for space, members in batch.packed.items():
                await self._upload_packed(space, members)
        finally:
            self._batching = False
            self._queue.wake()

    def _take_many(self, inos: list[int]) -> tuple[list[tuple[int, File, Draft]], list[int]]:
        """Hold and seal in one transaction what needs no more than that. The others are for `_take`."""
        held: list[File] = []
        taken: list[tuple[int, File, Draft]] = []
        others: list[int] = []
        larger: list[tuple[int, int]] = []
        try:
            with self._store.database.transaction():
                for ino in inos:
                    held.append(file := self._files.hold(ino))
                    draft = file.seal_nowait() if not file.is_busy and len(file.layers) == 1 else None
                    if draft is None or draft.complete or draft.id is None or draft.id in self._sending:
                        others.append(ino)
                    elif not draft.stands_alone:
                        larger.append((ino, draft.size))
                    else:
                        taken.append((ino, file, draft))
        except CacheError:
            taken, others, larger = [], inos, []  # one by one, so that each is told what is wrong with it
        if taken:
            crash_point("upload.sealed")
        for _, file, draft in taken:
            assert draft.id is not None
            self._sending[draft.id] = file
            held.remove(file)
        for file in held:
            self._files.unhold(file)
        for ino, size in larger:
            self._queue.hand_over(ino, size)
        return taken, others

    async def _take_into_batch(self, batch: _Batch, ino: int) -> None:
        try:
            taken = await self._take(ino)
        except Exception as error:  # noqa: BLE001 - as in `_upload_large`
            self._not_done(ino, error)
            return
        if taken is None:
            self._done(ino)
        else:
            await self._add_to_batch(batch, ino, *taken)

    async def _add_to_batch(self, batch: _Batch, ino: int, file: File, draft: Draft) -> None:
        try:
            content = await read_all(file, draft)
        except Exception as error:  # noqa: BLE001 - as in `_upload_large`
            self._give_back(file, draft)
            self._not_done(ino, error)
            return
        one = Small(ino, file, draft, content, hashlib.sha256(content).digest(), self._queue.unusable(ino))
        if len(content) <= INLINE_MAX:
            batch.inline.append((one, Manifest.from_inline(content)))
        else:
            batch.packed.setdefault(file.base.space, []).append(one)

    async def _upload_packed(self, space: int, members: list[Small]) -> None:
        try:
            finished = await self._packs.send(space, members)
        except Exception as error:  # noqa: BLE001 - as in `_upload_large`
            for one in members:
                self._give_back(one.file, one.draft)
                self._not_done(one.ino, error)
        else:
            await self._finish(finished)

    async def _finish(self, members: list[tuple[Small, Manifest]]) -> None:
        """All of them complete."""
        for at in range(0, len(members), TAKEN_AT_ONCE):
            self._finish_some(members[at : at + TAKEN_AT_ONCE])
            await trio.lowlevel.checkpoint()

    def _finish_some(self, members: list[tuple[Small, Manifest]]) -> None:
        """The same, in one transaction."""
        failure: Exception | None = None
        unchanged: list[tuple[int, list[int]]] = []
        try:
            with self._store.database.transaction():
                for one, manifest in members:
                    gone = self._completed(one.ino, one.file, one.draft, Uploaded(manifest, one.sha256))
                    if gone is not None:
                        unchanged.append((one.ino, gone))
        except Exception as error:  # noqa: BLE001 - as in `_upload_large`
            failure, unchanged = error, []
        crash_point("upload.completed")
        for ino, gone in unchanged:
            self._files.acknowledged(ino, gone)
        for one, _ in members:
            self._give_back(one.file, one.draft)
            if failure is None:
                self._done(one.ino)
            else:
                one.draft.complete = False
                self._not_done(one.ino, failure)
        if failure is None:
            self.on_complete()


@dataclass(slots=True)
class _Batch:
    inline: list[tuple[Small, Manifest]] = field(default_factory=list)
    packed: dict[int, list[Small]] = field(default_factory=dict)
    """By space."""


def _said(error: BaseException) -> str:
    error = first_cause(error)
    if isinstance(error, QuotaExceeded):
        return f"no room on the service: {error}"
    if isinstance(error, Unavailable):
        return f"a part of the file cannot be had: {error}"
    if isinstance(error, RemoteError | CacheError):
        return str(error)
    return f"{type(error).__name__}: {error}"
