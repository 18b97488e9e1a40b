"""Every way around the mass-delete breaker that we could think of. None gets through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from cache.guards import FILES_MAX, REPLACED_MAX, WINDOW_MINUTES, Breaker, Direction, Minutes
from cache.model import Connection as State
from cache.model import RenameMode
from remote.protocol import Kind
from tests.support.exchange_device import ExchangeDevice
from tests.support.wire_service import WireService

PATIENCE = 60.0
OF = 2000


class Clock:
    """A wall clock that a test may set, beside one that only goes on."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.passed = 0.0

    def sleep(self, minutes: float) -> None:
        self.wall += minutes * 60
        self.passed += minutes * 60

    def wall_ns(self) -> int:
        return int(self.wall * 1e9)

    def monotonic(self) -> float:
        return self.passed


class Attack:
    """Deletes files in portions, each admitted and done before the next."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.values: dict[str, Any] = {}
        self.gone = 0
        self.start()

    def start(self) -> None:
        """The process begins anew."""
        self._minutes = Minutes(self.clock)  # type: ignore[arg-type]

    def meta(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set_meta(self, key: str, value: Any) -> None:
        self.values[key] = value

    @property
    def breaker(self) -> Breaker:
        return Breaker(self, 1, Direction.APPLY, self._minutes)

    def delete(self, count: int) -> bool:
        """Whether they may go."""
        files = range(self.gone, self.gone + count)
        if self.breaker.admit(files, lambda: OF - self.gone):
            return False
        self.breaker.passed(files)
        self.gone += count
        return True


@pytest.fixture
def attack() -> Attack:
    return Attack()


def test_portions_count_together(attack: Attack) -> None:
    while attack.delete(7):
        attack.clock.sleep(0.1)
    assert FILES_MAX - 7 < attack.gone <= FILES_MAX


def test_portions_that_take_hours_are_a_persons_work(attack: Attack) -> None:
    for _ in range(6):
        assert attack.delete(250)
        attack.clock.sleep(WINDOW_MINUTES)
    assert attack.gone == 1500


def test_a_restart_forgets_nothing(attack: Attack) -> None:
    while attack.delete(100):
        attack.start()
    assert attack.gone == FILES_MAX


@pytest.mark.parametrize("hours", [2, 24 * 365, -2, -24 * 365])
def test_setting_the_clock_does_not_help(attack: Attack, hours: float) -> None:
    while attack.delete(100):
        attack.clock.wall += hours * 3600
    assert attack.gone == FILES_MAX


def test_setting_the_clock_back_over_a_restart_does_not_help(attack: Attack) -> None:
    while attack.delete(100):
        attack.clock.wall -= 2 * 3600
        attack.start()
    assert attack.gone == FILES_MAX


def test_what_was_deleted_before_the_clock_was_set_back_is_forgotten_in_the_end(attack: Attack) -> None:
    assert attack.delete(400)
    attack.clock.wall -= 365 * 24 * 3600
    attack.start()
    assert attack.delete(50)
    attack.clock.sleep(WINDOW_MINUTES + 1)
    assert attack.delete(400)


def test_what_was_confirmed_opens_no_door_for_others(attack: Attack) -> None:
    assert not attack.delete(600)
    assert attack.breaker.confirm() == 600
    assert attack.breaker.admit(range(600), lambda: OF) == frozenset()
    assert attack.breaker.admit(range(600 + 501), lambda: OF) == frozenset(range(600, 1101))
    assert attack.breaker.admit(range(5000, 5501), lambda: OF) == frozenset(range(5000, 5501))


def test_a_small_portion_does_not_pass_while_a_large_one_waits(attack: Attack) -> None:
    assert not attack.delete(600)
    assert attack.breaker.admit(range(601), lambda: OF) == frozenset(range(601))


def test_a_listing_that_lacks_them_is_allowed_less(attack: Attack) -> None:
    assert attack.breaker.admit(range(REPLACED_MAX), lambda: 10, REPLACED_MAX) == frozenset()
    assert attack.breaker.admit(range(REPLACED_MAX + 1), lambda: 50, REPLACED_MAX) == frozenset(range(REPLACED_MAX + 1))
    assert attack.breaker.tripped() is not None


# ------------------------------------------------------------------------------------------------- with real devices


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 (what is waited for is spread over devices and the service)
            await trio.sleep(0.002)


async def quiet(*devices: ExchangeDevice) -> None:
    await until(lambda: all(device.is_quiet() for device in devices))


@pytest.fixture
def service() -> WireService:
    return WireService()


@pytest.fixture
async def devices(service: WireService, tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[list[ExchangeDevice]]:
    devices = [ExchangeDevice(tmp_path / name, service.link(name)) for name in ("laptop", "desk")]
    scope, ended = trio.CancelScope(), trio.Event()

    async def run() -> None:
        with scope:
            async with trio.open_nursery() as together:
                for device in devices:
                    together.start_soon(device.run)
        ended.set()

    nursery.start_soon(run)
    await quiet(*devices)
    yield devices
    scope.cancel()
    await ended.wait()
    for device in devices:
        device.close()


def fill(device: ExchangeDevice, folder: str, count: int) -> list[int]:
    """A folder with so many empty files; their inodes."""
    parent = device.make_folder(folder)
    with device.database.transaction():
        return [
            device.replica.create(parent, f"f{number}", Kind.FILE, mode=0o644, uid=None, gid=None, published=True).ino
            for number in range(count)
        ]


async def test_replacing_files_by_rename_is_deleting_them(devices: list[ExchangeDevice]) -> None:
    laptop, desk = devices
    fill(laptop, "p", 600)
    fill(laptop, "q", 600)
    await quiet(laptop, desk)
    p, q = laptop.node("p").ino, laptop.node("q").ino
    with laptop.database.transaction():
        for number in range(600):
            laptop.replica.rename(q, f"f{number}", p, f"f{number}", RenameMode.REPLACE)
    await until(laptop.exchange.deletions.tripped)
    assert laptop.exchange.deletions.tripped()[0].files == 600
    assert len(desk.paths()) == 1202


async def test_a_deletion_is_that_of_the_last_name(devices: list[ExchangeDevice]) -> None:
    """Taking one of two names away deletes nothing; the other one counts then."""
    laptop, desk = devices
    inodes = fill(laptop, "p", 600)
    links = laptop.make_folder("links")
    with laptop.database.transaction():
        for number, ino in enumerate(inodes):
            laptop.replica.link(ino, links, f"l{number}")
    await quiet(laptop, desk)
    p = laptop.node("p").ino
    with laptop.database.transaction():
        for number in range(600):
            laptop.replica.unlink(p, f"f{number}")
    await quiet(laptop, desk)
    assert len(desk.paths()) == 602
    with laptop.database.transaction():
        for number in range(600):
            laptop.replica.unlink(links, f"l{number}")
    await until(laptop.exchange.deletions.tripped)
    assert len(desk.paths()) == 602


async def lists_anew(laptop: ExchangeDevice, desk: ExchangeDevice, gone: int) -> None:
    """Of 40 files, `gone` are deleted while `desk` is away, and the tombstones collected."""
    fill(laptop, "p", 40)
    await quiet(laptop, desk)
    desk.link.set_down(True)
    await until(lambda: desk.connection.state is State.UNREACHABLE)
    p = laptop.node("p").ino
    with laptop.database.transaction():
        for number in range(gone):
            laptop.replica.unlink(p, f"f{number}")
    await quiet(laptop)


async def test_a_listing_that_lacks_most_files_deletes_nothing_until_it_is_confirmed(
    service: WireService, devices: list[ExchangeDevice]
) -> None:
    laptop, desk = devices
    await lists_anew(laptop, desk, 30)
    service.tree.collect()
    desk.link.set_down(False)
    await until(desk.exchange.deletions.tripped)
    assert len(desk.paths()) == 41
    assert desk.exchange.deletions.confirm() == 30
    await quiet(desk)
    assert desk.paths() == laptop.paths()


async def test_a_listing_that_lacks_some_files_deletes_them(service: WireService, devices: list[ExchangeDevice]) -> None:
    laptop, desk = devices
    await lists_anew(laptop, desk, 8)
    service.tree.collect()
    desk.create("while away", "text")
    desk.link.set_down(False)
    await quiet(laptop, desk)
    assert desk.paths() == laptop.paths()
    assert len(desk.paths()) == 34


async def test_a_listing_that_lacks_what_was_not_removed_stops_the_exchange(
    service: WireService, devices: list[ExchangeDevice]
) -> None:
    """One file, which is newer than any tombstone that was forgotten: it cannot have been removed without one."""
    laptop, desk = devices
    await lists_anew(laptop, desk, 8)
    service.tree.collect()
    desk.link.set_down(False)
    await quiet(laptop, desk)
    laptop.create("new", "text")
    await quiet(laptop, desk)
    desk.link.set_down(True)
    await until(lambda: desk.connection.state is State.UNREACHABLE)
    laptop.remove("new")
    await quiet(laptop)
    (key,) = [key for key in service.tree.entries if key[1] == "new"]
    del service.tree.entries[key]  # lost, and not collected
    desk.exchange.store.forget_cursor()
    desk.link.set_down(False)
    await until(lambda: desk.connection.state is State.STOPPED)
    assert desk.paths()["new"] == "text"
