"""Conflicted copies, and how they are resolved."""

from __future__ import annotations

import pytest

from tests.support.wire import Device, Json, create, mkdir, move, new_id, problem

COPY = "report (conflicted copy, laptop, 2026-11-20).txt"


async def text(device: Device, path: str) -> str:
    return (await device.send("GET", "/v1/files/content", params={"path": path})).text


@pytest.fixture
async def folder(ada: Device) -> str:
    """`/d` with `report.txt` and a conflicted copy of it; the copy's inode."""
    top, copied = new_id(), new_id()
    await ada.accept(
        mkdir(ada.space, "d", top), create(top, "report.txt", new_id(), b"mine"), create(top, COPY, copied, b"theirs")
    )
    return copied


async def listing(device: Device) -> list[Json]:
    found = await device.get("/v1/sync/conflicts")
    assert found["complete"]
    return list(found["conflicts"])


async def names(device: Device) -> set[str]:
    return {each["name"] for each in (await device.get("/v1/files", params={"path": "/d"}))["entries"]}


async def test_they_are_listed_with_their_originals(ada: Device, folder: str) -> None:
    (conflict,) = await listing(ada)
    assert (conflict["copied"]["id"], conflict["copied"]["path"], conflict["device"]) == (folder, f"/d/{COPY}", "laptop")
    assert conflict["original"]["path"] == "/d/report.txt"
    await ada.send("DELETE", "/v1/files", params={"path": "/d/report.txt"})
    assert (await listing(ada))[0]["original"] is None
    await ada.accept(create(ada.space, "about (conflicted copy, nothing)", new_id()))
    assert len(await listing(ada)) == 1, "a name that only looks so"


async def test_the_original_is_kept(ada: Device, folder: str) -> None:
    kept = await ada.post("/v1/sync/conflict/resolve", {"id": folder, "keep": "original"})
    assert kept["file"]["path"] == "/d/report.txt"
    assert (await names(ada), await text(ada, "/d/report.txt"), await listing(ada)) == ({"report.txt"}, "mine", [])
    assert [entry["id"] for entry in (await ada.get("/v1/trash"))["entries"]] == [folder]


async def test_the_copy_is_kept_and_the_original_stays_a_version(ada: Device, folder: str) -> None:
    (conflict,) = await listing(ada)
    await ada.post("/v1/sync/conflict/resolve", {"id": folder, "keep": "copy"})
    assert (await names(ada), await text(ada, "/d/report.txt")) == ({"report.txt"}, "theirs")
    versions = (await ada.get("/v1/files/versions", params={"path": "/d/report.txt"}))["versions"]
    assert [each["size"] for each in versions] == [6, 4]
    assert versions[1]["version"] == conflict["original"]["version"]
    assert [entry["id"] for entry in (await ada.get("/v1/trash"))["entries"]] == [folder]


async def test_the_copy_takes_the_place_of_an_original_that_is_gone(ada: Device, folder: str) -> None:
    await ada.send("DELETE", "/v1/files", params={"path": "/d/report.txt"})
    problem(await ada.send("POST", "/v1/sync/conflict/resolve", {"id": folder, "keep": "original"}), 404, "not-found")
    await ada.post("/v1/sync/conflict/resolve", {"id": folder, "keep": "copy"})
    assert (await names(ada), await text(ada, "/d/report.txt")) == ({"report.txt"}, "theirs")


async def test_both_are_kept_under_names_of_their_own(ada: Device, folder: str) -> None:
    kept = await ada.post("/v1/sync/conflict/resolve", {"id": folder, "keep": "both"})
    assert kept["file"]["path"] == "/d/report (2).txt"
    assert (await names(ada), await listing(ada)) == ({"report.txt", "report (2).txt"}, [])


async def test_what_has_changed_since_somebody_looked_is_left_alone(ada: Device, folder: str) -> None:
    (conflict,) = await listing(ada)
    looked = {"copy_version": conflict["copied"]["version"], "original_version": conflict["original"]["version"]}
    wrong = {"copy_version": looked["original_version"], "original_version": looked["copy_version"]}
    for field, version in wrong.items():
        body = {"id": folder, "keep": "copy", **looked, field: version}
        assert problem(await ada.send("POST", "/v1/sync/conflict/resolve", body), 412, "precondition-failed")["field"] == field
    assert await names(ada) == {"report.txt", COPY}
    await ada.post("/v1/sync/conflict/resolve", {"id": folder, "keep": "copy", **looked})


async def test_folders_are_not_put_together(ada: Device) -> None:
    copied, name = new_id(), "d (conflicted copy, laptop, 2026-11-20)"
    await ada.accept(mkdir(ada.space, "d", new_id()), mkdir(ada.space, name, copied), create(copied, "f", file := new_id()))
    problem(await ada.send("POST", "/v1/sync/conflict/resolve", {"id": copied, "keep": "copy"}), 400, "invalid")
    problem(await ada.send("POST", "/v1/sync/conflict/resolve", {"id": copied, "keep": "original"}), 409, "not-empty")
    await ada.accept(move(file, (copied, "f"), (ada.space, "f")))
    await ada.post("/v1/sync/conflict/resolve", {"id": copied, "keep": "original"})
    assert await listing(ada) == []


async def test_what_is_no_copy_is_not_found(ada: Device, folder: str) -> None:
    await ada.accept(create(ada.space, "plain", plain := new_id()))
    for id_ in (plain, ada.space, new_id()):
        problem(await ada.send("POST", "/v1/sync/conflict/resolve", {"id": id_, "keep": "both"}), 404, "not-found")
