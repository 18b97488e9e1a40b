"""The feed: pages, listings while things change, waiting, and cursors that are not ours."""

from __future__ import annotations

import base64
import json
import time

import pytest
import trio

from remote.server.cursor import BadCursor, Cursor, Position, Table, decode, encode
from tests.support.wire import Device, Json, World, create, entry, file_row, mkdir, new_id, problem, remove, write


async def populate(device: Device, count: int = 20) -> dict[str, str]:
    """Files by name, all in one revision."""
    files = {f"file {number}": new_id() for number in range(count)}
    group = {
        "entries": [entry(device.space, name, None, inode) for name, inode in files.items()],
        "inodes": [file_row(inode, name.encode()) for name, inode in files.items()],
    }
    await device.accept(group)
    return files


async def test_the_first_listing_shows_the_root_and_everything_below(ada: Device) -> None:
    files = await populate(ada, 3)
    page = await ada.changes("")
    (space,) = page["spaces"]
    assert (page["has_more"], space["has_more"], space["full"], space["revision"], space["total_entries"]) == (
        False,
        False,
        True,
        2,
        3,
    )
    assert {row["id"] for row in space["inodes"]} == {ada.space, *files.values()}
    assert {row["name"]: row["inode"] for row in space["entries"]} == files
    root = next(row for row in space["inodes"] if row["id"] == ada.space)
    assert (root["kind"], root["attributes"]["mode"], root["content"]) == ("directory", 0o755, None)


async def test_small_manifests_ride_along_and_long_ones_do_not(ada: Device) -> None:
    small, long = new_id(), new_id()
    await ada.accept(create(ada.space, "s", small, b"x" * 1000), create(ada.space, "l", long, b"x" * 2000))
    _, inodes = await ada.listing()
    assert base64.b64decode(inodes[small]["content"]["manifest"]).endswith(b"x" * 1000)
    assert inodes[long]["content"]["manifest"] is None
    assert (inodes[small]["content"]["size"], inodes[long]["content"]["size"]) == (1000, 2000)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 19, 20, 21, 39, 40, 41, 42, 1000])
async def test_pages_may_cut_a_revision_anywhere(ada: Device, limit: int) -> None:
    files = await populate(ada)
    await ada.accept(remove(ada.space, "file 3", files["file 3"], seen=2), mkdir(ada.space, "d", new_id()))
    cursor, rows, sizes = "", [], []
    for _ in range(60):
        page = await ada.changes(cursor, limit=limit)
        (space,) = page["spaces"]
        revs = [row["rev"] for row in space["inodes"]] + [row["rev"] for row in space["entries"]]
        sizes.append(len(revs))
        rows += [("inode", row["id"]) for row in space["inodes"]] + [("entry", row["name"]) for row in space["entries"]]
        cursor = page["cursor"]
        if not page["has_more"]:
            break
    assert len(rows) == len(set(rows)) == 41, "19 files with a name, one folder and the root; 20 entries, none of the tombstones"
    assert all(size == limit for size in sizes[:-1])
    assert await ada.listing(cursor=cursor) == ({}, {}), "the cursor goes on as a feed"


async def test_the_feed_shows_what_changed_in_the_order_of_revisions(ada: Device) -> None:
    files = await populate(ada, 3)
    cursor = (await ada.changes(""))["cursor"]
    await ada.accept(write(files["file 0"], b"new", 2), remove(ada.space, "file 1", files["file 1"], seen=2))
    page = await ada.changes(cursor)
    (space,) = page["spaces"]
    assert (space["full"], space["revision"], space["total_entries"]) == (False, 4, None)
    assert [(row["id"], row["rev"], row["content_rev"]) for row in space["inodes"]] == [(files["file 0"], 3, 3)]
    tombstone: Json = {"parent": ada.space, "name": "file 1", "inode": None, "rev": 4}
    assert space["entries"] == [tombstone]


