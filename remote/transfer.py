"""Chunk bodies: an `httpx` transport that moves them with the standard library's `http.client` in worker threads.

Why: `httpx` spends over a CPU-second per gigabyte of body; reading straight into a buffer of the known length spends a
fifth of that, and hashing in the same thread finds the bytes still in the processor's cache.

Two request extensions steer it: `OBJECT_LENGTH` (a GET reads exactly so many bytes) and `OBJECT_BODY` (bytes-like, sent
without a copy). A GET that succeeded has its bytes and their SHA-256 in the response extensions `OBJECT_BODY` and
`OBJECT_SHA256`, and an empty stream. A caller must do without them where another transport takes this one's place.

Every wait is bounded: by the timeouts of the request, and by trio's cancellation, which abandons the worker thread and
shuts its socket down, so that it ends at once. Knows nothing of the service, of tokens or of links.

Connections are owned by the event loop's thread, except during an exchange, when the worker thread alone uses them.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import httpx
import trio

from remote.link import RateLimit

OBJECT_LENGTH = "aloft_object_length"
OBJECT_BODY = "aloft_object_body"
OBJECT_SHA256 = "aloft_object_sha256"

PIECE = 256 * 1024
"""Bytes moved between two looks at the rate limit; about what fits into the processor's cache."""
CONNECTING_MAX = 32
_ERROR_BODY_MAX = 64 * 1024
_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 60.0
"""A connection that was idle for longer is not used again: routers forget it without a word."""

_Origin = tuple[str, str, int]


class BodyTransport(httpx.AsyncBaseTransport):
    """See the module. Needs trio. `threads` bounds the exchanges at one time."""

    def __init__(
        self,
        *,
        tls: Callable[[], ssl.SSLContext],
        upload_limit: RateLimit | None = None,
        download_limit: RateLimit | None = None,
        threads: int = 64,
    ) -> None:
        self._tls = tls
        self._upload_limit = upload_limit or RateLimit()
        self._download_limit = download_limit or RateLimit()
        # A limiter of its own: exchanges that wait for the network must not keep hashing out of the default one.
        self._limiter = trio.CapacityLimiter(threads)
        # Another for connecting: threads that hang in the resolver must not keep open connections from being used.
        self._connecting = trio.CapacityLimiter(CONNECTING_MAX)
        self._idle: dict[_Origin, list[_Connection]] = {}
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = request.extensions.get(OBJECT_BODY)
        if body is None:
            body = await request.aread()
        timeouts = request.extensions.get("timeout", {})
        order = _Order(
            method=request.method,
            target=request.url.raw_path.decode("ascii"),
            headers=tuple((name, value) for name, value in request.headers.items() if name != "connection"),
            body=memoryview(body).cast("B"),
            length=request.extensions.get(OBJECT_LENGTH),
            seconds=timeouts.get("read") or _CONNECT_SECONDS,
            upload_limit=self._upload_limit,
            download_limit=self._download_limit,
        )
        origin = _origin(request.url)
        connect_seconds = timeouts.get("connect") or _CONNECT_SECONDS
        connection = self._take_idle(origin)
        if connection is not None:
            try:
                return await self._exchange(origin, connection, order)
            except _Stale:
                pass  # the other side closed it in the moment in which we used it again: once more, on a fresh one
        connection = await self._connect(origin, connect_seconds)
        try:
            return await self._exchange(origin, connection, order)
        except _Stale as error:
            raise httpx.RemoteProtocolError("the server closed the connection without an answer", request=request) from error

    async def aclose(self) -> None:
        self._closed = True
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def _take_idle(self, origin: _Origin) -> _Connection | None:
        connections = self._idle.get(origin, [])
        while connections:
            connection = connections.pop()
            if connection.is_usable(time.monotonic()):
                return connection
            connection.close()
        return None

    def _keep(self, origin: _Origin, connection: _Connection) -> None:
        """For the next exchange. The last one is used first, so those that are not needed grow old at the front."""
        connection.idle_since = time.monotonic()
        connections = self._idle.setdefault(origin, [])
        while connections and connections[0].is_old(connection.idle_since):
            connections.pop(0).close()
        connections.append(connection)

    async def _connect(self, origin: _Origin, seconds: float) -> _Connection:
        job = _Connecting(partial(self._make, origin, seconds))
        with trio.move_on_after(seconds):  # the resolver has no timeout of its own
            connection: _Connection = await self._in_thread(job, self._connecting)
            return connection
        raise httpx.ConnectTimeout(f"no connection within {seconds:g} seconds")

    def _make(self, origin: _Origin, timeout: float) -> http.client.HTTPConnection:
        scheme, host, port = origin
        if scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls())
        return http.client.HTTPConnection(host, port, timeout=timeout)

    async def _exchange(self, origin: _Origin, connection: _Connection, order: _Order) -> httpx.Response:
        outcome: _Outcome = await self._in_thread(_Exchanging(connection, order), self._limiter)
        if outcome.reusable and not self._closed:
            self._keep(origin, connection)
        else:
            connection.close()
        extensions: dict[str, Any] = {}
        if outcome.sha256 is not None:
            extensions = {OBJECT_BODY: outcome.body, OBJECT_SHA256: outcome.sha256}
        return httpx.Response(
            outcome.status,
            headers=outcome.headers,
            stream=httpx.ByteStream(b"" if extensions else bytes(outcome.body)),
            extensions=extensions,
        )

    @staticmethod
    async def _in_thread(job: _Job, limiter: trio.CapacityLimiter) -> Any:
        try:
            return await trio.to_thread.run_sync(job.run, abandon_on_cancel=True, limiter=limiter)
        except trio.Cancelled:
            job.abandon()
            raise


