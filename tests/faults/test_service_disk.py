"""The service's disk is full, at each stage: 503 with Retry-After, nothing half done, and on as soon as there is room."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from remote.server.folder import DataFolderError
from tests.faults.disks import MIB, Disk, ext4_disk
from tests.support.wire import PASSWORD, Device, Json, World, create, new_id, problem

ENOUGH = 2000
"""Requests that a full disk still takes, at most: the database's log has blocks that it can write over."""


@dataclass
class Full:
    disk: Disk
    world: World
    ada: Device


@pytest.fixture
async def full(folder: Path) -> AsyncIterator[Full]:
    """A service on an ext4 of its own, with a device that is logged in. Not full yet."""
    with ext4_disk(folder / "disk", 24 * MIB) as disk:
        world = World.open(disk.path / "data")
        yield Full(disk, world, await world.device())
        await world.close()


def object_id(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def is_refused(response: httpx.Response) -> bool:
    if response.is_success:
        return False
    problem(response, 503, "unavailable")
    assert int(response.headers["retry-after"]) > 0
    return True


async def refused(ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """The first answer that says that there is no room."""
    for _ in range(ENOUGH):
        if is_refused(response := await ask()):
            return response
    pytest.fail("the disk is full, and everything was accepted")


async def test_an_object_that_does_not_fit(full: Full) -> None:
    body, other = os.urandom(300_000), os.urandom(10)
    [link] = await full.ada.plan(body)
    full.disk.fill_up()
    assert is_refused(await full.ada.put(link, body))
    incoming = full.disk.path / "data" / "objects" / "incoming"
    assert list(incoming.iterdir()) == [], "nothing of it is left"
    full.disk.empty()
    assert (await full.ada.put(link, body)).status_code == 200
    await full.ada.upload(other)
    await full.ada.store(full.ada.space, "f", new_id(), body, other)


async def test_a_plan_that_cannot_be_written_down(full: Full) -> None:
    ada = full.ada
    full.disk.fill_up()

    async def plan() -> httpx.Response:
        wanted = [{"id": os.urandom(32).hex(), "length": 10_000} for _ in range(100)]
        return await ada.send("POST", f"/v1/spaces/{ada.space}/uploads", {"objects": wanted})

    await refused(plan)
    full.disk.empty()
    assert (await plan()).is_success
    await ada.store(ada.space, "f", new_id(), os.urandom(10_000))


async def test_a_commit_that_cannot_be_written_down(full: Full) -> None:
    """Refused, it has done nothing; sent again under its number, it is done once. What is there can be read meanwhile."""
    ada = full.ada
    body = os.urandom(300_000)
    await ada.store(ada.space, "before", new_id(), body)
    full.disk.fill_up()
    files: dict[str, Json] = {}

    async def commit() -> httpx.Response:
        files.clear()
        files.update((name, create(ada.space, name, name, os.urandom(3000))) for name in [new_id() for _ in range(50)])
        return await ada.try_commit(*files.values())

    await refused(commit)
    entries, inodes = await ada.listing()
    assert not inodes.keys() & files.keys()
    assert (ada.space, "before") in entries
    [link] = (await ada.try_download(object_id(body))).json()["links"]
    assert (await ada.http.get(link["url"])).content == body

    full.disk.empty()
    first, again = [await ada.commit(*files.values(), number=ada.number) for _ in range(2)]
    assert first == again
    entries, _ = await ada.listing()
    assert {name for _, name in entries} >= {"before", *files}


async def test_accounts_and_tokens(full: Full) -> None:
    """Whoever is refused asks again with what they have: no token is spent by an answer that could not be recorded."""
    world, ada = full.world, full.ada
    full.disk.fill_up()
    emails: list[str] = []

    async def register() -> httpx.Response:
        emails.append(f"{len(emails)}@example.org")
        return await world.http.post("/v1/accounts", json={"email": emails[-1], "password": PASSWORD})

    async def refresh() -> httpx.Response:
        response = await world.refresh(ada.tokens["refresh_token"])
        if response.is_success:
            ada.tokens = response.json()
        return response

    await refused(register)
    await refused(refresh)
    full.disk.empty()
    await world.device(emails[-1])
    await ada.refresh()
    await ada.changes()


async def test_a_service_that_is_started_on_a_full_disk(full: Full) -> None:
    """It says so, and starts when there is room."""
    await full.world.close()
    full.disk.fill_up()
    data = full.disk.path / "data"
    with pytest.raises(DataFolderError, match="is its disk full"):
        World.open(data)
    full.disk.empty()
    world = World.open(data)
    assert (await world.try_login("ada@example.org", new_id())).is_success
    await world.close()
