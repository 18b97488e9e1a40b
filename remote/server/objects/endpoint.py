"""The embedded object store's data plane: `PUT` and `GET /objects/{key}`, allowed by nothing but the link's signature.

Plain ASGI, because the bytes of every file go through it. It counts what it carries for each owner, since its start.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.types import Receive, Scope, Send

from remote.accountapi import Traffic
from remote.protocol import ProblemType
from remote.server.callers import address_in
from remote.server.objects.files import IncomingObject, WrongBody
from remote.server.objects.local import PREFIX, LocalStore, OpenObject
from remote.server.objects.signing import BadLink, Grant
from remote.server.objects.store import NoSuchObject, StoreError, StoreUnavailable
from remote.server.patience import NotRead
from remote.server.problems import Refused, problem_response
from remote.server.ranges import parse_range

PIECE = 2**20
WORKERS = 8
RETRY_AFTER_SECONDS = 10

T = TypeVar("T")


class CutShort(Exception):
    """The caller went away in the middle of a body, or the store does not give the rest."""


@dataclass(slots=True)
class Carried:
    received_bytes: int = 0
    received_objects: int = 0
    sent_bytes: int = 0
    sent_objects: int = 0


class ObjectEndpoint:
    """An ASGI application for everything below `/objects/`."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._limiter = anyio.CapacityLimiter(WORKERS)
        self._carried: defaultdict[str, Carried] = defaultdict(Carried)

    def traffic(self, owner: bytes) -> Traffic:
        carried = self._carried.get(owner.hex(), Carried())
        return Traffic(
            received_bytes=carried.received_bytes,
            received_objects=carried.received_objects,
            sent_bytes=carried.sent_bytes,
            sent_objects=carried.sent_objects,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._serve(scope, receive, send)
        except Refused as refused:
            await problem_response(refused)(scope, receive, send)
        except (CutShort, NotRead):
            return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method not in ("GET", "PUT"):
            raise Refused(ProblemType.INVALID, "objects know GET and PUT", status=405)
        key = scope["path"].removeprefix(PREFIX)
        try:
            query = scope["query_string"].decode("latin-1")
            # In a thread: it may have to look for the key.
            grant = await self._in_thread(self._store.verify, method, key, query, address_in(scope))
            if method == "PUT":
                await self._put(grant, scope, receive, send)
            else:
                await self._get(grant, scope, send)
        except BadLink as error:
            raise Refused(ProblemType.FORBIDDEN, f"This link is not good: {error}.") from error
        except NoSuchObject as error:
            raise Refused(ProblemType.NOT_FOUND, "There is no such object.") from error
        except WrongBody as error:
            raise Refused(ProblemType.INVALID, f"The body is not the one that was announced: {error}.") from error
        except StoreUnavailable as error:
            raise Refused(ProblemType.UNAVAILABLE, str(error), retry_after_seconds=RETRY_AFTER_SECONDS) from error

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await anyio.to_thread.run_sync(work, *arguments, limiter=self._limiter)

    # ------------------------------------------------------------------------------------------------------- PUT

    async def _put(self, grant: Grant, scope: Scope, receive: Receive, send: Send) -> None:
        if _header(scope, b"content-length") != str(grant.length):
            raise Refused(ProblemType.INVALID, f"The link is for exactly {grant.length} bytes.", field="Content-Length")
        carried = self._carried[grant.key.partition("/")[0]]
        incoming = await self._in_thread(self._store.incoming, grant)
        try:
            await self._receive(incoming, receive, carried)
            await self._in_thread(incoming.finish)
            carried.received_objects += 1
        finally:
            with anyio.CancelScope(shield=True):
                await self._in_thread(incoming.discard)
        etag = (b"etag", f'"{incoming.sha256.hex()}"'.encode())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0"), etag]})
        await send({"type": "http.response.body", "body": b""})

    async def _receive(self, incoming: IncomingObject, receive: Receive, carried: Carried) -> None:
        """Hand the body to `incoming`, a piece at a time: hashing and disk work never hold up the loop."""
        piece = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise CutShort
            body = message.get("body", b"")
            carried.received_bytes += len(body)
            piece += body
            more = message.get("more_body", False)
            if len(piece) >= PIECE or (piece and not more):
                await self._in_thread(incoming.write, piece)
                piece = bytearray()

    # ------------------------------------------------------------------------------------------------------- GET

    async def _get(self, grant: Grant, scope: Scope, send: Send) -> None:
        stored = await self._in_thread(self._store.open, grant.key)
        try:
            await self._send(stored, grant, _header(scope, b"range"), send)
        finally:
            stored.close()

    async def _send(self, stored: OpenObject, grant: Grant, asked: str | None, send: Send) -> None:
        total = stored.what.length
        part = parse_range(asked, total)
        start, end = part or (0, total)
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", str(end - start).encode()),
            (b"accept-ranges", b"bytes"),
            (b"cache-control", b"private, immutable"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if part is not None:
            headers.append((b"content-range", f"bytes {start}-{end - 1}/{total}".encode()))
        await send({"type": "http.response.start", "status": 200 if part is None else 206, "headers": headers})
        carried = self._carried[grant.key.partition("/")[0]]
        while start < end:
            try:
                piece = await self._in_thread(stored.read, start, min(PIECE, end - start))
            except StoreError as error:
                raise CutShort from error
            start += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": start < end})
            carried.sent_bytes += len(piece)
        carried.sent_objects += 1


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None
