"""`NAME.part`: a file that is being got, with what is needed to go on after a crash. Blocking.

Its first `size` bytes are the content, with holes where nothing came yet. After them: a header that says which version it is,
and a record (offset, length, XXH3 of the bytes) for each range that was written. A record counts only if the bytes are what it
says, so nothing has to be synced before the end, and a power cut costs what had not reached the disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from pathlib import Path

import xxhash

from cache.disk import sync_folder, write_all
from cache.errors import NotTransferred

_HEADER = struct.Struct("<8s32sQ")
_MAGIC = b"ALOFTPT1"
_RECORD = struct.Struct("<QQQ")
_STEP = 4 * 2**20


class PartFile:
    """Open and locked; `close` in any case. `done`: the offsets of the ranges that are there, with their lengths."""

    def __init__(self, target: Path, version: bytes, size: int) -> None:
        """`NotTransferred` if another process gets the same file; `OSError`."""
        self._target = target
        self._path = target.with_name(target.name + ".part")
        self._size = size
        self._header = _HEADER.pack(_MAGIC, version, size)
        self.done: dict[int, int] = {}
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            self._lock()
            self._end = self._resume()
        except BaseException:
            self.close()
            raise

    def write(self, offset: int, plain: bytes | memoryview) -> None:
        """A range that no other one overlaps; from any thread. It is there after a crash once `note` was told of it."""
        write_all(self._descriptor, plain, offset)

    def note(self, offset: int, length: int, xxh3: int) -> None:
        """That a range was written, with its XXH3. From one thread."""
        write_all(self._descriptor, _RECORD.pack(offset, length, xxh3), self._end)
        self._end += _RECORD.size
        self.done[offset] = length

    def finish(self, sha256: bytes | None, mtime_ns: int) -> None:
        """All of it is there: give it its name, durably. `NotTransferred` if it does not have the SHA-256 that it should."""
        if sha256 is not None and self._sha256() != sha256:
            self._path.unlink()
            raise NotTransferred("the file does not have the SHA-256 that the service says: it was not kept")
        os.fsync(self._descriptor)  # with the records, so that a crash here loses nothing
        os.ftruncate(self._descriptor, self._size)
        os.utime(self._descriptor, ns=(mtime_ns, mtime_ns))
        os.fsync(self._descriptor)
        self._path.replace(self._target)
        sync_folder(self._target.parent)

    def close(self) -> None:
        os.close(self._descriptor)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotTransferred(f"another process writes to {self._path}: wait for it, or stop it") from None

    def _resume(self) -> int:
        """Find out what is there; where the next record goes."""
        at = self._size + _HEADER.size
        if os.pread(self._descriptor, _HEADER.size, self._size) != self._header:
            os.ftruncate(self._descriptor, 0)
            write_all(self._descriptor, self._header, self._size)
            return at
        while len(record := os.pread(self._descriptor, _RECORD.size, at)) == _RECORD.size:
            offset, length, xxh3 = _RECORD.unpack(record)
            if offset + length <= self._size and self._xxh3(offset, length) == xxh3:
                self.done[offset] = length
            at += _RECORD.size
        return at

    def _xxh3(self, offset: int, length: int) -> int:
        summed = xxhash.xxh3_64()
        for at in range(offset, offset + length, _STEP):
            summed.update(os.pread(self._descriptor, min(_STEP, offset + length - at), at))
        return summed.intdigest()

    def _sha256(self) -> bytes:
        whole = hashlib.sha256()
        for at in range(0, self._size, _STEP):
            whole.update(os.pread(self._descriptor, min(_STEP, self._size - at), at))
        return whole.digest()
