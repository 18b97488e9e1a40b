"""How far each device is: what its polls tell, and what it reports."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing
from sqlalchemy.exc import OperationalError

from remote.server import devicesync as server_devicesync
from remote.server.database import devicesync
from tests.support.wire import Device, Json, World, create, new_id, problem, write


async def status(device: Device, **query: str) -> Json:
    """The status of each device, by its name; what was asked for beside them."""
    found = await device.get("/v1/sync/status", params=query)
    return {**found, "devices": {each["device"]: each for each in found["devices"]}}


async def catch_up(device: Device, world: World) -> str:
    """Follow the feed to its end, and ask for what follows, as a device does."""
    cursor = ""
    while True:
        page = await device.changes(cursor)
        cursor = page["cursor"]
        if not page["has_more"]:
            world.clock.advance(6)
            await device.changes(cursor)
            return str(cursor)


async def test_a_poll_tells_how_far_a_device_is(world: World, ada: Device) -> None:
    second = await world.device(installation=new_id())
    first = (await status(ada))["devices"][ada.id]
    assert (first["revision"], first["lag"], first["state"], first["current"]) == (None, None, "in-progress", True)
    await ada.accept(create(ada.space, "f", file := new_id(), b"one"))
    cursor = await catch_up(second, world)
    found = await status(ada, path="/f")
    theirs = found["devices"][second.id]
    assert (theirs["revision"], theirs["lag"], theirs["state"], theirs["file"]) == (
        found["revision"],
        0,
        "completed",
        "completed",
    )
    assert theirs["last_synced_ns"] == world.clock()
    assert found["devices"][ada.id]["file"] == "in-progress"
    assert found["file"]["id"] == file

    await ada.accept(write(file, b"two", found["file"]["content_revision"]))
    behind = (await status(ada, id=file))["devices"][second.id]
    assert (behind["lag"], behind["state"], behind["file"]) == (1, "in-progress", "in-progress")
    page = await second.changes(cursor)
    assert (await status(ada))["devices"][second.id]["lag"] == 1, "it was told, but has not said that it has it"
    world.clock.advance(6)
    await second.changes(page["cursor"])
    assert (await status(ada, path="/f"))["devices"][second.id]["file"] == "completed"


async def test_polls_are_noted_every_few_seconds_at_most(world: World, ada: Device) -> None:
    cursor = await catch_up(ada, world)
    noted = (await status(ada))["devices"][ada.id]["last_synced_ns"]
    for number in range(3):
        await ada.accept(create(ada.space, str(number), new_id()))
        cursor = (await ada.changes(cursor))["cursor"]
        await ada.changes(cursor)
    assert (await status(ada))["devices"][ada.id]["last_synced_ns"] == noted
    world.clock.advance(6)
    await ada.changes(cursor)
    assert (await status(ada))["devices"][ada.id]["lag"] == 0


async def test_a_device_that_waits_is_noted_as_soon_as_it_may_be(
    world: World, ada: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = await catch_up(ada, world)
    await ada.accept(create(ada.space, "f", new_id()))
    cursor = (await ada.changes(cursor))["cursor"]
    monkeypatch.setattr(server_devicesync, "NOTE_EVERY_NS", 10**9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(ada.changes, cursor, wait=50))
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert (await status(ada))["devices"][ada.id]["lag"] == 1
        world.clock.advance(2)
        while True:
            if (await status(ada))["devices"][ada.id]["lag"] == 0:
                break
            await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


async def test_a_device_reports_what_it_has_yet_to_send(world: World, ada: Device) -> None:
    second = await world.device(installation=new_id())
    await ada.accept(create(ada.space, "f", new_id(), b"one"))
    await catch_up(second, world)
    first = [{"path": "/f", "size": 10, "error": "the disk cannot be read"}, {"path": "/g", "size": 5}]
    body = {"files": 7, "bytes": 1000, "changes": 2, "first": first}
    assert (await second.send("POST", "/v1/sync/status", body)).status_code == 204
    told = (await status(ada, path="/f"))["devices"][second.id]
    assert (told["state"], told["file"]) == ("failed", "failed")
    assert [(each["path"], each["state"], each["error"]) for each in told["pending"]] == [
        ("/f", "failed", "the disk cannot be read"),
        ("/g", "in-progress", None),
    ]
    assert (told["waiting_files"], told["waiting_bytes"], told["waiting_changes"]) == (7, 1000, 2)
    assert told["reported_ns"] == world.clock()
    assert (await second.send("POST", "/v1/sync/status", {"files": 1, "bytes": 1, "changes": 0})).status_code == 204
    assert (await status(ada))["devices"][second.id]["state"] == "in-progress"
    assert (await second.send("POST", "/v1/sync/status", {"files": 0, "bytes": 0, "changes": 0})).status_code == 204
    assert (await status(ada))["devices"][second.id]["state"] == "completed"


async def test_only_a_device_reports_and_no_token_is_listed(world: World, ada: Device) -> None:
    made = await ada.post("/v1/personal-tokens", {"name": "t", "scopes": ["files:read", "files:write"]})
    body = {"files": 0, "bytes": 0, "changes": 0}
    problem(await ada.send("POST", "/v1/sync/status", body, token=made["token"]), 403, "forbidden")
    cursor = (await ada.changes(""))["cursor"]
    world.clock.advance(6)
    assert (await ada.send("GET", "/v1/changes", params={"cursor": cursor}, token=made["token"])).status_code == 200
    found = (await status(ada))["devices"]
    assert ([*found], found[ada.id]["revision"]) == ([ada.id], None)


async def test_a_removed_device_is_not_listed_and_bad_reports_are_refused(world: World, ada: Device) -> None:
    second = await world.device(installation=new_id())
    await ada.send("DELETE", f"/v1/devices/{second.id}")
    assert [*(await status(ada))["devices"]] == [ada.id]
    for body, field in (
        ({"files": -1, "bytes": 0, "changes": 0}, "files"),
        ({"files": 1, "bytes": 0, "changes": 0, "first": [{"path": "/f", "size": 1}] * 101}, "first"),
    ):
        assert problem(await ada.send("POST", "/v1/sync/status", body), 400, "invalid")["field"] == field
    problem(await ada.send("GET", "/v1/sync/status", params={"path": "/f", "id": ada.space}), 400, "invalid")
    problem(await ada.send("GET", "/v1/sync/status", params={"path": "/none"}), 404, "not-found")


async def test_a_poll_is_answered_although_it_cannot_be_noted(world: World, ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    cursor = (await ada.changes(""))["cursor"]
    monkeypatch.setattr(devicesync, "note_positions", full)
    world.clock.advance(60)
    assert (await ada.changes(cursor))["cursor"] == cursor


async def test_what_no_name_and_no_text_may_hold_is_refused(ada: Device) -> None:
    for file in ({"path": "/a\0b", "size": 1}, {"path": "relative", "size": 1}, {"path": "/f", "size": 1, "error": "a\0b"}):
        body = {"files": 1, "bytes": 1, "changes": 0, "first": [file]}
        assert problem(await ada.send("POST", "/v1/sync/status", body), 400, "invalid")["field"] == "first"
