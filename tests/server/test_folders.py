"""Pages of one folder: what is in it now, in the order of names, as the feed describes it."""

from __future__ import annotations

import base64

import pytest

from tests.support.wire import Device, Json, World, create, entry, mkdir, new_id, problem, remove, write


def path_of(device: Device, folder: str) -> str:
    return f"/v1/spaces/{device.space}/folders/{folder}"


async def read(device: Device, folder: str, limit: int) -> list[Json]:
    """All pages of a folder."""
    pages = [await device.get(path_of(device, folder), params={"limit": limit})]
    while pages[-1]["next"] is not None:
        pages.append(await device.get(path_of(device, folder), params={"limit": limit, "after": pages[-1]["next"]}))
    return pages


async def test_an_empty_folder(ada: Device) -> None:
    page = await ada.get(path_of(ada, ada.space))
    epoch = (await ada.changes(""))["epoch"]
    assert page == {"epoch": epoch, "revision": 1, "inodes": [], "entries": [], "next": None}


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 1000])
async def test_pages_are_in_the_order_of_names_and_leave_out_what_is_gone(ada: Device, limit: int) -> None:
    names = ["Z", "a", "a b", "b", "é", "\uffff", "\U0001f600"]
    folder, other = new_id(), new_id()
    await ada.accept(mkdir(ada.space, "folder", folder), mkdir(ada.space, "other", other))
    inodes = {name: new_id() for name in reversed(names)}
    await ada.accept(*(create(folder, name, inode, name.encode()) for name, inode in inodes.items()))
    gone = new_id()
    await ada.accept(create(folder, "aa", gone, b"gone"), create(other, "c", new_id(), b"elsewhere"))
    await ada.accept(remove(folder, "aa", gone, seen=1000))
    pages = await read(ada, folder, limit)
    found = [row for page in pages for row in page["entries"]]
    assert [(row["parent"], row["name"], row["inode"]) for row in found] == [(folder, name, inodes[name]) for name in names]
    assert [len(page["entries"]) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert len(pages) == -(-len(names) // limit)
    feed_entries, feed_inodes = await ada.listing()
    assert all(row == feed_entries[folder, row["name"]] for row in found)
    assert all(row == feed_inodes[row["id"]] for page in pages for row in page["inodes"])


async def test_a_file_with_two_names_is_described_once(ada: Device) -> None:
    inode = new_id()
    await ada.accept(create(ada.space, "one", inode, b"x"))
    await ada.accept({"entries": [entry(ada.space, "two", None, inode)]})
    page = await ada.get(path_of(ada, ada.space))
    assert [row["name"] for row in page["entries"]] == ["one", "two"]
    assert [row["id"] for row in page["inodes"]] == [inode]


async def test_it_is_what_the_space_holds_now(ada: Device) -> None:
    small, long = new_id(), new_id()
    await ada.accept(create(ada.space, "s", small, b"x" * 1000), create(ada.space, "l", long, b"x" * 2000))
    await ada.accept(write(small, b"new", 2))
    page = await ada.get(path_of(ada, ada.space))
    content = {row["id"]: row["content"] for row in page["inodes"]}
    assert base64.b64decode(content[small]["manifest"]).endswith(b"new")
    assert content[long]["manifest"] is None, "too long to ride along"
    assert page["revision"] == (await ada.changes(""))["spaces"][0]["revision"] == 4


async def test_a_removed_folder_is_empty(ada: Device) -> None:
    folder = new_id()
    await ada.accept(mkdir(ada.space, "folder", folder))
    await ada.accept({"entries": [entry(ada.space, "folder", folder, None)]})
    assert (await ada.get(path_of(ada, folder)))["entries"] == []


async def test_what_is_no_folder_of_the_space_is_not_found(world: World, ada: Device, eve: Device) -> None:
    file, theirs = new_id(), new_id()
    await ada.accept(create(ada.space, "file", file, b"x"))
    await eve.accept(mkdir(eve.space, "theirs", theirs))
    for folder in (file, theirs, eve.space, new_id(), "nonsense"):
        problem(await ada.send("GET", path_of(ada, folder)), 404, "not-found")
    problem(await eve.send("GET", path_of(ada, ada.space)), 404, "not-found")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 5001}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"after": "a/b"}, "after"),
        ({"after": "\0"}, "after"),
        ({"after": "é" * 128}, "after"),
        ({"after": "a" * 256}, "after"),
    ],
)
async def test_queries_are_checked(ada: Device, query: dict[str, str | int], field: str) -> None:
    document = problem(await ada.send("GET", path_of(ada, ada.space), params=query), 400, "invalid")
    assert document["field"] == field