async def test_a_listing_while_things_change_ends_with_the_truth(ada: Device, other: Device) -> None:
    files = await populate(ada)
    entries: dict[str, str | None] = {}
    inodes: dict[str, int] = {}
    cursor, step = "", 0
    while True:
        page = await ada.changes(cursor, limit=3)
        (space,) = page["spaces"]
        assert space["full"]
        entries.update({row["name"]: row["inode"] for row in space["entries"]})
        inodes.update({row["id"]: row["content_rev"] for row in space["inodes"]})
        cursor = page["cursor"]
        if not page["has_more"]:
            break
        if step < 10:
            await other.accept(remove(ada.space, f"file {step}", files[f"file {step}"], seen=2))
            await other.accept(write(files[f"file {step + 10}"], b"changed", 2))
            await other.accept(create(ada.space, f"new {step}", new_id()))
        step += 1
    fresh_entries, fresh_inodes = await ada.listing()
    live = {name: inode for name, inode in entries.items() if inode is not None}
    assert live == {name: row["inode"] for (_, name), row in fresh_entries.items()}
    assert {inodes[id_] for id_ in fresh_inodes} == {row["content_rev"] for row in fresh_inodes.values()}
    after = await ada.changes(cursor)
    assert not after["spaces"][0]["full"]


async def test_a_listing_shows_tombstones_only_of_what_it_may_have_shown(ada: Device) -> None:
    files = await populate(ada, 5)
    await ada.accept(remove(ada.space, "file 0", files["file 0"], seen=2))
    first = await ada.changes("", limit=2)
    await ada.accept(remove(ada.space, "file 1", files["file 1"], seen=2))
    entries, _ = await ada.listing(cursor=first["cursor"])
    assert (ada.space, "file 0") not in entries
    assert entries[ada.space, "file 1"]["inode"] is None


# ------------------------------------------------------------------------------------------------------------- waiting


async def test_a_waiting_device_is_woken_by_anothers_commit(world: World, ada: Device, other: Device) -> None:
    cursor = (await ada.changes(""))["cursor"]
    pages: list[Json] = []

    async def wait() -> None:
        pages.append(await ada.changes(cursor, wait=60))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await until(lambda: world.service.wake.waiting() == 1)
            await other.accept(mkdir(ada.space, "d", new_id()))
    assert pages[0]["spaces"][0]["entries"][0]["name"] == "d"
    assert world.service.wake.waiting() == 0


async def test_commits_of_another_account_wake_nobody(world: World, ada: Device, eve: Device) -> None:
    cursor = (await ada.changes(""))["cursor"]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ada.changes(cursor, wait=60))
            await until(lambda: world.service.wake.waiting() == 1)
            await eve.accept(mkdir(eve.space, "d", new_id()))
            assert world.service.wake.waiting() == 1
            nursery.cancel_scope.cancel()


async def test_waiting_ends_with_an_empty_page(ada: Device, autojump_clock: trio.testing.MockClock) -> None:
    cursor = (await ada.changes(""))["cursor"]
    began = trio.current_time()
    page = await ada.changes(cursor, wait=60)
    assert trio.current_time() - began >= 59
    assert (page["has_more"], page["spaces"][0]["inodes"], page["spaces"][0]["revision"]) == (False, [], 1)
    assert page["cursor"] == cursor


async def test_a_service_that_stops_lets_everybody_go(world: World, ada: Device) -> None:
    cursor = (await ada.changes(""))["cursor"]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ada.changes(cursor, wait=60))
            await until(lambda: world.service.wake.waiting() == 1)
            world.service.wake.close()


async def test_a_removed_device_does_not_go_on_waiting(world: World, ada: Device, other: Device) -> None:
    cursor = (await other.changes(""))["cursor"]
    answers = []

    async def wait() -> None:
        answers.append(await other.send("GET", "/v1/changes", params={"cursor": cursor, "wait": 60}))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await until(lambda: world.service.wake.waiting() == 1)
            await ada.send("DELETE", f"/v1/devices/{other.id}")
    problem(answers[0], 401, "revoked")