def _origin(url: httpx.URL) -> _Origin:
    if url.scheme not in ("http", "https"):
        raise httpx.UnsupportedProtocol(f"{url.scheme}:// carries no objects")
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


# ---------------------------------------------------------------------------------------------------------- connections


class _Connection:
    """An open connection. Its socket is kept apart, because `http.client` forgets it when the server wants to close."""

    def __init__(self, client: http.client.HTTPConnection) -> None:
        self.client = client
        self.socket: socket.socket = client.sock
        self.idle_since = 0.0

    def is_old(self, now: float) -> bool:
        return now - self.idle_since > _IDLE_SECONDS

    def is_usable(self, now: float) -> bool:
        """Not idle for too long, and silent: bytes without a request, or an end, make a connection useless."""
        if self.is_old(now):
            return False
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return not poll.poll(0)

    def shut_down(self) -> None:
        """Wake up whoever waits for this socket, without freeing its number."""
        # Not the method of a TLS socket: that takes the TLS state away under the thread that uses it.
        with contextlib.suppress(OSError):  # not connected any more: nobody waits either
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def close(self) -> None:
        self.client.close()
        self.socket.close()


# ------------------------------------------------------------------------------------------------- work for the threads


class _Stale(Exception):
    """The connection ended before any byte of an answer."""


class _State(Enum):
    NEW = "new"
    RUNNING = "running"
    DONE = "done"


class _Job:
    """Work for one thread that may be abandoned at any time; whoever comes last, thread or abandoner, cleans up."""

    def __init__(self) -> None:
        self.abandoned = threading.Event()
        self._lock = threading.Lock()
        self._state = _State.NEW

    def run(self) -> Any:
        with self._lock:
            if self.abandoned.is_set():
                raise _Stale("abandoned before it began")
            self._state = _State.RUNNING
        try:
            result = self.work()
        except BaseException:
            self.clean_up()
            raise
        with self._lock:
            self._state = _State.DONE
            if self.abandoned.is_set():
                self.clean_up()
        return result

    def abandon(self) -> None:
        with self._lock:
            self.abandoned.set()
            if self._state is _State.RUNNING:
                self.interrupt()
            else:
                self.clean_up()

    def work(self) -> Any:
        raise NotImplementedError

    def interrupt(self) -> None:
        """Make `work`, which runs in another thread, end soon."""

    def clean_up(self) -> None:
        """Free what `work` holds. May be called more than once."""


class _Connecting(_Job):
    """Opens a connection. An abandoned one cannot be interrupted in the resolver, but is closed as soon as it is there."""

    def __init__(self, make: Callable[[], http.client.HTTPConnection]) -> None:
        super().__init__()
        self._make = make
        self._client: http.client.HTTPConnection | None = None

    def work(self) -> _Connection:
        self._client = self._make()
        try:
            self._client.connect()
        except TimeoutError as error:
            raise httpx.ConnectTimeout("no connection in time") from error
        except OSError as error:
            raise httpx.ConnectError(error.strerror or str(error)) from error
        self._client.auto_open = 0  # a connection that ended must not come back by itself
        return _Connection(self._client)

    def clean_up(self) -> None:
        if self._client is not None:
            self._client.close()


