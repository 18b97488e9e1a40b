"""A service in memory, for tests of contents: objects and manifests only, and as strict about bytes as the real one."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from remote.accountapi import AccountInfo, DeviceList
from remote.api import Corrupt, NotThere, QuotaExceeded, RemoteError, Unreachable
from remote.historyapi import PastVersion, TrashedInode, TrashPage, VersionsPage
from remote.manifest import manifest_id
from remote.protocol import (
    MAX_MANIFESTS_PER_REQUEST,
    MAX_OBJECTS_PER_PLAN,
    ChangesPage,
    CommitAnswer,
    DownloadPlan,
    FileToUpload,
    FolderPage,
    Link,
    ManifestsAnswer,
    ObjectToUpload,
    UploadPlan,
    WantedManifest,
)


@dataclass
class Traffic:
    put_ids: list[bytes] = field(default_factory=list)
    put_bytes: int = 0
    get_ids: list[bytes] = field(default_factory=list)
    upload_plans: int = 0
    download_plans: int = 0
    manifest_requests: int = 0


class MemoryService:
    """`before` is awaited at the beginning of each request with its name; it may wait or raise."""

    def __init__(self) -> None:
        self.objects: dict[bytes, bytes] = {}
        self.manifests_of: dict[tuple[bytes, bytes], bytes] = {}
        self.versions_of: dict[bytes, list[PastVersion]] = {}
        self.trash_in: dict[bytes | None, list[TrashedInode]] = {None: []}
        self.traffic = Traffic()
        self.quota: int | None = None
        self.before: Callable[[str], Awaitable[None]] | None = None
        self.damaged: dict[bytes, int] = {}
        """Object id -> how many times it is sent wrong."""
        self._lengths: dict[bytes, int] = {}

    async def _begin(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.before is not None:
            await self.before(name)

    async def plan_uploads(self, space: bytes, objects: Sequence[ObjectToUpload], file: FileToUpload | None = None) -> UploadPlan:
        await self._begin("plan_uploads")
        assert 1 <= len(objects) <= MAX_OBJECTS_PER_PLAN
        assert len({one.id for one in objects}) == len(objects)
        self.traffic.upload_plans += 1
        missing = [one for one in objects if one.id not in self.objects]
        if self.quota is not None:
            used = sum(map(len, self.objects.values())) + sum(one.length for one in missing)
            if used > self.quota:
                raise QuotaExceeded("the account is full")
        self._lengths.update({one.id: one.length for one in missing})
        return UploadPlan(missing=[Link(id=one.id, method="PUT", url="memory:") for one in missing], expires_in=300)

    async def put_object(self, link: Link, body: bytes) -> None:
        await self._begin("put_object")
        assert link.method == "PUT"
        if hashlib.sha256(body).digest() != link.id or self._lengths[link.id] != len(body):
            raise Corrupt("the store refuses bytes that are not what was announced")
        self.traffic.put_ids.append(link.id)
        self.traffic.put_bytes += len(body)
        self.objects[link.id] = bytes(body)

    async def plan_downloads(self, space: bytes, objects: Sequence[bytes]) -> DownloadPlan:
        await self._begin("plan_downloads")
        assert 1 <= len(objects) <= MAX_OBJECTS_PER_PLAN
        self.traffic.download_plans += 1
        if any(one not in self.objects for one in objects):
            raise NotThere("no such object")
        return DownloadPlan(links=[Link(id=one, method="GET", url="memory:") for one in objects], expires_in=300)

    async def get_object(self, link: Link, length: int) -> bytearray:
        await self._begin("get_object")
        self.traffic.get_ids.append(link.id)
        body = bytearray(self.objects[link.id])
        if self.damaged.get(link.id, 0):
            self.damaged[link.id] -= 1
            body[0] ^= 1
        if len(body) != length or hashlib.sha256(body).digest() != link.id:
            raise Corrupt("an object arrived damaged")
        return body

    async def manifests(self, space: bytes, wanted: Sequence[WantedManifest]) -> ManifestsAnswer:
        await self._begin("manifests")
        assert 1 <= len(wanted) <= MAX_MANIFESTS_PER_REQUEST
        self.traffic.manifest_requests += 1
        return ManifestsAnswer(manifests=[self.manifests_of.get((one.inode, one.manifest_id)) for one in wanted])

    def keep_manifest(self, inode: bytes, encoded: bytes) -> bytes:
        id_ = manifest_id(encoded)
        self.manifests_of[inode, id_] = encoded
        return id_

    async def commit(self, space: bytes, body: bytes) -> CommitAnswer:
        raise NotImplementedError

    async def changes(self, cursor: str, *, wait_seconds: int, limit: int, removed: bool = False) -> ChangesPage:
        raise NotImplementedError

    async def folder(self, space: bytes, inode: bytes, *, after: str, limit: int) -> FolderPage:
        raise NotImplementedError

    async def versions(self, space: bytes, inode: bytes, *, before: int | None, limit: int) -> VersionsPage:
        await self._begin("versions")
        if inode not in self.versions_of:
            raise NotThere("no such file")
        found = [each for each in self.versions_of[inode] if before is None or each.revision < before]
        return VersionsPage(versions=found[:limit], next=found[limit - 1].revision if len(found) > limit else None)

    async def trash(self, space: bytes, folder: bytes | None, *, after: str | None, limit: int) -> TrashPage:
        await self._begin("trash")
        if folder not in self.trash_in:
            raise NotThere("no such folder")
        start = int(after or 0)
        found = self.trash_in[folder][start:]
        return TrashPage(entries=found[:limit], next=str(start + limit) if len(found) > limit else None)

    async def account(self) -> AccountInfo:
        raise NotImplementedError

    async def devices(self) -> DeviceList:
        raise NotImplementedError

    async def remove_device(self, device: bytes) -> None:
        raise NotImplementedError


class Switch:
    """A connection that a test turns on and off."""

    def __init__(self, *, online: bool = True) -> None:
        self._online = trio.Event()
        self.failures: list[RemoteError] = []
        if online:
            self._online.set()

    @property
    def online(self) -> bool:
        return self._online.is_set()

    def turn(self, *, on: bool) -> None:
        if on:
            self._online.set()
        elif self.online:
            self._online = trio.Event()

    async def wait_online(self) -> None:
        await self._online.wait()

    @property
    def paused(self) -> bool:
        return False

    @property
    def may_push(self) -> bool:
        return self.online

    async def wait_may_push(self) -> None:
        await self._online.wait()

    def went_well(self) -> None:
        pass

    def failed(self, error: RemoteError) -> None:
        self.failures.append(error)


def unreachable() -> RemoteError:
    return Unreachable("the cable is out")
