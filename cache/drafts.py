"""One draft: content written here and not yet on the service. Its bytes, its extents, and the order in which they are kept.

A small draft (every byte it holds lies below `SMALL`) is in memory while its file is open, and in its row when saved. A large
one is a sparse file `drafts/<id>`, whose row exists before it gets a byte. The order is what makes a crash harmless:

    spill     row → bytes into the file → (they were synced before? sync the file) → row without the bytes
    save      bytes in the file → row that knows them, and says which of them were not synced
    truncate  row → (they were synced before? sync the row) → file cut, before anything is written there (it may stay longer
              than the row says: what the extents do not hold is never read)
    sync      sync the file (and once its name) → row that says so
    discard   row gone and synced → file unlinked

While a row has `data`, the file of that id (left by a spill that a crash interrupted) means nothing. What a row can be
believed after power loss is `cache.synced`'s and `cache.unsynced`'s business.

Knows one layer only: what shows through below it, and who may write when, is `cache.files`'s business.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import trio

from cache.disk import disk_errors, make_folder, sync_folder, write_all
from cache.errors import CorruptData, DiskFull
from cache.extents import Extent, Extents, Held
from cache.store.content import ContentStore, DraftRow
from cache.synced import Shown, this_boot
from remote.crashpoints import crash_point

SMALL = 64 * 1024
INLINE_WRITE = 64 * 1024
"""Writes up to this size go to the page cache on the event loop: handing them to a thread would cost more."""
ZERO_RUN = 64 * 1024
"""Zeros written in runs of at least this much take no space."""

_ZEROS = bytes(2**20)
_WRITERS = 8
KEPT_FREE = 32 * 2**20
"""Bytes of the disk that drafts leave alone (or a twentieth of a small disk), for the replica: on a full disk files can still
be deleted, renamed, and saved if they are small."""
_ROOM_STEP = 8 * 2**20
"""So much may be written before the disk is asked again."""


class DraftFolder:
    """Where the large drafts are, and the threads that write them. One for the whole client."""

    def __init__(self, path: Path, boot: str | None = None) -> None:
        """`boot`: the id of this run of the machine, where a test decides it."""
        make_folder(path)
        self.path = path
        self.boot = boot or this_boot()
        self.writers = trio.CapacityLimiter(_WRITERS)
        self._room = 0

    def take_room(self, size: int) -> None:
        """Before `size` bytes are written to a draft's file. Raises `DiskFull` if too little would be left for the replica."""
        if size > self._room:
            disk = os.statvfs(self.path)
            kept = min(KEPT_FREE, disk.f_blocks * disk.f_frsize // 20)
            room = disk.f_bavail * disk.f_frsize - kept
            if size > room:
                self._room = 0
                raise DiskFull("the disk that holds the drafts is full")
            self._room = max(size, min(room // 2, _ROOM_STEP))
        self._room -= size

    def file_of(self, draft: int) -> Path:
        return self.path / str(draft)

    def unlink(self, drafts: list[int], make_durable: Callable[[], None]) -> None:
        """For a worker thread, after the transaction that dropped their rows. It is made durable first: power loss must not
        bring a row back whose file is gone."""
        files = [file for draft in drafts if (file := self.file_of(draft)).exists()]
        if files:
            make_durable()
        for file in files:
            crash_point("draft.unlinking")
            file.unlink(missing_ok=True)
            crash_point("draft.unlinked")


class Draft:
    """A layer of a file's content: `size` of the whole as seen through it, `floor` of what shows through from below."""

    def __init__(self, folder: DraftFolder, ino: int, size: int, floor: int) -> None:
        self.id: int | None = None
        """None: it has no row yet, so nothing of it survives a crash."""
        self.ino = ino
        self.size = size
        self.floor = floor
        self.extents = Extents()
        self.sealed = False
        self.complete = False
        self.unsaved = True
        """The row does not say what the draft holds."""
        self._folder = folder
        self._data: bytearray | None = bytearray()
        self._descriptor = -1
        self._in_threads = 0
        self._to_be_closed = False
        self._maybe_durable = False
        """Its row may have been synced while it held the bytes."""
        self._name_synced = False
        self._sync_failed = False
        self._unsynced = False
        """Bytes were written to the file since it was synced last."""
        self._synced: Shown | None = None
        """While that is so: what it showed before them, all of it synced. None: nothing was."""
        self._untrimmed = False
        self._frees_synced = False
        """What is to be trimmed was synced: a row that has it may come back until this one is durable."""

    @classmethod
    def load(cls, folder: DraftFolder, row: DraftRow) -> Draft:
        draft = cls(folder, row.ino, row.size, row.floor)
        draft.id = row.id
        draft.extents = Extents.unpack(row.extents)
        draft.sealed = row.sealed
        draft.complete = row.complete
        draft.unsaved = False
        draft._data = None if row.data is None else bytearray(row.data)
        draft._maybe_durable = True
        draft._unsynced = row.unsynced is not None
        draft._synced = None if row.synced is None else Shown.unpack(row.synced)
        draft._name_synced = row.data is None and (draft._synced is not None or not draft._unsynced)
        return draft

    # --------------------------------------------------------------------------------------------------------- content

    def read(self, start: int, end: int) -> bytes:
        """Bytes that the extents hold as data."""
        held = self._data
        piece = os.pread(self._open(), end - start, start) if held is None else bytes(held[start:end])
        if len(piece) != end - start:
            piece += self._read_rest(start + len(piece), end)
        return piece

    async def read_into(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Fill each buffer with what is held as data from its offset on."""
        if self._data is None:
            await self._thread(_read_pieces, self._open(), pieces)
            return
        for start, into in pieces:
            into[:] = self._data[start : start + len(into)]

    async def write(self, store: ContentStore, offset: int, data: bytes) -> None:
        """Hold `data` at `offset`. On `DiskFull` the draft is what it was before, or holds a part of `data`."""
        end = offset + len(data)
        if len(data) >= ZERO_RUN and _is_zeros(data) and not self.extents.holds_data(offset, end):
            held = Held.ZEROS
        else:
            held = Held.DATA
            if self._data is not None and end <= SMALL:
                self._write_memory(self._data, offset, data)
            else:
                await self._write_file(store, offset, data)
        self.extents.put(offset, end, held)
        self.size = max(self.size, end)
        self.unsaved = True

    def truncate(self, size: int) -> None:
        """Cut to `size`, or grow with zeros. The file is cut later, by `trim`: the row has to know first."""
        if size < self.size:
            self._untrimmed = self._untrimmed or self.extents.data_end > size
            synced = self._all_synced()
            self._frees_synced |= synced is not None and synced.extents.data_end > size
            if self._synced is not None:
                self._synced = self._synced.cut(size)
            self.extents.cut(size)
            self.floor = min(self.floor, size)
            if self._data is not None:
                del self._data[size:]
        self.size = size
        self.unsaved = True

    def remembered(self) -> Callable[[], None]:
        """What makes the draft again what it is now, unless bytes were written to it meanwhile."""
        size, floor, extents, untrimmed = self.size, self.floor, self.extents.copy(), self._untrimmed
        data = None if self._data is None else bytearray(self._data)
        synced, frees_synced = self._synced, self._frees_synced

        def restore() -> None:
            self.size, self.floor, self.extents, self._untrimmed, self._data = size, floor, extents, untrimmed, data
            self._synced, self._frees_synced = synced, frees_synced

        return restore

    async def trim(self, store: ContentStore) -> None:
        """Give back what a truncation freed. Only after `save`, and before anything is written there.

        Power loss must not bring a row back that says more than the file has, or has something else in its place, if that
        was synced once.
        """
        if self._untrimmed and self._data is None and not self.sealed:
            self._untrimmed, end = False, self.extents.data_end
            frees_synced, self._frees_synced = self._frees_synced, False
            if frees_synced:
                await self._thread(store.database.make_durable)
            await self._thread(os.ftruncate, self._open(), end)
            crash_point("truncate.cut")

    # ------------------------------------------------------------------------------------------------------ persistence

    def save(self, store: ContentStore, now_ns: int) -> None:
        """Let the row say what the draft holds now; after it, the draft survives the end of this process."""
        data = None if self._data is None else bytes(self._data)
        packed = self.extents.pack()
        with store.database.transaction():
            store.database.transaction().if_rolled_back(partial(self._not_saved, self.id))
            if self.id is None:
                self.id = store.add_draft(self.ino, self.size, self.floor, packed, data, now_ns, *self._doubts())
            else:
                store.save_draft(self.id, self.size, self.floor, packed, data, now_ns, *self._doubts())
            self.unsaved = False
            crash_point("draft.saving")

    def _not_saved(self, id_: int | None) -> None:
        self.id = id_
        self.unsaved = True

    def give_to(self, store: ContentStore, ino: int, now_ns: int) -> None:
        """The draft belongs to another file now. Its row may be gone (then it comes back), or never have been."""
        self.ino = ino
        self.complete = False
        if self.id is not None and not store.give_draft(self.id, ino):
            data = None if self._data is None else bytes(self._data)
            packed = self.extents.pack()
            row = (self.id, ino, self.sealed, self.size, self.floor, packed, data, now_ns, None, None, False, None)
            store.restore_draft(DraftRow(*row, *self._doubts()))
            self.unsaved = False

    @property
    def stands_alone(self) -> bool:
        """Nothing of the layer below shows through."""
        shown = min(self.floor, self.size)
        return all(piece.held is not Held.NOTHING for piece in self.extents.pieces(0, shown))

    def stay_readable(self) -> None:
        """Its file may be unlinked from now on."""
        if self._data is None:
            self._open()

    async def sync(self, store: ContentStore) -> None:
        """The bytes survive power loss, if the row does, which says so (where it is `unsaved`, with the next `save`)."""
        if self._data is None and self._unsynced:
            await self._sync_file(self._open())
            if self.id is not None and not self.unsaved:
                store.all_synced(self.id)
            self._unsynced, self._synced = False, None
        self._maybe_durable = True

    @property
    def is_unsynced(self) -> bool:
        """Bytes in its file would not survive power loss."""
        return self._unsynced

    def close(self) -> None:
        """Nobody reads or writes it any more, for now. While a thread still does, its file stays open until that ends."""
        self._to_be_closed = self._in_threads > 0
        if self._descriptor >= 0 and not self._to_be_closed:
            os.close(self._descriptor)
            self._descriptor = -1

    async def take_from_below(self, store: ContentStore, below: Draft) -> None:
        """Become what this draft over `below` shows, so that `below` is not needed any more. Synced, not yet saved.

        What is copied fills this draft's holes, so the draft is right at every moment, with `below` under it or not.
        """
        for gap in self._gaps(below):
            for piece in below.extents.pieces(gap.start, gap.end):
                if piece.held is Held.ZEROS or (piece.held is Held.NOTHING and piece.start >= below.floor):
                    self.extents.put(piece.start, piece.end, Held.ZEROS)
                elif piece.held is Held.NOTHING and piece.end > below.floor:
                    self.extents.put(below.floor, piece.end, Held.ZEROS)
                elif piece.held is Held.DATA:
                    await self._copy(store, below, piece.start, piece.end)
        self.floor = min(self.floor, below.floor)
        self.extents.cut(self.size)  # it may have been truncated meanwhile
        self.unsaved = True
        await self.sync(store)

    def bytes_to_take(self, below: Draft) -> int:
        """How much `take_from_below` would copy."""
        pieces = (piece for gap in self._gaps(below) for piece in below.extents.pieces(gap.start, gap.end))
        return sum(piece.end - piece.start for piece in pieces if piece.held is Held.DATA)

    def _gaps(self, below: Draft) -> list[Extent]:
        """What shows through this draft of `below`."""
        pieces = self.extents.pieces(0, min(self.floor, below.size))
        return [piece for piece in pieces if piece.held is Held.NOTHING]

    async def _copy(self, store: ContentStore, below: Draft, start: int, end: int) -> None:
        for at in range(start, end, 2**20):
            stop = min(at + 2**20, end)
            copied = bytearray(stop - at)
            await below.read_into([(at, memoryview(copied))])
            data = bytes(copied)
            if self._data is not None and stop <= SMALL:
                self._write_memory(self._data, at, data)
            else:
                await self._write_file(store, at, data)
            self.extents.put(at, stop, Held.DATA)

    # ---------------------------------------------------------------------------------------------------------- inside

    @staticmethod
    def _write_memory(held: bytearray, offset: int, data: bytes) -> None:
        if offset > len(held):
            held.extend(bytes(offset - len(held)))
        held[offset : offset + len(data)] = data

    async def _write_file(self, store: ContentStore, offset: int, data: bytes) -> None:
        self._folder.take_room(len(data))
        if self._data is not None:
            await self._spill(store)
        while self._untrimmed and not self.sealed:  # it may be truncated again meanwhile
            await self.trim(store)
        if not self._unsynced:
            self._synced, self._unsynced = self._all_synced(), True
        descriptor = self._open()
        crash_point("draft.writing")
        with disk_errors():
            if len(data) <= INLINE_WRITE:
                write_all(descriptor, data, offset)
            else:
                await self._thread(write_all, descriptor, data, offset)
        crash_point("draft.written")

    async def _spill(self, store: ContentStore) -> None:
        """Move the bytes from memory into a file."""
        assert self._data is not None
        if self.id is None:
            self.id = store.add_draft(self.ino, self.size, self.floor, self.extents.pack(), bytes(self._data), 0)
        with disk_errors():
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            descriptor = os.open(self._folder.file_of(self.id), flags, 0o600)
            crash_point("draft.spilling")
            try:
                write_all(descriptor, bytes(self._data), 0)
                if self._maybe_durable:
                    await self._sync_file(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        crash_point("draft.spilled")
        self._descriptor = descriptor
        self._data = None
        self._unsynced = not self._maybe_durable
        self.unsaved = True

    def _all_synced(self) -> Shown | None:
        """What is synced of the file, and would be shown if nothing else were."""
        if self._data is not None or self._unsynced:
            return self._synced
        return Shown(self.size, self.floor, self.extents.copy()) if self._name_synced else None

    def _doubts(self) -> tuple[str | None, bytes | None]:
        """The columns `unsynced` and `synced`."""
        if self._data is not None or not self._unsynced:
            return None, None
        return self._folder.boot, None if self._synced is None else self._synced.pack()

    async def _sync_file(self, descriptor: int) -> None:
        """The kernel tells of bytes that it could not write once, and takes them for written then: so they are written anew."""
        with disk_errors():
            if self._sync_failed:
                await self._thread(_write_again, descriptor, self.extents.copy())
            try:
                await self._thread(os.fdatasync, descriptor)
            except OSError:
                self._sync_failed = True
                raise
            self._sync_failed = False
            if not self._name_synced:
                await self._thread(sync_folder, self._folder.path)
        self._name_synced = True

    async def _thread(self, work: Callable[..., object], *arguments: object) -> None:
        """Do something with the file that may take a while. Until it is done, the descriptor is not closed."""
        self._in_threads += 1
        try:
            await trio.to_thread.run_sync(partial(work, *arguments), limiter=self._folder.writers)
        finally:
            self._in_threads -= 1
            if self._to_be_closed:
                self.close()

    def _open(self) -> int:
        if self._descriptor < 0:
            assert self.id is not None
            try:
                self._descriptor = os.open(self._folder.file_of(self.id), os.O_RDWR | os.O_CLOEXEC)
            except (FileNotFoundError, IsADirectoryError):
                raise CorruptData(f"the draft {self.id} has lost its file") from None
        return self._descriptor

    def _read_rest(self, start: int, end: int) -> bytes:
        rest = b"" if self._data is not None else os.pread(self._open(), end - start, start)
        if len(rest) != end - start:
            raise CorruptData(f"the draft {self.id} is shorter than its row says")
        return rest


def _write_again(descriptor: int, extents: Extents) -> None:
    for piece in extents.pieces(0, extents.data_end):
        if piece.held is Held.DATA:
            for at in range(piece.start, piece.end, 2**20):
                write_all(descriptor, os.pread(descriptor, min(2**20, piece.end - at), at), at)


def _is_zeros(data: bytes) -> bool:
    if data[0] or data[-1] or data[len(data) // 2]:
        return False
    return all(data[at : at + len(_ZEROS)] == _ZEROS[: len(data) - at] for at in range(0, len(data), len(_ZEROS)))


def _read_pieces(descriptor: int, pieces: Sequence[tuple[int, memoryview]]) -> None:
    for start, into in pieces:
        at = 0
        while at < len(into):
            got = os.preadv(descriptor, [into[at:]], start + at)
            if got == 0:
                raise CorruptData("a draft is shorter than its row says")
            at += got
