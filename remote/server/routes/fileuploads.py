"""Resumable uploads of plain clients."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.responses import Response

from remote.fileapi import BeginUpload, ChunkLink, ChunkReport, CompleteUpload, FileUpload, FileUploadList, UploadedChunk
from remote.server.problems import from_validation, not_found
from remote.server.routes.files import announce, condition
from remote.server.routes.requests import (
    FilesReader,
    FilesWriter,
    answer,
    describe,
    link_base,
    nothing,
    parse_id,
    read_body,
    read_model,
    service_of,
)

BEGIN_MAX = 16 * 2**20

router = APIRouter()

Sha256 = Annotated[str, Query(pattern="^[0-9a-f]{64}$")]


@router.post("/v1/files/upload", **describe(FileUpload, BeginUpload))
async def begin(request: Request, caller: FilesWriter) -> Response:
    """Begin an upload, or find the one of the same path and content. Complete at once if no chunk is missing."""
    service = service_of(request)
    body = await read_body(request, BEGIN_MAX)
    try:
        asked = await service.in_thread(BeginUpload.model_validate_json, body)  # which may take a while
    except ValidationError as error:
        raise from_validation(error) from error
    when, base = condition(request), link_base(request)
    return announce(request, await service.in_store_thread(service.file_uploads.begin, caller, asked, when, base))


@router.get("/v1/files/upload", **describe(FileUploadList))
async def in_progress(request: Request, caller: FilesReader, fingerprint: Sha256 | None = None) -> Response:
    """Uploads in progress, the last used first; those of one file, by its SHA-256."""
    service = service_of(request)
    wanted = None if fingerprint is None else bytes.fromhex(fingerprint)
    return answer(await service.in_thread(service.file_uploads.in_progress, caller, wanted))


@router.get("/v1/files/upload/{upload}", **describe(FileUpload))
async def state(request: Request, caller: FilesWriter, upload: str) -> Response:
    """What is missing, as the object store says, with links for some of it."""
    service = service_of(request)
    return answer(await service.in_store_thread(service.file_uploads.state, caller, parse_id(upload), link_base(request)))


@router.post("/v1/files/upload/{upload}/chunks/{chunk}", **describe(UploadedChunk, ChunkLink))
async def chunk_link(request: Request, caller: FilesWriter, upload: str, chunk: str) -> Response:
    """A fresh link for a chunk, if the object store does not have it."""
    service = service_of(request)
    body = await read_model(request, ChunkLink)
    ids = parse_id(upload), parse_hash(chunk)
    return answer(await service.in_store_thread(service.file_uploads.chunk, caller, *ids, body.md5, link_base(request)))


@router.patch("/v1/files/upload/{upload}/chunks/{chunk}", **describe(UploadedChunk, ChunkReport))
async def report(request: Request, caller: FilesWriter, upload: str, chunk: str) -> Response:
    """Report a chunk. It is `uploaded` when the object store says so; until then the answer has a link for it."""
    service = service_of(request)
    body = await read_model(request, ChunkReport)
    ids = parse_id(upload), parse_hash(chunk)
    return answer(await service.in_store_thread(service.file_uploads.report, caller, *ids, body, link_base(request)))


@router.post("/v1/files/upload/{upload}/complete", **describe(FileUpload, CompleteUpload))
async def complete(request: Request, caller: FilesWriter, upload: str) -> Response:
    """Publish the file, or say what is missing. May be repeated."""
    service = service_of(request)
    body = await read_model(request, CompleteUpload)
    id_, when = parse_id(upload), condition(request)
    return announce(request, await service.in_store_thread(service.file_uploads.complete, caller, id_, body, when))


@router.delete("/v1/files/upload/{upload}", **describe(None, status=204))
async def forget(request: Request, caller: FilesWriter, upload: str) -> Response:
    """Give an upload up. What was sent of it is not sent again if another upload needs it soon."""
    service = service_of(request)
    await service.in_thread(service.file_uploads.forget, caller, parse_id(upload))
    return nothing()


def parse_hash(text: str) -> bytes:
    """An object's id in a path; what is none does not exist."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        raise not_found() from None
    if len(found) != 32:
        raise not_found()
    return found
