"""One JSON call to the service: HTTP/1.1 over `httpx`, a pool of connections, every wait bounded.

Knows addresses, statuses and time, and neither what the calls mean nor where tokens come from.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TypeVar

import httpx
import trio
from pydantic import ValidationError

from remote.api import Nonsense, Unreachable
from remote.endpoint import Endpoint
from remote.problems import error_from_answer, error_from_transport, error_from_validation
from remote.protocol import Answer, Request

A = TypeVar("A", bound=Answer)

ANSWER_MAX = 64 * 2**20
"""A longer answer is no answer of this protocol."""
PARSED_IN_PLACE_MAX = 200_000
"""Parsing more than this would hold up the event loop; a worker thread does it."""
LATENCY_SAMPLE_MAX = 8 * 1024
_SLOWEST = 16 * 1024
"""Bytes per second; the slowest link for which a big request still counts as alive."""

# Below WARNING both log whole addresses, the second one also headers: queries and tokens are not for logs.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `progress` bounds each wait for the next bytes, `total` a whole call beyond what it asked to wait for."""

    connect: float = 10.0
    progress: float = 30.0
    total: float = 120.0

    def for_httpx(self, extra: float = 0.0) -> httpx.Timeout:
        return httpx.Timeout(self.progress, connect=self.connect, read=self.progress + extra)


class Api:
    """Calls to one endpoint. `transport` takes the place of the network in tests.

    `repeat`: whether a call may be sent once more on a fresh connection if the one that it was sent on turns out closed.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeouts: Timeouts | None = None,
        connections: int = 16,
        repeat: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
        answered: Callable[[float], None] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.requests = 0
        self._timeouts = timeouts or Timeouts()
        self._repeat = repeat
        self._answered = answered
        self._client = httpx.AsyncClient(
            verify=_tls(endpoint),
            http2=False,
            trust_env=False,
            follow_redirects=False,
            transport=transport,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=60.0),
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "aloft"},
        )

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def call(
        self,
        answer: type[A],
        method: str,
        path: str,
        *,
        body: Request | bytes | None = None,
        params: Mapping[str, str | int] | None = None,
        token: str | None = None,
        wait: float = 0.0,
    ) -> A:
        """The answer to one request. `wait`: seconds that the service may hold it back because we asked it to."""
        content = await self.send(method, path, body=body, params=params, token=token, wait=wait)
        parse = partial(answer.model_validate_json, content)
        try:
            if len(content) > PARSED_IN_PLACE_MAX:
                return await trio.to_thread.run_sync(parse)
            return parse()
        except ValidationError as error:
            raise error_from_validation(error, self.endpoint.host) from None

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: Request | bytes | None = None,
        params: Mapping[str, str | int] | None = None,
        token: str | None = None,
        wait: float = 0.0,
    ) -> bytes:
        """Like `call`, for the answer's bytes."""
        content = body.model_dump_json(exclude_unset=True).encode() if isinstance(body, Request) else body
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        if content is not None:
            headers["content-type"] = "application/json"
        request = self._client.build_request(
            method,
            self.endpoint.url + path,
            content=content,
            params=params,
            headers=headers,
            timeout=self._timeouts.for_httpx(wait),
        )
        total = self._timeouts.total + wait + len(content or b"") / _SLOWEST
        try:
            with trio.fail_after(total):
                return await self._exchange(request, timed=wait == 0.0)
        except trio.TooSlowError:
            raise Unreachable(f"{self.endpoint.host} did not finish its answer in time") from None

    async def _exchange(self, request: httpx.Request, *, timed: bool) -> bytes:
        began = trio.current_time()
        try:
            response = await self._send_once_more_if_stale(request)
            try:
                content = await self._read(response)
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise error_from_transport(error, self.endpoint.host) from error
        if timed and self._answered is not None and len(request.content) + len(content) <= LATENCY_SAMPLE_MAX:
            self._answered(trio.current_time() - began)
        if response.status_code not in (200, 201, 204):
            raise error_from_answer(response.status_code, response.headers, content, self.endpoint.host)
        return content

    async def _send_once_more_if_stale(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        try:
            return await self._client.send(request, stream=True)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            # The service closes idle connections, sometimes in the moment in which we use one.
            if not self._repeat:
                raise
            self.requests += 1
            return await self._client.send(request, stream=True)

    async def _read(self, response: httpx.Response) -> bytes:
        content = bytearray()
        # Read to the end, which the time bounds, though not kept: httpx's generators must not be left halfway.
        async for piece in response.aiter_bytes():
            content += piece[: ANSWER_MAX + 1 - len(content)]
        if len(content) > ANSWER_MAX:
            raise Nonsense(f"{self.endpoint.host} answered more than {ANSWER_MAX} bytes")
        return bytes(content)


def _tls(endpoint: Endpoint) -> ssl.SSLContext:
    # Loading the system's authorities takes a while. A plain endpoint gets a context that trusts nobody.
    return endpoint.tls if endpoint.url.startswith("https://") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
