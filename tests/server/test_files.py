"""Files and folders by path: what plain clients see and change, and that devices hear of it."""

from __future__ import annotations

from typing import Any

import pytest

from remote.manifest import manifest_id
from remote.server import edits
from tests.support.wire import Device, Json, create, entry, inline, mkdir, new_id, new_row, problem, write


async def names(device: Device, path: str = "/", **query: Any) -> list[str]:
    """Of all pages."""
    found: list[str] = []
    page = await device.get("/v1/files", params={"path": path, **query})
    while True:
        found += [row["name"] for row in page["entries"]]
        if page["next"] is None:
            return found
        page = await device.get("/v1/files", params={"path": path, "after": page["next"], **query})


async def stat(device: Device, path: str) -> Json:
    return await device.get("/v1/files/metadata", params={"path": path})


async def make(device: Device, path: str, **more: Any) -> Json:
    return await device.post("/v1/files/folder", {"path": path, **more})


async def tree_of(device: Device) -> dict[str, bytes | None]:
    """What a device that reads the feed makes of the space: every path, with the version of files."""
    entries, inodes = await device.listing()
    above = {row["inode"]: key for key, row in entries.items() if row["inode"] is not None}

    def path(parent: str, name: str) -> str:
        return f"/{name}" if parent == device.space else f"{path(*above[parent])}/{name}"

    return {
        path(*key): (inodes[row["inode"]]["content"] or {}).get("manifest_id")
        for key, row in entries.items()
        if row["inode"] is not None
    }


@pytest.fixture
async def file(ada: Device) -> str:
    """`/d/f`, of a device; its inode."""
    folder, inode = new_id(), new_id()
    await ada.accept(mkdir(ada.space, "d", folder), create(folder, "f", inode, b"one"))
    return inode


# -------------------------------------------------------------------------------------------------------------- looking


async def test_what_a_device_wrote_is_there(ada: Device, file: str) -> None:
    info = await stat(ada, "/d/f")
    assert info["version"] == manifest_id(inline(b"one")).hex()
    assert {key: info[key] for key in ("path", "name", "id", "kind", "size", "content_revision")} == {
        "path": "/d/f", "name": "f", "id": file, "kind": "file", "size": 3, "content_revision": 3,
    }  # fmt: skip
    assert (await stat(ada, "/"))["id"] == ada.space
    page = await ada.get("/v1/files", params={"path": "/d/"})
    assert page["folder"]["path"] == "/d"
    assert page["entries"] == [info]


@pytest.mark.parametrize(
    ("sort", "order", "expected"),
    [
        ("name", "asc", ["B", "a", "b", "é"]),
        ("name", "desc", ["é", "b", "a", "B"]),
        ("size", "asc", ["b", "B", "é", "a"]),
        ("size", "desc", ["a", "é", "B", "b"]),
        ("modified", "asc", ["a", "é", "b", "B"]),
    ],
)
async def test_pages_are_sorted(ada: Device, sort: str, order: str, expected: list[str]) -> None:
    sizes_and_times = {"a": (9, 1), "é": (5, 2), "B": (5, 4), "b": (0, 3)}
    for name, (size, mtime) in sizes_and_times.items():
        group = create(ada.space, name, new_id(), b"x" * size)
        group["inodes"][0]["attributes"]["mtime_ns"] = mtime
        await ada.accept(group)
    for limit in (1, 3, 100):
        assert await names(ada, sort=sort, order=order, limit=limit) == expected


async def test_what_is_not_there_or_not_ones_own_is_not_found(ada: Device, eve: Device, file: str) -> None:
    link = new_id()
    await ada.accept(
        {"entries": [entry(ada.space, "link", None, link)], "inodes": [new_row(link, "symlink", full={"target": "d"})]}
    )
    for path in ("/nothing", "/d/f/g", "/nothing/f", "/link/f"):
        problem(await ada.send("GET", "/v1/files/metadata", params={"path": path}), 404, "not-found")
    assert (await stat(ada, "/link"))["target"] == "d"
    problem(await eve.send("GET", "/v1/files/metadata", params={"path": "/d/f"}), 404, "not-found")
    assert await names(eve) == []
    problem(await ada.http.get("/v1/files"), 401, "unauthenticated")


async def test_paths_are_checked(ada: Device) -> None:
    long = ("/" + "é" * 128, "/a" * 1001, "/" + "a" * 16384)
    for path in ("d", "/d/../d", "/./d", "//d", "/d//", "/d\0", *long):
        assert problem(await ada.send("GET", "/v1/files/metadata", params={"path": path}), 400, "invalid")["field"] == "path"


