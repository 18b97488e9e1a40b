"""A local file as it will be stored: its fingerprint and its chunks, found in one pass from front to back. Blocking.

Cut and encoded as a drive does it, so that what a device sent is not sent again, and the other way round. Nothing of it is
kept: whoever sends a chunk reads and encodes it again, and compares its name.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from cache.chunking import Changes, Look, Range, Rechunking, Zeros, choose_split, cut
from cache.encoding import EncodedObject, encode
from cache.errors import NotTransferred
from remote.manifest import INLINE_MAX, ChunkRef, Split

_ZEROS = bytes(2**20)


@dataclass(frozen=True, slots=True)
class LocalChunk:
    offset: int
    ref: ChunkRef


@dataclass(frozen=True, slots=True)
class Survey:
    size: int
    mtime_ns: int
    sha256: bytes
    split: Split
    chunks: tuple[LocalChunk, ...]
    content: bytes | None
    """All of a small file, which has no chunks."""


def survey(descriptor: int, looked_at: Callable[[int], None]) -> Survey:
    """`looked_at` hears of bytes when they were read, and may raise to stop. `NotTransferred` if the file changes meanwhile."""
    before = os.fstat(descriptor)
    size = before.st_size
    whole = hashlib.sha256()
    split = choose_split(size, None)
    chunks: tuple[LocalChunk, ...] = ()
    content = None
    if size <= INLINE_MAX:
        content = _read(descriptor, 0, size)
        whole.update(content)
    else:
        chunks = tuple(_cut(descriptor, size, split, whole.update, looked_at))
    after = os.fstat(descriptor)
    if (after.st_size, after.st_mtime_ns) != (size, before.st_mtime_ns):
        raise _changed()
    return Survey(size, before.st_mtime_ns, whole.digest(), split, chunks, content)


def encode_again(descriptor: int, chunk: LocalChunk) -> EncodedObject:
    """The object of a chunk that was surveyed. `NotTransferred` if the file changed."""
    encoded = encode(_read(descriptor, chunk.offset, chunk.ref.length))
    if encoded.ref != chunk.ref:
        raise _changed()
    return encoded


def _cut(
    descriptor: int, size: int, split: Split, hash_on: Callable[[bytes | memoryview], None], looked_at: Callable[[int], None]
) -> list[LocalChunk]:
    plan = Rechunking(Changes(size, (), _holes(descriptor, size)), split, None)
    chunks: list[LocalChunk] = []
    window = b""
    position = 0
    while position < size:
        step = plan.step(position, position + len(window))
        if isinstance(step, Zeros):
            chunks.append(LocalChunk(position, ChunkRef.zeros(step.length)))
            for at in range(0, step.length, len(_ZEROS)):
                hash_on(memoryview(_ZEROS)[: step.length - at])
                looked_at(min(len(_ZEROS), step.length - at))
            position += step.length
            continue
        assert isinstance(step, Look), "there is no base whose chunks could be kept"
        window += _read(descriptor, position + len(window), step.end - position - len(window))
        # A byte more than there is: it tells a boundary at the end from the mere end of the buffer.
        with memoryview(window + b"\0") as view:
            used = 0
            for piece in cut(view, len(window), split, final=step.final, whole=plan.is_whole):
                plain = view[piece.start : piece.end]
                chunks.append(LocalChunk(position + piece.start, encode(plain, piece.sha256).ref))
                hash_on(plain)
                looked_at(len(plain))
                used = piece.end
        window = window[used:]
        position += used
    return chunks


def _holes(descriptor: int, size: int) -> tuple[Range, ...]:
    """Where a sparse file has no data."""
    found: list[Range] = []
    at = 0
    while at < size:
        try:
            data = min(os.lseek(descriptor, at, os.SEEK_DATA), size)
        except OSError as error:
            if error.errno != errno.ENXIO:
                return ()  # a file system that does not tell
            data = size
        if data > at:
            found.append(Range(at, data))
        at = os.lseek(descriptor, data, os.SEEK_HOLE) if data < size else size
    return tuple(found)


def _read(descriptor: int, offset: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length > 0:
        part = os.pread(descriptor, length, offset)
        if not part:
            raise _changed()
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return b"".join(parts)


def _changed() -> NotTransferred:
    return NotTransferred("the file changed while it was read: run this again when nobody writes to it")
