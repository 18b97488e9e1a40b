"""How far devices and files are, conflicts, and changes in terms of paths."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from remote.protocol import ProblemType
from remote.server.cursor import CURSOR_MAX
from remote.server.filedownloads import Wanted
from remote.server.problems import Refused
from remote.server.routes.files import announce
from remote.server.routes.requests import (
    FilesReader,
    FilesWriter,
    answer,
    describe,
    nothing,
    parse_id,
    read_model,
    service_of,
)
from remote.syncapi import (
    CHANGES_DEFAULT,
    CHANGES_MAX,
    ConflictList,
    DeviceReport,
    FileChanges,
    FileHistory,
    ResolveConflict,
    Resolved,
    SyncStatus,
)

router = APIRouter()

_LATEST_NS = 2**63 - 1


@router.get("/v1/sync/status", **describe(SyncStatus))
async def status(
    request: Request,
    caller: FilesReader,
    path: Annotated[str | None, Query(min_length=1, max_length=16 * 1024)] = None,
    id: Annotated[str | None, Query(pattern="^[0-9a-f]{32}$")] = None,
) -> Response:
    """How far each device is, and with `path` or `id`, whether it has the present state of that file."""
    service = service_of(request)
    wanted = None if path is None and id is None else Wanted(path, None if id is None else bytes.fromhex(id), None)
    return answer(await service.in_thread(service.device_syncs.status, caller, wanted))


@router.post("/v1/sync/status", **describe(None, DeviceReport, status=204))
async def report(request: Request, caller: FilesWriter) -> Response:
    """A device says what it has yet to send."""
    service = service_of(request)
    body = await read_model(request, DeviceReport)
    await service.in_thread(service.device_syncs.report, caller, body)
    if any(file.error is not None for file in body.first):
        service.wake.notify(caller.account)  # it may be news
    return nothing()


@router.get("/v1/sync/conflicts", **describe(ConflictList))
async def conflicts(request: Request, caller: FilesReader) -> Response:
    """The conflicted copies, each with its original."""
    service = service_of(request)
    return answer(await service.in_thread(service.conflicts.listing, caller))


@router.post("/v1/sync/conflict/resolve", **describe(Resolved, ResolveConflict))
async def resolve(request: Request, caller: FilesWriter) -> Response:
    """Keep the original, the conflicted copy, or both."""
    service = service_of(request)
    body = await read_model(request, ResolveConflict)
    return announce(request, await service.in_thread(service.conflicts.resolve, caller, body))


@router.get("/v1/sync", **describe(FileChanges))
async def changes(
    request: Request,
    caller: FilesReader,
    since: datetime | None = None,
    cursor: Annotated[str | None, Query(max_length=CURSOR_MAX)] = None,
    limit: Annotated[int, Query(ge=1, le=CHANGES_MAX)] = CHANGES_DEFAULT,
) -> Response:
    """What is where now, of all that changed since a time (without a time zone: UTC), or after a cursor."""
    service = service_of(request)
    if (since is None) == (cursor is None):
        raise Refused(ProblemType.INVALID, "Give a time, or the cursor of an earlier answer.", field="since")
    if cursor is not None:
        return answer(await service.in_thread(service.file_feed.after, caller, cursor, limit))
    assert since is not None
    return answer(await service.in_thread(service.file_feed.since, caller, _nanoseconds(since), limit))


@router.get("/v1/changes/files/{inode}", **describe(FileHistory))
async def history(request: Request, caller: FilesReader, inode: str) -> Response:
    """What happened to one file: its contents, by which device each came, and its deletion."""
    service = service_of(request)
    return answer(await service.in_thread(service.file_feed.history, caller, parse_id(inode)))


def _nanoseconds(at: datetime) -> int:
    known = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return min(max(int(known.timestamp()) * 10**9, 0), _LATEST_NS)
