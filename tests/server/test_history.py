"""What devices show of the past, by space and inode; and the name under which a mount shows it is reserved."""

from __future__ import annotations

import pytest

from remote.manifest import manifest_id
from tests.server.test_files import names
from tests.server.test_trash import remove_tree, revision, tree, unlink, versions
from tests.support.wire import Device, Json, World, create, inline, mkdir, move, new_id, problem, remove, write

__all__ = ["tree"]


async def all_pages(device: Device, path: str, rows: str, following: str, **query: object) -> list[Json]:
    found: list[Json] = []
    page = await device.get(path, params=query)
    while True:
        found += page[rows]
        if page["next"] is None:
            return found
        page = await device.get(path, params={**query, following: page["next"]})


async def past(device: Device, inode: str, **query: object) -> list[Json]:
    return await all_pages(device, f"/v1/spaces/{device.space}/versions/{inode}", "versions", "before", **query)


async def trashed(device: Device, **query: object) -> list[Json]:
    return await all_pages(device, f"/v1/spaces/{device.space}/trash", "entries", "after", **query)


async def test_versions_of_an_inode_in_pages(world: World, ada: Device) -> None:
    file = new_id()
    await ada.accept(create(ada.space, "f", file, b"0"))
    for number in range(1, 7):
        world.clock.advance(1)
        await ada.accept(write(file, b"%d" % number, base=await revision(ada, file)))
    found = await past(ada, file)
    assert [row["version"] for row in found] == [manifest_id(inline(b"%d" % number)).hex() for number in range(6, -1, -1)]
    assert [row["created_ns"] for row in found] == [row["created_ns"] for row in await versions(ada, id=file)]
    for limit in (1, 2, 7):
        assert await past(ada, file, limit=limit) == found
    assert await past(ada, file, before=found[0]["revision"]) == found[1:]
    await unlink(ada, ada.space, "f", file)
    assert await past(ada, file) == found, "also of a file in the trash"


async def test_of_what_is_no_file_there_are_no_versions(ada: Device) -> None:
    folder = new_id()
    await ada.accept(mkdir(ada.space, "d", folder))
    for inode in (folder, new_id(), "nonsense"):
        problem(await ada.send("GET", f"/v1/spaces/{ada.space}/versions/{inode}"), 404, "not-found")
    for query in ({"limit": 0}, {"before": -1}, {"before": 2**63}, {"before": "x"}):
        response = await ada.send("GET", f"/v1/spaces/{ada.space}/versions/{folder}", params=query)
        assert problem(response, 400, "invalid")["field"] == next(iter(query))


async def test_the_trash_is_walked_folder_by_folder(world: World, ada: Device, tree: dict[str, str]) -> None:
    alone = new_id()
    await ada.accept(create(ada.space, "alone", alone, b"alone"))
    await unlink(ada, ada.space, "alone", alone)
    world.clock.advance(5)
    await remove_tree(ada, tree)
    for limit in (1, 2, 1000):
        found = await trashed(ada, limit=limit)
        assert [(row["id"], row["name"]) for row in found] == [(tree["/d"], "d"), (alone, "alone")]
        inside = await trashed(ada, folder=tree["/d"], limit=limit)
        assert {row["id"] for row in inside} == {tree["/d/e"], tree["/d/g"]}
        (file,) = await trashed(ada, folder=tree["/d/e"], limit=limit)
    assert (file["kind"], file["size"], file["version"]) == ("file", 1, manifest_id(inline(b"f")).hex())
    assert await ada.manifest(file["id"], inline(b"f")) is not None
    for folder in (alone, new_id(), ada.space):
        problem(await ada.send("GET", f"/v1/spaces/{ada.space}/trash", params={"folder": folder}), 404, "not-found")
    for query in ({"folder": "x"}, {"after": "x"}, {"limit": 0}):
        response = await ada.send("GET", f"/v1/spaces/{ada.space}/trash", params=query)
        assert problem(response, 400, "invalid")["field"] == next(iter(query))


# ------------------------------------------------------------------------------------------------------ the reserved name


