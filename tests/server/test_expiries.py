"""Files and folders that go to the trash at a time that somebody chose."""

from __future__ import annotations

import pytest

from remote.server import edits
from tests.support.wire import Device, Json, World, create, mkdir, move, new_id, problem

DAY = 24 * 3600


async def names(device: Device, path: str = "/") -> list[str]:
    return [each["name"] for each in (await device.get("/v1/files", params={"path": path}))["entries"]]


async def expire(device: Device, path: str, seconds: int) -> Json:
    return await device.post("/v1/files/expiry", {"path": path, "after_seconds": seconds})


async def test_it_goes_to_the_trash_when_its_time_has_come_and_not_before(world: World, ada: Device) -> None:
    folder, file = new_id(), new_id()
    await ada.accept(mkdir(ada.space, "d", folder), create(ada.space, "f", file, b"x"), create(ada.space, "g", new_id()))
    chosen = await expire(ada, "/f", 3600)
    assert chosen == {"id": file, "path": "/f", "expires_ns": world.clock() + 3600 * 10**9}
    await ada.accept(move(file, (ada.space, "f"), (folder, "h")))
    assert (await ada.get("/v1/files/expiry"))["expiries"] == [chosen | {"path": "/d/h"}]
    world.clock.advance(3599)
    assert world.service.expiries.remove_due() == 0
    world.clock.advance(1)
    assert world.service.expiries.remove_due() == 1
    await ada.refresh()
    assert (await names(ada, "/d"), await names(ada)) == ([], ["d", "g"])
    (entry,) = (await ada.get("/v1/trash"))["entries"]
    assert (entry["id"], entry["path"], entry["device"]) == (file, "/d/h", ada.id)
    assert (await ada.get("/v1/files/expiry"))["expiries"] == []
    await ada.post("/v1/trash/restore", {"id": file})
    assert world.service.expiries.remove_due() == 0, "what was brought back stays"


async def test_a_folder_goes_in_parts_and_who_is_stopped_goes_on(
    world: World, ada: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edits, "MAX_ENTRIES", 3)
    top = new_id()
    await ada.accept(mkdir(ada.space, "d", top), *(create(top, f"f{number}", new_id()) for number in range(7)))
    await expire(ada, "/d", 60)
    world.clock.advance(60)

    calls = iter(range(10))

    def stop_after_two() -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.service.expiries.remove_due(stop_after_two)
    assert len(await names(ada, "/d")) == 1
    assert world.service.expiries.remove_due() == 2
    assert await names(ada) == []
    entries = (await ada.get("/v1/trash"))["entries"]
    assert [entry["path"] for entry in entries] == ["/d"], "one entry, with what was in it"


async def test_a_day_before_there_is_a_notification_once(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "f", file := new_id(), b"x"))
    await expire(ada, "/f", 3 * DAY)
    assert world.service.expiries.warn() == 0
    world.clock.advance(2 * DAY + 60)
    assert (world.service.expiries.warn(), world.service.expiries.warn()) == (1, 0)
    await ada.refresh()
    (told,) = (await ada.get("/v1/notifications"))["notifications"]
    assert (told["topic"], told["path"], told["inode"]) == ("expiry", "/f", file)
    await expire(ada, "/f", 3600)
    assert world.service.expiries.warn() == 1, "another time is told of, too"


async def test_what_does_not_expire_any_more_stays(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "f", new_id()), create(ada.space, "g", gone := new_id()))
    await expire(ada, "/f", 60)
    await expire(ada, "/g", 60)
    assert (await ada.send("DELETE", "/v1/files/expiry", params={"path": "/f"})).status_code == 204
    problem(await ada.send("DELETE", "/v1/files/expiry", params={"path": "/f"}), 404, "not-found")
    await ada.send("DELETE", "/v1/files", params={"path": "/g"})
    world.clock.advance(60)
    assert world.service.expiries.remove_due() == 0
    assert await names(ada) == ["f"]
    await ada.post("/v1/trash/restore", {"id": gone})
    assert (await ada.get("/v1/files/expiry"))["expiries"] == [], "it was in the trash already: that was all"


async def test_nothing_of_a_closed_account_is_touched(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "f", new_id()))
    await expire(ada, "/f", 60)
    assert (await ada.send("POST", "/v1/account/close", {"password": "correct horse"})).is_success
    world.clock.advance(DAY)
    world.service.expiries.warn()
    assert world.service.expiries.remove_due() == 0


async def test_what_cannot_expire(ada: Device) -> None:
    await ada.accept(create(ada.space, "f", new_id()))
    for body, field in (
        ({"path": "/", "after_seconds": 5}, "path"),
        ({"path": "/f", "expires_ns": 5}, "expires_ns"),
        ({"path": "/f", "after_seconds": 0}, "after_seconds"),
    ):
        assert problem(await ada.send("POST", "/v1/files/expiry", body), 400, "invalid")["field"] == field
    problem(await ada.send("POST", "/v1/files/expiry", {"path": "/f"}), 400, "invalid")
    problem(await ada.send("POST", "/v1/files/expiry", {"path": "/none", "after_seconds": 5}), 404, "not-found")
