"""PostgreSQL is killed and started again while devices commit through two processes of the service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from signal import SIGQUIT

import httpx
import pytest

from tests.server.test_postgresql_processes import Client
from tests.support.postgresql import Cluster
from tests.support.service import RunningService, start_service
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wire import create, new_id

ENOUGH = 5
LONG = 2 * PATIENCE


@pytest.fixture
def services(tmp_path: Path, postgresql: Cluster) -> Iterator[list[RunningService]]:
    url = postgresql.new_database()
    with start_service(tmp_path / "data", database=url) as one, start_service(tmp_path / "data", database=url) as two:
        yield [one, two]
    postgresql.drop_database(url)


class Writer:
    """Commits one file after the other; each under its number until there is an answer."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.names: list[str] = []
        self.revisions: list[int] = []
        self.refusals: list[httpx.Response] = []
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        while not self._enough.is_set():
            number, inode = len(self.names) + 1, new_id()
            group = create(self._client.space, inode, inode, b"content")
            response = self._client.try_commit(group, number=number)
            while not response.is_success:
                self.refusals.append(response)
                self._enough.wait(0.05)
                response = self._client.try_commit(group, number=number)
            self.revisions += response.json()["outcomes"][0]["entries"]
            self.names.append(inode)

    def stop(self) -> None:
        self._enough.set()
        self._thread.join(2 * PATIENCE)


def test_nothing_acknowledged_is_lost_when_the_database_dies(services: list[RunningService], postgresql: Cluster) -> None:
    email = "ada@example.org"
    clients = [Client(services[n % 2], email) for n in range(4)]
    clients[0].register()
    for client in clients:
        client.login()
    writers = [Writer(client) for client in clients]
    try:
        wait_until(lambda: all(len(writer.names) >= ENOUGH for writer in writers), "commits", LONG)
        postgresql.stop(kind=SIGQUIT)
        try:
            wait_until(lambda: all(len(writer.refusals) >= ENOUGH for writer in writers), "refusals", LONG)
        finally:
            postgresql.start()
        before = [len(writer.names) for writer in writers]
        wait_until(
            lambda: all(len(writer.names) >= n + ENOUGH for writer, n in zip(writers, before, strict=True)),
            "commits afterwards",
            LONG,
        )
    finally:
        for writer in writers:
            writer.stop()
    for response in [refusal for writer in writers for refusal in writer.refusals]:
        assert (response.status_code, response.json()["type"]) == (503, "unavailable")
        assert "retry-after" in response.headers
    revisions = sorted(revision for writer in writers for revision in writer.revisions)
    assert revisions == list(range(2, 2 + len(revisions)))
    names = {name for writer in writers for name in writer.names}
    listed = [changed for client in clients[:2] for changed in client.changes("", limit=5000)["spaces"]]
    for space in listed:
        assert {row["name"] for row in space["entries"]} == names
        assert space["revision"] == revisions[-1]
    for client in clients:
        client.close()
