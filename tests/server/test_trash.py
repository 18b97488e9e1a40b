"""Versions and the trash: what was replaced or deleted is listed, and comes back as it was."""

from __future__ import annotations

from typing import Any

import pytest

from remote.manifest import manifest_id
from remote.server import trash
from remote.server.collection import collect
from remote.server.expiry import expire
from remote.server.garbage import Garbage, recount
from tests.server.test_files import stat, tree_of
from tests.support.wire import Device, Json, World, create, entry, file_row, inline, mkdir, move, new_id, problem, remove, write

HOUR = 3600


async def listed(device: Device, **query: Any) -> dict[str, Json]:
    """What is in the trash, by path, of all pages."""
    found: dict[str, Json] = {}
    page = await device.get("/v1/trash", params=query)
    while True:
        found |= {row["path"]: row for row in page["entries"]}
        if page["next"] is None:
            return found
        page = await device.get("/v1/trash", params={"after": page["next"], **query})


async def revision(device: Device, inode: str) -> int:
    _, rows = await device.listing()
    return int(rows[inode]["content_rev"])


async def unlink(device: Device, parent: str, name: str, inode: str) -> None:
    await device.accept(remove(parent, name, inode, seen=await revision(device, inode)))


async def restore(device: Device, id_: str, **more: Any) -> Json:
    return await device.post("/v1/trash/restore", {"id": id_, **more})


async def versions(device: Device, **query: Any) -> list[Json]:
    found: list[Json] = (await device.get("/v1/files/versions", params=query))["versions"]
    return found


@pytest.fixture
async def tree(ada: Device) -> dict[str, str]:
    """`/d/e/f` and `/d/g`, of a device; their inodes by path."""
    ids = {path: new_id() for path in ("/d", "/d/e", "/d/e/f", "/d/g")}
    await ada.accept(
        mkdir(ada.space, "d", ids["/d"]),
        mkdir(ids["/d"], "e", ids["/d/e"]),
        create(ids["/d/e"], "f", ids["/d/e/f"], b"f"),
        create(ids["/d"], "g", ids["/d/g"], b"g"),
    )
    return ids


async def remove_tree(device: Device, tree: dict[str, str]) -> None:
    """As `rm -r` does it: from below, each in a commit."""
    await unlink(device, tree["/d/e"], "f", tree["/d/e/f"])
    await device.accept(remove(tree["/d"], "e", tree["/d/e"]))
    await unlink(device, tree["/d"], "g", tree["/d/g"])
    await device.accept(remove(device.space, "d", tree["/d"]))


# ---------------------------------------------------------------------------------------------------------------- trash


async def test_what_a_device_deleted_is_listed_and_comes_back(ada: Device, tree: dict[str, str]) -> None:
    before = await tree_of(ada)
    await unlink(ada, tree["/d"], "g", tree["/d/g"])
    (found,) = (await listed(ada)).values()
    assert {key: found[key] for key in ("id", "path", "kind", "size", "device")} == {
        "id": tree["/d/g"], "path": "/d/g", "kind": "file", "size": 1, "device": ada.id,
    }  # fmt: skip
    cursor = (await ada.changes(""))["cursor"]
    done = await restore(ada, tree["/d/g"])
    assert (done["file"]["path"], done["restored"], done["complete"]) == ("/d/g", 1, True)
    assert await tree_of(ada) == before
    assert await listed(ada) == {}
    entries, inodes = await ada.listing(cursor=cursor)
    assert entries[tree["/d"], "g"]["inode"] == tree["/d/g"], "devices hear of it"
    assert inodes[tree["/d/g"]]["content"]["manifest_id"] == manifest_id(inline(b"g")).hex()
    problem(await ada.send("POST", "/v1/trash/restore", {"id": tree["/d/g"]}), 404, "not-found")


