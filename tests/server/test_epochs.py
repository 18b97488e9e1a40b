"""A service that was restored from a copy of its data folder, or database: what it says to devices that saw what it lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remote.server.epochs import begin_epoch
from remote.server.folder import DataFolderError
from tests.support.postgresql import Cluster
from tests.support.wire import Device, Json, World, create, mkdir, new_id, problem, write


class Backup:
    """A copy of all that a service keeps, and a service that is opened on it again."""

    def __init__(self, folder: Path, database: str | None, cluster: Cluster | None, open_world: Callable[..., World]) -> None:
        self._folder = folder
        self._database = database
        self._cluster = cluster
        self._open = open_world
        self._copies: dict[Path, str] = {}

    def take(self) -> Path:
        """As a backup tool would while the service stands still: no test has a request under way."""
        copy = Path(shutil.copytree(self._folder / "data", self._folder / f"copy {new_id()}"))
        if self._cluster is not None and self._database is not None:
            self._copies[copy] = self._cluster.copy_database(self._database)
        return copy

    async def restore(self, copy: Path, world: World, *devices: Device) -> World:
        """The service stops, loses everything since the copy, and starts again in a new epoch."""
        await world.close()
        shutil.rmtree(self._folder / "data")
        shutil.copytree(copy, self._folder / "data")
        if self._cluster is not None and self._database is not None:
            self._cluster.replace_database(self._database, self._copies[copy])
        begin_epoch(self._folder / "data", database=self._database, clock=world.clock)
        restored = self._open()
        restored.clock.now_ns = world.clock.now_ns
        for device in devices:
            device.world = restored
        return restored

    def drop(self) -> None:
        for url in self._copies.values():
            assert self._cluster is not None
            self._cluster.drop_database(url)


@pytest.fixture
def backup(
    tmp_path: Path,
    database_of: Callable[[str], str | None],
    open_world: Callable[..., World],
    request: pytest.FixtureRequest,
) -> Iterator[Backup]:
    database = database_of("data")
    cluster = None if database is None else request.getfixturevalue("postgresql")
    backup = Backup(tmp_path, database, cluster, open_world)
    yield backup
    backup.drop()


def starts(page: Json) -> list[tuple[str, dict[str, int]]]:
    return [(each["epoch"], {start["space"]: start["revision"] for start in each["spaces"]}) for each in page["history"]]


async def test_a_device_that_saw_nothing_of_what_was_lost_goes_on(world: World, ada: Device, backup: Backup) -> None:
    await ada.accept(mkdir(ada.space, "a", new_id()))
    await ada.changes()
    copy, before = backup.take(), world.epoch
    await backup.restore(copy, world, ada)
    page = await ada.changes()
    assert page["epoch"] != before
    assert starts(page) == [(before, {}), (page["epoch"], {ada.space: 2})]
    assert [(space["revision"], space["full"], space["entries"]) for space in page["spaces"]] == [(2, False, [])]
    assert (await ada.changes())["history"] == [], "its cursor is of the new epoch now"


async def test_a_device_that_saw_what_was_lost_gets_no_rows(world: World, ada: Device, backup: Backup) -> None:
    copy = backup.take()
    await ada.accept(mkdir(ada.space, "a", new_id()))
    page = await ada.changes()
    await backup.restore(copy, world, ada)
    await ada.accept(mkdir(ada.space, "b", new_id()), mkdir(ada.space, "c", new_id()))
    after = await ada.changes(page["cursor"], wait=60)
    assert after["epoch"] == ada.world.epoch
    assert (after["spaces"], after["cursor"]) == ([], page["cursor"])
    assert starts(after)[-1] == (after["epoch"], {ada.space: 1})


async def test_a_service_that_was_restored_twice_remembers_what_it_shares_with_each_epoch(
    world: World, ada: Device, backup: Backup
) -> None:
    first = (await ada.changes(""))["cursor"]
    copy = backup.take()
    world = await backup.restore(copy, world, ada)
    await ada.accept(mkdir(ada.space, "a", new_id()))
    second = (await ada.changes(""))["cursor"]
    later = backup.take()
    world = await backup.restore(later, world, ada)
    assert [len((await ada.changes(cursor))["spaces"]) for cursor in (first, second)] == [1, 1]
    world = await backup.restore(copy, world, ada)
    assert len((await ada.changes(first))["spaces"]) == 1
    assert (await ada.changes(second))["spaces"] == [], "of that epoch this service knows nothing"


async def test_a_listing_that_is_half_done_goes_on_or_stops_by_where_it_began(world: World, ada: Device, backup: Backup) -> None:
    await ada.accept(*(mkdir(ada.space, name, new_id()) for name in "abc"))
    shared = (await ada.changes("", limit=1))["cursor"]
    copy = backup.take()
    await ada.accept(mkdir(ada.space, "d", new_id()))
    lost = (await ada.changes("", limit=1))["cursor"]
    await backup.restore(copy, world, ada)
    entries, _ = await ada.listing(cursor=shared)
    assert {name for _, name in entries} == {"a", "b", "c"}
    assert (await ada.changes(lost))["spaces"] == []


async def test_a_commit_for_a_lost_future_is_not_applied(world: World, ada: Device, backup: Backup) -> None:
    """Bases are numbers: without the epoch, the content that was made from the lost one would replace another's unseen."""
    file = new_id()
    await ada.accept(create(ada.space, "f", file, b"one"))
    other = await world.device(ada.account["email"])
    copy, epoch = backup.take(), world.epoch
    await ada.accept(write(file, b"lost", 2))
    await backup.restore(copy, world, ada, other)
    await other.accept(write(file, b"of the new epoch", 2))
    problem(await ada.try_commit(write(file, b"made from the lost one", 3), epoch=epoch), 409, "other-epoch")
    _, inodes = await ada.listing()
    assert inodes[file]["content"]["size"] == len(b"of the new epoch")
    assert (await ada.outcome(write(file, b"one more", 2)))["conflict"] == "content"


async def test_the_outcome_of_a_commit_that_the_copy_holds_is_still_answered(world: World, ada: Device, backup: Backup) -> None:
    group, epoch = mkdir(ada.space, "a", new_id()), world.epoch
    first = await ada.try_commit(group)
    await backup.restore(backup.take(), world, ada)
    again = await ada.try_commit(group, number=ada.number, epoch=epoch)
    assert again.content == first.content


async def test_uploads_that_were_found_before_are_looked_for_again(world: World, ada: Device, backup: Backup) -> None:
    body = b"an object"
    await ada.upload(body)
    assert await ada.plan(body) == []
    copy = backup.take()
    for file in (copy / "objects").rglob("*.0"):
        file.unlink()
    await backup.restore(copy, world, ada)
    assert len(await ada.plan(body)) == 1


@pytest.mark.parametrize("database_of", ["sqlite"], indirect=True)
async def test_an_epoch_begins_only_where_there_is_a_service_that_stands_still(tmp_path: Path, world: World) -> None:
    with pytest.raises(DataFolderError, match="no service"):
        begin_epoch(tmp_path / "nowhere")
    with pytest.raises(DataFolderError, match="another service is running"):
        begin_epoch(tmp_path / "data")


async def test_a_replica_of_another_device_is_not_taken_for_ones_own(ada: Device, other: Device) -> None:
    group: Any = mkdir(ada.space, "a", new_id())
    await ada.accept(group)
    thief = replace(other, replica=ada.replica)
    assert (await thief.commit(mkdir(ada.space, "b", new_id()), number=1))["outcomes"][0]["result"] == "ok"
