"""The chunk cache: plain bytes of objects on this disk, evictable at any time, believed only after their checksum.

Two `diskcache` folders: one under a size limit, the least recently opened culled first, and one without a limit for what is
pinned. Above both, a few open chunks whose checksum was verified, so that a warm read is one `pread` on the event loop: no
thread, no lock, no SQL. Nothing that is not on the service as well may be put here: files are written without fsync.

Knows objects by id and nothing of files, manifests or the network. `diskcache`'s own `Disk` would pickle what is not bytes
(and unpickle what it finds); ours takes bytes and nothing else.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import diskcache
import trio
import xxhash
from diskcache.core import MODE_BINARY, MODE_RAW

from cache.disk import as_disk_error, write_all
from remote.crashpoints import crash_point

T = TypeVar("T")
Buffer = bytes | bytearray | memoryview

IN_DATABASE_MAX = 8 * 1024
"""Chunks up to this size are rows of the cache's database instead of files."""
OPEN_MAX = 256
OPEN_BYTES_MAX = 256 * 2**20
"""Open chunks together; a culled chunk that is open still takes its space."""
IN_MEMORY_BYTES_MAX = 64 * 2**20
"""Chunks that could not be put on the disk (full, or the limit is too small) and are kept for the next reads."""
STRAY_SECONDS = 60.0
_THREADS = 4
_REFUSED = (sqlite3.Error, OSError, diskcache.Timeout)
"""What a full or failing disk, and a damaged database, are heard as."""
_CACHED_PAGES = 512
"""Of the caches' databases, for each thread: diskcache's own 32 MiB in each would be much of what a mount takes."""


_log = logging.getLogger(__name__)


class BytesDisk(diskcache.Disk):
    """Stores bytes as they are, and hands out open descriptors."""

    def put(self, key: object) -> tuple[Any, bool]:
        if not isinstance(key, bytes):
            raise TypeError("a key of the chunk cache is an object id")
        return sqlite3.Binary(key), True

    def get(self, key: Any, raw: bool) -> bytes:
        return bytes(key)

    def store(self, value: Buffer, read: bool, key: object = None) -> tuple[int, int, str | None, Any]:
        if len(value) <= IN_DATABASE_MAX:
            return 0, MODE_RAW, None, sqlite3.Binary(value)
        filename, path = self.filename()  # type: ignore[no-untyped-call]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        crash_point("chunk.made")
        try:
            write_all(descriptor, value, 0)
        except OSError:
            Path(path).unlink()
            raise
        finally:
            os.close(descriptor)
        crash_point("chunk.written")
        return len(value), MODE_BINARY, filename, None

    def remove(self, file_path: str) -> None:
        crash_point("chunk.forgotten")
        super().remove(file_path)  # type: ignore[no-untyped-call]
        crash_point("chunk.evicted")

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> int | bytes:
        """A descriptor for a file, the bytes for a row. A file that is gone is a miss (diskcache asks for an OSError)."""
        if mode == MODE_RAW:
            return bytes(value)
        if mode != MODE_BINARY or filename is None:
            raise OSError("the chunk cache holds only bytes")
        return os.open(os.path.join(self._directory, filename), os.O_RDONLY | os.O_CLOEXEC)


class _Cache(diskcache.Cache):
    def filenames(self) -> set[str]:
        """Of the files that rows speak of, in this folder."""
        rows = self._sql("SELECT filename FROM Cache WHERE filename IS NOT NULL")
        return {filename for (filename,) in rows}

    def look(self, key: bytes) -> tuple[int | bytes | None, bytes | None]:
        """Value and tag like `get`, where the disk cannot be told that they were read."""
        rows = self._sql("SELECT mode, filename, value, tag FROM Cache WHERE key = ?", (key,)).fetchall()
        if not rows:
            return None, None
        mode, filename, value, tag = rows[0]
        return self._disk.fetch(mode, filename, value, True), tag


class OpenChunk:
    """The plain bytes of an object, verified, for as long as somebody holds this. The last reference closes the descriptor."""

    __slots__ = ("_descriptor", "data", "length")

    def __init__(self, length: int, *, descriptor: int = -1, data: Buffer | None = None) -> None:
        self.length = length
        self.data = data
        self._descriptor = descriptor

    def read(self, offset: int, length: int) -> bytes:
        """Shorter than asked only if the file was damaged after it was verified."""
        if self.data is not None:
            return bytes(self.data[offset : offset + length])
        return os.pread(self._descriptor, length, offset)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


