"""Contents on an origin of their own: whatever a browser makes of a file, it is no page of the service.

On the content host nothing is served but contents, by public links or by tickets; everywhere else no content is. Nobody logs in
there: who asks the service for a content and may have it is sent on with a ticket, which is good for some minutes, for one
account, file and version, and for nothing but their bytes. Whether the account may still have them is looked up when it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import jwt
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from remote.server.keys import Keys
from remote.server.problems import Refused, not_found, problem_response
from remote.server.tokens import read_signed, sign

CONTENT_TICKET_SECONDS = 300
PATH = "/content"
PUBLIC_LINKS = "/link/"
_AUDIENCE = "aloft content"
_CLAIMS = ("sub", "ino", "ver", "pin", "exp")
_TICKET_MAX = 1000


@dataclass(frozen=True, slots=True)
class ContentTicket:
    account: bytes
    inode: bytes
    version: bytes
    pinned: bool
    """Whether who asked named the version, and so knows of which one a part is."""


class ContentTickets:
    """Signed as access tokens are, with their keys, but for another audience: neither passes for the other."""

    def __init__(self, keys: Keys, clock: Callable[[], int]) -> None:
        self._keys = keys
        self._clock = clock

    def issue(self, ticket: ContentTicket) -> str:
        payload = {
            "aud": _AUDIENCE,
            "sub": ticket.account.hex(),
            "ino": ticket.inode.hex(),
            "ver": ticket.version.hex(),
            "pin": ticket.pinned,
            "exp": self._clock() // 10**9 + CONTENT_TICKET_SECONDS,
        }
        return sign(payload, self._keys)

    def verify(self, text: str) -> ContentTicket:
        """`Refused` (not found) for all that is wrong with it."""
        if len(text) > _TICKET_MAX:
            raise _nothing()
        try:
            payload = read_signed(text, self._keys, _AUDIENCE, _CLAIMS)
            account, inode, version = (bytes.fromhex(payload[name]) for name in ("sub", "ino", "ver"))
            expires = int(payload["exp"])
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise _nothing() from error
        if self._clock() // 10**9 >= expires:
            raise _nothing()
        return ContentTicket(account, inode, version, bool(payload["pin"]))


def address_of_content(origin: str, ticket: str, *, inline: bool) -> str:
    return f"{origin}{PATH}?{urlencode({'ticket': ticket} | ({'inline': 'true'} if inline else {}))}"


def elsewhere(location: str) -> Response:
    """The same request is to be made there; for now, so nobody may remember it."""
    return Response(
        status_code=307, headers={"location": location, "cache-control": "no-store", "referrer-policy": "no-referrer"}
    )


class ContentHost:
    """An ASGI layer around the application of a service that has a content origin."""

    def __init__(self, app: ASGIApp, origin: str) -> None:
        self._app = app
        self._origin = origin
        parts = urlsplit(origin)
        usual = {"https": ":443", "http": ":80"}[parts.scheme]
        self._hosts = {parts.netloc, parts.netloc + usual} if parts.port is None else {parts.netloc}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_content = scope["path"] == PATH or scope["path"].startswith(PUBLIC_LINKS)
        is_there = Headers(scope=scope).get("host", "").lower() in self._hosts
        answer: ASGIApp = self._app
        if is_there != is_content:
            is_link = scope["path"].startswith(PUBLIC_LINKS) and scope["method"] in ("GET", "HEAD")
            answer = elsewhere(self._there(scope)) if is_link else problem_response(not_found())
        await answer(scope, receive, send)

    def _there(self, scope: Scope) -> str:
        path, query = (str(scope[name], "latin-1") for name in ("raw_path", "query_string"))
        return f"{self._origin}{path}?{query}" if query else f"{self._origin}{path}"


def _nothing() -> Refused:
    return not_found("This address leads to nothing any more: ask the service for the content again.")
