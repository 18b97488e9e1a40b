"""One content of a file, whatever lies where: a stack of drafts over a manifest, shared by the handles on it.

The topmost draft may be open for writes, those below are sealed; the manifest's chunks are in the chunk cache or on the
service. Everything between two awaits is consistent. Of the awaits, writing to a draft's file, truncating and squashing
exclude each other per file; nothing here excludes another file, and reads exclude nothing. Knows no kernel, no names, no
commit; the service only through `Downloads` and `Manifests`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from cache.drafts import SMALL, Draft
from cache.errors import CorruptData, FileTooLarge, NoEntry, TimedOut
from cache.extents import Held
from cache.manifests import WhichContent
from cache.model import Node
from cache.store.content import DraftRow, FileRow
from cache.store.tree import InodeRow
from cache.storedcontent import ReadBudget, StoredContent
from remote.crashpoints import crash_point
from remote.manifest import SIZE_MAX, Manifest

if TYPE_CHECKING:
    from cache.files import Files


@dataclass(frozen=True, slots=True)
class Base:
    """The content beneath the drafts. `manifest_id` None: a new file."""

    space: int
    space_id: bytes
    source: int
    inode_id: bytes
    manifest_id: bytes | None
    size: int
    sha256: bytes | None


@dataclass(slots=True)
class Writing:
    """How a file was written since it was sealed last; `uploads` decides by it when to seal an open one. Monotonic seconds."""

    first: float = 0.0
    last: float = 0.0
    appended_only: bool = True
    asked: bool = False
    """Closed or fsynced since the last write."""


_STAMPS_APART_NS = 50_000_000
"""The kernel may stamp a file so much later than its coarse clock, which is ours, says: never before the finest stamp that it
gave to any file. Its clock moves on at each tick, and on a busy machine some ticks are late."""


class File:
    """One content of a file. Made by `Files` only."""

    def __init__(self, files: Files, ino: int, row: FileRow, drafts: Iterable[DraftRow]) -> None:
        base = base_of(ino, row)
        self.ino: int | None = ino
        """None: detached; the service's content took its place, and this is the one that was opened."""
        self.base = base
        self.handles = 0
        self.held_inside = 0
        """So many of the handles are not an application's."""
        self.writing: Writing | None = None
        self._files = files
        self._layers = [Draft.load(files.folder, draft) for draft in drafts]
        self._size = self._layers[-1].size if self._layers else base.size
        self._row_size = row.size
        self._stored: StoredContent | None = None
        self._lock = trio.Lock()
        self._exclusive = _Exclusive(self._lock)
        self._detached_row: InodeRow | None = None
        self.last_name: tuple[int, str] | None = None
        """Of a detached file: (parent, name) where it was."""
        self.deleted_here = False
        """Before the merge under way it had no name any more, because somebody on this device took the last one away."""
        self.was_closed = base.manifest_id is not None or bool(self._layers)
        self._budget = ReadBudget(files.downloads)

    # ---------------------------------------------------------------------------------------------------------- asking

    @property
    def size(self) -> int:
        return self._size

    @property
    def layers(self) -> tuple[Draft, ...]:
        """From the lowest to the topmost."""
        return tuple(self._layers)

    @property
    def unsaved(self) -> bool:
        return bool(self._layers) and (self._layers[-1].unsaved or self._row_size != self._size)

    def node(self) -> Node:
        row = self._detached_row if self.ino is None else self._files.tree.inode(self.ino)
        if row is None:
            raise NoEntry("the file is gone")
        return Node(
            *(row.ino, row.kind, row.mode, row.uid, row.gid, self._size, row.nlink),
            *(row.atime_ns, row.mtime_ns, row.ctime_ns, row.device_number or 0),
        )

    async def read(self, offset: int, size: int) -> bytes:
        """Bytes from `offset`; fewer than `size` only at the end. Raises `Unavailable` if they cannot be had, within the I/O
        budget, however many parts they have."""
        end = min(offset + size, self._size)
        if offset >= end:
            return b""
        with self._budget.one() as until:
            return await self._read(offset, end, until)

    async def _read(self, offset: int, end: int, until: float) -> bytes:
        if not self._layers:
            return await self._read_base(offset, end, until)
        parts: list[bytes | tuple[int, int]] = []
        self._gather(len(self._layers) - 1, offset, end, parts)
        return b"".join([await self._read_base(*part, until) if isinstance(part, tuple) else part for part in parts])

    # --------------------------------------------------------------------------------------------------------- writing

    async def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`. It is safe from the end of this process after `flush`, `fsync` or the last `release`."""
        if offset + len(data) > SIZE_MAX:
            raise FileTooLarge("no file may be larger than 2^63 - 1 bytes")
        if not data:
            return
        appends = offset >= self._size
        async with self._exclusive:
            draft = self._writable()
            self._note_write(appends)
            if draft.id is None and offset + len(data) > SMALL:  # it gets its row now: it and the inode's say one size
                self.save()
            await draft.write(self._files.store, offset, data)
            self._size = max(self._size, draft.size)

    async def truncate(self, size: int) -> None:
        """Cut, or grow with zeros. It has happened also after a crash when this returns."""
        async with self._exclusive:
            self.truncate_nowait(size)
            crash_point("truncate.saved")
            await self._layers[-1].trim(self._files.store)

    def truncate_nowait(self, size: int) -> None:
        """The same; what it frees on the disk is given back later."""
        if not 0 <= size <= SIZE_MAX:
            raise FileTooLarge("no file may be larger than 2^63 - 1 bytes")
        draft = self._writable()
        restore, before = draft.remembered(), self._size
        draft.truncate(size)
        resized, self._size = size != before, size
        with self._files.store.database.transaction():
            self._files.store.database.transaction().if_rolled_back(partial(self._not_truncated, before, restore))
            self.save()
            if resized:  # else the kernel, which keeps a file's times, has left them as they were
                self._stamp()
            crash_point("truncate.saving")
        self._note_write(False)

    def _stamp(self) -> None:
        """The content changed now. The kernel says so itself only if its own stamp is another than the one before."""
        row = None if self.ino is None else self._files.tree.inode(self.ino)
        if row is None:
            return
        now = self._files.clock.wall_ns()
        if 0 <= row.mtime_ns - now < _STAMPS_APART_NS:
            now = row.mtime_ns
        self._files.tree.update_inode(row.ino, mtime_ns=now, ctime_ns=now)

    def _not_truncated(self, size: int, restore: Callable[[], None]) -> None:
        self._size = size
        restore()

    async def flush(self) -> None:
        """A handle is being closed: what was written survives the end of this process. Errors are the application's."""
        if self.unsaved:
            async with self._exclusive:
                if self._layers:
                    self.save()
                    crash_point("draft.saved")
                    await self._layers[-1].trim(self._files.store)
        self.ask_upload()

    async def fsync(self) -> None:
        """What was written, and the file's name, survive power loss."""
        async with self._exclusive:
            for draft in self.layers:
                await draft.sync(self._files.store)
            crash_point("fsync.bytes-synced")
            self.save()
            crash_point("fsync.row-saved")
            await trio.to_thread.run_sync(self._files.store.database.make_durable)
        crash_point("fsync.durable")
        self.ask_upload()

    async def settle(self) -> None:
        """Sync the bytes, so that whenever the rows become durable, they are right. Waits for the disk like `fsync`, but not
        for the rows."""
        async with self._exclusive:
            for draft in self.layers:
                await draft.sync(self._files.store)
            self.save()

    def release(self) -> None:
        """One handle less."""
        self._files.released(self)

    # ------------------------------------------------------------------------------------- for uploads, sync and Files

    @property
    def is_busy(self) -> bool:
        """Something that takes its time is being done to the drafts."""
        return self._lock.locked()

    async def seal(self) -> Draft | None:
        """Freeze the topmost draft, if there is no sealed one below it. The lowest draft, sealed; None: there is none."""
        async with self._exclusive:
            return self.seal_nowait()

    def seal_nowait(self) -> Draft | None:
        """The same, for a file that is not busy."""
        if not self._layers:
            return None
        lowest = self._layers[0]
        if not lowest.sealed:
            with self._files.store.database.transaction():
                self._files.store.database.transaction().if_rolled_back(partial(self._not_sealed, lowest, self.writing))
                self.save()
                assert lowest.id is not None
                self._files.store.seal(lowest.id)
                lowest.sealed = True
                self.writing = None
                crash_point("upload.sealing")
        return lowest

    def _not_sealed(self, draft: Draft, writing: Writing | None) -> None:
        draft.sealed = False
        self.writing = writing

    async def squash(self) -> None:
        """Give the upload of the sealed draft up: merge it into the one above it."""
        async with self._exclusive:
            if len(self._layers) < 2:
                return
            below, above = self._layers
            assert below.id is not None
            self.save()
            try:
                await above.take_from_below(self._files.store, below)
            except CorruptData:
                if below in self._layers:
                    raise
            crash_point("upload.squashed")
            if below not in self._layers:  # acknowledged meanwhile: what was taken from it is also what lies below now
                return
            with self._files.store.database.transaction():
                above.save(self._files.store, self._files.clock.wall_ns())
                self._files.store.drop_draft(below.id)
            self._layers.remove(below)
        crash_point("upload.squash-saved")
        self._files.unlink([below])

    async def manifest(self, until: float | None = None) -> Manifest | None:
        """Of the base; None for a new file. `until` (trio's time): when to give up; the I/O budget if it is not said."""
        id_ = self.base.manifest_id
        if self._stored is None and id_ is not None:
            with trio.move_on_at(trio.current_time() + self._files.downloads.io_timeout if until is None else until):
                manifest = await self._files.manifests.get(self._which(id_))
                if self.base.manifest_id == id_:  # an acknowledgement may have come meanwhile
                    if manifest.size != self.base.size:
                        raise CorruptData("the list of this file's chunks is that of a file of another size")
                    self._stored = self._content(manifest)
                return manifest
            raise TimedOut("the service did not send the list of this file's chunks in time")
        return None if self._stored is None else self._stored.manifest

    async def read_sealed(self, draft: Draft, start: int, into: memoryview) -> None:
        """Fill `into`, which holds zeros, with the content from `start` on, as seen through the sealed draft (the lowest)."""
        end = start + len(into)
        held: list[tuple[int, memoryview]] = []
        for piece in draft.extents.pieces(start, end):
            shows = min(max(draft.floor, piece.start), piece.end) if piece.held is Held.NOTHING else piece.start
            if piece.held is Held.DATA:
                held.append((piece.start, into[piece.start - start : piece.end - start]))
            elif piece.start < shows:
                into[piece.start - start : shows - start] = await self._read_base(piece.start, shows)
        if held:
            await draft.read_into(held)

    def dropped(self, draft_ids: list[int], base: Base | None) -> list[Draft]:
        """Rows of these drafts are gone, acknowledged or discarded; what remains lies on `base`."""
        gone = [draft for draft in self._layers if draft.id in draft_ids]
        self._layers = [draft for draft in self._layers if draft.id not in draft_ids]
        if base is not None and base.manifest_id != self.base.manifest_id:
            self._rebase(base)
        return gone

    def discarded(self) -> list[Draft]:
        """All that was written to it is unwanted; the drafts that held it."""
        gone, self._layers = self._layers, []
        return gone

    def objects_missing(self) -> None:
        """The service lost objects of this content: all of it is to be looked at again."""
        if not self._layers:
            self._writable()
            self.save()
        for draft in self._layers:
            draft.complete = False

    def moved(self, ino: int, base: Base) -> None:
        """The drafts belong to another inode now; so do the handles."""
        self.ino = ino
        for draft in self._layers:
            draft.ino = ino
        self.base = replace(base, source=self.base.source, inode_id=self.base.inode_id)

    def detach(self, row: InodeRow, name: tuple[int, str] | None) -> None:
        """The inode has another content now, or no name. This stays what it is; the first write makes it a file of its own."""
        self._detached_row, self.last_name = row, name
        self.ino = None
        for draft in self._layers:
            draft.stay_readable()

    def forked(self, ino: int) -> None:
        """It is a file of its own now, with all that was written to it. Stands in the transaction that makes it one."""
        assert self._detached_row is not None
        self._files.store.database.transaction().if_rolled_back(partial(self.detach, self._detached_row, self.last_name))
        self.ino = ino
        self._detached_row = None
        for draft in self._layers:
            draft.give_to(self._files.store, ino, self._files.clock.wall_ns())
        self._row_size = -1  # the new row says the size of the base
        self.save()

    def close(self) -> None:
        for draft in self._layers:
            draft.close()

    # ---------------------------------------------------------------------------------------------------------- inside

    def _which(self, manifest_id: bytes) -> WhichContent:
        return WhichContent(self.base.space, self.base.source, self.base.inode_id, manifest_id)

    def _rebase(self, base: Base) -> None:
        self.base = base
        self._stored = None
        self.was_closed = True

    def _writable(self) -> Draft:
        """The draft that takes writes; a new one on top if there is none."""
        if self.ino is None:
            self._files.fork(self)
        assert self.ino is not None
        if self._layers and not self._layers[-1].sealed:
            return self._layers[-1]
        draft = Draft(self._files.folder, self.ino, self._size, self._size)
        if self.base.manifest_id is not None:
            # The service knows this file: a merge has to see that it is being edited, before the first flush already.
            draft.save(self._files.store, self._files.clock.wall_ns())
        self._layers.append(draft)
        return draft

    def save(self) -> None:
        """Let the replica know what is held. Must not stand between a write's bytes and its extents."""
        if not self.unsaved:
            return
        if self.ino is None:  # there was no room for a file of its own when the service's content took its place
            self._files.fork(self)
            return
        store, top = self._files.store, self._layers[-1]
        with store.database.transaction():
            store.database.transaction().if_rolled_back(partial(self._not_saved, self._row_size))
            if top.unsaved:
                top.save(store, self._files.clock.wall_ns())
            if self._row_size != self._size:
                store.set_size(self.ino, self._size)
            self._row_size = self._size

    def _not_saved(self, row_size: int) -> None:
        self._row_size = row_size

    def _note_write(self, appends: bool) -> None:
        now = self._files.clock.monotonic()
        if self.writing is None:
            self.writing = Writing(now, now, appends)
            if self.ino is not None:
                self._files.queue.written(self.ino)
        else:
            self.writing.last = now
            self.writing.asked = False
            self.writing.appended_only &= appends

    def ask_upload(self) -> None:
        """Closed or fsynced. A new file exists from now on also if nothing was written to it."""
        if self.ino is None:
            return
        is_new = self.base.manifest_id is None and not self._layers
        if is_new:
            self._writable()
            self.save()
        self.was_closed = True
        if self.writing is not None:
            self.writing.asked = True
        if is_new or self.writing is not None:
            self._files.queue.due(self.ino)

    def _gather(self, layer: int, start: int, end: int, parts: list[bytes | tuple[int, int]]) -> None:
        """What `[start, end)` is made of, from this layer down: bytes, or a range of the base."""
        if layer < 0:
            parts.append((start, end))
            return
        draft = self._layers[layer]
        for piece in draft.extents.pieces(start, end):
            if piece.held is Held.DATA:
                parts.append(draft.read(piece.start, piece.end))
            elif piece.held is Held.ZEROS:
                parts.append(bytes(piece.end - piece.start))
            else:
                shows = min(max(draft.floor, piece.start), piece.end)
                if piece.start < shows:
                    self._gather(layer - 1, piece.start, shows, parts)
                if shows < piece.end:
                    parts.append(bytes(piece.end - shows))

    async def _read_base(self, start: int, end: int, until: float | None = None) -> bytes:
        stored = self._stored
        if stored is None:
            manifest = await self.manifest(until)
            if manifest is None:
                raise CorruptData("a new file without content was asked for it")
            stored = self._stored
            if stored is None or stored.manifest is not manifest:  # an acknowledgement came meanwhile
                stored = self._content(manifest)
        return await stored.read(start, end, until)

    def _content(self, manifest: Manifest) -> StoredContent:
        files = self._files
        return StoredContent(self.base.space_id, manifest, files.chunks, files.downloads, files.decisions)


class _Exclusive:
    """`async with` a lock that is usually free, without a round through the scheduler then."""

    __slots__ = ("_lock",)

    def __init__(self, lock: trio.Lock) -> None:
        self._lock = lock

    async def __aenter__(self) -> None:
        if self._lock.locked():
            await self._lock.acquire()
        else:
            self._lock.acquire_nowait()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


def base_of(ino: int, row: FileRow) -> Base:
    return Base(row.space, row.space_id, ino, row.inode_id, row.manifest_id, row.manifest_size, row.sha256)
