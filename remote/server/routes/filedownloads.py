"""Downloads of plain clients: by chunks with links, and the bytes as one body."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from remote.accountapi import Scope
from remote.fileapi import FileDownload
from remote.manifest import SIZE_MAX
from remote.protocol import Link, ProblemType
from remote.server.contentorigin import ContentTicket, address_of_content, elsewhere
from remote.server.devices import Caller
from remote.server.filedownloads import Found, Wanted
from remote.server.mediatypes import served_as
from remote.server.problems import Refused, not_found
from remote.server.ranges import goes_on, parse_range
from remote.server.routes.fileuploads import Sha256, parse_hash
from remote.server.routes.requests import FilesReader, answer, describe, link_base, service_of
from remote.server.streams import ContentResponse

router = APIRouter()


def _wanted(
    path: Annotated[str | None, Query(min_length=1, max_length=16 * 1024)] = None,
    id: Annotated[str | None, Query(pattern="^[0-9a-f]{32}$")] = None,
    version: Sha256 | None = None,
) -> Wanted:
    return Wanted(path, None if id is None else bytes.fromhex(id), None if version is None else bytes.fromhex(version))


AFile = Annotated[Wanted, Depends(_wanted)]
Offset = Annotated[int, Query(ge=0, le=SIZE_MAX)]


@router.get("/v1/files/download", **describe(FileDownload))
async def download(
    request: Request, caller: FilesReader, wanted: AFile, start: Offset = 0, end: Offset | None = None
) -> Response:
    """The chunks of a file, or of the bytes from `start` to before `end`, with links."""
    service = service_of(request)
    return answer(await service.in_thread(service.file_downloads.plan, caller, wanted, start, end, link_base(request)))


@router.get("/v1/files/download/chunks/{chunk}", **describe(Link))
async def chunk_link(request: Request, caller: FilesReader, wanted: AFile, chunk: str) -> Response:
    """A fresh link for one chunk of a file."""
    service = service_of(request)
    return answer(await service.in_thread(service.file_downloads.link, caller, wanted, parse_hash(chunk), link_base(request)))


@router.get("/v1/files/content", **describe(None))
@router.head("/v1/files/content", **describe(None))
async def content(request: Request, caller: FilesReader, wanted: AFile, inline: bool = False) -> Response:
    """The bytes of a file. `inline`: a browser may show what cannot run; everything else is to be saved."""
    service = service_of(request)
    found = await service.in_thread(service.file_downloads.look_up, caller, wanted)
    if service.config.content_origin is not None:
        asked = ContentTicket(caller.account, found.inode, found.version, wanted.version is not None)
        ticket = await service.in_thread(service.content_tickets.issue, asked)
        return elsewhere(address_of_content(service.config.content_origin, ticket, inline=inline))
    location = f"/v1/files/content?id={found.inode.hex()}&version={found.version.hex()}"
    headers = {**served_as(found.name, inline=inline), "content-location": location}
    return await send_content(request, found, headers, pinned=wanted.version is not None, stream=caller.account)


@router.get("/content", **describe(None))
@router.head("/content", **describe(None))
async def content_by_ticket(request: Request, ticket: Annotated[str, Query(max_length=1024)], inline: bool = False) -> Response:
    """The bytes of a file, on the origin that contents have, by the address to which the service sent the caller."""
    service = service_of(request)
    if service.config.content_origin is None:
        raise not_found()
    allowed = await service.in_thread(service.content_tickets.verify, ticket)
    caller = Caller(allowed.account, bytes(16), frozenset({Scope.FILES_READ}))
    found = await service.in_thread(service.file_downloads.look_up, caller, Wanted(None, allowed.inode, allowed.version))
    headers = {**served_as(found.name, inline=inline), "referrer-policy": "no-referrer"}
    return await send_content(request, found, headers, pinned=allowed.pinned, stream=allowed.account)


async def send_content(request: Request, found: Found, headers: dict[str, str], *, pinned: bool, stream: bytes) -> Response:
    """What a `GET` or `HEAD` for the content gets: with what it says of ranges and versions taken into account.

    `pinned`: it names the version. `stream`: for whom the answer is, of the answers that may be under way at one time.
    """
    service = service_of(request)
    headers = {**headers, "etag": _etag(found), "accept-ranges": "bytes", "cache-control": "private, no-cache"}
    if _names(request, "if-match", found) is False:
        raise Refused(ProblemType.PRECONDITION_FAILED, "The file has another version by now.")
    if _names(request, "if-none-match", found):
        return Response(status_code=304, headers={name: headers[name] for name in ("etag", "cache-control")})
    part = _part(request, found, pinned=pinned) if request.method == "GET" else None
    start, end = part or (0, found.size)
    status = 200
    if part is not None:
        status, headers["content-range"] = 206, f"bytes {start}-{end - 1}/{found.size}"
    headers["content-length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    if found.manifest.inline is not None:
        return Response(found.manifest.inline[start:end], status_code=status, headers=headers)
    pieces = await service.in_thread(service.file_downloads.pieces, found, start, end)

    def read_next() -> bytes | None:
        piece = next(pieces, None)
        return None if piece is None else service.file_downloads.read(piece)

    return ContentResponse(status, headers, lambda: service.in_reading_thread(read_next), service.streams.one(stream))


def _etag(found: Found) -> str:
    return f'"{found.version.hex()}"'


def _names(request: Request, header: str, found: Found) -> bool | None:
    """Whether a list of ETags has that of the content; None: there is no such header."""
    value = request.headers.get(header)
    if value is None:
        return None
    tags = {tag.strip() for tag in value.split(",")}
    return "*" in tags or _etag(found) in tags


def _part(request: Request, found: Found, *, pinned: bool) -> tuple[int, int] | None:
    """The part to send; None: all of it, also where the client may have the beginning of another version."""
    asked, condition = request.headers.get("range"), request.headers.get("if-range")
    if condition is not None and condition.strip() != _etag(found):
        return None
    if condition is None and not pinned and goes_on(asked) and "if-match" not in request.headers:
        return None
    return parse_range(asked, found.size)
