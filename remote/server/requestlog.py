"""Around every request: it gets an id, which its answer, its log lines and the audit log name, and one line in the access log."""

from __future__ import annotations

import logging
import os
import time
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from remote.server.logs import FIELDS, request_id

HEADER = "x-request-id"

log = logging.getLogger("aloft.access")


class RequestLog:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        id_ = os.urandom(8).hex()
        request_id.set(id_)

        async def name_request(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = id_
            await send(message)

        try:
            await self._app(scope, receive, name_request)
        finally:
            self._write(scope, status, time.perf_counter() - began)

    def _write(self, scope: Scope, status: int, seconds: float) -> None:
        if not log.isEnabledFor(logging.INFO):
            return
        client = scope.get("client")
        address, path, milliseconds = client[0] if client else "-", quote(scope["path"]), round(seconds * 1000, 1)
        fields = {
            "address": address,
            "method": scope["method"],
            "path": path,
            "status": status,
            "milliseconds": milliseconds,
        }
        log.info("%s %s %s %d %.1f ms", address, scope["method"], path, status, milliseconds, extra={FIELDS: fields})
