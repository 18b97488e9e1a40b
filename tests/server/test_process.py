"""The service as a process on a real socket: start, stop, kill, cut connections, and what its log says."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.service import REPOSITORY, RunningService, start_service
from tests.support.wire import PASSWORD, Json, chunked, content, create, entry, new_id, new_row

SECONDS = 30


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningService]:
    with start_service(tmp_path / "data") as service:
        yield service


class Client:
    """A device over a real connection."""

    def __init__(self, service: RunningService, email: str = "ada@example.org") -> None:
        self.http = httpx.Client(base_url=service.url, timeout=SECONDS, trust_env=False)
        self.http.post("/v1/accounts", json={"email": email, "password": PASSWORD})
        device = {"installation": new_id(), "name": "here"}
        login = self.http.post("/v1/sessions", json={"email": email, "password": PASSWORD, "device": device}).json()
        self.space = login["account"]["space"]
        self.tokens = login["tokens"]
        self.http.headers["Authorization"] = f"Bearer {self.tokens['access_token']}"
        self.number = 0
        self.epoch = ""

    def commit(self, *groups: Json) -> Json:
        self.number += 1
        self.epoch = self.epoch or self.changes()["epoch"]
        commit = {"number": self.number, "replica": self.space, "epoch": self.epoch, "groups": groups}
        answer: Json = self.http.post(f"/v1/spaces/{self.space}/commit", json=commit).json()
        assert all(outcome["result"] == "ok" for outcome in answer["outcomes"]), answer
        return answer

    def plan(self, body: bytes) -> list[Json]:
        wanted = {"objects": [{"id": hashlib.sha256(body).hexdigest(), "length": len(body)}]}
        links: list[Json] = self.http.post(f"/v1/spaces/{self.space}/uploads", json=wanted).json()["missing"]
        return links

    def changes(self, cursor: str = "", **query: int) -> Json:
        page: Json = self.http.get("/v1/changes", params={"cursor": cursor, **query}).json()
        return page

    def names(self) -> set[str]:
        return {row["name"] for row in self.changes()["spaces"][0]["entries"]}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *details: object) -> None:
        self.http.close()


@pytest.fixture
def client(running: RunningService) -> Iterator[Client]:
    with Client(running) as client:
        yield client


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < limit, "it never came to be"
        time.sleep(0.005)


def test_files_go_there_and_back_over_a_real_connection(client: Client) -> None:
    body = os.urandom(5_000_000)
    (link,) = client.plan(body)
    assert httpx.put(link["url"], content=body, headers=link["headers"], trust_env=False).status_code == 200
    inode = new_id()
    row = new_row(inode, "file", content=content(chunked(body)))
    client.commit({"entries": [entry(client.space, "f", None, inode)], "inodes": [row]})
    id_ = hashlib.sha256(body).hexdigest()
    (link,) = client.http.post(f"/v1/spaces/{client.space}/downloads", json={"objects": [id_]}).json()["links"]
    assert httpx.get(link["url"], trust_env=False).content == body


def test_a_commit_wakes_a_waiting_device(running: RunningService, client: Client) -> None:
    cursor = client.changes()["cursor"]
    pages: list[Json] = []
    waiting = threading.Thread(target=lambda: pages.append(client.changes(cursor, wait=50)))
    waiting.start()
    with Client(running) as other:
        other.commit(create(other.space, "f", new_id()))
    waiting.join(SECONDS)
    assert pages[0]["spaces"][0]["entries"][0]["name"] == "f"


def test_a_body_that_is_cut_short_leaves_nothing(running: RunningService, client: Client, tmp_path: Path) -> None:
    body = os.urandom(3_000_000)
    (link,) = client.plan(body)
    address = urlsplit(link["url"])
    with socket.create_connection((address.hostname, address.port), SECONDS) as connection:
        head = f"PUT {address.path}?{address.query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:2_000_000])
        incoming = tmp_path / "data" / "objects" / "incoming"
        until(lambda: any(incoming.iterdir()))
    until(lambda: not any(incoming.iterdir()))
    assert len(client.plan(body)) == 1, "it is still missing"


def test_chunked_bodies_are_limited_and_objects_need_a_length(running: RunningService, client: Client) -> None:
    def send(method: str, path: str, pieces: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=SECONDS)
        try:
            connection.request(method, path, body=(b" " * 1024 for _ in range(pieces)), encode_chunked=True)
            return connection.getresponse().status
        except (BrokenPipeError, ConnectionResetError):
            return 413  # answered and closed before all was sent
        finally:
            connection.close()

    assert send("POST", "/v1/sessions", 100) == 413
    (link,) = client.plan(b" " * 1024)
    address = urlsplit(link["url"])
    assert send("PUT", f"{address.path}?{address.query}", 1) == 400


def test_the_log_says_what_was_asked_and_nothing_secret(running: RunningService, client: Client) -> None:
    (link,) = client.plan(b"x")
    httpx.put(link["url"], content=b"x", trust_env=False)
    client.changes(client.changes()["cursor"])
    client.http.post("/v1/tokens", json={"refresh_token": client.tokens["refresh_token"]})
    running.stop()
    log = running.log.read_text()
    assert "PUT /objects/" in log
    assert "GET /v1/changes 200" in log
    assert "?" not in log
    for secret in (PASSWORD, *client.tokens.values(), urlsplit(link["url"]).query):
        assert str(secret) not in log or isinstance(secret, int)


def test_sigterm_ends_it_at_once_and_cleanly_although_devices_wait(running: RunningService, client: Client) -> None:
    cursor = client.changes()["cursor"]
    answers: list[str] = []

    def wait() -> None:
        try:
            answers.append(client.changes(cursor, wait=60)["cursor"])
        except httpx.TransportError:
            answers.append("the service was faster than the request")

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: running.log.read_text().count("GET /v1/changes") == 1)
    began = time.monotonic()
    assert running.stop() == 0
    waiting.join(SECONDS)
    assert answers
    assert time.monotonic() - began < 15


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = start_service(data)
    with Client(first) as client:
        client.commit(create(client.space, "f", new_id(), b"content"))
        first.kill()
        with start_service(data, port=first.port) as second:
            assert second.url == first.url
            assert client.names() == {"f"}
            client.commit(create(client.space, "g", new_id()))
            assert client.names() == {"f", "g"}


def test_left_overs_of_a_kill_are_cleared(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with start_service(data):
        left_over = data / "objects" / "incoming" / "left-over"
        left_over.write_bytes(b"half an object")
    with start_service(data):
        assert not left_over.exists()


def test_the_data_folder_is_private(running: RunningService, client: Client, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert [file.name for file in data.glob("*.key")] == ["master.key"], "the others are in the database"
    assert stat.S_IMODE((data / "master.key").stat().st_mode) == 0o600


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "remote.server", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS, check=False)


def test_a_second_service_on_the_same_folder_is_refused_with_a_reason(running: RunningService, tmp_path: Path) -> None:
    second = serve("--data", str(tmp_path / "data"), "--port", "0")
    assert second.returncode == 1
    assert "another service is running" in second.stderr
    assert len(second.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_refused(running: RunningService, tmp_path: Path) -> None:
    second = serve("--data", str(tmp_path / "other"), "--port", str(running.port))
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1] == f"cannot listen on 127.0.0.1 port {running.port}: Address already in use"


def test_an_invitation_can_be_made_while_it_runs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with start_service(data, registration="invite") as service:
        code = serve("--data", str(data), "--invite").stdout.strip()
        body = {"email": "a@b.c", "password": PASSWORD, "invitation": code}
        answers = [httpx.post(f"{service.url}/v1/accounts", json=body, trust_env=False).status_code for _ in range(2)]
    assert answers == [201, 403]


def test_the_first_line_says_where_it_listens(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "remote.server", "--data", str(tmp_path / "data"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        process.terminate()
    assert process.returncode == 0


@pytest.mark.parametrize(("trusted", "seen"), [("[]", "127.0.0.1"), ('["127.0.0.0/8"]', "203.0.113.9")])
def test_who_called_is_believed_to_trusted_proxies_only(tmp_path: Path, trusted: str, seen: str) -> None:
    file = tmp_path / "aloft.toml"
    file.write_text(f"trusted_proxies = {trusted}\n")
    with start_service(tmp_path / "data", config=file) as service, ExitStack() as closing_later:
        client = Client(service)
        closing_later.callback(client.http.close)
        client.http.headers.update({"X-Forwarded-For": "198.51.100.7, 203.0.113.9", "X-Forwarded-Proto": "https"})
        assert client.http.post("/v1/personal-tokens", json={"name": "t", "scopes": ["files:read"]}).is_success
        assert client.http.get("/v1/audit").json()["events"][0]["address"] == seen
        url = client.plan(b"some bytes")[0]["url"]
        assert url.startswith("https" if seen != "127.0.0.1" else "http://")


def test_behind_a_trusted_proxy_links_are_bound_to_the_address_that_it_forwards(tmp_path: Path) -> None:
    file = tmp_path / "aloft.toml"
    file.write_text('trusted_proxies = ["127.0.0.0/8"]\n[objects]\nbind_address = true\n')
    with start_service(tmp_path / "data", config=file) as service, ExitStack() as closing_later:
        client = Client(service)
        closing_later.callback(client.http.close)
        client.http.headers.update({"X-Forwarded-For": "203.0.113.9"})
        link = client.plan(b"some bytes")[0]
        headers = link["headers"] | {"X-Forwarded-For": "203.0.113.10"}
        assert client.http.put(link["url"], content=b"some bytes", headers=headers).status_code == 403
        assert client.http.put(link["url"], content=b"some bytes", headers=link["headers"]).status_code == 200
