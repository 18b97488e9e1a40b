"""A proxy between devices and the service that breaks things on demand: real sockets, real HTTP/1.1, no TLS.

    device ──▶ proxy.url ───────▶ the service        Kind.API
           ──▶ proxy.store_url ─▶ its object store   Kind.PUT, Kind.GET    (`aloft serve --public-url` points here)

Both addresses lead to one service process, and each can be away by itself (connections refused). Faults are injected per kind
of request while everything runs:

    with proxy.inject(Answer(503, {"Retry-After": "3600"}), Kind.PUT) as fault: ...
    proxy.inject(Stall(Where.ANSWER_BODY, after=1000), Kind.GET, path="/objects/", times=3)

A thread for each connection. Every method may be called from any thread. Knows nothing of mounts, tokens or the protocol.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType

PIECE = 256 * 1024
LOOK = 0.05
"""Seconds between two looks of a thread that waits at whether it still should."""
CONNECT_SECONDS = 10.0
HEAD_MAX = 256 * 1024


class Kind(Enum):
    API = "api"
    PUT = "put"
    """An object that goes up."""
    GET = "get"
    """An object that comes down."""


STORE = (Kind.PUT, Kind.GET)


class Where(Enum):
    """A moment of an exchange. The device has sent the head of its request before the first."""

    REQUEST_BODY = "request body"
    """After so many bytes of the request's body were taken from the device; the service has seen nothing."""
    REQUEST_PASSED_ON = "request passed on"
    """The service has it all, byte by byte as it came (`after`: all but the rest after so many bytes)."""
    ANSWER = "answer"
    """The service has answered, the device has seen nothing of it."""
    ANSWER_BODY = "answer body"
    """After so many bytes of the answer's body."""


# --------------------------------------------------------------------------------------------------------------- faults


@dataclass(frozen=True)
class Answer:
    """The proxy answers by itself, after it has read the request; the service sees nothing."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Reset:
    """The connection is reset (RST)."""

    where: Where = Where.REQUEST_BODY
    after: int = 0


@dataclass(frozen=True)
class Cut:
    """The connection ends in order (FIN), though more was announced."""

    where: Where = Where.ANSWER_BODY
    after: int = 0


@dataclass(frozen=True)
class Stall:
    """Nothing happens for so many seconds (None: until the fault is withdrawn), then it goes on."""

    where: Where = Where.ANSWER
    after: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Trickle:
    """The bodies of request and answer come slowly."""

    bytes_per_second: int


@dataclass(frozen=True)
class Rewrite:
    """The body of the answer (of the request) is another one, and its length is announced truly."""

    change: Callable[[bytes], bytes]
    request: bool = False


@dataclass(frozen=True)
class Garbage:
    """These bytes in place of an answer, and the end of the connection."""

    data: bytes


Fault = Answer | Reset | Cut | Stall | Trickle | Rewrite | Garbage


def flip(at: int) -> Callable[[bytes], bytes]:
    """For `Rewrite`: one bit is wrong."""

    def change(body: bytes) -> bytes:
        position = at % len(body)
        return body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]

    return change


S3_REQUEST_TIMEOUT = Answer(
    400,
    {"Content-Type": "application/xml"},
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>RequestTimeout</Code><Message>Your socket connection to the server was'
    b" not read from or written to within the timeout period. Idle connections will be closed.</Message></Error>",
)
"""What Amazon's store says when a body did not come in time."""


class Injected:
    """A fault in force. Leaving the `with` block, or `stop`, withdraws it and lets go on what it stalls."""

    def __init__(self, fault: Fault, kinds: tuple[Kind, ...], path: str, times: int | None, skip: int) -> None:
        self.fault = fault
        self.hits = 0
        """Requests that it has struck."""
        self.stopped = threading.Event()
        self._kinds, self._path, self._times, self._skip = kinds, path, times, skip

    def strikes(self, request: _Head) -> bool:
        """To be called once for each request, under the proxy's lock."""
        if self.stopped.is_set() or request.kind not in self._kinds or self._path not in request.target:
            return False
        if self._skip > 0:
            self._skip -= 1
            return False
        if self._times is not None and self.hits >= self._times:
            return False
        self.hits += 1
        return True

    def stop(self) -> None:
        self.stopped.set()

    def __enter__(self) -> Injected:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


# ---------------------------------------------------------------------------------------------------------------- proxy


