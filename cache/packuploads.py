"""Small contents go up in packs: what the service has already is not sent again, the rest shares objects.

Says which slice of which object holds each of them. Knows nothing of queues, or of what becomes of the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cache.drafts import Draft
from cache.files import File
from cache.packs import one_chunk, pack, slice_of
from cache.sending import Sender
from cache.store.content import ContentStore
from cache.uploading import ContentUploader
from remote.crashpoints import crash_point
from remote.manifest import ChunkRef, Manifest, decode_manifest


@dataclass(frozen=True, slots=True)
class Small:
    """A content that is held and sealed. `unusable`: objects that the service lost."""

    ino: int
    file: File
    draft: Draft
    content: bytes
    sha256: bytes
    unusable: frozenset[bytes]


class PackUploads:
    def __init__(self, store: ContentStore, uploader: ContentUploader, sender: Sender) -> None:
        self._store = store
        self._uploader = uploader
        self._sender = sender

    async def send(self, space: int, members: Sequence[Small]) -> list[tuple[Small, Manifest]]:
        """Bring the contents, all of one space, to the service. Raises what sending raises."""
        space_id = members[0].file.base.space_id
        known = {one.sha256: ref for one in members if (ref := self._known(space, one)) is not None}
        lost = await self._sender.missing(space_id, known.values()) if known else set()
        refs = {sha256: ref for sha256, ref in known.items() if ref.object_id not in lost}
        unknown = list({one.sha256: one for one in members if one.sha256 not in refs}.values())
        for packed in pack([one.content for one in unknown]):
            encoded = await self._uploader.make(packed.plain)
            await self._sender.send(space_id, [encoded], 0)
            pinned = any(self._store.is_pinned(unknown[at].ino) for at in packed.members)
            await self._uploader.chunks.put(encoded.ref.object_id, packed.plain, pinned=pinned)
            new = {
                unknown[at].sha256: slice_of(encoded.ref, start, len(unknown[at].content))
                for at, start in zip(packed.members, packed.starts, strict=True)
            }
            self._store.remember_chunks(space, new.items())
            crash_point("upload.chunks-known")
            refs.update(new)
        return [(one, one_chunk(refs[one.sha256])) for one in members]

    def _known(self, space: int, one: Small) -> ChunkRef | None:
        ref = self._store.known_chunk(space, one.sha256)
        if ref is None:
            same = self._store.manifest_of_content(space, one.sha256, len(one.content))
            encoded = None if same is None else self._store.manifest(same)
            chunks = () if encoded is None else decode_manifest(encoded).chunks
            ref = chunks[0] if len(chunks) == 1 else None
        return None if ref is None or ref.length != len(one.content) or ref.object_id in one.unusable else ref
