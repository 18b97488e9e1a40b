"""Services that were restored or went back, homes that were: what stops, and what a person's word to go on does."""

from __future__ import annotations

import copy
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from cache.connection import Stop
from cache.model import Connection as State
from cache.reconnect import CannotReconnect
from remote.copynames import CopyNames
from tests.support.exchange_device import ExchangeDevice
from tests.support.wire_service import WireService

PATIENCE = 60.0
Start = Callable[[str], ExchangeDevice]


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 (what is waited for is spread over devices and the service)
            await trio.sleep(0.002)


async def quiet(*devices: ExchangeDevice) -> None:
    await until(lambda: all(device.is_quiet() for device in devices))


async def stopped(device: ExchangeDevice) -> None:
    device.link.set_down(True)
    await until(lambda: device.connection.state is not State.ONLINE)
    device.link.set_down(False)
    await until(lambda: device.connection.state is State.STOPPED)


async def reconnect(*devices: ExchangeDevice) -> None:
    for device in devices:
        assert device.exchange.reconnect.go_on() is not None
    await until(lambda: all(device.exchange.store.replacing(1) is None for device in devices))
    await quiet(*devices)


def copy_of(name: str, device: str) -> str:
    return CopyNames(device, "2026-11-20").free_name(name, False, lambda _: False)


class Devices:
    """Starts devices by name, and stops them; a name that was started before goes on with its home."""

    def __init__(self, service: WireService, folder: Path, nursery: trio.Nursery) -> None:
        self._service = service
        self._folder = folder
        self._nursery = nursery
        self._running: dict[str, tuple[ExchangeDevice, trio.CancelScope, trio.Event]] = {}

    def start(self, name: str) -> ExchangeDevice:
        device = ExchangeDevice(self._folder / name, self._service.link(name))
        scope, ended = trio.CancelScope(), trio.Event()

        async def run() -> None:
            with scope:
                await device.run()
            ended.set()

        self._nursery.start_soon(run)
        self._running[name] = device, scope, ended
        return device

    async def stop(self, name: str) -> None:
        device, scope, ended = self._running.pop(name)
        scope.cancel()
        await ended.wait()
        device.close()

    async def stop_all(self) -> None:
        for name in list(self._running):
            await self.stop(name)


@pytest.fixture
def service() -> WireService:
    return WireService()


@pytest.fixture
async def devices(service: WireService, tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Devices]:
    devices = Devices(service, tmp_path, nursery)
    yield devices
    await devices.stop_all()


@pytest.fixture
async def laptop(devices: Devices) -> ExchangeDevice:
    device = devices.start("laptop")
    await quiet(device)
    return device


@pytest.fixture
async def desk(devices: Devices, laptop: ExchangeDevice) -> ExchangeDevice:
    device = devices.start("desk")
    await quiet(device)
    return device


# ------------------------------------------------------------------------------------------------ a service, restored


async def test_who_saw_nothing_of_what_was_lost_goes_on_by_itself(
    service: WireService, laptop: ExchangeDevice, desk: ExchangeDevice
) -> None:
    laptop.create("f", "one")
    await quiet(laptop, desk)
    before = copy.deepcopy(service.tree)
    desk.link.set_down(True)
    await until(lambda: desk.connection.state is State.UNREACHABLE)
    laptop.create("lost", "text")
    await quiet(laptop)
    backup = WireService()
    backup.tree, backup.shapes, backup.manifests = before, service.shapes, service.manifests
    service.restore(backup)
    desk.create("g", "two")
    desk.link.set_down(False)
    await quiet(desk)
    assert desk.connection.stopped_because is None
    assert desk.paths() == {"f": "one", "g": "two"}
    await stopped(laptop)
    assert laptop.paths() == {"f": "one", "lost": "text"}


async def test_a_commit_whose_answer_was_lost_is_made_anew_for_the_restored_service(
    service: WireService, laptop: ExchangeDevice
) -> None:
    laptop.create("f", "one")
    await quiet(laptop)
    backup = copy_service(service)
    laptop.link.answers_to_lose = 1
    laptop.create("g", "two")
    await until(lambda: not laptop.link.answers_to_lose)
    service.restore(backup)
    await quiet(laptop)
    assert laptop.connection.stopped_because is None
    assert laptop.paths() == {"f": "one", "g": "two"}
    assert {name for _, name in service.tree.entries} == {"f", "g"}


def copy_service(service: WireService) -> WireService:
    backup = WireService()
    backup.tree, backup.epoch = copy.deepcopy(service.tree), service.epoch
    backup.shapes, backup.manifests = dict(service.shapes), dict(service.manifests)
    backup.history, backup.began = list(service.history), list(service.began)
    return backup