class FaultProxy:
    """Listens from the beginning; `upstream` is the port of the service on this machine, and may change."""

    def __init__(self, upstream: int = 0) -> None:
        self.upstream = upstream
        self.closed = threading.Event()
        self._lock = threading.Lock()
        self._faults: list[Injected] = []
        self._counts: Counter[Kind] = Counter()
        self._moments: list[tuple[float, Kind, str]] = []
        self._connections: set[_Connection] = set()
        self._doors = {door: _Door(self, door) for door in ("api", "store")}

    @property
    def url(self) -> str:
        """For `aloft login --server`."""
        return self._doors["api"].url

    @property
    def store_url(self) -> str:
        """For `aloft serve --public-url`."""
        return self._doors["store"].url

    def inject(self, fault: Fault, *kinds: Kind, path: str = "", times: int | None = None, skip: int = 0) -> Injected:
        """Let requests of these kinds (none given: all) whose target holds `path` meet this fault, at most so many `times`, the
        first `skip` not. A request meets the first fault that fits it."""
        injected = Injected(fault, kinds or tuple(Kind), path, times, skip)
        with self._lock:
            self._faults.append(injected)
        return injected

    def clear(self) -> None:
        """All is well again: faults are withdrawn, both doors are open."""
        with self._lock:
            faults, self._faults = self._faults, []
        for injected in faults:
            injected.stop()
        self.set_service_away(False)
        self.set_store_away(False)

    def set_service_away(self, away: bool) -> None:
        """Connections to the service are refused, and those that exist are reset: what a device sends after this has returned
        gets no answer. The store stays."""
        self._doors["api"].set_away(away)

    def set_store_away(self, away: bool) -> None:
        self._doors["store"].set_away(away)

    def count(self, *kinds: Kind) -> int:
        """Requests so far (none given: of all kinds)."""
        with self._lock:
            return sum(self._counts[kind] for kind in kinds or tuple(Kind))

    def moments(self, *kinds: Kind, path: str = "") -> list[float]:
        """When these requests came, by the monotonic clock."""
        with self._lock:
            return [at for at, kind, target in self._moments if kind in (kinds or tuple(Kind)) and path in target]

    def reset_connections(self) -> None:
        """Whatever is open breaks, in the middle of whatever it does."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.reset()

    def close(self) -> None:
        self.closed.set()
        self.clear()
        for door in self._doors.values():
            door.close()
        self.reset_connections()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.thread.join(CONNECT_SECONDS * 2)

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # What the threads ask for.

    def begin(self, door: str, client: socket.socket) -> None:
        connection = _Connection(self, door, client)
        with self._lock:
            self._connections.add(connection)
        connection.thread.start()

    def ended(self, connection: _Connection) -> None:
        with self._lock:
            self._connections.discard(connection)

    def reset_door(self, door: str) -> None:
        with self._lock:
            connections = [one for one in self._connections if one.door == door]
        for connection in connections:
            connection.reset()

    def meets(self, request: _Head) -> Injected | None:
        """Count the request; the fault that it meets."""
        with self._lock:
            self._counts[request.kind] += 1
            self._moments.append((time.monotonic(), request.kind, request.target))
            return next((injected for injected in self._faults if injected.strikes(request)), None)


class _Door:
    """One listening address. While it is away its port stays bound, so that nobody else gets it, and refuses."""

    def __init__(self, proxy: FaultProxy, name: str) -> None:
        self._proxy, self._name = proxy, name
        self._socket = _bound()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._open = threading.Event()
        self._lock = threading.Lock()
        self.set_away(False)
        self._thread = threading.Thread(target=self._accept, name=f"fault proxy {name}", daemon=True)
        self._thread.start()

    def set_away(self, away: bool) -> None:
        with self._lock:
            if away and self._open.is_set():
                self._open.clear()
                self._socket.shutdown(socket.SHUT_RDWR)  # a listening socket of Linux returns to being merely bound
                self._proxy.reset_door(self._name)
            elif not away and not self._open.is_set():
                self._socket.listen(1024)
                self._open.set()

    def close(self) -> None:
        self.set_away(True)
        self._open.set()
        self._thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while not self._proxy.closed.is_set():
            self._open.wait()
            try:
                client, _ = self._socket.accept()
            except OSError:  # it went away in this moment
                self._proxy.closed.wait(0.001)
                continue
            with self._lock:
                if self._open.is_set():
                    self._proxy.begin(self._name, client)
                else:
                    client.close()


def _bound() -> socket.socket:
    """A socket that keeps its port also when it stops to listen: only one that was asked for by its number is kept."""
    with socket.socket() as finder:
        finder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        finder.bind(("127.0.0.1", 0))
        keeper = socket.socket()
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(finder.getsockname())
    return keeper


# ---------------------------------------------------------------------------------------------------------- connections


class _Ended(Exception):
    """Nothing more comes, or nothing more is wanted."""


@dataclass(slots=True)
class _Head:
    """The first line and the headers of a request or an answer, as they came."""

    lines: list[bytes]

    @property
    def target(self) -> str:
        return self.lines[0].split(b" ")[1].decode("latin-1")

    @property
    def method(self) -> str:
        return self.lines[0].split(b" ")[0].decode("latin-1")

    @property
    def kind(self) -> Kind:
        if not self.target.startswith("/objects/"):
            return Kind.API
        return Kind.PUT if self.method == "PUT" else Kind.GET

    @property
    def has_no_body(self) -> bool:
        """Of an answer."""
        return self.lines[0].split(b" ")[1] in (b"204", b"304")

    def header(self, name: bytes) -> bytes | None:
        for line in self.lines[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == name:
                return value.strip()
        return None

    @property
    def length(self) -> int:
        if self.header(b"transfer-encoding") is not None:
            raise _Ended("the proxy knows announced lengths only")
        return int(self.header(b"content-length") or 0)

    def with_length(self, length: int) -> _Head:
        kept = [line for line in self.lines if line.partition(b":")[0].strip().lower() != b"content-length"]
        return _Head([*kept, b"content-length: %d" % length])

    def encode(self) -> bytes:
        return b"\r\n".join(self.lines) + b"\r\n\r\n"


class _Pipe:
    """A socket, read through a buffer. After `is_reset` is set nothing is taken from it or given to it any more, however fast the
    other side is; a wait ends, too, when `is_over` says so."""

    def __init__(self, sock: socket.socket, is_reset: threading.Event, is_over: Callable[[], bool] = lambda: False) -> None:
        self.socket = sock
        self._is_reset, self._is_over = is_reset, is_over
        self._buffer = bytearray()
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def head(self) -> _Head | None:
        """None: it ended before it began."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            piece = self._receive()
            if not piece:
                if self._buffer:
                    raise _Ended("in the middle of a head")
                return None
            self._buffer += piece
            if len(self._buffer) > HEAD_MAX:
                raise _Ended("a head without end")
        head = _Head(bytes(self._buffer[:end]).split(b"\r\n"))
        del self._buffer[: end + 4]
        return head

    def some(self, most: int) -> bytes:
        """Up to so many bytes of a body."""
        if not self._buffer:
            piece = self._receive(min(most, PIECE))
            if not piece:
                raise _Ended("in the middle of a body")
            return piece
        piece = bytes(self._buffer[:most])
        del self._buffer[:most]
        return piece

    def exactly(self, count: int) -> bytes:
        body = bytearray()
        while len(body) < count:
            body += self.some(count - len(body))
        return bytes(body)

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._wait(select.POLLOUT)
            try:
                view = view[self.socket.send(view[:PIECE]) :]
            except BlockingIOError:
                continue

    def has_hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def is_silent(self) -> bool:
        """Neither bytes nor an end: fit for the next request."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN | select.POLLRDHUP)
        return not self._buffer and not poll.poll(0)

    def _receive(self, most: int = PIECE) -> bytes:
        while True:
            self._wait(select.POLLIN)
            try:
                return self.socket.recv(most)
            except BlockingIOError:
                continue

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self.socket, event)
        while True:
            is_ready = poll.poll(LOOK * 1000)
            if self._is_reset.is_set():
                raise _Ended("the connection is reset")
            if is_ready:
                return
            if self._is_over():
                raise _Ended("nobody waits any more")


class _Connection:
    """One connection of a device, and the one to the service that goes with it."""

    def __init__(self, proxy: FaultProxy, door: str, client: socket.socket) -> None:
        self.door = door
        self.thread = threading.Thread(target=self._run, name="fault proxy connection", daemon=True)
        self._proxy = proxy
        self._is_reset = threading.Event()
        self._client = _Pipe(client, self._is_reset)
        self._service: _Pipe | None = None

    def reset(self) -> None:
        """Soon, by its own thread: no other may close its sockets."""
        self._is_reset.set()

    def _run(self) -> None:
        try:
            while self._one_exchange():
                pass
        except (_Ended, OSError):
            pass
        finally:
            if self._is_reset.is_set():
                self._close_with_reset()
            self._client.socket.close()
            self._close_service()
            self._proxy.ended(self)

    def _one_exchange(self) -> bool:
        """Whether the connection goes on."""
        head = self._client.head()
        if head is None:
            return False
        injected = self._proxy.meets(head)
        fault = None if injected is None else injected.fault
        if isinstance(fault, Answer):
            self._client.exactly(head.length)
            self._client.send(_answer(fault))
            return True
        if isinstance(fault, Garbage):
            self._client.exactly(head.length)
            self._client.send(fault.data)
            return False
        exchange = _Exchange(self, head, injected)
        exchange.run()
        return exchange.goes_on

    # What an exchange needs.

    @property
    def client(self) -> _Pipe:
        return self._client

    def service(self) -> _Pipe:
        """Connected. A service that is not there ends the device's connection as well."""
        if self._service is not None and not self._service.is_silent():
            self._close_service()
        if self._service is None:
            address = ("127.0.0.1", self._proxy.upstream)
            sock = socket.create_connection(address, timeout=CONNECT_SECONDS)
            self._service = _Pipe(sock, self._is_reset, self._client.has_hung_up)
        return self._service

    def pause(self, seconds: float, until: threading.Event) -> None:
        """Wait, for as long as the device waits too."""
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0 and not until.wait(min(rest, LOOK)):
            if self._is_reset.is_set() or self._client.has_hung_up():
                raise _Ended("nobody waits any more")

    def _close_service(self) -> None:
        if self._service is not None:
            self._service.socket.close()
            self._service = None

    def _close_with_reset(self) -> None:
        with suppress(OSError):
            self._client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class _Exchange:
    """One request, passed on, and its answer, with what happens to them on the way."""

    def __init__(self, connection: _Connection, head: _Head, injected: Injected | None) -> None:
        self.goes_on = True
        self._connection = connection
        self._head = head
        self._fault = None if injected is None else injected.fault
        self._withdrawn = threading.Event() if injected is None else injected.stopped

    def run(self) -> None:
        client = self._connection.client
        if isinstance(self._fault, Rewrite) and self._fault.request:
            body = self._fault.change(client.exactly(self._head.length))
            service = self._connection.service()
            service.send(self._head.with_length(len(body)).encode() + body)
        elif self._breaks_at(Where.REQUEST_BODY):
            body = client.exactly(min(self._after, self._head.length))
            self._strike()
            service = self._connection.service()
            service.send(self._head.encode() + body)
            self._request_body(client, service, self._head.length - len(body))
        else:
            service = self._connection.service()
            service.send(self._head.encode())
            self._request_body(client, service, self._head.length)
        self._answer(client, service)

    def _request_body(self, client: _Pipe, service: _Pipe, length: int) -> None:
        """A service that refuses may answer and close before it has it all: its answer is passed on."""
        try:
            self._carry_with_fault(Where.REQUEST_PASSED_ON, client, service, length)
        except (BrokenPipeError, ConnectionResetError):
            self.goes_on = False

    def _answer(self, client: _Pipe, service: _Pipe) -> None:
        answer = service.head()
        while answer is not None and answer.lines[0].split(b" ")[1].startswith(b"1"):
            answer = service.head()
        if answer is None:
            raise _Ended("the service ended the connection")
        if self._breaks_at(Where.ANSWER):
            self._strike()
        length = 0 if answer.has_no_body else answer.length
        if isinstance(self._fault, Rewrite) and not self._fault.request:
            body = self._fault.change(service.exactly(length))
            client.send(answer.with_length(len(body)).encode() + body)
        else:
            client.send(answer.encode())
            self._carry_with_fault(Where.ANSWER_BODY, service, client, length)
        if (answer.header(b"connection") or b"").lower() == b"close":
            self.goes_on = False

    def _carry_with_fault(self, where: Where, source: _Pipe, target: _Pipe, length: int) -> None:
        if self._breaks_at(where):
            before = min(self._after, length)
            self._carry(source, target, before)
            self._strike()
            length -= before
        self._carry(source, target, length)

    def _carry(self, source: _Pipe, target: _Pipe, length: int) -> None:
        client = self._connection.client
        while length > 0:
            is_slow = isinstance(self._fault, Trickle) and not self._withdrawn.is_set()
            rate = self._fault.bytes_per_second if isinstance(self._fault, Trickle) and is_slow else None
            if source is client and not target.is_silent():
                raise BrokenPipeError("answered already")
            piece = source.some(length if rate is None else min(length, max(1, int(rate * LOOK))))
            target.send(piece)
            length -= len(piece)
            if rate is not None:
                self._connection.pause(len(piece) / rate, self._withdrawn)

    def _breaks_at(self, where: Where) -> bool:
        return isinstance(self._fault, Reset | Cut | Stall) and self._fault.where is where

    @property
    def _after(self) -> int:
        assert isinstance(self._fault, Reset | Cut | Stall)
        return self._fault.after

    def _strike(self) -> None:
        """What the fault does at its place."""
        if isinstance(self._fault, Stall):
            self._connection.pause(float("inf") if self._fault.seconds is None else self._fault.seconds, self._withdrawn)
            return
        if isinstance(self._fault, Reset):
            self._connection.reset()
        raise _Ended("a fault that was asked for")


def _answer(fault: Answer) -> bytes:
    head = _Head([b"HTTP/1.1 %d Fault" % fault.status, *(f"{name}: {value}".encode() for name, value in fault.headers.items())])
    return head.with_length(len(fault.body)).encode() + fault.body
