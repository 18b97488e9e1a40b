"""A server on a real socket that does exactly what a test tells it to, also what no decent server does."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest


@dataclass(frozen=True)
class Received:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int
    """Counts the connections from 0."""


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = None
    """The Content-Length to claim, if not the truth; -1 for none at all."""
    close: bool = False
    """Close the connection afterwards, without having said so."""
    stall: bool = False
    """Send nothing more until the test is over."""
    silent: bool = False
    """Send no answer at all (with `stall`: ever; else the connection just ends)."""


class WireServer:
    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.reply: Callable[[Received], Reply] = lambda _: Reply()
        self.received: list[Received] = []
        self.connections = 0
        self.hasty = False
        """Answer before the body of a request was read."""
        self.ended = threading.Semaphore(0)
        """Released each time that a client ended a connection."""
        self._tls = tls
        self._stopped = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self) -> None:
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in list(self._open):
            try:
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection, self.connections))
            self.connections += 1
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.add(connection)
            with connection, connection.makefile("rb") as reader:
                while self._serve_one(connection, reader, number):
                    pass
        except OSError:
            return
        finally:
            self._open.discard(connection)
            connection.close()
            self.ended.release()

    def _serve_one(self, connection: socket.socket, reader, number: int) -> bool:
        line = reader.readline().decode()
        if not line:
            return False
        method, target, _ = line.split(" ", 2)
        headers = {}
        while (line := reader.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = b"" if self.hasty else reader.read(int(headers.get("content-length", "0")))
        received = Received(method, target, headers, body, number)
        self.received.append(received)
        reply = self.reply(received)
        if not reply.silent:
            self._answer(connection, reply)
        if reply.stall:
            reader.read(1)  # until the client, or the end of the test, ends the connection
        return not (reply.close or reply.silent or reply.stall)

    def _answer(self, connection: socket.socket, reply: Reply) -> None:
        length = len(reply.body) if reply.announced is None else reply.announced
        head = [f"HTTP/1.1 {reply.status} Because"]
        head += [f"{name}: {value}" for name, value in reply.headers.items()]
        head += [f"Content-Length: {length}"] if length >= 0 else []
        connection.sendall("\r\n".join([*head, "", ""]).encode() + reply.body)


@pytest.fixture
def make_wire() -> Iterator[Callable[..., WireServer]]:
    servers: list[WireServer] = []

    def make(tls: ssl.SSLContext | None = None) -> WireServer:
        servers.append(WireServer(tls))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def wire(make_wire: Callable[..., WireServer]) -> WireServer:
    return make_wire()


@pytest.fixture
def reply() -> type[Reply]:
    return Reply