@dataclass(frozen=True, slots=True)
class _Order:
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: memoryview
    length: int | None
    seconds: float
    upload_limit: RateLimit
    download_limit: RateLimit


@dataclass(frozen=True, slots=True)
class _Outcome:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytearray
    sha256: bytes | None
    reusable: bool


class _Exchanging(_Job):
    """One request and its answer."""

    def __init__(self, connection: _Connection, order: _Order) -> None:
        super().__init__()
        self._connection = connection
        self._order = order
        self._cut = False
        """The request was not sent to its end, so nothing can follow it on this connection."""

    def work(self) -> _Outcome:
        try:
            self._connection.socket.settimeout(self._order.seconds)
            response = self._converse()
            with response:
                return self._receive(response)
        except TimeoutError as error:
            raise httpx.ReadTimeout(f"no progress for {self._order.seconds:g} seconds") from error
        except OSError as error:
            raise httpx.ReadError(error.strerror or str(error)) from error
        except http.client.HTTPException as error:
            raise httpx.RemoteProtocolError(f"not HTTP: {error!r}") from error
        except ValueError as error:
            raise httpx.LocalProtocolError("a header that HTTP does not allow") from error

    def interrupt(self) -> None:
        self._connection.shut_down()

    def clean_up(self) -> None:
        self._connection.close()

    def _converse(self) -> http.client.HTTPResponse:
        """Send the request, and read the head of the answer."""
        client, order = self._connection.client, self._order
        try:
            client.putrequest(order.method, order.target, skip_host=True, skip_accept_encoding=True)
            for name, value in order.headers:
                client.putheader(name, value)
            client.endheaders()
            self._send_body()
        except TimeoutError:
            raise
        except OSError as sending:
            # A server that refuses may answer and close before it has read everything: its answer says more.
            self._cut = True
            try:
                return client.getresponse()
            except (OSError, http.client.HTTPException):
                raise _Stale("the connection ended while the request was sent") from sending
        try:
            return client.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected) as error:
            raise _Stale("the connection ended without an answer") from error

    def _send_body(self) -> None:
        rest, limit = self._order.body, self._order.upload_limit
        while rest:
            piece = rest[: limit.piece(PIECE)]
            limit.wait(len(piece), self.abandoned)
            self._check_abandoned()
            while piece:
                sent = self._connection.socket.send(piece)
                piece, rest = piece[sent:], rest[sent:]

    def _receive(self, response: http.client.HTTPResponse) -> _Outcome:
        sha256 = None
        if self._order.length is not None and response.status == 200:
            body, sha256 = self._receive_object(response, self._order.length)
        else:
            body = bytearray(response.read(_ERROR_BODY_MAX))
        reusable = response.isclosed() and not response.will_close and not self._cut
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.getheaders()]
        return _Outcome(response.status, headers, body, sha256, reusable)

    def _receive_object(self, response: http.client.HTTPResponse, length: int) -> tuple[bytearray, bytes]:
        """The body, and its hash. One that is cut short is an error here; one that is honestly shorter or longer is not:
        its length speaks for itself."""
        announced = response.length
        if announced is not None and announced < length:
            length = announced
        body, limit, digest = bytearray(length), self._order.download_limit, hashlib.sha256()
        view, position = memoryview(body), 0
        while position < length:
            wanted = min(limit.piece(PIECE), length - position)
            limit.wait(wanted, self.abandoned)
            self._check_abandoned()
            count = response.readinto(view[position : position + wanted])
            if not count:
                if announced is None:
                    break
                raise httpx.RemoteProtocolError(f"the body ended after {position} of {length} bytes")
            digest.update(view[position : position + count])
            position += count
        view.release()
        del body[position:]
        if not response.isclosed():
            # More than asked, or the end mark of a chunked body. One byte tells, and makes the body too long.
            body += response.read(1)
        return body, digest.digest()

    def _check_abandoned(self) -> None:
        if self.abandoned.is_set():
            raise httpx.ReadError("abandoned")