async def test_what_the_service_lost_is_pushed_again(service: WireService, laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.make_folder("d")
    laptop.create("d/kept", "kept")
    laptop.create("d/edited", "before")
    laptop.create("removed", "removed")
    laptop.create("moved", "moved")
    laptop.create("saved", "before")
    await quiet(laptop, desk)
    backup = copy_service(service)
    laptop.write("d/edited", "after")
    laptop.create("d/new", "new")
    laptop.make_folder("d/folder")
    laptop.create("d/folder/deep", "deep")
    laptop.remove("removed")
    laptop.rename("moved", "d/moved")
    laptop.save_by_rename("saved", "after")
    await quiet(laptop, desk)
    service.restore(backup)
    await stopped(laptop)
    await stopped(desk)
    assert "restored" in (laptop.connection.stopped_because or "")
    await reconnect(laptop)
    await reconnect(desk)
    await quiet(laptop, desk)
    assert laptop.paths() == desk.paths()
    found = laptop.paths()
    copied = found.pop(copy_of("saved", "laptop"))
    assert {copied, found.pop("saved")} == {"before", "after"}
    assert found == {
        "d/": None,
        "d/kept": "kept",
        "d/edited": "after",
        "d/new": "new",
        "d/folder/": None,
        "d/folder/deep": "deep",
        "removed": "removed",
        "moved": "moved",
    }


async def test_what_was_done_since_the_restore_meets_what_was_lost(
    service: WireService, laptop: ExchangeDevice, devices: Devices
) -> None:
    laptop.make_folder("gone")
    laptop.create("gone/old", "old")
    laptop.create("both", "before")
    laptop.create("deleted", "text")
    laptop.create("edited, deleted", "before")
    await quiet(laptop)
    backup = copy_service(service)
    laptop.create("gone/lost", "lost")
    laptop.write("both", "lost edit")
    laptop.write("edited, deleted", "lost edit")
    laptop.create("name", "lost")
    await quiet(laptop)
    service.restore(backup)
    await stopped(laptop)
    phone = devices.start("phone")
    await quiet(phone)
    phone.remove("gone/old")
    phone.remove("gone")
    phone.remove("deleted")
    phone.remove("edited, deleted")
    phone.write("both", "edit since")
    phone.create("name", "since")
    await quiet(phone)
    await reconnect(laptop)
    await quiet(laptop, phone)
    assert (
        laptop.paths()
        == phone.paths()
        == {
            "gone/": None,
            "gone/lost": "lost",
            "both": "edit since",
            copy_of("both", "laptop"): "lost edit",
            "edited, deleted": "lost edit",
            "name": "since",
            copy_of("name", "laptop"): "lost",
        }
    )


async def test_what_was_not_pushed_yet_is_pushed_after_it(service: WireService, laptop: ExchangeDevice) -> None:
    laptop.create("f", "one")
    laptop.create("g", "one")
    await quiet(laptop)
    backup = copy_service(service)
    laptop.write("f", "two")
    await quiet(laptop)
    service.restore(backup)
    await stopped(laptop)
    laptop.write("f", "three")
    laptop.create("h", "new")
    laptop.rename("g", "i")
    await reconnect(laptop)
    assert laptop.paths() == {"f": "three", "h": "new", "i": "one"}
    assert [text.sha256 for text in service.tree.contents[laptop.tree.id_of(laptop.node("f").ino)]]


async def test_a_service_that_lost_everything_gets_everything(service: WireService, laptop: ExchangeDevice) -> None:
    backup = copy_service(service)
    laptop.make_folder("d")
    for number in range(30):
        laptop.create(f"d/{number}", str(number))
    laptop.link_to("d/1", "link")
    await quiet(laptop)
    before = laptop.paths()
    service.restore(backup)
    await stopped(laptop)
    await reconnect(laptop)
    assert laptop.paths() == before
    assert len(service.tree.entries) == 32


async def test_a_service_that_went_back_without_a_new_epoch_deletes_nothing(
    service: WireService, laptop: ExchangeDevice, devices: Devices
) -> None:
    laptop.create("f", "one")
    laptop.create("g", "one")
    await quiet(laptop)
    backup = copy_service(service)
    laptop.write("f", "two")
    laptop.create("h", "new")
    laptop.create("i", "new")
    await quiet(laptop)
    service.tree = backup.tree
    await stopped(laptop)
    assert laptop.connection.stopped_by is Stop.SERVICE
    phone = devices.start("phone")
    await quiet(phone)
    phone.remove("g")
    await quiet(phone)
    await reconnect(laptop)
    assert laptop.paths() == {"f": "one", copy_of("f", "laptop"): "two", "g": "one", "h": "new", "i": "new"}


async def test_a_service_behind_what_it_acknowledged_is_noticed(service: WireService, laptop: ExchangeDevice) -> None:
    """The acknowledgement is ahead of every page: the cursor alone would say nothing."""
    laptop.create("f", "one")
    await quiet(laptop)
    backup = copy_service(service)
    laptop.link.feed_ends_after = laptop.link.polls
    laptop.create("g", "two")
    await until(lambda: laptop.exchange.store.space(1).acknowledged == service.tree.revision > backup.tree.revision)
    service.tree = backup.tree
    laptop.link.feed_ends_after = None
    laptop.link.let_go.set()
    await stopped(laptop)
    assert laptop.paths() == {"f": "one", "g": "two"}


async def test_a_service_that_went_back_refuses_the_next_commit(service: WireService, laptop: ExchangeDevice) -> None:
    laptop.create("f", "one")
    await quiet(laptop)
    backup = copy_service(service)
    laptop.write("f", "two")
    await quiet(laptop)
    laptop.link.feed_ends_after = laptop.link.polls
    service.tree = backup.tree
    laptop.write("f", "three")
    await until(lambda: laptop.connection.state is State.STOPPED)
    assert service.tree.revision == backup.tree.revision
    laptop.link.let_go.set()


async def test_it_may_be_stopped_and_asked_again_at_any_time(
    service: WireService, laptop: ExchangeDevice, devices: Devices
) -> None:
    for number in range(20):
        laptop.create(str(number), str(number))
    await quiet(laptop)
    backup = copy_service(service)
    for number in range(20, 40):
        laptop.create(str(number), str(number))
    await quiet(laptop)
    before = laptop.paths()
    service.restore(backup)
    await stopped(laptop)
    laptop.link.page_limit = 3
    laptop.exchange.reconnect.go_on()
    await until(lambda: laptop.exchange.store.count_staged(1) > 3)
    await devices.stop("laptop")
    laptop = devices.start("laptop")
    await quiet(laptop)
    assert laptop.paths() == before
    assert laptop.exchange.reconnect.go_on() is None, "nothing is stopped any more"


# --------------------------------------------------------------------------------------------------- a home, restored


async def test_a_home_that_was_restored_stops_and_goes_on_when_it_is_told_to(
    service: WireService, devices: Devices, tmp_path: Path
) -> None:
    laptop = devices.start("laptop")
    await quiet(laptop)
    laptop.create("f", "one")
    await quiet(laptop)
    await devices.stop("laptop")
    shutil.copytree(tmp_path / "laptop", tmp_path / "backup")
    laptop = devices.start("laptop")
    laptop.write("f", "two")
    laptop.create("g", "two")
    await quiet(laptop)
    await devices.stop("laptop")
    shutil.rmtree(tmp_path / "laptop")
    (tmp_path / "backup").rename(tmp_path / "laptop")
    laptop = devices.start("laptop")
    await quiet(laptop)
    assert laptop.paths() == {"f": "two", "g": "two"}, "what it missed comes with the feed"
    laptop.create("h", "three")
    await until(lambda: laptop.connection.state is State.STOPPED)
    assert "home was restored" in (laptop.connection.stopped_because or "")
    assert laptop.connection.stopped_by is Stop.HOME
    await reconnect(laptop)
    assert laptop.paths() == {"f": "two", "g": "two", "h": "three"}


async def test_a_replica_that_is_begun_anew_is_not_stopped(service: WireService, devices: Devices, tmp_path: Path) -> None:
    laptop = devices.start("laptop")
    await quiet(laptop)
    for name in "abc":
        laptop.create(name, name)
        await quiet(laptop)
    await devices.stop("laptop")
    (tmp_path / "laptop" / "replica.db").unlink()
    laptop = devices.start("laptop")
    await quiet(laptop)
    laptop.create("d", "d")
    await quiet(laptop)
    assert laptop.paths() == {name: name for name in "abcd"}


async def test_a_damaged_replica_is_not_gone_on_with(laptop: ExchangeDevice) -> None:
    laptop.connection.stop("the replica is damaged", Stop.REPLICA)
    with pytest.raises(CannotReconnect, match="damaged"):
        laptop.exchange.reconnect.go_on()
    assert laptop.connection.state is State.STOPPED
