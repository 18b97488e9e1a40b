"""Calls about how far devices and files are, and about conflicts: the other side of `remote.syncapi`."""

from __future__ import annotations

from remote.http import HttpService
from remote.syncapi import ConflictList, DeviceReport, FileChanges, FileHistory, ResolveConflict, Resolved, SyncStatus


class Syncs:
    """May raise any `RemoteError`."""

    def __init__(self, service: HttpService) -> None:
        self._service = service

    async def status(self, path: str | None = None) -> SyncStatus:
        """`path`: a file or folder, for whose state on each device to look."""
        params = {} if path is None else {"path": path}
        return await self._service.call(SyncStatus, "GET", "/v1/sync/status", params=params)

    async def report(self, report: DeviceReport) -> None:
        await self._service.send("POST", "/v1/sync/status", report)

    async def conflicts(self) -> ConflictList:
        return await self._service.call(ConflictList, "GET", "/v1/sync/conflicts")

    async def resolve(self, request: ResolveConflict) -> Resolved:
        return await self._service.call(Resolved, "POST", "/v1/sync/conflict/resolve", request)

    async def changes(self, since: str) -> FileChanges:
        """A page of what changed since a time (ISO 8601)."""
        return await self._service.call(FileChanges, "GET", "/v1/sync", params={"since": since})

    async def changes_after(self, cursor: str) -> FileChanges:
        return await self._service.call(FileChanges, "GET", "/v1/sync", params={"cursor": cursor})

    async def history(self, id_: bytes) -> FileHistory:
        return await self._service.call(FileHistory, "GET", f"/v1/changes/files/{id_.hex()}")
