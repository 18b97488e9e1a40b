"""Files and folders by path, for plain clients."""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from remote.fileapi import (
    LIST_DEFAULT,
    LIST_MAX,
    CopyRequest,
    CreateFolder,
    Deleted,
    Expiry,
    ExpiryList,
    FileInfo,
    FileList,
    MoveRequest,
    Order,
    SetExpiry,
    Sort,
)
from remote.names import MAX_NAME_BYTES
from remote.protocol import Kind, ProblemType
from remote.server.filedownloads import Wanted
from remote.server.files import Condition, Done
from remote.server.problems import Refused
from remote.server.routes.requests import FilesReader, FilesWriter, answer, describe, nothing, read_model, service_of

router = APIRouter()

M = TypeVar("M", bound=BaseModel)

FilePath = Annotated[str, Query(alias="path", min_length=1, max_length=16 * 1024)]
_TAGS = re.compile(r'\s*"[0-9a-f]{64}"\s*(?:,\s*"[0-9a-f]{64}"\s*)*')
_TAG = re.compile(r'"([0-9a-f]{64})"')


@router.get("/v1/files", **describe(FileList))
async def listing(
    request: Request,
    caller: FilesReader,
    path: FilePath = "/",
    sort: Sort = Sort.NAME,
    order: Order = Order.ASC,
    after: Annotated[str | None, Query(max_length=MAX_NAME_BYTES + 32)] = None,
    limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = LIST_DEFAULT,
) -> Response:
    """What is in a folder, in pages."""
    service = service_of(request)
    return answer(await service.in_thread(service.files.listing, caller, path, sort, order, after, limit))


@router.get("/v1/files/metadata", **describe(FileInfo))
async def metadata(
    request: Request,
    caller: FilesReader,
    path: FilePath,
    replicas: Annotated[bool, Query(description="Say where its objects lie, too.")] = False,
) -> Response:
    """What is at a path."""
    service = service_of(request)
    info = await service.in_thread(service.files.metadata, caller, path)
    if replicas and info.kind is Kind.FILE:
        where = await service.in_store_thread(service.file_downloads.replicas, caller, Wanted(path, None, info.version))
        info = info.model_copy(update={"replicas": where})
    return answer(info)


@router.post("/v1/files/folder", **describe(FileInfo, CreateFolder, status=201))
async def make_folder(request: Request, caller: FilesWriter) -> Response:
    """Make a folder."""
    service = service_of(request)
    body = await read_model(request, CreateFolder)
    return announce(request, await service.in_thread(service.files.make_folder, caller, body), 201)


@router.post("/v1/files/move", **describe(FileInfo, MoveRequest))
async def move(request: Request, caller: FilesWriter) -> Response:
    """Give a file or folder another path."""
    service = service_of(request)
    body = await read_model(request, MoveRequest)
    return announce(request, await service.in_thread(service.files.move, caller, body, condition(request)))


@router.post("/v1/files/copy", **describe(FileInfo, CopyRequest, status=201))
async def copy(request: Request, caller: FilesWriter) -> Response:
    """Copy a file, or a folder with what is in it, without moving bytes."""
    service = service_of(request)
    body = await read_model(request, CopyRequest)
    return announce(request, await service.in_thread(service.files.copy, caller, body, condition(request)), 201)


@router.delete("/v1/files", **describe(Deleted))
async def delete(
    request: Request, caller: FilesWriter, path: FilePath, recursive: bool = False, partial: bool = False
) -> Response:
    """Delete a file or folder. One that is not empty needs `recursive`; `partial` does it in several requests."""
    service = service_of(request)
    when = condition(request)

    def work() -> Done[Deleted]:
        return service.files.delete(caller, path, when, recursive=recursive, partial=partial)

    return announce(request, await service.in_thread(work))


@router.get("/v1/files/expiry", **describe(ExpiryList))
async def expiries(
    request: Request,
    caller: FilesReader,
    path: Annotated[str | None, Query(min_length=1, max_length=16 * 1024)] = None,
) -> Response:
    """What goes to the trash at a time that was chosen, the next first; or that of one file or folder."""
    service = service_of(request)
    return answer(await service.in_thread(service.expiries.listing, caller, path))


@router.post("/v1/files/expiry", **describe(Expiry, SetExpiry))
async def set_expiry(request: Request, caller: FilesWriter) -> Response:
    """Let a file or folder go to the trash at a time. A day before, there is a notification."""
    service = service_of(request)
    body = await read_model(request, SetExpiry)
    return answer(await service.in_thread(service.expiries.choose, caller, body))


@router.delete("/v1/files/expiry", **describe(None, status=204))
async def forget_expiry(request: Request, caller: FilesWriter, path: FilePath) -> Response:
    """Let it stay."""
    service = service_of(request)
    await service.in_thread(service.expiries.forget, caller, path)
    return nothing()


def announce(request: Request, done: Done[M], status: int = 200) -> Response:
    """The answer to a change, of which those who follow the space hear."""
    service_of(request).wake.notify(done.space)
    return answer(done.answer, status)


def condition(request: Request) -> Condition:
    """`If-Match`; one that is no list of versions is refused, because it was meant to protect something."""
    header = request.headers.get("if-match")
    if header is None or header.strip() == "*":
        return Condition()
    if _TAGS.fullmatch(header) is None:
        raise Refused(ProblemType.INVALID, "Give versions in double quotes, as the ETag has them.", field="If-Match")
    return Condition(frozenset(_TAG.findall(header)))
