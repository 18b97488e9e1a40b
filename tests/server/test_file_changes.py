"""What changed, in terms of paths, and what happened to one file."""

from __future__ import annotations

from datetime import UTC, datetime

from remote.server import collection
from tests.support.wire import Device, Json, World, create, mkdir, move, new_id, problem, write


def iso(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat()


async def changes(device: Device, **query: str | int) -> tuple[dict[str, str | None], str]:
    """The inode at each path that changed, over all pages, and the last cursor."""
    found: dict[str, str | None] = {}
    while True:
        page = await device.get("/v1/sync", params=query)
        for change in page["changes"]:
            found[change["path"]] = None if change["file"] is None else change["file"]["id"]
        query = {"cursor": page["cursor"], **{key: value for key, value in query.items() if key == "limit"}}
        if not page["has_more"]:
            return found, str(page["cursor"])


async def test_a_program_follows_by_time_and_then_by_cursor(world: World, ada: Device) -> None:
    folder, file, other = new_id(), new_id(), new_id()
    await ada.accept(mkdir(ada.space, "d", folder), create(folder, "f", file, b"one"), create(ada.space, "g", other, b"two"))
    all_of_it, cursor = await changes(ada, since="2020-01-01", limit=2)
    assert all_of_it | {"/": ada.space} == {"/": ada.space, "/d": folder, "/d/f": file, "/g": other}
    assert (await changes(ada, cursor=cursor))[0] == {}
    await ada.accept(move(file, (folder, "f"), (ada.space, "h")), write(other, b"three", 4))
    await ada.send("DELETE", "/v1/files", params={"path": "/d"})
    found, _ = await changes(ada, cursor=cursor)
    assert {path: found[path] for path in ("/d", "/g", "/h")} == {"/d": None, "/g": other, "/h": file}
    assert "/d/f" not in found, "its folder says it all"


async def test_since_a_time_is_since_the_last_note_before_it(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "old", new_id()))
    collection.collect(world.service.database, world.clock)
    world.clock.advance(60)
    await ada.accept(create(ada.space, "new", new := new_id()))
    found, _ = await changes(ada, since=iso(world.clock()))
    assert {path: id_ for path, id_ in found.items() if path != "/"} == {"/new": new}
    assert "/old" in (await changes(ada, since=iso(world.clock() - 120 * 10**9)))[0]


async def test_what_nobody_remembers_is_said_to_be_so(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "f", new_id()))
    _, cursor = await changes(ada, since="2020-01-01")
    await ada.send("DELETE", "/v1/files", params={"path": "/f"})
    collection.collect(world.service.database, world.clock)
    world.clock.advance(collection.KEEP_NS / 1e9 + 1)
    await ada.refresh()
    collection.collect(world.service.database, world.clock)
    problem(await ada.send("GET", "/v1/sync", params={"cursor": cursor}), 410, "reset")
    problem(await ada.send("GET", "/v1/sync", params={"since": "2020-01-01"}), 410, "reset")
    assert "/f" not in (await changes(ada, since=iso(world.clock())))[0]


async def test_what_is_no_time_and_no_cursor_is_refused(ada: Device) -> None:
    queries: list[tuple[Json, str]] = [
        ({}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"cursor": "?"}, "cursor"),
        ({"since": "2020-01-01", "cursor": "x"}, "since"),
        ({"since": "2020-01-01", "limit": 0}, "limit"),
    ]
    for query, field in queries:
        assert problem(await ada.send("GET", "/v1/sync", params=query), 400, "invalid")["field"] == field
    for extreme in ("0001-01-01", "9999-12-31T23:59:59Z"):
        assert (await ada.send("GET", "/v1/sync", params={"since": extreme})).status_code == 200


async def test_the_history_of_a_file(world: World, ada: Device) -> None:
    second = await world.device(installation=new_id())
    await ada.accept(create(ada.space, "f", file := new_id(), b"one"))
    row = (await ada.listing())[1][file]
    world.clock.advance(10)
    await second.accept(write(file, b"second", row["content_rev"]))
    world.clock.advance(10)
    await ada.send("DELETE", "/v1/files", params={"path": "/f"})
    found = await ada.get(f"/v1/changes/files/{file}")
    assert found["path"] is None
    assert [(event["what"], event["size"], event["device"]) for event in found["events"]] == [
        ("deleted", 6, ada.id),
        ("content", 6, second.id),
        ("content", 3, ada.id),
    ]
    assert found["events"][0]["at_ns"] - found["events"][2]["at_ns"] == 20 * 10**9
    assert found["events"][1]["device_name"]
    problem(await ada.send("GET", f"/v1/changes/files/{new_id()}"), 404, "not-found")
