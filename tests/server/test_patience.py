"""Callers that stall: they hold neither a connection nor a file for ever."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.server.test_process import Client
from tests.support.service import RunningService, start_service
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wire import Json, chunked, content, entry, new_id, new_row

BODY = b"x" * 16_000_000


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningService]:
    with start_service(tmp_path / "data", patience=1) as service:
        yield service


@pytest.fixture
def client(running: RunningService) -> Iterator[Client]:
    with Client(running) as client:
        yield client


def begin(service: RunningService, method: str, target: str, length: int, receive_buffer: int | None = None) -> socket.socket:
    """The head of a request."""
    connection = socket.socket()
    connection.settimeout(PATIENCE)
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect(("127.0.0.1", service.port))
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def all_of(connection: socket.socket) -> bytes:
    """Until the service ends it."""
    received = bytearray()
    try:
        while piece := connection.recv(2**20):
            received += piece
    except ConnectionResetError:
        pass
    return bytes(received)


def target_of(link: Json) -> str:
    parts = urlsplit(link["url"])
    return f"{parts.path}?{parts.query}"


def put(link: Json) -> int:
    return httpx.put(link["url"], content=BODY, headers=link["headers"], timeout=PATIENCE, trust_env=False).status_code


def test_an_object_that_stops_coming(running: RunningService, client: Client, tmp_path: Path) -> None:
    (link,) = client.plan(BODY)
    with begin(running, "PUT", target_of(link), len(BODY)) as connection:
        connection.sendall(BODY[:1000])
        assert all_of(connection).startswith(b"HTTP/1.1 408 ")
    wait_until(lambda: os.listdir(tmp_path / "data" / "objects" / "incoming") == [])
    assert put(link) == 200


def test_a_request_that_stops_coming(running: RunningService) -> None:
    with begin(running, "POST", "/v1/sessions", 1000) as connection:
        connection.sendall(b'{"email": ')
        assert all_of(connection).startswith(b"HTTP/1.1 408 ")


def test_an_object_that_nobody_takes(running: RunningService, client: Client, tmp_path: Path) -> None:
    (link,) = client.plan(BODY)
    assert put(link) == 200
    inode = new_id()
    row = new_row(inode, "file", content=content(chunked(BODY)))
    client.commit({"entries": [entry(client.space, "f", None, inode)], "inodes": [row]})
    wanted = {"objects": [hashlib.sha256(BODY).hexdigest()]}
    (link,) = client.http.post(f"/v1/spaces/{client.space}/downloads", json=wanted).json()["links"]

    def is_open() -> bool:
        return any(os.readlink(fd).startswith(str(tmp_path / "data" / "objects")) for fd in descriptors.iterdir())

    descriptors = Path(f"/proc/{running.process.pid}/fd")
    with begin(running, "GET", target_of(link), 0, receive_buffer=4096) as connection:
        assert connection.recv(8, socket.MSG_WAITALL) == b"HTTP/1.1"
        wait_until(lambda: not is_open())
        assert len(all_of(connection)) < len(BODY)


def test_a_long_poll_is_not_hurried(client: Client) -> None:
    """It waits for longer than the patience with bodies."""
    page = client.changes(client.changes()["cursor"], wait=2)
    assert [space["entries"] for space in page["spaces"]] == [[]]