async def test_a_folder_is_one_entry_and_comes_back_whole(
    world: World, ada: Device, tree: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await tree_of(ada)
    await remove_tree(ada, tree)
    assert set(await listed(ada)) == {"/d"}
    collect(world.service.database, world.clock, keep_ns=0)  # tombstones
    monkeypatch.setattr(trash, "MAX_ENTRIES", 1)  # in several steps
    done = await restore(ada, tree["/d"])
    assert (done["restored"], done["complete"]) == (4, True)
    assert await tree_of(ada) == before
    assert await listed(ada) == {}


async def test_what_went_long_before_its_folder_stays_in_the_trash(world: World, ada: Device, tree: dict[str, str]) -> None:
    await unlink(ada, tree["/d"], "g", tree["/d/g"])
    world.clock.advance(2 * HOUR)
    await ada.refresh()
    await unlink(ada, tree["/d/e"], "f", tree["/d/e/f"])
    await ada.accept(remove(tree["/d"], "e", tree["/d/e"]))
    await ada.accept(remove(ada.space, "d", tree["/d"]))
    assert list(await listed(ada, limit=1)) == ["/d", "/d/g"]
    await restore(ada, tree["/d"])
    assert set(await listed(ada)) == {"/d/g"}
    assert set(await tree_of(ada)) == {"/d", "/d/e", "/d/e/f"}


async def test_something_out_of_a_deleted_folder_brings_only_its_folders_back(ada: Device, tree: dict[str, str]) -> None:
    await remove_tree(ada, tree)
    done = await restore(ada, tree["/d/e/f"])
    assert done["file"]["path"] == "/d/e/f"
    assert set(await tree_of(ada)) == {"/d", "/d/e", "/d/e/f"}
    assert set(await listed(ada)) == {"/d/g"}


async def test_a_name_that_is_taken_is_left_alone(ada: Device, tree: dict[str, str]) -> None:
    await unlink(ada, tree["/d"], "g", tree["/d/g"])
    await ada.accept(create(tree["/d"], "g", new_id(), b"new"))
    assert (await restore(ada, tree["/d/g"]))["file"]["path"] == "/d/g (2)"
    await ada.accept(remove(tree["/d"], "g (2)", tree["/d/g"], seen=await revision(ada, tree["/d/g"])))
    problem(await ada.send("POST", "/v1/trash/restore", {"id": tree["/d/g"], "target": "/d/g"}), 409, "exists")
    assert (await restore(ada, tree["/d/g"], target="/elsewhere"))["file"]["path"] == "/elsewhere"


async def test_names_that_remain_and_moves_are_no_deletions(ada: Device, tree: dict[str, str]) -> None:
    await ada.accept({"entries": [entry(ada.space, "link", None, tree["/d/g"])]})
    await unlink_one(ada, tree["/d"], "g", tree["/d/g"])
    assert await listed(ada) == {}
    await ada.accept(move(tree["/d/e/f"], (tree["/d/e"], "f"), (ada.space, "moved")))
    assert await listed(ada) == {}
    await unlink(ada, ada.space, "link", tree["/d/g"])
    assert set(await listed(ada)) == {"/link"}


async def unlink_one(device: Device, parent: str, name: str, inode: str) -> None:
    await device.accept(remove(parent, name, inode, seen=await revision(device, inode), last=False))


async def test_what_a_device_names_again_is_no_longer_in_the_trash(ada: Device, tree: dict[str, str]) -> None:
    await unlink(ada, tree["/d"], "g", tree["/d/g"])
    await ada.accept({"entries": [entry(ada.space, "again", None, tree["/d/g"])], "inodes": [file_row(tree["/d/g"], b"g")]})
    assert await listed(ada) == {}


async def test_what_was_replaced_by_rename_is_in_the_trash(ada: Device, tree: dict[str, str]) -> None:
    group = move(tree["/d/e/f"], (tree["/d/e"], "f"), (tree["/d"], "g"), replaced=tree["/d/g"])
    seen = {"inode": tree["/d/g"], "content_rev": await revision(ada, tree["/d/g"])}
    await ada.accept(group | {"last": [tree["/d/g"]], "seen": [seen]})
    assert set(await listed(ada)) == {"/d/g"}
    assert (await restore(ada, tree["/d/g"]))["file"]["path"] == "/d/g (2)"


async def test_the_trash_is_emptied(world: World, ada: Device, tree: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    await ada.accept(create(ada.space, "other", other := new_id(), b"other"))
    await unlink(ada, ada.space, "other", other)
    await remove_tree(ada, tree)
    assert (await ada.send("DELETE", "/v1/trash", params={"id": tree["/d"]})).json() == {"removed": 4, "complete": True}
    assert set(await listed(ada)) == {"/other"}
    problem(await ada.send("GET", "/v1/files/versions", params={"id": tree["/d/g"]}), 404, "not-found")
    monkeypatch.setattr(trash, "EMPTIED_MAX", 1)
    await ada.accept(create(ada.space, "more", more := new_id(), b"more"))
    await unlink(ada, ada.space, "more", more)
    assert (await ada.send("DELETE", "/v1/trash")).json() == {"removed": 1, "complete": False}
    assert (await ada.send("DELETE", "/v1/trash")).json() == {"removed": 1, "complete": True}
    assert await listed(ada) == {}


async def test_nobody_else_sees_or_restores_it(world: World, ada: Device, tree: dict[str, str]) -> None:
    bob = await world.device("bob@example.org")
    await unlink(ada, tree["/d"], "g", tree["/d/g"])
    assert await listed(bob) == {}
    problem(await bob.send("POST", "/v1/trash/restore", {"id": tree["/d/g"]}), 404, "not-found")
    problem(await bob.send("DELETE", "/v1/trash", params={"id": tree["/d/g"]}), 404, "not-found")
    problem(await bob.send("GET", "/v1/files/versions", params={"id": tree["/d/g"]}), 404, "not-found")
    assert (await bob.send("DELETE", "/v1/trash")).json()["removed"] == 0
    assert set(await listed(ada)) == {"/d/g"}


async def test_a_page_that_was_not_given_is_refused(ada: Device) -> None:
    for after in ("x", "1/2", f"{'9' * 30}/{new_id()}"):
        problem(await ada.send("GET", "/v1/trash", params={"after": after}), 400, "invalid")


# ------------------------------------------------------------------------------------------------------------- versions


async def test_versions_are_listed_with_when_they_were_replaced(world: World, ada: Device, tree: dict[str, str]) -> None:
    start = world.clock()
    for text in (b"two", b"g"):
        world.clock.advance(60)
        await ada.accept(write(tree["/d/g"], text, await revision(ada, tree["/d/g"])))
    found = await versions(ada, path="/d/g")
    assert [(row["size"], row["created_ns"] - start, (row["replaced_ns"] or start) - start) for row in found] == [
        (1, 120 * 10**9, 0),
        (3, 60 * 10**9, 120 * 10**9),
        (1, 0, 60 * 10**9),
    ]
    assert {row["device"] for row in found} == {ada.id}


async def test_a_former_version_is_read_and_restored(ada: Device, tree: dict[str, str]) -> None:
    await ada.accept(write(tree["/d/g"], b"two", await revision(ada, tree["/d/g"])))
    former = (await versions(ada, path="/d/g"))[1]["version"]
    old = await ada.send("GET", "/v1/files/content", params={"path": "/d/g", "version": former})
    assert old.content == b"g"
    info = await ada.post("/v1/files/versions/restore", {"path": "/d/g", "version": former})
    assert (info["version"], info["id"]) == (former, tree["/d/g"])
    assert [row["size"] for row in await versions(ada, id=tree["/d/g"])] == [1, 3, 1]
    again = await ada.post("/v1/files/versions/restore", {"id": tree["/d/g"], "version": former})
    assert again["content_revision"] == info["content_revision"], "it holds that already"
    wrong = {"path": "/d/g", "version": "0" * 64}
    problem(await ada.send("POST", "/v1/files/versions/restore", wrong), 404, "not-found")
    problem(await ada.send("POST", "/v1/files/versions/restore", {"version": former}), 400, "invalid")


async def test_a_version_of_a_deleted_file_waits_for_the_file(ada: Device, tree: dict[str, str]) -> None:
    await ada.accept(write(tree["/d/g"], b"two", await revision(ada, tree["/d/g"])))
    await unlink(ada, tree["/d"], "g", tree["/d/g"])
    found = await ada.get("/v1/files/versions", params={"id": tree["/d/g"]})
    assert (found["path"], len(found["versions"])) == (None, 2)
    body = {"id": tree["/d/g"], "version": found["versions"][1]["version"]}
    problem(await ada.send("POST", "/v1/files/versions/restore", body), 400, "invalid")
    await restore(ada, tree["/d/g"])
    assert (await ada.post("/v1/files/versions/restore", body))["size"] == 1
    assert (await stat(ada, "/d/g"))["size"] == 1


# --------------------------------------------------------------------------------------------------------- time to live


async def test_versions_and_trash_go_when_their_time_is_over(world: World, ada: Device, tree: dict[str, str]) -> None:
    service = world.service

    def expire_all() -> tuple[int, int]:
        expired = expire(service.database, service.config.tier, world.clock)
        return expired.versions, expired.trash

    for text in (b"two", b"g", b"four"):
        await ada.accept(write(tree["/d/g"], text, await revision(ada, tree["/d/g"])))
    await remove_tree(ada, {**tree, "/d/g": tree["/d/g"]})
    world.clock.advance(30 * 24 * HOUR - 1)
    await ada.refresh()
    await restore(ada, tree["/d/g"])
    assert expire_all() == (0, 0)
    world.clock.advance(2)
    assert expire_all() == (3, 2), "/d/e and /d/e/f; /d came back with /d/g"
    assert [row["size"] for row in await versions(ada, path="/d/g")] == [4]
    assert await listed(ada) == {}
    former = await ada.send("GET", "/v1/files/content", params={"path": "/d/g"})
    assert former.content == b"four"
    await ada.accept(write(tree["/d/g"], b"five", await revision(ada, tree["/d/g"])))
    assert expire_all() == (0, 0), "its time begins when it is replaced"
    world.clock.advance(30 * 24 * HOUR)
    await ada.refresh()
    assert expire_all() == (1, 0)
    assert Garbage(service.database, service.store, world.clock).collect().manifests == 4
    assert recount(service.database) == []


async def test_a_version_that_a_file_holds_again_stays(world: World, ada: Device, tree: dict[str, str]) -> None:
    first = (await versions(ada, path="/d/g"))[0]["version"]
    await ada.accept(write(tree["/d/g"], b"two", await revision(ada, tree["/d/g"])))
    world.clock.advance(31 * 24 * HOUR)
    await ada.refresh()
    await ada.post("/v1/files/versions/restore", {"path": "/d/g", "version": first})
    assert expire(world.service.database, world.service.config.tier, world.clock).versions == 0
    world.clock.advance(31 * 24 * HOUR)
    await ada.refresh()
    assert expire(world.service.database, world.service.config.tier, world.clock).versions == 1
    assert [row["version"] for row in await versions(ada, path="/d/g")] == [first, first]
    Garbage(world.service.database, world.service.store, world.clock).collect()
    assert (await ada.send("GET", "/v1/files/content", params={"path": "/d/g"})).content == b"g"
