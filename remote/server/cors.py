"""Pages of other origins: those that the configuration names may call the API and use the embedded store's links, and no others.

There are no cookies, so no page has anybody's rights but those of the token that it was given: credentials, as CORS knows them,
are never allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from remote.server.objects.local import PREFIX

API = "/v1/"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
READ_HEADERS = ("authorization", "if-match", "if-none-match", "if-range", "last-event-id", "range")
SHOWN_HEADERS = (
    "accept-ranges",
    "content-disposition",
    "content-location",
    "content-range",
    "etag",
    "retry-after",
    "www-authenticate",
    "x-request-id",
)
REMEMBERED_SECONDS = 600
"""How long a browser goes by the answer to its preflight."""


class SharedWith:
    """An ASGI layer around the application. Nothing but the API and the objects is shared: no public link, no description."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._shared = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=READ_HEADERS,
            expose_headers=SHOWN_HEADERS,
            max_age=REMEMBERED_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_shared = scope["type"] == "http" and scope["path"].startswith((API, PREFIX))
        await (self._shared if is_shared else self._app)(scope, receive, send)
