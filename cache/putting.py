"""A local file to the service without a mount: only the chunks that it does not have are sent, also after a crash.

Nothing is kept here: the service finds the upload again by its path and the file's fingerprint.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import trio

from cache.encoding import EncodedObject
from cache.errors import NotTransferred
from cache.lanes import Lanes, Progress, patiently
from cache.survey import LocalChunk, Survey, encode_again, survey
from remote.api import LinkExpired, Nonsense
from remote.fileapi import MAX_CHUNKS, BeginUpload, FileInfo, FileUpload, OnConflict, SplitParameters, UploadChunk
from remote.files import Files
from remote.manifest import Encoding
from remote.protocol import Link


async def put(files: Files, source: Path, target: str, on_conflict: OnConflict, lanes: Lanes, progress: Progress) -> FileInfo:
    """What is at `target` then. `RemoteError`, `OSError`, `NotTransferred`."""
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return await _Put(files, descriptor, lanes, progress).run(target, on_conflict)
    finally:
        os.close(descriptor)


class _Put:
    def __init__(self, files: Files, descriptor: int, lanes: Lanes, progress: Progress) -> None:
        self._files = files
        self._descriptor = descriptor
        self._lanes = lanes
        self._progress = progress

    async def run(self, target: str, on_conflict: OnConflict) -> FileInfo:
        self._progress.total = os.fstat(self._descriptor).st_size
        surveyed = await trio.to_thread.run_sync(survey, self._descriptor, self._looked_at)
        if len(surveyed.chunks) > MAX_CHUNKS:
            raise NotTransferred("the file has too many chunks for one request: copy it into a mounted drive")
        chunks = {chunk.ref.object_id: chunk for chunk in surveyed.chunks if chunk.ref.encoding is not Encoding.ZEROS}
        request = _request(surveyed, target, on_conflict)
        upload = await patiently(lambda: self._files.begin_upload(request))
        id_ = upload.id
        self._progress.moved += len(surveyed.content or b"")
        while upload.missing_chunks:
            self._progress.done = surveyed.size * (upload.chunks - upload.missing_chunks) // upload.chunks
            await self._send(upload, chunks)
            upload = await patiently(lambda: self._files.upload(id_))
        if upload.state != "complete":
            upload = await patiently(lambda: self._files.complete_upload(id_))
        if upload.file is None:
            raise NotTransferred("the file was put there, and somebody deleted it at once")
        self._progress.done = surveyed.size
        return upload.file

    def _looked_at(self, count: int) -> None:
        self._progress.looked_at += count
        trio.from_thread.check_cancelled()

    async def _send(self, upload: FileUpload, chunks: dict[bytes, LocalChunk]) -> None:
        links: dict[bytes, Link | None] = {link.id: link for link in upload.missing} | dict.fromkeys(upload.unsigned)
        unknown = links.keys() - chunks.keys()
        if unknown:
            raise Nonsense("the service misses chunks that the file does not have")
        async with trio.open_nursery() as nursery:
            for id_, link in links.items():
                await self._lanes.acquire()
                nursery.start_soon(self._send_one, upload.id, chunks[id_], link)

    async def _send_one(self, upload: bytes, chunk: LocalChunk, link: Link | None) -> None:
        try:
            encoded = await trio.to_thread.run_sync(encode_again, self._descriptor, chunk)
            await patiently(_Attempts(self._files, upload, encoded, link))
            self._progress.moved += len(encoded.stored)
            self._progress.done += chunk.ref.length
        finally:
            self._lanes.release()


class _Attempts:
    """Sends one object; with a fresh link where it has none that is good."""

    def __init__(self, files: Files, upload: bytes, encoded: EncodedObject, link: Link | None) -> None:
        self._files = files
        self._upload = upload
        self._encoded = encoded
        self._link = link
        self._needs_md5 = link is None

    async def __call__(self) -> None:
        stored, id_ = self._encoded.stored, self._encoded.ref.object_id
        if self._link is None:
            md5 = hashlib.md5(stored, usedforsecurity=False).digest() if self._needs_md5 else None
            self._link = (await self._files.upload_link(self._upload, id_, md5)).link
            if self._link is None:
                return  # somebody else has sent it
        try:
            await self._files.service.put_object(self._link, stored)
        except LinkExpired:
            self._link = None
            raise


def _request(surveyed: Survey, target: str, on_conflict: OnConflict) -> BeginUpload:
    split = surveyed.split
    return BeginUpload(
        path=target,
        size=surveyed.size,
        fingerprint=surveyed.sha256,
        mtime_ns=surveyed.mtime_ns,
        chunks=list(_chunks(surveyed.chunks)),
        content=surveyed.content,
        split=SplitParameters(minimum=split.minimum, average=split.average, maximum=split.maximum),
        on_conflict=on_conflict,
    )


def _chunks(chunks: Iterable[LocalChunk]) -> Iterable[UploadChunk]:
    for chunk in chunks:
        ref = chunk.ref
        if ref.encoding is Encoding.ZEROS:
            yield UploadChunk(size=ref.length, encoding="zeros")
        elif ref.encoding is Encoding.ZSTD:
            yield UploadChunk(id=ref.object_id, size=ref.length, stored_size=ref.stored_length, encoding="zstd")
        else:
            yield UploadChunk(id=ref.object_id, size=ref.length)
