"""A file from the service without a mount: into `NAME.part`, which goes on after a crash, and to its name when it is whole.

One get is of one version, from its first page on. After a crash it goes on if that is still the newest, and else begins anew:
two versions are never put together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio
import xxhash

from cache.encoding import decode
from cache.errors import NotTransferred
from cache.lanes import Lanes, Progress, patiently
from cache.partfile import PartFile
from remote.api import LinkExpired, Nonsense
from remote.fileapi import DownloadChunk, FileDownload
from remote.files import Files
from remote.manifest import OBJECT_PLAIN_MAX, OBJECT_STORED_MAX, ChunkRef, Encoding
from remote.protocol import Link


async def get(files: Files, source: str, target: Path, lanes: Lanes, progress: Progress) -> FileDownload:
    """What is at `target` then (as its first page says). `RemoteError`, `OSError`, `NotTransferred`."""
    page = await patiently(lambda: files.download(source))
    progress.total = page.size
    part = await trio.to_thread.run_sync(PartFile, target, page.version, page.size)
    try:
        await _Get(files, part, lanes, progress).run(page)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(part.finish, page.sha256, page.mtime_ns)
    finally:
        part.close()
    progress.done = page.size
    return page


class _Get:
    def __init__(self, files: Files, part: PartFile, lanes: Lanes, progress: Progress) -> None:
        self._files = files
        self._part = part
        self._lanes = lanes
        self._progress = progress

    async def run(self, page: FileDownload) -> None:
        if page.content is not None:
            self._part.write(0, page.content)
            return
        first = page
        while True:
            await self._fetch(page)
            if page.next is None:
                return
            page = await patiently(partial(self._files.download_on, first.id, first.version, page.next))
            if (page.id, page.version, page.size) != (first.id, first.version, first.size):
                raise Nonsense("the service answered another version than was asked for")

    async def _fetch(self, page: FileDownload) -> None:
        links = {link.id: link for link in page.links}
        wanted: defaultdict[bytes, list[DownloadChunk]] = defaultdict(list)
        for chunk in page.chunks:
            if chunk.offset + chunk.size > page.size:
                raise Nonsense("the service answered chunks beyond the end of the file")
            if chunk.id is None or self._part.done.get(chunk.offset) == chunk.size:
                self._progress.done += chunk.size
            elif chunk.id not in links:
                raise Nonsense("the service answered a chunk without a link")
            else:
                wanted[chunk.id].append(chunk)
        async with trio.open_nursery() as nursery:
            for id_, chunks in wanted.items():
                await self._lanes.acquire()
                nursery.start_soon(self._fetch_one, _Attempts(self._files, page, links[id_]), chunks)

    async def _fetch_one(self, attempts: _Attempts, chunks: Sequence[DownloadChunk]) -> None:
        try:
            ref = _whole(chunks[0])
            attempts.length = ref.stored_length
            stored = await patiently(attempts)
            self._progress.moved += len(stored)
            for chunk, xxh3 in await trio.to_thread.run_sync(self._write, stored, ref, chunks):
                self._part.note(chunk.offset, chunk.size, xxh3)
                self._progress.done += chunk.size
        finally:
            self._lanes.release()

    def _write(self, stored: bytearray, ref: ChunkRef, chunks: Sequence[DownloadChunk]) -> list[tuple[DownloadChunk, int]]:
        """The chunks, of one object, into the file; with their XXH3."""
        written = []
        with memoryview(decode(stored, ref)) as plain:
            for chunk in chunks:
                if chunk.start + chunk.size > len(plain):
                    raise Nonsense("the service answered a chunk that reaches outside its object")
                slice_ = plain[chunk.start : chunk.start + chunk.size]
                self._part.write(chunk.offset, slice_)
                written.append((chunk, xxhash.xxh3_64_intdigest(slice_)))
        return written


class _Attempts:
    """Fetches one object; with a fresh link when the one that it has is too old."""

    def __init__(self, files: Files, page: FileDownload, link: Link) -> None:
        self._files = files
        self._page = page
        self.link = link
        self.length = 0
        self._expired = False

    async def __call__(self) -> bytearray:
        if self._expired:
            self.link = await self._files.download_link(self._page.id, self._page.version, self.link.id)
            self._expired = False
        try:
            return await self._files.service.get_object(self.link, self.length)
        except LinkExpired:
            self._expired = True
            raise


def _whole(chunk: DownloadChunk) -> ChunkRef:
    """The object that the chunk is a slice of."""
    if chunk.id is None or not (0 < chunk.plain_size <= OBJECT_PLAIN_MAX and 0 < chunk.stored_size <= OBJECT_STORED_MAX):
        raise NotTransferred("the service described a chunk that no object can have: a newer Aloft may know it")
    return ChunkRef.whole(chunk.id, chunk.plain_size, chunk.stored_size, Encoding[chunk.encoding.upper()])