class ChunkCache:
    """One folder of chunks. Every method may touch the disk: for worker threads, any number at a time.

    A disk that is full or a database that is damaged makes a chunk absent, never an error: the service has it. No call of
    diskcache has `retry`: it would ask a disk that fails again and again, without a pause and without an end.
    """

    def __init__(self, folder: Path, limit: int | None, keep_free: float) -> None:
        self._folder = folder
        self._keep_free = keep_free
        self._lock = threading.Lock()
        self._reserved = 0
        self._limit = limit
        self._opening = threading.Lock()
        self._opened: Any = None
        try:
            _ = self._cache
        except _REFUSED as error:
            _log.warning("the chunk cache %s cannot be used now: %s", folder, error)

    @property
    def _cache(self) -> Any:
        """Opened by now, if the disk allowed it."""
        with self._opening:
            if self._opened is None:
                self._opened = self._open_or_begin_anew()
            return self._opened

    def _open_or_begin_anew(self) -> Any:
        """What is damaged goes; what the disk refuses may be there later."""
        if self._folder.is_dir():
            if not (self._folder / diskcache.core.DBNAME).is_dir():
                try:
                    return self._open()
                except sqlite3.DatabaseError as error:
                    if as_disk_error(error) is not None:
                        raise
            shutil.rmtree(self._folder)
        self._folder.unlink(missing_ok=True)
        self._folder.mkdir(parents=True, mode=0o700)
        return self._open()

    def _open(self) -> Any:
        # cull_limit 0: diskcache would cull after the fact and at most so many; `_make_room` culls before.
        return _Cache(  # type: ignore[no-untyped-call]
            str(self._folder),
            disk=BytesDisk,
            eviction_policy="least-recently-used",
            cull_limit=0,
            size_limit=2**62,
            statistics=0,
            sqlite_cache_size=_CACHED_PAGES,
            sqlite_mmap_size=0,
        )

    def open(self, object_id: bytes, length: int | None) -> OpenChunk | None:
        """The chunk, verified; None if it is not here, or was damaged. `length`: as long as it must be, if that is known."""
        try:
            value, tag = self._get(object_id)
        except _REFUSED:
            return None
        if value is None:
            return None
        if isinstance(value, bytes):
            chunk = OpenChunk(len(value) if length is None else length, data=value)
        else:
            chunk = OpenChunk(os.fstat(value).st_size if length is None else length, descriptor=value)
        if _checksum_of(chunk) == tag:
            return chunk
        self.drop(object_id)
        return None

    def _get(self, object_id: bytes) -> tuple[int | bytes | None, bytes | None]:
        try:
            value, tag = self._cache.get(object_id, default=None, read=True, tag=True)
        except (sqlite3.Error, diskcache.Timeout):
            value, tag = self._cache.look(object_id)
        return value, tag

    def is_sound(self, object_id: bytes) -> bool:
        """False: it was damaged, and is dropped."""
        return not self.has(object_id) or self.open(object_id, None) is not None

    def put(self, object_id: bytes, plain: Buffer) -> bool:
        """Whether the chunk is here now."""
        size = len(plain)
        if not self._make_room(size):
            return False
        try:
            self._cache.set(object_id, plain, tag=_checksum(plain))
            crash_point("chunk.indexed")
        except _REFUSED:
            return False
        finally:
            with self._lock:
                self._reserved -= size
        return True

    def has(self, object_id: bytes) -> bool:
        try:
            return object_id in self._cache
        except _REFUSED:
            return False

    def drop(self, object_id: bytes) -> bool:
        try:
            return bool(self._cache.delete(object_id))
        except _REFUSED:
            return False

    def ids(self) -> list[bytes]:
        return list(self._cache.iterkeys())

    def strays(self) -> set[str]:
        """Files that no row speaks of: being written or removed at this moment, or left by a process that was killed then."""
        try:
            on_disk = {str(path.relative_to(self._folder)) for path in self._folder.glob("*/*/*.val")}
            return on_disk.difference(self._cache.filenames())
        except _REFUSED:
            return set()

    def drop_strays(self, suspects: set[str]) -> None:
        """Those that still are."""
        for filename in suspects & self.strays():
            self._cache.disk.remove(filename)

    def volume(self) -> int:
        """Bytes on disk."""
        return int(self._cache.volume())

    def set_limit(self, limit: int) -> None:
        self._limit = limit
        with suppress(*_REFUSED), self._lock:
            self._cull_to(limit)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _make_room(self, size: int) -> bool:
        """Cull until `size` more bytes fit under the limit and into what the disk has to spare, and reserve them."""
        with self._lock:
            try:
                volume = self.volume() + self._reserved
                allowed = volume + self._spare() if self._limit is None else min(self._limit, volume + self._spare())
                if size > allowed:
                    return False
                if volume + size > allowed:
                    if self._limit is None:
                        return False
                    self._cull_to(allowed - size - self._reserved)
            except _REFUSED:
                return False
            self._reserved += size
            return True

    def _spare(self) -> int:
        """Bytes that may still be taken from the disk; negative if the others have taken too much already."""
        disk = os.statvfs(self._folder)
        return int(disk.f_bavail * disk.f_frsize - self._keep_free * disk.f_blocks * disk.f_frsize) - self._reserved

    def _cull_to(self, size: int) -> None:
        self._cache.size_limit = max(0, size)
        self._cache.cull()


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Bytes on disk."""

    evictable: int
    limit: int
    pinned: int


class Chunks:
    """Both caches and the open chunks, for the event loop."""

    def __init__(self, folder: Path, limit: int, *, keep_free: float = 0.1) -> None:
        self._limit = limit
        self._evictable = ChunkCache(folder / "chunks", limit, keep_free)
        self._pinned = ChunkCache(folder / "pinned", None, 0.01)
        self._open: OrderedDict[bytes, OpenChunk] = OrderedDict()
        self._open_bytes = 0
        self._memory: OrderedDict[bytes, OpenChunk] = OrderedDict()
        self._memory_bytes = 0
        self._threads = trio.CapacityLimiter(_THREADS)

    def hot(self, object_id: bytes) -> OpenChunk | None:
        """The chunk, if it is open."""
        chunk = self._open.get(object_id)
        if chunk is not None:
            self._open.move_to_end(object_id)
            return chunk
        return self._memory.get(object_id)

    async def open(self, object_id: bytes, length: int) -> OpenChunk | None:
        """The verified chunk, if it is on this disk. A damaged one is dropped, and not here."""
        chunk = self.hot(object_id)
        if chunk is None:
            chunk = await self._in_thread(partial(self._open_from_disk, object_id, length))
            if chunk is not None:
                self._keep_open(object_id, chunk)
        return chunk

    async def put(self, object_id: bytes, plain: Buffer, *, pinned: bool = False) -> bool:
        """Keep the plain bytes of an object that the service holds. False: they did not fit."""
        if pinned:
            return await self._in_thread(partial(self._put_pinned, object_id, plain))
        return await self._in_thread(partial(self._put_evictable, object_id, plain))

    async def put_open(self, object_id: bytes, plain: Buffer, *, pinned: bool = False) -> None:
        """The same for bytes that readers wait for: they can be read at once, and on from here if the disk is full."""
        self.lend(object_id, plain)
        if await self.put(object_id, plain, pinned=pinned):
            chunk = await self._in_thread(partial(self._open_from_disk, object_id, len(plain)))
            if chunk is not None:
                self._forget_memory(object_id)
                self._keep_open(object_id, chunk)

    def lend(self, object_id: bytes, plain: Buffer) -> OpenChunk:
        """Keep verified bytes in memory for a while."""
        self._forget_memory(object_id)
        chunk = self._memory[object_id] = OpenChunk(len(plain), data=plain)
        self._memory_bytes += chunk.length
        while self._memory_bytes > IN_MEMORY_BYTES_MAX and len(self._memory) > 1:
            self._forget_memory(next(iter(self._memory)))
        return chunk

    def has(self, object_id: bytes) -> bool:
        """Whether the chunk is here, without looking at its bytes. Some ten microseconds."""
        return object_id in self._open or self._pinned.has(object_id) or self._evictable.has(object_id)

    def has_pinned(self, object_id: bytes) -> bool:
        return self._pinned.has(object_id)

    async def missing(self, objects: dict[bytes, int], *, pinned: bool = False) -> list[bytes]:
        """Which of these objects (id -> plain length) are not here (or not pinned here)."""
        has = self._pinned.has if pinned else self.has
        return await self._in_thread(lambda: [object_id for object_id in objects if not has(object_id)])

    async def drop(self, object_id: bytes) -> None:
        """Forget a chunk that turned out to be damaged, wherever it is."""
        self._close(object_id)
        await self._in_thread(lambda: self._pinned.drop(object_id) | self._evictable.drop(object_id))

    async def evict(self, object_ids: list[bytes]) -> int:
        """Drop chunks that are not pinned; how many there were."""
        for object_id in object_ids:
            self._close(object_id)
        return await self._in_thread(lambda: sum(self._evictable.drop(object_id) for object_id in object_ids))

    async def set_pinned(self, object_id: bytes, length: int) -> bool:
        """Move a chunk that is here to the pinned ones. False: it is not here, or the disk is full."""
        if await self._in_thread(partial(self._move, self._evictable, self._pinned, object_id, length)):
            return True
        chunk = self.hot(object_id)  # perhaps there was no room for it on the disk when it came
        return chunk is not None and await self._in_thread(lambda: self._put_pinned(object_id, chunk.read(0, chunk.length)))

    async def unpin(self, object_id: bytes) -> None:
        """Move a pinned chunk to those that may be evicted, if there is room for it there."""
        self._close(object_id)
        if not await self._in_thread(partial(self._move, self._pinned, self._evictable, object_id, None)):
            await self._in_thread(partial(self._pinned.drop, object_id))

    async def verify(self) -> tuple[int, int]:
        """Read every chunk on the disk, and drop those that are damaged: (looked at, dropped)."""
        looked_at = dropped = 0
        for cache in (self._pinned, self._evictable):
            for object_id in await self._in_thread(cache.ids):
                looked_at += 1
                dropped += not await self._in_thread(partial(cache.is_sound, object_id))
        return looked_at, dropped

    async def drop_strays(self, patience_seconds: float = STRAY_SECONDS) -> None:
        """Remove what killed processes left on the disk, where no limit counts it. Takes longer than writing a chunk does."""
        for cache in (self._pinned, self._evictable):
            suspects = await self._in_thread(cache.strays)
            if suspects:
                await trio.sleep(patience_seconds)
                await self._in_thread(partial(cache.drop_strays, suspects))

    async def pinned_ids(self) -> list[bytes]:
        return await self._in_thread(self._pinned.ids)

    async def use(self) -> CacheUse:
        evictable, pinned = await self._in_thread(lambda: (self._evictable.volume(), self._pinned.volume()))
        return CacheUse(evictable, self._limit, pinned)

    async def set_limit(self, limit: int) -> None:
        self._limit = limit
        await self._in_thread(partial(self._evictable.set_limit, limit))

    def close(self) -> None:
        self._open.clear()
        self._memory.clear()
        self._evictable.close()
        self._pinned.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._threads)

    def _open_from_disk(self, object_id: bytes, length: int) -> OpenChunk | None:
        return self._pinned.open(object_id, length) or self._evictable.open(object_id, length)

    def _put_evictable(self, object_id: bytes, plain: Buffer) -> bool:
        return self._pinned.has(object_id) or self._evictable.has(object_id) or self._evictable.put(object_id, plain)

    def _put_pinned(self, object_id: bytes, plain: Buffer) -> bool:
        if not (self._pinned.has(object_id) or self._pinned.put(object_id, plain)):
            return False
        crash_point("chunk.in-both")
        self._evictable.drop(object_id)
        return True

    @staticmethod
    def _move(source: ChunkCache, target: ChunkCache, object_id: bytes, length: int | None) -> bool:
        if target.has(object_id):
            source.drop(object_id)
            return True
        chunk = source.open(object_id, length)
        if chunk is None or not target.put(object_id, chunk.read(0, chunk.length)):
            return False
        crash_point("chunk.in-both")
        source.drop(object_id)
        return True

    def _keep_open(self, object_id: bytes, chunk: OpenChunk) -> None:
        self._close_descriptor(object_id)
        self._open[object_id] = chunk
        self._open_bytes += chunk.length
        while len(self._open) > OPEN_MAX or (self._open_bytes > min(OPEN_BYTES_MAX, self._limit // 4) and len(self._open) > 1):
            self._close_descriptor(next(iter(self._open)))

    def _close(self, object_id: bytes) -> None:
        self._close_descriptor(object_id)
        self._forget_memory(object_id)

    def _close_descriptor(self, object_id: bytes) -> None:
        chunk = self._open.pop(object_id, None)
        if chunk is not None:
            self._open_bytes -= chunk.length

    def _forget_memory(self, object_id: bytes) -> None:
        chunk = self._memory.pop(object_id, None)
        if chunk is not None:
            self._memory_bytes -= chunk.length


def _checksum(plain: Buffer) -> bytes:
    return xxhash.xxh3_64_digest(plain)


def _checksum_of(chunk: OpenChunk) -> bytes | None:
    """None if the chunk is not as long as it must be."""
    summed = xxhash.xxh3_64()
    at = 0
    while at <= chunk.length:  # one byte more than there must be, so that a longer file does not pass
        piece = chunk.read(at, 2**20)
        if not piece:
            break
        summed.update(piece)
        at += len(piece)
    return summed.digest() if at == chunk.length else None
