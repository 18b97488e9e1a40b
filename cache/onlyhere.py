"""Contents that the service lost, and that lie in the chunk cache of this device: they are kept until the service has them again.

What is in the chunk cache may be evicted because the service has it as well. After `aloft reconnect` that is not so for contents
that the service lost (`cache.store.lost`): base says that it has another content, or none, and there is no draft, or one that
lies on such a content. Their chunks go among the pinned ones, and may leave when base says that the service has them.

Costs nothing as long as nothing was lost.
"""

from __future__ import annotations

import trio

from cache.chunks import Chunks
from cache.errors import Unavailable
from cache.manifests import Manifests
from cache.store.content import ContentStore

LOOK_AT_ONCE = 500


class OnlyHere:
    def __init__(self, store: ContentStore, manifests: Manifests, chunks: Chunks) -> None:
        self._store = store
        self._manifests = manifests
        self._chunks = chunks

    def is_one(self, ino: int) -> bool:
        """Whether a file's content is such a one."""
        return self._store.losses() > 0 and self._store.is_only_here(ino)

    async def objects(self) -> dict[bytes, int]:
        """Of such contents, with their plain lengths. One whose manifest is not here either is lost to this device, too."""
        losses = self._store.losses()
        if not losses:
            return {}
        found: dict[bytes, int] = {}
        any_left = False
        after: int | None = 0
        while after is not None:
            ids, after = self._store.only_here(after, LOOK_AT_ONCE)
            any_left |= bool(ids)
            for manifest in filter(None, map(self._manifests.here, ids)):
                found |= manifest.plain_lengths()
            await trio.lowlevel.checkpoint()
        if not any_left:
            self._store.losses_are_mended(losses)
        return found

    async def keep(self, objects: dict[bytes, int]) -> None:
        """Move what is here of `objects` to the pinned chunks. `Unavailable` if the disk has no room for it."""
        gone = {*await self._chunks.missing(objects)}
        unpinned = await self._chunks.missing(objects, pinned=True)
        moved = [await self._chunks.set_pinned(id_, objects[id_]) for id_ in unpinned if id_ not in gone]
        if not all(moved):
            raise Unavailable("there is no room on this disk to keep what the server lost")
