"""Commits, folders, uploads, downloads and manifests of a space, and its past."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.responses import Response

from remote.historyapi import TrashPage, VersionsPage
from remote.manifest import SIZE_MAX
from remote.names import MAX_NAME_BYTES
from remote.protocol import (
    MAX_COMMIT_BYTES,
    CommitAnswer,
    CommitRequest,
    DownloadPlan,
    DownloadRequest,
    FolderPage,
    ManifestsAnswer,
    ManifestsRequest,
    UploadPlan,
    UploadRequest,
)
from remote.server.feed import LIMIT_DEFAULT, LIMIT_MAX
from remote.server.problems import from_validation
from remote.server.routes.requests import (
    PLAN_MAX,
    AnId,
    FilesReader,
    FilesWriter,
    answer,
    describe,
    json_answer,
    link_base,
    parse_id,
    read_body,
    read_model,
    service_of,
)

router = APIRouter()

Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX)]


@router.post("/v1/spaces/{space}/commit", **describe(CommitAnswer, CommitRequest))
async def commit(request: Request, caller: FilesWriter, space: str) -> Response:
    """Apply groups of changes, each whole or not at all. A repeated number gets the recorded outcome."""
    service = service_of(request)
    id_ = parse_id(space)
    body = await read_body(request, MAX_COMMIT_BYTES)
    try:
        committed = await service.in_store_thread(service.namespace.commit, caller, id_, body)
    except ValidationError as error:
        raise from_validation(error) from error
    if committed.changed:
        service.wake.notify(id_)
    return json_answer(committed.answer)


@router.get("/v1/spaces/{space}/folders/{inode}", **describe(FolderPage))
async def folder(
    request: Request,
    caller: FilesReader,
    space: str,
    inode: str,
    after: Annotated[str, Query(max_length=MAX_NAME_BYTES)] = "",
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """What is in a folder now, in the order of names, after a name."""
    service = service_of(request)
    id_, folder_id = parse_id(space), parse_id(inode)
    return json_answer(await service.in_thread(service.feed.folder, caller, id_, folder_id, after, limit))


@router.post("/v1/spaces/{space}/uploads", **describe(UploadPlan, UploadRequest))
async def uploads(request: Request, caller: FilesWriter, space: str) -> Response:
    """Which objects are missing, each with a link to send it by. Refused before any byte is sent if there is no room."""
    service = service_of(request)
    id_ = parse_id(space)
    body = await read_model(request, UploadRequest, PLAN_MAX)
    return answer(await service.in_store_thread(service.uploads.plan, caller, id_, body.objects, link_base(request), body.file))


@router.post("/v1/spaces/{space}/downloads", **describe(DownloadPlan, DownloadRequest))
async def downloads(request: Request, caller: FilesReader, space: str) -> Response:
    """A link for each of the objects that contents of this space name."""
    service = service_of(request)
    id_ = parse_id(space)
    body = await read_model(request, DownloadRequest, PLAN_MAX)
    return answer(await service.in_thread(service.downloads.plan, caller, id_, body.objects, link_base(request)))


@router.post("/v1/spaces/{space}/manifests", **describe(ManifestsAnswer, ManifestsRequest))
async def manifests(request: Request, caller: FilesReader, space: str) -> Response:
    """Manifests by inode and id, of current and of former contents."""
    service = service_of(request)
    id_ = parse_id(space)
    body = await read_model(request, ManifestsRequest, PLAN_MAX)
    found = await service.in_thread(service.downloads.manifests, caller, id_, body.wanted)
    return json_answer(await service.in_thread(lambda: found.model_dump_json().encode()))


@router.get("/v1/spaces/{space}/versions/{inode}", **describe(VersionsPage))
async def versions(
    request: Request,
    caller: FilesReader,
    space: str,
    inode: str,
    before: Annotated[int | None, Query(ge=0, le=SIZE_MAX)] = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """The contents that a file had, the newest first, in pages."""
    service = service_of(request)
    id_, file = parse_id(space), parse_id(inode)
    return answer(await service.in_thread(service.history.versions, caller, id_, file, before, limit))


@router.get("/v1/spaces/{space}/trash", **describe(TrashPage))
async def trash(
    request: Request,
    caller: FilesReader,
    space: str,
    folder: AnId = None,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Limit = LIMIT_DEFAULT,
) -> Response:
    """What was deleted, or what went with one folder of it, the latest first, in pages."""
    service = service_of(request)
    id_, inside = parse_id(space), None if folder is None else bytes.fromhex(folder)
    return answer(await service.in_thread(service.history.trash, caller, id_, inside, after, limit))
