"""What stays on this machine: pinned files and folders, and what appears below them later. Also what leaves it: `evict`.

Owns the pin rows and the background task that fetches. A pinned file's chunks lie in a cache of their own that is never
culled; when nothing pinned needs a chunk any more it goes back among those that may be. Knows drafts only as a reason not to
evict: what the service does not have is not in the chunk cache.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import trio

from cache.chunks import Chunks
from cache.downloads import Downloads, Wanted
from cache.errors import CacheError, Offline, first_cause
from cache.files import Files
from cache.link import Reachability
from cache.manifests import Manifests, WhichContent
from cache.model import FileState
from cache.onlyhere import OnlyHere
from cache.store.content import ContentStore
from cache.store.tree import TreeStore
from cache.uploads import Uploads
from remote.crashpoints import crash_point
from remote.manifest import Manifest

AT_ONCE = 16
"""Chunks asked for together; how many are fetched at a time is the link's business."""
LOOK_AGAIN = 600.0
"""Seconds until pinned files are looked through again without a reason, and after a failure."""
RETRY = 30.0
_MANIFESTS_AT_ONCE = 256

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PinProgress:
    """Of the pass under way, or of the last one."""

    files: int = 0
    files_done: int = 0
    error: str | None = None


class Pins:
    def __init__(
        self,
        store: ContentStore,
        tree: TreeStore,
        files: Files,
        chunks: Chunks,
        manifests: Manifests,
        downloads: Downloads,
        reachability: Reachability,
        uploads: Uploads,
    ) -> None:
        self.progress = PinProgress()
        self._store = store
        self._tree = tree
        self._files = files
        self._chunks = chunks
        self._manifests = manifests
        self._downloads = downloads
        self._reachability = reachability
        self._uploads = uploads
        self._only_here = OnlyHere(store, manifests, chunks)
        self._wake = trio.Event()
        self._finished = trio.Event()

    # --------------------------------------------------------------------------------------------------------- wishes

    def pin(self, ino: int) -> None:
        self._store.pin(ino)
        crash_point("pin.recorded")
        self.wake()

    def unpin(self, ino: int) -> bool:
        """False: it was not pinned itself (a folder above it may be)."""
        was = self._store.unpin(ino)
        crash_point("pin.released")
        self.wake()
        return was

    def wake(self) -> None:
        """The tree changed, so there may be more to keep, or less."""
        self._wake.set()

    async def evict(self, ino: int) -> int:
        """Free the cached chunks of a file, or of the files below a folder: of those that are wholly on the service and not
        pinned. How many chunks were freed."""
        kept = await self._only_here.objects()
        object_ids: set[bytes] = set()
        for file in self._store.files_beneath(ino):
            if not self._store.has_drafts(file) and not self._store.is_pinned(file):
                object_ids |= self._objects(self._manifest_here(file)).keys()
        return await self._chunks.evict([id_ for id_ in object_ids if id_ not in kept])

    async def state_of(self, ino: int) -> FileState:
        """What `aloft status PATH` says of a file."""
        drafts = self._store.drafts(ino)
        if any(draft.error for draft in drafts):
            return FileState.ERROR
        if drafts:
            return FileState.UPLOADING if self._uploads.is_uploading(ino) else FileState.DRAFT
        if self._only_here.is_one(ino):
            return FileState.DRAFT
        if self._store.is_pinned(ino):
            return FileState.PINNED
        row = self._store.content(ino)
        if row is None or row.manifest_id is None:
            return FileState.DRAFT
        manifest = self._manifest_here(ino)
        if manifest is None or await self._chunks.missing(self._objects(manifest)):
            return FileState.ONLINE_ONLY
        return FileState.CACHED

    async def wait_finished(self) -> None:
        """Until a pass that began after this call has ended."""
        self._finished = trio.Event()
        self.wake()
        await self._finished.wait()

    # ------------------------------------------------------------------------------------------------------- the loop

    async def run(self) -> None:
        while True:
            self._wake = trio.Event()
            finished = self._finished
            again_after = LOOK_AGAIN
            try:
                only_here = await self._only_here.objects()
                if only_here:
                    again_after = RETRY  # nobody says when the service has them again
                    await self._only_here.keep(only_here)
                await self._fetch_all()
                await self._let_go(only_here)
            except* CacheError as errors:
                said = str(first_cause(errors))
                self.progress = PinProgress(self.progress.files, self.progress.files_done, said)
                _log.warning("pinned files are not all here yet: %s", said)
                again_after = RETRY
            finished.set()
            with trio.move_on_after(again_after):
                await self._wake.wait()

    async def _fetch_all(self) -> None:
        pinned = self._store.pinned_files()
        self.progress = PinProgress(len(pinned))
        if not pinned:
            return
        await self._fetch_manifests(pinned)
        for done, ino in enumerate(pinned, 1):
            await self._fetch_file(ino)
            self.progress = PinProgress(len(pinned), done)

    async def _fetch_manifests(self, inos: list[int]) -> None:
        missing: dict[int, list[WhichContent]] = {}
        for ino in inos:
            which = self._which(ino)
            if which is not None and self._store.manifest(which.manifest_id) is None:
                missing.setdefault(which.space, []).append(which)
        for contents in missing.values():
            for at in range(0, len(contents), _MANIFESTS_AT_ONCE):
                await self._online()
                await self._manifests.fetch(contents[at : at + _MANIFESTS_AT_ONCE])

    async def _fetch_file(self, ino: int) -> None:
        manifest = self._manifest_here(ino)
        objects = self._objects(manifest)
        missing = await self._chunks.missing(objects, pinned=True)
        if manifest is None or not missing:
            return
        wanted = set(missing)
        space = self._store.space_id(self._tree.space_of(ino))
        refs = list({ref.object_id: ref for ref in manifest.chunks if ref.object_id in wanted}.values())
        for at in range(0, len(refs), AT_ONCE):
            batch = [Wanted(space, ref) for ref in refs[at : at + AT_ONCE]]
            async with trio.open_nursery() as nursery:
                for one in batch:
                    nursery.start_soon(self._fetch_one, one)

    async def _fetch_one(self, wanted: Wanted) -> None:
        while True:
            try:
                await self._downloads.pin(wanted)
            except Offline:
                await self._online()
            else:
                return

    async def _online(self) -> None:
        if not self._reachability.online:
            await self._reachability.wait_online()

    async def _let_go(self, only_here: dict[bytes, int]) -> None:
        """Chunks that nothing pinned needs any more, and that the service has."""
        there = await self._chunks.pinned_ids()
        if not there:
            return
        needed = dict(only_here)
        for ino in self._store.pinned_files():
            needed |= self._objects(self._manifest_here(ino))
        for object_id in there:
            if object_id not in needed:
                await self._chunks.unpin(object_id)

    # ---------------------------------------------------------------------------------------------------------- inside

    def _which(self, ino: int) -> WhichContent | None:
        row = self._store.content(ino)
        if row is None or row.manifest_id is None:
            return None
        return WhichContent(self._tree.space_of(ino), ino, self._tree.id_of(ino), row.manifest_id)

    def _manifest_here(self, ino: int) -> Manifest | None:
        which = self._which(ino)
        return None if which is None else self._manifests.here(which.manifest_id)

    @staticmethod
    def _objects(manifest: Manifest | None) -> dict[bytes, int]:
        return {} if manifest is None else manifest.plain_lengths()