async def test_queries_are_checked(ada: Device, file: str) -> None:
    for query in (
        {"limit": 0},
        {"limit": 1001},
        {"sort": "x"},
        {"order": "x"},
        {"after": "x"},
        {"after": "1/"},
        {"path": "/d/f"},
    ):
        problem(await ada.send("GET", "/v1/files", params=query), 400, "invalid")


# -------------------------------------------------------------------------------------------------------------- changing


async def test_a_folder_is_made_and_devices_hear_of_it(ada: Device, other: Device) -> None:
    await other.changes()
    made = await ada.send("POST", "/v1/files/folder", {"path": "/new"})
    assert made.status_code == 201
    assert made.json()["revision"] == 2
    page = await other.changes()
    assert [(row["name"], row["inode"]) for row in page["spaces"][0]["entries"]] == [("new", made.json()["id"])]
    root = next(row for row in page["spaces"][0]["inodes"] if row["id"] == ada.space)
    assert root["attributes"]["mtime_ns"] == ada.world.clock.now_ns, "as if a device had made it"


async def test_folders_above_are_made_only_if_asked(ada: Device) -> None:
    problem(await ada.send("POST", "/v1/files/folder", {"path": "/a/b/c"}), 404, "not-found")
    made = await make(ada, "/a/b/c", parents=True)
    assert await tree_of(ada) == {"/a": None, "/a/b": None, "/a/b/c": None}
    assert (await make(ada, "/a/b/c", parents=True))["id"] == made["id"]
    assert (await make(ada, "/", parents=True))["id"] == ada.space
    problem(await ada.send("POST", "/v1/files/folder", {"path": "/a/b"}), 409, "exists")
    problem(await ada.send("POST", "/v1/files/folder", {"path": "/"}), 409, "exists")
    assert (await make(ada, "/a/b", on_conflict="rename"))["path"] == "/a/b (2)"
    problem(await ada.send("POST", "/v1/files/folder", {"path": "/a", "on_conflict": "replace"}), 400, "invalid")


async def test_a_move_keeps_the_inode(ada: Device, file: str) -> None:
    moved = await ada.post("/v1/files/move", {"source": "/d/f", "target": "/g"})
    assert (moved["path"], moved["id"], moved["content_revision"]) == ("/g", file, 3)
    assert await names(ada) == ["d", "g"]
    assert await names(ada, "/d") == []
    assert (await ada.post("/v1/files/move", {"source": "/g", "target": "/g"}))["revision"] == moved["revision"]


async def test_what_a_name_that_is_taken_does(ada: Device, file: str) -> None:
    await ada.accept(create(ada.space, "f.txt", new_id(), b"two"))
    request = {"source": "/d/f", "target": "/f.txt"}
    problem(await ada.send("POST", "/v1/files/move", request), 409, "exists")
    copied = await ada.post("/v1/files/copy", {**request, "on_conflict": "rename"})
    assert copied["path"] == "/f (2).txt"
    moved = await ada.post("/v1/files/move", {**request, "on_conflict": "replace"})
    assert (moved["path"], moved["id"]) == ("/f.txt", file)
    problem(
        await ada.send("POST", "/v1/files/move", {"source": "/f.txt", "target": "/d", "on_conflict": "replace"}), 409, "exists"
    )
    assert set(await tree_of(ada)) == {"/d", "/f.txt", "/f (2).txt"}


async def test_a_folder_is_not_moved_or_copied_into_itself(ada: Device) -> None:
    await make(ada, "/a/b", parents=True)
    for what in ("move", "copy"):
        for target in ("/a/c", "/a/b/c", "/a/b"):
            problem(await ada.send("POST", f"/v1/files/{what}", {"source": "/a", "target": target}), 400, "invalid")
        problem(await ada.send("POST", f"/v1/files/{what}", {"source": "/", "target": "/x"}), 400, "invalid")
    assert set(await tree_of(ada)) == {"/a", "/a/b"}