async def test_no_device_gives_the_reserved_name_in_the_root(ada: Device) -> None:
    folder, file = new_id(), new_id()
    await ada.accept(mkdir(ada.space, "d", folder), create(ada.space, "f", file, b"x"))
    made = new_id()
    answer = await ada.commit(
        mkdir(ada.space, ".aloft", made),
        move(file, (ada.space, "f"), (ada.space, ".aloft")),
        create(folder, ".aloft", new_id(), b"elsewhere it is a name like any other"),
        create(made, "below", new_id(), b"x"),
    )
    assert [outcome["result"] for outcome in answer["outcomes"]] == ["refused", "refused", "ok", "conflict"]
    assert ".aloft is a reserved name" in answer["outcomes"][0]["detail"]
    assert (await names(ada), await names(ada, "/d")) == (["d", "f"], [".aloft"])


@pytest.fixture
async def real(ada: Device, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder `.aloft` in the root, with a file in it, from before the name was reserved."""
    folder = new_id()
    with monkeypatch.context() as before:
        before.setattr("remote.server.namespace.RESERVED_IN_ROOT", "another")
        await ada.accept(mkdir(ada.space, ".aloft", folder), create(folder, "f", new_id(), b"x"))
    return folder


async def test_what_had_the_name_before_stays_as_it_is_until_it_is_renamed(ada: Device, real: str) -> None:
    await ada.accept(
        {"inodes": [{"id": real, "attributes": {"mode": 0o700}}]},
        create(real, "g", new_id(), b"y"),
    )
    assert await names(ada, "/.aloft") == ["f", "g"]
    await ada.accept(move(real, (ada.space, ".aloft"), (ada.space, "aloft")))
    assert (await ada.outcome(move(real, (ada.space, "aloft"), (ada.space, ".aloft"))))["result"] == "refused"
    assert await names(ada) == ["aloft"]


async def test_what_had_the_name_comes_back_from_the_trash_beside_it(ada: Device, real: str) -> None:
    await ada.send("DELETE", "/v1/files", params={"path": "/.aloft", "recursive": "true"})
    await ada.refresh()
    back = await ada.post("/v1/trash/restore", {"id": real})
    assert (back["file"]["path"], back["restored"], await names(ada)) == ("/.aloft (2)", 2, [".aloft (2)"])


async def test_what_was_in_a_folder_of_the_name_comes_back_in_one_beside_it(ada: Device, real: str) -> None:
    (row,) = (await ada.get("/v1/files", params={"path": "/.aloft"}))["entries"]
    await ada.refresh()
    await ada.accept(remove(real, "f", row["id"], seen=row["content_revision"]))
    await ada.accept(remove(ada.space, ".aloft", real))
    back = await ada.post("/v1/trash/restore", {"id": row["id"]})
    assert back["file"]["path"] == "/.aloft (2)/f"


@pytest.mark.parametrize("path", ["/.aloft", "/.aloft/", "/.aloft/below"])
async def test_no_plain_client_makes_anything_there(ada: Device, path: str) -> None:
    file = new_id()
    await ada.accept(create(ada.space, "f", file, b"x"))
    upload = {"path": path, "size": 1, "fingerprint": "00" * 32, "content": "eA=="}
    for route, field, body in (
        ("files/folder", "path", {"path": path, "parents": True}),
        ("files/move", "target", {"source": "/f", "target": path}),
        ("files/copy", "target", {"source": "/f", "target": path}),
        ("files/upload", "path", upload),
    ):
        assert problem(await ada.send("POST", f"/v1/{route}", body), 400, "invalid")["field"] == field, route
    await unlink(ada, ada.space, "f", file)
    response = await ada.send("POST", "/v1/trash/restore", {"id": file, "target": path})
    assert problem(response, 400, "invalid")["field"] == "target"
    assert await names(ada) == []


async def test_an_upload_that_began_elsewhere_does_not_end_there(ada: Device) -> None:
    begun = await ada.post(
        "/v1/files/upload", {"path": "/up", "size": 5, "fingerprint": "11" * 32, "chunks": [{"size": 5, "encoding": "zeros"}]}
    )
    response = await ada.send("POST", f"/v1/files/upload/{begun['id']}/complete", {"path": "/.aloft"})
    assert problem(response, 400, "invalid")["field"] == "path"
    await ada.post(f"/v1/files/upload/{begun['id']}/complete", {})
    assert await names(ada) == ["up"]
