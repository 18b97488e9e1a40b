"""Public links: made, listed and revoked by an account, and opened by anybody."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from remote.linkapi import LinkRequest, NewPublicLink, PublicLinkList
from remote.server.archive import MEDIA_TYPE
from remote.server.audit import Action
from remote.server.mediatypes import as_attachment, served_as
from remote.server.publiclinks import Opened
from remote.server.ratelimit import Limit
from remote.server.routes.filedownloads import send_content
from remote.server.routes.requests import (
    FilesReader,
    FilesWriter,
    address_of,
    answer,
    audited,
    base_url,
    describe,
    nothing,
    parse_id,
    read_model,
    service_of,
)
from remote.server.streams import ContentResponse

router = APIRouter()

_PASSWORD_HEADER_MAX = 1024
_PASSWORDS_OF_LINK, _PASSWORDS_FROM_ADDRESS, _PASSWORDS_SECONDS = 20, 50, 15 * 60
_FOR_STRANGERS = {"referrer-policy": "no-referrer", "x-robots-tag": "noindex, nofollow"}
"""The address is the secret: it is neither told to other sites nor put into an index."""


@router.get("/v1/links", **describe(PublicLinkList))
async def listing(
    request: Request,
    caller: FilesReader,
    path: Annotated[str | None, Query(min_length=1, max_length=16 * 1024)] = None,
) -> Response:
    """The account's public links, or those to one file or folder."""
    service = service_of(request)
    return answer(await service.in_thread(service.public_links.listing, caller, path))


@router.post("/v1/links", **describe(NewPublicLink, LinkRequest, status=201))
async def make(request: Request, caller: FilesWriter) -> Response:
    """Make a public link to a file or folder."""
    service = service_of(request)
    body = await read_model(request, LinkRequest)
    run = service.in_thread if body.password is None else service.in_password_thread
    async with audited(request, Action.MAKE_LINK, caller) as event:
        made = await run(service.public_links.make, caller, body, service.config.content_origin or base_url(request))
        event.subject = made.link.id.hex()
    return answer(made, 201)


@router.delete("/v1/links/{link}", **describe(None, status=204))
async def revoke(request: Request, caller: FilesWriter, link: str) -> Response:
    """End a public link: whoever opens it from now on finds nothing."""
    service = service_of(request)
    id_ = parse_id(link)
    async with audited(request, Action.REVOKE_LINK, caller, subject=id_.hex()):
        await service.in_thread(service.public_links.revoke, caller, id_)
    return nothing()


@router.get("/link/{token}", **describe(None))
@router.head("/link/{token}", **describe(None))
async def open_link(
    request: Request, token: str, ticket: Annotated[str | None, Query(max_length=1024)] = None, inline: bool = False
) -> Response:
    """The file that a public link leads to, or the folder as a zip archive."""
    service = service_of(request)
    links = service.public_links
    opened = await service.in_thread(links.open, token, ticket)
    if opened.wants_ticket and (admitted := await _admit(request, opened)) is not None:
        return Response(
            status_code=303, headers={**_FOR_STRANGERS, "cache-control": "no-store", "location": f"?ticket={admitted}"}
        )
    if not opened.has_ticket and request.method == "GET" and "range" not in request.headers:
        await service.in_thread(links.count, opened)
    if opened.is_folder:
        return await _send_archive(request, opened)
    found = await service.in_thread(links.content, opened)
    headers = {**served_as(found.name, inline=inline), **_FOR_STRANGERS}
    return await send_content(request, found, headers, pinned=opened.version is not None, stream=opened.link.id)


async def _admit(request: Request, opened: Opened) -> str | None:
    """The ticket for a download that is counted now; None: for a `HEAD`, which is none. `Refused`."""
    service = service_of(request)
    links, link = service.public_links, opened.link
    async with audited(request, Action.OPEN_LINK, subject=link.id.hex()) as event:
        event.account = link.account_id
        if link.password_hash is not None:
            limits = [
                Limit(f"password of link {link.id.hex()}", _PASSWORDS_OF_LINK, _PASSWORDS_SECONDS),
                Limit(f"passwords of links from {address_of(request)}", _PASSWORDS_FROM_ADDRESS, _PASSWORDS_SECONDS),
            ]
            await service.in_thread(service.limiter.take, limits)
            await service.in_password_thread(links.require_password, opened, _given_password(request))
            await service.in_thread(service.limiter.give_back, limits)
        return None if request.method == "HEAD" else await service.in_thread(links.admit, opened)


async def _send_archive(request: Request, opened: Opened) -> Response:
    service = service_of(request)
    headers = {**as_attachment(f"{opened.place.name}.zip", MEDIA_TYPE), **_FOR_STRANGERS, "cache-control": "private, no-cache"}
    if request.method == "HEAD":
        looked_at = Response(headers=headers)
        del looked_at.headers["content-length"]  # nobody knows it before the archive is made
        return looked_at
    archive: Iterator[bytes] = await service.in_thread(service.public_links.archive, opened)
    stream = service.streams.one(opened.link.id)
    return ContentResponse(200, headers, lambda: service.in_reading_thread(next, archive, None), stream)


def _given_password(request: Request) -> str | None:
    """That of HTTP Basic authentication, whatever the user is called (RFC 7617)."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic" or len(encoded) > _PASSWORD_HEADER_MAX:
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text.partition(":")[2]