async def test_a_copy_has_its_own_inodes_and_moves_no_bytes(ada: Device, file: str) -> None:
    used = (await ada.get("/v1/account"))["used_bytes"]
    linked, folder = new_id(), (await stat(ada, "/d"))["id"]
    await ada.accept(
        {"entries": [entry(folder, "l", None, linked)], "inodes": [new_row(linked, "symlink", full={"target": "f"})]}
    )
    await ada.accept({"entries": [entry(folder, "hard", None, file)]})
    await make(ada, "/d/empty")
    copied = await ada.post("/v1/files/copy", {"source": "/d", "target": "/e"})
    assert copied["id"] != folder
    tree = await tree_of(ada)
    assert {"/d" + path[2:]: version for path, version in tree.items() if path.startswith("/e")} == {
        path: version for path, version in tree.items() if path.startswith("/d")
    }
    one, hard = await stat(ada, "/e/f"), await stat(ada, "/e/hard")
    assert one["id"] == hard["id"] != file, "what was one file is one file in the copy"
    assert (await stat(ada, "/e/l"))["target"] == "f"
    assert (await ada.get("/v1/account"))["used_bytes"] == used
    await ada.accept(write(one["id"], b"two", one["content_revision"]))
    assert (await stat(ada, "/d/f"))["size"] == 3


async def test_a_copy_that_replaces_a_file_is_its_next_version(ada: Device, file: str) -> None:
    old = new_id()
    await ada.accept(create(ada.space, "old", old, b"before"))
    copied = await ada.post("/v1/files/copy", {"source": "/d/f", "target": "/old", "on_conflict": "replace"})
    assert (copied["id"], copied["version"]) == (old, (await stat(ada, "/d/f"))["version"])
    assert await ada.manifest(old, inline(b"before")) is not None


async def test_deleting(ada: Device, file: str) -> None:
    problem(await ada.send("DELETE", "/v1/files", params={"path": "/d"}), 409, "not-empty")
    problem(await ada.send("DELETE", "/v1/files", params={"path": "/"}), 400, "invalid")
    done = await ada.send("DELETE", "/v1/files", params={"path": "/d", "recursive": True})
    assert done.json() == {"removed": 2, "complete": True}
    assert await tree_of(ada) == {}
    problem(await ada.send("DELETE", "/v1/files", params={"path": "/d"}), 404, "not-found")


async def test_a_request_deletes_so_much_and_no_more(ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "MAX_ENTRIES", 4)
    for path in ("/a/b/c", "/a/d", "/a/e", "/x/y/z"):
        await make(ada, path, parents=True)
    query = {"path": "/a", "recursive": True}
    problem(await ada.send("DELETE", "/v1/files", params=query), 413, "too-large")
    problem(await ada.send("POST", "/v1/files/copy", {"source": "/a", "target": "/n"}), 413, "too-large")
    assert "/a/b/c" in await tree_of(ada)
    first = await ada.send("DELETE", "/v1/files", params={**query, "partial": True})
    assert first.json() == {"removed": 4, "complete": False}
    assert set(await tree_of(ada)) == {"/a", "/x", "/x/y", "/x/y/z"}
    second = await ada.send("DELETE", "/v1/files", params={**query, "partial": True})
    assert second.json() == {"removed": 1, "complete": True}
    assert (await ada.send("DELETE", "/v1/files", params={"path": "/x", "recursive": True})).json()["removed"] == 3


async def test_a_request_for_another_version_changes_nothing(ada: Device, file: str) -> None:
    seen = (await stat(ada, "/d/f"))["version"]
    await ada.accept(write(file, b"two", 3))
    for tag, status, type_ in ((f'"{seen}"', 412, "precondition-failed"), (seen, 400, "invalid"), ('W/"x"', 400, "invalid")):
        headers = {"Authorization": f"Bearer {ada.tokens['access_token']}", "If-Match": tag}
        for method, path, body in (
            ("DELETE", "/v1/files?path=/d/f", None),
            ("POST", "/v1/files/move", {"source": "/d/f", "target": "/g"}),
            ("POST", "/v1/files/copy", {"source": "/d/f", "target": "/g"}),
        ):
            problem(await ada.http.request(method, path, json=body, headers=headers), status, type_)
    assert set(await tree_of(ada)) == {"/d", "/d/f"}
    now = (await stat(ada, "/d/f"))["version"]
    headers = {"Authorization": f"Bearer {ada.tokens['access_token']}", "If-Match": f'"{seen}", "{now}"'}
    assert (await ada.http.request("DELETE", "/v1/files?path=/d/f", headers=headers)).status_code == 200


async def test_a_device_that_did_not_see_the_change_conflicts(ada: Device, other: Device, file: str) -> None:
    folder = (await stat(ada, "/d"))["id"]
    await ada.post("/v1/files/move", {"source": "/d/f", "target": "/d/g"})
    outcome = await other.outcome({"entries": [entry(folder, "f", file, None), entry(folder, "h", None, file)]})
    assert outcome["conflict"] == "entry"
