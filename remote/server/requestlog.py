"""Around every request: it gets an id, which its answer, its log lines and the audit log name; it is counted, and has one line
in the access log."""

from __future__ import annotations

import logging
import os
import time
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from remote.server.callers import address_in
from remote.server.logs import FIELDS, loggable_path, request_id
from remote.server.metrics import Metrics
from remote.server.threads import asking

HEADER = "x-request-id"

log = logging.getLogger("aloft.access")


class RequestLog:
    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, received, sent = time.perf_counter(), 0, 0, 0
        id_ = os.urandom(8).hex()
        request_id.set(id_)
        asking.set(address_in(scope).encode())

        async def count_body() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def name_request(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = id_
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, count_body, name_request)
        finally:
            seconds = time.perf_counter() - began
            self._metrics.answered(scope["method"], _route(scope), status, seconds, received, sent)
            self._write(scope, status, seconds)

    def _write(self, scope: Scope, status: int, seconds: float) -> None:
        if not log.isEnabledFor(logging.INFO):
            return
        client = scope.get("client")
        address, path, milliseconds = client[0] if client else "-", quote(loggable_path(scope["path"])), round(seconds * 1000, 1)
        fields = {
            "address": address,
            "method": scope["method"],
            "path": path,
            "status": status,
            "milliseconds": milliseconds,
        }
        log.info("%s %s %s %d %.1f ms", address, scope["method"], path, status, milliseconds, extra={FIELDS: fields})


def _route(scope: Scope) -> str:
    """The pattern of the path, of which there are few."""
    route = scope.get("route")
    if route is not None:
        return str(route.path)
    return "/objects" if scope["path"].startswith("/objects/") else "none"
