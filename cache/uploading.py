"""One content to the service: cut, hash, encode, send, and the manifest of it all.

A pipeline of windows: while one is read and cut, others are encoded and sent, as many as the memory allows. What was sent is
remembered chunk by chunk, so an upload that was cut off goes on with what is missing. Knows sealed drafts and their base;
nothing of when to upload, of commits or of names.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from cache.chunking import Changes, Keep, Piece, Rechunking, Zeros, changes_of, choose_split, cut
from cache.chunks import Chunks
from cache.drafts import Draft
from cache.encoding import EncodedObject, encode
from cache.errors import CacheError, first_cause
from cache.files import File
from cache.link import LinkDecisions
from cache.sending import Memory, Sender, first_of
from cache.store.content import ContentStore
from remote.api import RemoteError
from remote.crashpoints import crash_point
from remote.manifest import INLINE_MAX, ChunkRef, Encoding, Manifest, Split, decode_manifest
from remote.protocol import FileToUpload

HASH_WHOLE_MAX = 64 * 2**20
"""An edited content up to this size is read as a whole for its SHA-256, if all of it is on this disk."""
_STEP = 4 * 2**20
_CUTTERS = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Uploaded:
    manifest: Manifest
    sha256: bytes | None
    """None where it would have cost reading what is not here, or zeros without end."""


@dataclass(frozen=True, slots=True)
class Job:
    """A sealed draft to upload. `name`: one that the file has; `unusable`: objects that the service has lost."""

    file: File
    draft: Draft
    name: str | None
    previous_split: Split | None
    unusable: Collection[bytes]
    pinned: bool
    priority: int


class ContentUploader:
    """What uploads share: memory, threads, and the ways to the service, the cache and the replica."""

    def __init__(self, store: ContentStore, chunks: Chunks, sender: Sender, decisions: LinkDecisions) -> None:
        self.store = store
        self.chunks = chunks
        self.sender = sender
        self.decisions = decisions
        self.memory = Memory()
        self._threads = trio.CapacityLimiter(_CUTTERS)

    async def upload(self, job: Job) -> Uploaded:
        """Returns when the service holds every object. Raises `RemoteError`, or `CacheError` for bytes that cannot be had."""
        if job.draft.size <= INLINE_MAX:
            content = await read_all(job.file, job.draft)
            return Uploaded(Manifest.from_inline(content), hashlib.sha256(content).digest())
        try:
            return await _Upload(self, job).run()
        except BaseExceptionGroup as group:
            raise _first_of_all(group) from group

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._threads)

    async def make(self, plain: memoryview | bytes, sha256: bytes | None = None) -> EncodedObject:
        raw = self.decisions.is_faster_than_zstd()
        return await self.in_thread(lambda: encode(plain, sha256, raw=raw))


@dataclass(frozen=True, slots=True)
class _Window:
    """`size` bytes of content, and one to spare after them."""

    bytes: memoryview
    size: int

    @classmethod
    def of(cls, size: int) -> _Window:
        # Pages of their own, zero without being written: a `bytearray` would be cleared on the event loop.
        return cls(memoryview(mmap.mmap(-1, size + 1)), size)

    @classmethod
    def empty(cls) -> _Window:
        return cls(memoryview(b""), 0)


class _Upload:
    """One job under way."""

    def __init__(self, uploader: ContentUploader, job: Job) -> None:
        self._uploader = uploader
        self._job = job
        self._refs: list[ChunkRef | None] = []
        """In the order of the content; None: being sent."""
        self._borrowed = 0
        self._whole_hash = hashlib.sha256()
        self._hashed_to = 0

    async def run(self) -> Uploaded:
        job, size = self._job, self._job.draft.size
        changes = changes_of(size, job.draft.floor, job.draft.extents)
        base = await job.file.manifest() if changes.same else None
        split = choose_split(size, _split_before(job, base), slow=self._uploader.decisions.is_slow())
        plan = await self._uploader.in_thread(lambda: Rechunking(changes, split, base, job.unusable))
        try:
            async with trio.open_nursery() as nursery:
                await self._walk(plan, split, nursery)
        finally:
            self._uploader.memory.release(self._borrowed)
            self._borrowed = 0
        manifest = Manifest.from_chunks(split, tuple(ref for ref in self._refs if ref is not None))
        return Uploaded(manifest, await self._sha256(changes))

    async def _walk(self, plan: Rechunking, split: Split, nursery: trio.Nursery) -> None:
        size = self._job.draft.size
        position, window = 0, _Window.empty()
        while position < size:
            step = plan.step(position, position + window.size)
            if isinstance(step, Keep):
                self._refs.append(step.ref)
                position += step.ref.length
            elif isinstance(step, Zeros):
                self._refs.append(ChunkRef.zeros(step.length))
                position += step.length
            else:
                window = await self._read_on(window, position, step.end)
                pieces = await self._uploader.in_thread(
                    partial(self._cut, window, position, split, final=step.final, whole=plan.is_whole)
                )
                if pieces:
                    used = pieces[-1].end
                    nursery.start_soon(self._send, window.bytes[:used], pieces, len(self._refs))
                    self._refs += [None] * len(pieces)
                    position += used
                    window = _Window(window.bytes[used:], window.size - used)

    async def _read_on(self, window: _Window, position: int, end: int) -> _Window:
        """The window, which begins at `position`, read on up to `end`."""
        have = window.size
        await self._uploader.memory.acquire(end - position - have)
        self._borrowed += end - position - have
        longer = _Window.of(end - position)
        longer.bytes[:have] = window.bytes[:have]
        await self._job.file.read_sealed(self._job.draft, position + have, longer.bytes[have : longer.size])
        return longer

    def _cut(self, window: _Window, position: int, split: Split, *, final: bool, whole: bool) -> list[Piece]:
        pieces = cut(window.bytes, window.size, split, final=final, whole=whole)
        if pieces and self._hashed_to == position:
            self._whole_hash.update(window.bytes[: pieces[-1].end])
            self._hashed_to += pieces[-1].end
        return pieces

    async def _send(self, plain: memoryview, pieces: Sequence[Piece], index: int) -> None:
        """Let the service hold these chunks, and put their refs in their places."""
        known = {piece.sha256: ref for piece in pieces if (ref := self._known(piece.sha256, piece.end - piece.start))}
        lost = await self._uploader.sender.missing(self._job.file.base.space_id, known.values()) if known else set()
        refs = {sha256: ref for sha256, ref in known.items() if ref.object_id not in lost}
        unknown = list({piece.sha256: piece for piece in pieces if piece.sha256 not in refs}.values())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_new, plain, unknown, refs)
            for piece in pieces:
                if piece.sha256 in refs:
                    nursery.start_soon(self._keep_here, refs[piece.sha256], plain[piece.start : piece.end])
        for at, piece in enumerate(pieces):
            self._refs[index + at] = refs[piece.sha256]
        self._uploader.memory.release(len(plain))
        self._borrowed -= len(plain)

    def _known(self, sha256: bytes, length: int) -> ChunkRef | None:
        store, base = self._uploader.store, self._job.file.base
        ref = store.known_chunk(base.space, sha256)
        if ref is None and length == self._job.draft.size:  # the whole content, which another file may have
            same = store.manifest_of_content(base.space, sha256, length)
            encoded = None if same is None else store.manifest(same)
            chunks = () if encoded is None else decode_manifest(encoded).chunks
            ref = chunks[0] if len(chunks) == 1 else None
        return None if ref is None or ref.object_id in self._job.unusable or ref.length != length else ref

    async def _send_new(self, plain: memoryview, pieces: Sequence[Piece], refs: dict[bytes, ChunkRef]) -> None:
        if not pieces:
            return
        uploader, base = self._uploader, self._job.file.base
        made = [(piece, await uploader.make(plain[piece.start : piece.end], piece.sha256)) for piece in pieces]
        async with trio.open_nursery() as nursery:
            for piece, one in made:
                nursery.start_soon(self._keep_here, one.ref, plain[piece.start : piece.end])
            job = self._job
            file = None if job.name is None else FileToUpload(name=job.name, size=job.draft.size)
            await uploader.sender.send(base.space_id, [one for _, one in made], job.priority, file)
        new = {piece.sha256: one.ref for piece, one in made}
        uploader.store.remember_chunks(base.space, new.items())
        crash_point("upload.chunks-known")
        refs.update(new)

    async def _keep_here(self, ref: ChunkRef, plain: memoryview) -> None:
        """So that the file can be read without the network when its draft is gone."""
        if ref.encoding is not Encoding.ZEROS and ref.length == ref.plain_length:
            await self._uploader.chunks.put(ref.object_id, plain, pinned=self._job.pinned)

    async def _sha256(self, changes: Changes) -> bytes | None:
        if self._hashed_to == changes.size:
            return self._whole_hash.digest()
        if changes.size > HASH_WHOLE_MAX:
            return None
        kept = {ref.object_id: ref.plain_length for ref in self._refs if ref is not None and ref.encoding is not Encoding.ZEROS}
        if await self._uploader.chunks.missing(kept):
            return None
        whole = hashlib.sha256()
        step = bytearray(_STEP)
        for at in range(0, changes.size, _STEP):
            with memoryview(step)[: min(_STEP, changes.size - at)] as view:
                view[:] = bytes(len(view))
                await self._job.file.read_sealed(self._job.draft, at, view)
                await self._uploader.in_thread(partial(whole.update, view))
        return whole.digest()


def _first_of_all(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What to say of several failures at once, which often are one: a broken connection is noticed in many places."""
    remote, others = group.split(RemoteError)
    if remote is not None and (others is None or others.split((RemoteError, CacheError, OSError))[1] is None):
        return first_of(remote)
    return first_cause(others or group)


async def read_all(file: File, draft: Draft) -> bytes:
    """The whole content as seen through a sealed draft, which is small."""
    content = bytearray(draft.size)
    with memoryview(content) as view:
        await file.read_sealed(draft, 0, view)
    return bytes(content)


def _split_before(job: Job, base: Manifest | None) -> Split | None:
    """The parameters that this content's chunks were cut by until now, or those of the file that it replaced."""
    if job.previous_split is not None:
        return job.previous_split
    return None if base is None or base.inline is not None else base.split
