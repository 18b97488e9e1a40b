"""The trash, former versions of files, and folders as they were."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from remote.fileapi import (
    LIST_DEFAULT,
    LIST_MAX,
    Emptied,
    FileInfo,
    Restored,
    RestoreRequest,
    RestoreVersion,
    RewindRequest,
    Rewound,
    TrashList,
    VersionList,
)
from remote.server.filedownloads import Wanted
from remote.server.routes.files import announce
from remote.server.routes.requests import AnId, FilesReader, FilesWriter, answer, describe, read_model, service_of

router = APIRouter()


@router.get("/v1/files/versions", **describe(VersionList))
async def versions(
    request: Request,
    caller: FilesReader,
    path: Annotated[str | None, Query(min_length=1, max_length=16 * 1024)] = None,
    id: AnId = None,
) -> Response:
    """The contents that a file had, the newest first; also of a file in the trash, by its id."""
    service = service_of(request)
    wanted = Wanted(path, None if id is None else bytes.fromhex(id), None)
    return answer(await service.in_thread(service.trash.versions, caller, wanted))


@router.post("/v1/files/versions/restore", **describe(FileInfo, RestoreVersion))
async def restore_version(request: Request, caller: FilesWriter) -> Response:
    """Let a file hold a former content again. The present one stays a version."""
    service = service_of(request)
    body = await read_model(request, RestoreVersion)
    return announce(request, await service.in_thread(service.trash.restore_version, caller, body))


@router.post("/v1/files/rewind", **describe(Rewound, RewindRequest))
async def rewind(request: Request, caller: FilesWriter) -> Response:
    """Make a folder, or everything, what it was at a time; a thousand changes in a request."""
    service = service_of(request)
    body = await read_model(request, RewindRequest)
    done = await service.in_thread(service.rewind.rewind, caller, body)
    return answer(done.answer) if done.answer.undo_ns is None else announce(request, done)


@router.get("/v1/trash", **describe(TrashList))
async def listing(
    request: Request,
    caller: FilesReader,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = LIST_DEFAULT,
) -> Response:
    """What was deleted, the latest first, in pages."""
    service = service_of(request)
    return answer(await service.in_thread(service.trash.listing, caller, after, limit))


@router.post("/v1/trash/restore", **describe(Restored, RestoreRequest))
async def restore(request: Request, caller: FilesWriter) -> Response:
    """Bring a file or folder back, to where it was or beside what is there now."""
    service = service_of(request)
    body = await read_model(request, RestoreRequest)
    return announce(request, await service.in_thread(service.trash.restore, caller, body))


@router.delete("/v1/trash", **describe(Emptied))
async def empty(request: Request, caller: FilesWriter, id: AnId = None) -> Response:
    """Remove what is in the trash for good: one entry, or all of it."""
    service = service_of(request)
    return answer(await service.in_thread(service.trash.empty, caller, None if id is None else bytes.fromhex(id)))