async def test_who_goes_away_is_not_waited_for(world: World, ada: Device) -> None:
    """Plain ASGI, where the test owns the moment at which the caller hangs up."""
    cursor = (await ada.changes(""))["cursor"]
    token = ada.tokens["access_token"].encode()
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/changes",
        "query_string": f"cursor={cursor}&wait=60".encode(),
        "headers": [(b"authorization", b"Bearer " + token), (b"host", b"x")],
        "scheme": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "server": ("x", 80),
    }
    hung_up, sent = trio.Event(), []

    async def receive() -> Json:
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Json) -> None:
        sent.append(message)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.app, scope, receive, send)
            await until(lambda: world.service.wake.waiting() == 1)
            hung_up.set()
    assert world.service.wake.waiting() == 0


async def until(condition: object) -> None:
    """Give others their turn until it is so; bounded by the time that a test may take."""
    assert callable(condition)
    while not condition():
        await trio.to_thread.run_sync(time.sleep, 0)


# ------------------------------------------------------------------------------------------------------------- cursors


def corrupted(cursor: str) -> list[str]:
    raw = base64.urlsafe_b64decode(cursor)
    flipped = [base64.urlsafe_b64encode(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]).decode() for at in range(0, len(raw), 7)]
    return [
        "x",
        "nonsense!",
        "ünï",
        cursor[:-4],
        cursor + "AAAA",
        cursor + "\n",
        base64.urlsafe_b64encode(json.dumps({"rev": 1}).encode()).decode(),
        *flipped,
    ]


async def test_garbage_is_refused(ada: Device) -> None:
    for text in corrupted((await ada.changes(""))["cursor"]):
        document = problem(await ada.send("GET", "/v1/changes", params={"cursor": text}), 400, "invalid")
        assert document["field"] == "cursor"


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 5001}, {"wait": -1}, {"wait": 61}, {"wait": "x"}, {"cursor": "A" * 50_000}]
)
async def test_parameters_out_of_range_are_refused(ada: Device, query: Json) -> None:
    document = problem(await ada.send("GET", "/v1/changes", params=query), 400, "invalid")
    assert document["field"] == next(iter(query))


async def test_a_cursor_of_another_epoch_gets_the_true_epoch_and_nothing_else(ada: Device) -> None:
    page = await ada.changes("")
    foreign = encode(Cursor(bytes(16), decode(page["cursor"]).positions))
    answer = await ada.changes(foreign, wait=60)
    began = [{"epoch": page["epoch"], "spaces": []}]
    assert answer == {"epoch": page["epoch"], "cursor": foreign, "has_more": False, "spaces": [], "history": began}


async def test_a_cursor_ahead_of_the_service_gets_the_true_revision(ada: Device) -> None:
    page = await ada.changes("")
    ahead = Cursor(bytes.fromhex(page["epoch"]), {bytes.fromhex(ada.space): Position(1000)})
    answer = await ada.changes(encode(ahead))
    (space,) = answer["spaces"]
    assert (space["revision"], space["inodes"], space["entries"], space["full"]) == (1, [], [], False)
    assert answer["cursor"] == encode(ahead)


async def test_a_cursor_names_no_space_that_its_holder_may_not_see(ada: Device, eve: Device) -> None:
    await ada.accept(mkdir(ada.space, "secret", new_id()))
    epoch = (await eve.changes(""))["epoch"]
    stolen = Cursor(bytes.fromhex(epoch), {bytes.fromhex(ada.space): Position(0)})
    answer = await eve.changes(encode(stolen))
    assert [space["space"] for space in answer["spaces"]] == [eve.space]


def test_cursors_survive_the_way_there_and_back() -> None:
    positions = {
        bytes([1] * 16): Position(5, Table.ENTRIES, (bytes([2] * 16), "naïve ✓"), full=True, start=9, total=12),
        bytes([3] * 16): Position(2**63 - 1),
        bytes([4] * 16): Position(0, Table.INODES, (bytes([5] * 16), "")),
    }
    cursor = Cursor(bytes(range(16)), positions)
    assert decode(encode(cursor)) == cursor
    with pytest.raises(BadCursor):
        decode("")
