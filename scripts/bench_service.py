"""`scripts/bench service`: one process of the service, pinned to one core, on PostgreSQL with durability on, over HTTP.

Each figure stands beside what it should be. The programs that ask, and PostgreSQL, have the other cores; where there are two in
all, the three are in each other's way, and so is whatever else runs on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import trio
from rich.console import Console
from rich.table import Table

from tests.support.postgresql import durable_cluster
from tests.support.service import RunningService, start_service
from tests.support.wire import PASSWORD, create, mkdir, new_id

Json = dict[str, Any]

CONTENT = os.urandom(1024)
BATCH = 1000
ACCOUNTS, DEVICES = 4, 4
WAITING = 200
FOLDER = 100_000
SETTLED_SECONDS = 3.0
"""Until all who are to wait do."""


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: float
    unit: str
    bar: float
    more_is_better: bool

    @property
    def holds(self) -> bool:
        return self.value >= self.bar if self.more_is_better else self.value <= self.bar


class Client:
    """One device."""

    def __init__(self, http: httpx.AsyncClient, epoch: str, login: Json) -> None:
        self._http = http
        self._headers = {"authorization": f"Bearer {login['tokens']['access_token']}"}
        self.space = login["account"]["space"]
        self._epoch = epoch
        self._replica = new_id()
        self._number = 0

    async def get(self, route: str, **params: Any) -> Json:
        return self._read(await self._http.get(route, params=params, headers=self._headers))

    async def commit(self, *groups: Json) -> None:
        self._number += 1
        body = {"number": self._number, "replica": self._replica, "epoch": self._epoch, "groups": list(groups)}
        answer = self._read(await self._http.post(f"/v1/spaces/{self.space}/commit", json=body, headers=self._headers))
        if any(outcome["result"] != "ok" for outcome in answer["outcomes"]):
            raise RuntimeError(f"a commit was not taken: {answer['outcomes'][0]}")

    @staticmethod
    def _read(response: httpx.Response) -> Json:
        if not response.is_success:
            raise RuntimeError(f"{response.request.url} answered {response.status_code}: {response.text}")
        found: Json = response.json()
        return found


async def log_in(http: httpx.AsyncClient, email: str, devices: int) -> list[Client]:
    await http.post("/v1/accounts", json={"email": email, "password": PASSWORD})
    found = []
    for number in range(devices):
        device = {"installation": new_id(), "name": f"device {number}"}
        login = (await http.post("/v1/sessions", json={"email": email, "password": PASSWORD, "device": device})).json()
        page = await http.get("/v1/changes", headers={"authorization": f"Bearer {login['tokens']['access_token']}"})
        found.append(Client(http, page.json()["epoch"], login))
    return found


async def all_at_once(work: Callable[[Client], Awaitable[None]], clients: list[Client]) -> None:
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(work, client)


async def small_commits(clients: list[Client], seconds: float) -> Figure:
    done = 0

    async def work(client: Client) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await client.commit(create(client.space, new_id(), new_id(), CONTENT))
            done += 1

    began = time.perf_counter()
    until = began + seconds
    await all_at_once(work, clients)
    return Figure(
        f"commits of one file, from {len(clients)} devices", done / (time.perf_counter() - began), "a second", 150, True
    )


async def batches(clients: list[Client], count: int) -> Figure:
    async def work(client: Client) -> None:
        for _ in range(count):
            await client.commit(*(create(client.space, new_id(), new_id(), CONTENT) for _ in range(BATCH)))

    began = time.perf_counter()
    await all_at_once(work, clients)
    rate = len(clients) * count * BATCH / (time.perf_counter() - began)
    return Figure(f"files in commits of {BATCH}, contents of 1 KiB", rate, "a second", 5000, True)


async def feed(client: Client) -> Figure:
    rows, cursor, began = 0, "", time.perf_counter()
    while True:
        page = await client.get("/v1/changes", cursor=cursor, limit=5000)
        rows += sum(len(space["inodes"]) + len(space["entries"]) for space in page["spaces"])
        cursor = page["cursor"]
        if not page["has_more"]:
            return Figure("rows of the feed", rows / (time.perf_counter() - began), "a second", 30_000, True)


async def wake_ups(accounts: list[list[Client]], rounds: int) -> Figure:
    times: list[float] = []

    async def wait(client: Client, cursor: str, arrived: list[float]) -> None:
        page = await client.get("/v1/changes", cursor=cursor, wait=60)
        if not any(space["inodes"] for space in page["spaces"]):
            raise RuntimeError("the wait ended without a change")
        arrived.append(time.perf_counter())

    cursors: dict[int, str] = {}
    for number, clients in enumerate(accounts):
        cursors[number] = (await clients[0].get("/v1/changes"))["cursor"]
    async with trio.open_nursery() as others:
        for number, clients in enumerate(accounts[1:], start=1):
            for client in clients[1:]:
                others.start_soon(partial(client.get, "/v1/changes", cursor=cursors[number], wait=60))
        await trio.sleep(SETTLED_SECONDS)
        for _ in range(rounds):
            clients, arrived = accounts[0], []
            async with trio.open_nursery() as nursery:
                for client in clients[1:]:
                    nursery.start_soon(wait, client, cursors[0], arrived)
                await trio.sleep(0.2)
                began = time.perf_counter()
                await clients[0].commit(create(clients[0].space, new_id(), new_id(), CONTENT))
            times += [at - began for at in arrived]
            cursors[0] = (await clients[0].get("/v1/changes", cursor=cursors[0]))["cursor"]
        others.cancel_scope.cancel()
    times.sort()
    last = times[min(len(times) - 1, int(len(times) * 0.99))] * 1000
    waiting = sum(len(clients) - 1 for clients in accounts)
    return Figure(f"a change reaches a waiting device, 99th percentile, {waiting} waiting", last, "ms", 100, False)


async def large_folder(client: Client, entries: int) -> Figure:
    folder = new_id()
    await client.commit(mkdir(client.space, "large", folder))
    for _ in range(entries // BATCH):
        await client.commit(*(create(folder, new_id(), new_id()) for _ in range(BATCH)))
    times = []
    for _ in range(20):
        began = time.perf_counter()
        await client.get("/v1/files", path="/large")
        times.append((time.perf_counter() - began) * 1000)
    return Figure(f"the first page of a folder of {entries} entries", statistics.median(times), "ms", 50, False)


def memory(service: RunningService) -> Figure:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return Figure("memory of the process, at its peak", peak / 1024, "MiB", 300, False)


def pin(pid: int, cores: set[int]) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


async def measure(service: RunningService, arguments: argparse.Namespace, told: Callable[[Figure], None]) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=service.url, timeout=120, limits=limits) as http:
        of_accounts = [await log_in(http, f"a{number}@example.org", DEVICES) for number in range(ACCOUNTS)]
        clients = [client for some in of_accounts for client in some]
        told(await small_commits(clients, arguments.seconds))
        told(await batches([some[0] for some in of_accounts], 3))
        told(await feed(of_accounts[0][1]))
        waiting = [await log_in(http, f"w{number}@example.org", 5) for number in range(WAITING // 4)]
        told(await wake_ups(waiting, 50))
        told(await large_folder(of_accounts[1][0], arguments.folder))
        told(memory(service))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench service", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of small commits (default: 10)")
    parser.add_argument("--folder", type=int, default=FOLDER, help=f"entries of the large folder (default: {FOLDER})")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    progress = Console(stderr=True, soft_wrap=True)

    def told(figure: Figure) -> None:
        figures.append(figure)
        progress.print(f"{figure.name}: {figure.value:,.0f} {figure.unit}")

    cores = sorted(os.sched_getaffinity(0))
    with (
        durable_cluster() as cluster,
        tempfile.TemporaryDirectory(prefix="aloft-bench-") as folder,
        start_service(Path(folder) / "data", database=cluster.new_database()) as service,
    ):
        if len(cores) > 1:
            pin(service.process.pid, {cores[0]})
            os.sched_setaffinity(0, set(cores[1:]))
        trio.run(measure, service, arguments, told)
    if arguments.json:
        print(json.dumps([{**asdict(figure), "holds": figure.holds} for figure in figures], indent=2))
        return 0
    table = Table("what", "measured", "bar", "")
    for figure in figures:
        sign = "≥" if figure.more_is_better else "≤"
        bar = f"{sign} {figure.bar:,.0f} {figure.unit}"
        table.add_row(figure.name, f"{figure.value:,.0f} {figure.unit}", bar, "" if figure.holds else "missed")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
