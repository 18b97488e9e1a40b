"""Bytes of a content that the service has: by its manifest, from the chunk cache or over the network. One for each reader.

Owns how far ahead of its reader is fetched, and how long one read may wait. Knows no drafts, no names, no kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio

from cache.chunks import Chunks, OpenChunk
from cache.downloads import Downloads, Wanted
from cache.errors import CorruptData, TimedOut
from cache.link import LinkDecisions
from cache.readahead import ReadAhead
from remote.manifest import ChunkRef, Encoding, Manifest

ASKED_AGAIN_SECONDS = 5.0
"""The kernel asks again for a page that could not be read, up to three times and at once, before it tells the application:
for so long after a read waited in vain, the others of this content do not wait for the network."""


class ReadBudget:
    """How long each read of one file may wait for the network, however many parts it has."""

    def __init__(self, downloads: Downloads) -> None:
        self._downloads = downloads
        self._waited_in_vain = -math.inf

    @contextmanager
    def one(self) -> Iterator[float]:
        """Around a read: when (trio's time) it is to give up, by `TimedOut`."""
        began = trio.current_time()
        until = began if began < self._waited_in_vain + ASKED_AGAIN_SECONDS else began + self._downloads.io_timeout
        try:
            yield until
        except TimedOut:
            if until > began:
                self._waited_in_vain = trio.current_time()
            raise


class StoredContent:
    """`space`: in whose name its objects are asked for."""

    def __init__(self, space: bytes, manifest: Manifest, chunks: Chunks, downloads: Downloads, decisions: LinkDecisions) -> None:
        self.manifest = manifest
        self._space = space
        self._chunks = chunks
        self._downloads = downloads
        self._decisions = decisions
        self._read_ahead = ReadAhead()

    async def read(self, start: int, end: int, until: float | None = None) -> bytes:
        """The bytes [start, end), which must be some. `until` (trio's time): when to give up; for each chunk the I/O budget, if
        it is not said. Raises `Unavailable`."""
        manifest = self.manifest
        if manifest.inline is not None:
            return manifest.inline[start:end]
        index = manifest.chunk_at(start)
        ref = manifest.chunks[index]
        within = start - manifest.offsets[index]
        if end <= manifest.offsets[index] + ref.length:  # the usual read lies in one chunk
            parts = [await self._read_chunk(ref, within, end - start, until)]
        else:
            parts = await self._read_chunks(index, start, end, until)
        self._fetch_ahead(start, end)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read_chunks(self, index: int, start: int, end: int, until: float | None) -> list[bytes]:
        manifest, wanted = self.manifest, []
        while index < len(manifest.chunks) and manifest.offsets[index] < end:
            ref, at = manifest.chunks[index], manifest.offsets[index]
            wanted.append((ref, max(start - at, 0), min(end - at, ref.length)))
            index += 1
        self._fetch([ref for ref, _, _ in wanted[1:]])
        return [await self._read_chunk(ref, first, last - first, until) for ref, first, last in wanted]

    async def _read_chunk(self, ref: ChunkRef, start: int, length: int, until: float | None) -> bytes:
        if ref.encoding is Encoding.ZEROS:
            return bytes(length)
        chunk: OpenChunk | None = self._chunks.hot(ref.object_id)
        if chunk is None:
            chunk = await self._downloads.get(Wanted(self._space, ref), until)
        data = chunk.read(ref.start + start, length)
        if len(data) == length:
            return data
        await self._chunks.drop(ref.object_id)  # cut short since it was verified
        chunk = await self._downloads.get(Wanted(self._space, ref), until)
        data = chunk.read(ref.start + start, length)
        if len(data) != length:
            raise CorruptData("a chunk is shorter than the file's list of chunks says")
        return data

    def _fetch_ahead(self, start: int, end: int) -> None:
        manifest = self.manifest
        in_flight = self._decisions.bytes_in_flight()
        ahead = self._read_ahead.note(start, end, manifest.size, in_flight, manifest.split.average)
        if ahead is not None:
            first, last = manifest.chunk_at(ahead[0]), manifest.chunk_at(ahead[1] - 1)
            self._fetch(manifest.chunks[first : last + 1])

    def _fetch(self, refs: Sequence[ChunkRef]) -> None:
        self._downloads.fetch_ahead(Wanted(self._space, ref) for ref in refs if ref.encoding is not Encoding.ZEROS)
