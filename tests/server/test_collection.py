"""Collection of tombstones, and what devices that stayed away too long are told."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress

import pytest
from sqlalchemy import Connection

from remote.server import collection
from remote.server.collection import KEEP_NS, collect
from remote.server.database.engine import Database
from tests.support.wire import Device, World, create, mkdir, move, new_id, problem, remove

KEEP_SECONDS = KEEP_NS / 10**9


async def make_and_remove(device: Device, *names: str) -> None:
    for name in names:
        file = new_id()
        await device.accept(create(device.space, name, file, name.encode()))
        revision = (await device.changes(""))["spaces"][0]["revision"]
        await device.accept(remove(device.space, name, file, seen=revision))


def collect_all(world: World) -> int:
    return collect(world.service.database, world.clock, keep_ns=0)


async def test_tombstones_go_when_they_are_old_enough(world: World, ada: Device) -> None:
    cursor = (await ada.changes(""))["cursor"]
    await make_and_remove(ada, "a")
    assert collect(world.service.database, world.clock) == 0, "nobody noted yet how old it is"
    world.clock.advance(KEEP_SECONDS - 1)
    await ada.refresh()
    await make_and_remove(ada, "b")
    assert collect(world.service.database, world.clock) == 0
    world.clock.advance(1)
    assert collect(world.service.database, world.clock) == 1
    problem(await ada.send("GET", "/v1/changes", params={"cursor": cursor}), 410, "reset")
    assert collect(world.service.database, world.clock) == 0
    world.clock.advance(KEEP_SECONDS)
    assert collect(world.service.database, world.clock) == 1


async def test_only_cursors_that_miss_something_are_too_old(world: World, ada: Device) -> None:
    await make_and_remove(ada, "a")
    cursor = (await ada.changes(""))["cursor"]
    await ada.accept(mkdir(ada.space, "d", new_id()))
    assert collect_all(world) == 1
    entries, _ = await ada.listing(cursor=cursor)
    assert {name for _, name in entries} == {"d"}


async def test_a_page_that_ended_in_the_middle_of_a_revision_misses_what_was_removed_in_it(world: World, ada: Device) -> None:
    folder = new_id()
    await ada.accept(mkdir(ada.space, "b", folder))
    cursor = (await ada.changes(""))["cursor"]
    await ada.accept(move(folder, (ada.space, "b"), (ada.space, "a")))
    page = await ada.changes(cursor, limit=1)
    assert [row["name"] for row in page["spaces"][0]["entries"]] == ["a"]
    assert collect_all(world) == 1
    problem(await ada.send("GET", "/v1/changes", params={"cursor": page["cursor"]}), 410, "reset")


async def test_a_listing_that_began_before_is_begun_again(world: World, ada: Device) -> None:
    await ada.accept(*(mkdir(ada.space, name, new_id()) for name in "abc"))
    cursor = (await ada.changes("", limit=1))["cursor"]
    assert len((await ada.listing(cursor=cursor))[0]) == 3
    await make_and_remove(ada, "d")
    collect_all(world)
    problem(await ada.send("GET", "/v1/changes", params={"cursor": cursor}), 410, "reset")


async def test_a_listing_names_what_was_removed_since_if_it_is_asked_to(world: World, ada: Device) -> None:
    await make_and_remove(ada, "old")
    collect_all(world)
    await make_and_remove(ada, "new")
    await ada.accept(mkdir(ada.space, "there", new_id()))
    (plain,) = (await ada.changes(""))["spaces"]
    assert {row["name"] for row in plain["entries"]} == {"there"}
    page = await ada.changes("", removed=True)
    (space,) = page["spaces"]
    assert {row["name"]: row["inode"] is None for row in space["entries"]} == {"there": False, "new": True}
    assert (space["full"], space["collected"]) == (True, 3)
    assert page["history"] == [{"epoch": world.epoch, "spaces": []}]


async def test_a_name_that_is_taken_again_is_no_tombstone(world: World, ada: Device) -> None:
    await make_and_remove(ada, "a")
    await ada.accept(mkdir(ada.space, "a", new_id()))
    assert collect_all(world) == 0
    assert {name for _, name in (await ada.listing())[0]} == {"a"}


async def test_names_that_were_collected_can_be_used_like_any_other(world: World, ada: Device) -> None:
    await make_and_remove(ada, "a", "b")
    assert collect_all(world) == 2
    await ada.accept(mkdir(ada.space, "a", new_id()))
    await make_and_remove(ada, "b")
    assert {name for _, name in (await ada.listing())[0]} == {"a"}


class Dying:
    """The database, until the process dies before one of its transactions."""

    def __init__(self, database: Database, transactions: int) -> None:
        self._database = database
        self._left = transactions

    def read(self) -> AbstractContextManager[Connection]:
        return self._database.read()

    def write(self) -> AbstractContextManager[Connection]:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        return self._database.write()


@pytest.mark.parametrize("transactions", range(5))
async def test_it_may_stop_after_any_step(world: World, ada: Device, monkeypatch: pytest.MonkeyPatch, transactions: int) -> None:
    """How far a space was collected is written with the step itself: no cursor misses what is gone."""
    cursors = []
    for name in "abc":
        cursors.append((await ada.changes(""))["cursor"])
        await make_and_remove(ada, name)
    monkeypatch.setattr(collection, "STEP", 1)
    dying = Dying(world.service.database, transactions)
    with suppress(KeyboardInterrupt):
        collect(dying, world.clock, keep_ns=0)  # type: ignore[arg-type]
    gone = max(0, transactions - 1)
    for number, cursor in enumerate(cursors):
        if number < gone:
            problem(await ada.send("GET", "/v1/changes", params={"cursor": cursor}), 410, "reset")
        else:
            tombstones = {name for (_, name), row in (await ada.listing(cursor=cursor))[0].items() if row["inode"] is None}
            assert tombstones == set("abc"[number:])
    assert collect_all(world) == 3 - gone


async def test_a_clock_that_jumps_forgets_too_much_at_worst(world: World, ada: Device) -> None:
    cursor = (await ada.changes(""))["cursor"]
    await make_and_remove(ada, "a")
    collect(world.service.database, world.clock)
    world.clock.advance(10 * KEEP_SECONDS)
    assert collect(world.service.database, world.clock) == 1
    world.clock.advance(-20 * KEEP_SECONDS)
    await make_and_remove(ada, "b")
    assert collect(world.service.database, world.clock) == 0
    problem(await ada.send("GET", "/v1/changes", params={"cursor": cursor}), 410, "reset")
