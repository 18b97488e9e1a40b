"""Manifests of contents, decoded: the few in use in memory, the others from the replica, missing ones from the service.

A folder that is opened file by file asks once for all its manifests. Knows nothing of chunks' bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from cache.errors import CorruptData, Offline, Unavailable
from cache.link import Reachability, asked
from cache.store.content import ContentStore
from cache.waits import Waits
from remote.api import Service
from remote.manifest import BadManifest, Manifest, decode_manifest, manifest_id
from remote.protocol import MAX_MANIFESTS_PER_REQUEST, WantedManifest

IN_MEMORY_MAX = 32 * 2**20
"""Bytes that all decoded manifests take together, by estimate; the manifest in use is kept whatever its size."""
_MANIFEST_BYTES = 500
_CHUNK_BYTES = 300


@dataclass(frozen=True, slots=True)
class WhichContent:
    """Names one content for the service: manifests are fetched by space and inode, never by hash alone."""

    space: int
    ino: int
    inode_id: bytes
    manifest_id: bytes


class Manifests:
    """`waits`: which readers wait for the service."""

    def __init__(self, store: ContentStore, service: Service, reachability: Reachability, waits: Waits | None = None) -> None:
        self._waits = waits or Waits()
        self._store = store
        self._service = service
        self._reachability = reachability
        self._decoded: OrderedDict[bytes, Manifest] = OrderedDict()
        self._bytes = 0

    def here(self, id_: bytes) -> Manifest | None:
        """The manifest, if it is on this machine."""
        manifest = self._decoded.get(id_)
        if manifest is not None:
            self._decoded.move_to_end(id_)
            return manifest
        encoded = self._store.manifest(id_)
        return None if encoded is None else self._keep(id_, _decoded(encoded))

    async def get(self, which: WhichContent) -> Manifest:
        """The manifest, from the service if need be. Raises `Unavailable`; how long it may take is the caller's to bound."""
        manifest = self.here(which.manifest_id)
        if manifest is not None:
            return manifest
        if self._reachability.online:
            with self._waits.one():
                return await self._fetch_one(which)
        raise Offline("the list of this file's chunks is not on this device, and there is no connection")

    async def _fetch_one(self, which: WhichContent) -> Manifest:
        await self.fetch([which], with_siblings_of=which.ino)
        if self.here(which.manifest_id) is None:
            await self._fetch_from_siblings(which)
        manifest = self.here(which.manifest_id)
        if manifest is None:
            raise Unavailable("the service does not have this version of the file any more")
        return manifest

    async def _fetch_from_siblings(self, which: WhichContent) -> None:
        """What lies beneath a conflicted copy that was never sent is known to the service by the original beside it."""
        siblings = self._store.siblings(which.ino, MAX_MANIFESTS_PER_REQUEST)
        if siblings:
            await self.fetch([replace(which, inode_id=id_) for id_ in siblings])

    async def fetch(self, contents: list[WhichContent], *, with_siblings_of: int | None = None) -> None:
        """Let the manifests of these contents (all of one space) be here, as far as the service has them."""
        wanted = [(which.inode_id, which.manifest_id) for which in contents]
        if with_siblings_of is not None:
            wanted += self._store.siblings_without_manifest(with_siblings_of, MAX_MANIFESTS_PER_REQUEST - len(wanted))
        space = self._store.space_id(contents[0].space)
        for at in range(0, len(wanted), MAX_MANIFESTS_PER_REQUEST):
            batch = wanted[at : at + MAX_MANIFESTS_PER_REQUEST]
            self._store.put_manifests(await self._ask(space, batch))

    async def of_past(self, space: bytes, inode_id: bytes, id_: bytes) -> Manifest:
        """Of a content that no row of the replica speaks of: it is not kept. Raises and waits as `get`."""
        manifest = self.here(id_)
        if manifest is not None:
            return manifest
        if self._reachability.online:
            with self._waits.one():
                got = await self._ask(space, [(inode_id, id_)])
                if not got:
                    raise Unavailable("the service does not have this version of the file any more")
                return _decoded(got[0][1])
        raise Offline("the list of this version's chunks is not on this device, and there is no connection")

    async def _ask(self, space: bytes, wanted: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The manifests, by their ids, that the service has of these (inode, manifest id)."""
        request = [WantedManifest(inode=inode_id, manifest_id=id_) for inode_id, id_ in wanted]
        answer = await asked(self._reachability, self._service.manifests(space, request))
        got = [(id_, data) for (_, id_), data in zip(wanted, answer.manifests, strict=False) if data is not None]
        if any(manifest_id(data) != id_ for id_, data in got):
            raise CorruptData("the service sent a manifest under another's name")
        return got

    def _keep(self, id_: bytes, manifest: Manifest) -> Manifest:
        self._decoded[id_] = manifest
        self._bytes += _bytes_of(manifest)
        while self._bytes > IN_MEMORY_MAX and len(self._decoded) > 1:
            _, dropped = self._decoded.popitem(last=False)
            self._bytes -= _bytes_of(dropped)
        return manifest


def _bytes_of(manifest: Manifest) -> int:
    return _MANIFEST_BYTES + _CHUNK_BYTES * len(manifest.chunks) + len(manifest.inline or b"")


def _decoded(encoded: bytes) -> Manifest:
    try:
        return decode_manifest(encoded)
    except BadManifest as bad:
        raise CorruptData(str(bad)) from bad
