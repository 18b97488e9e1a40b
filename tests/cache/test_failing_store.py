"""A store that refuses, stalls or asks for patience: each transfer ends or goes on as it must, and the others do not notice."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import pytest
import trio
from trio.testing import MockClock

from cache.connection import DOUBTED_AFTER, Connection
from cache.drive import SYNC_PATIENCE, Drive
from cache.errors import DiskFull, TimedOut, Unavailable
from cache.home import HomePaths
from cache.model import Connection as State
from remote.api import LinkExpired, Overloaded, RemoteError, StoreUnavailable, Unreachable
from remote.protocol import Link
from tests.cache.test_downloads import on_service
from tests.support.contents import Contents, TrioClock, until
from tests.support.devices import QUICK, Device
from tests.support.memory_service import MemoryService

MIB = 2**20


class Links(MemoryService):
    """Each link is good once more than `expired` says."""

    def __init__(self) -> None:
        super().__init__()
        self.expired: set[int] = set()
        self.used: list[int] = []
        self._given: dict[int, int] = {}

    async def get_object(self, link: Link, length: int) -> bytearray:
        self._check(link)
        return await super().get_object(link, length)

    async def put_object(self, link: Link, body: bytes) -> None:
        self._check(link)
        await super().put_object(link, body)

    def _check(self, link: Link) -> None:
        number = self._given.setdefault(id(link), len(self._given))
        self.used.append(number)
        if number in self.expired:
            raise LinkExpired("the store refuses the link")


class Refusing:
    """Requests of these kinds fail, for as long as there is an error."""

    def __init__(self, service: MemoryService, error: Callable[[], Exception], *names: str) -> None:
        self.error: Callable[[], Exception] | None = error
        self.struck = 0
        self._names = names
        service.before = self._before

    async def _before(self, name: str) -> None:
        if name in self._names and self.error is not None:
            self.struck += 1
            raise self.error()


async def test_an_expired_link_is_asked_for_anew_by_a_download(tmp_path: Path) -> None:
    service = Links()
    content, manifest = on_service(service, 1)
    device = Contents(tmp_path / "a", service)
    service.expired = {0}
    async with device.running(uploads=False):
        assert await device.read(device.receive("file", manifest)) == content
    assert service.used == [0, 1]
    assert service.traffic.download_plans == 2


async def test_links_that_are_always_refused_are_not_asked_for_again_and_again(tmp_path: Path) -> None:
    service = Links()
    _, manifest = on_service(service, 1)
    device = Contents(tmp_path / "a", service)
    service.expired = set(range(100))
    async with device.running(uploads=False):
        with pytest.raises(Unavailable, match="refuses the link"):
            await device.read(device.receive("file", manifest))
    assert len(service.used) == 2


async def test_an_expired_link_is_asked_for_anew_by_an_upload(tmp_path: Path) -> None:
    service = Links()
    device = Contents(tmp_path / "a", service)
    service.expired = {0}
    async with device.running():
        await device.write(ino := device.create("file"), random.Random(1).randbytes(200_000))
        await device.push(ino)
    assert service.used == [0, 1]
    assert service.traffic.upload_plans == 2


async def test_a_store_that_asks_for_an_hour_does_not_hold_readers(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 1)
    device = Contents(tmp_path / "a", service)
    store = Refusing(service, lambda: StoreUnavailable("busy", retry_after=3600.0), "get_object")
    async with device.running(uploads=False):
        ino = device.receive("file", manifest)
        with pytest.raises(Unavailable, match="busy"):
            await device.read(ino)
        store.error = None
        assert await device.read(ino) == content, "and the next reader does not wait for what the last one was told"


async def test_opening_a_cached_chunk_is_under_the_budget(tmp_path: Path, autojump_clock: MockClock) -> None:
    """As when the disk is so slow that all threads of the cache wait for it."""
    service = MemoryService()
    _, manifest = on_service(service, 1)
    device = Contents(tmp_path / "a", service)

    async def never(*_: object) -> NoReturn:
        await trio.sleep_forever()

    device.chunks.open = never  # type: ignore[method-assign]
    async with device.running(uploads=False):
        with pytest.raises(TimedOut):
            await device.read(device.receive("file", manifest))


@pytest.mark.parametrize(
    "error",
    [
        lambda: StoreUnavailable("busy", retry_after=3600.0),
        lambda: StoreUnavailable("away"),
        lambda: RuntimeError("nobody foresaw this"),
    ],
)
@pytest.mark.parametrize("size", [20_000, 200_000])
async def test_a_failing_upload_says_so_and_lets_others_pass(tmp_path: Path, error: Callable[[], Exception], size: int) -> None:
    service = MemoryService()
    device = Contents(tmp_path / "a", service)
    store = Refusing(service, error, "put_object")
    async with device.running():
        await device.write(ino := device.create("large"), random.Random(1).randbytes(size))
        await until(lambda: device.uploads.trouble is not None)
        assert str(error()) in (device.uploads.trouble or "")
        assert [str(error()) in (queued.error or "") for queued in device.uploads.queue()] == [True]
        await device.write(other := device.create("small"), b"tiny")  # needs no object
        await device.push(other)
        store.error = None
        device.uploads.skip_quiet()  # as `aloft sync` does: an hour is too long
        await device.push(ino)
        assert device.uploads.trouble is None
        assert device.uploads.queue() == []
    assert store.struck < 20


async def test_an_upload_that_is_told_to_wait_holds_no_turn(tmp_path: Path) -> None:
    service = MemoryService()
    device = Contents(tmp_path / "a", service)
    Refusing(service, lambda: StoreUnavailable("busy", retry_after=600.0), "put_object")
    async with device.running():
        for number in range(20):
            await device.write(device.create(f"file {number}"), random.Random(number).randbytes(100_000))
        await until(lambda: all(queued.error for queued in device.uploads.queue()))
        assert device.sender.turns.active == 0


async def test_an_upload_that_stalls_holds_its_turn_for_one_attempt(tmp_path: Path, mock_clock: MockClock) -> None:
    """The next one is made from the queue, where others come in between and the status says why."""
    service = MemoryService()
    device = Contents(tmp_path / "a", service)
    stalls = 0

    async def stall(name: str) -> None:
        nonlocal stalls
        if name == "put_object":
            stalls += 1
            mock_clock.jump(30.0)
            raise StoreUnavailable("no progress for 30 seconds")

    service.before = stall
    mock_clock.rate = 1.0
    async with device.running():
        await device.write(device.create("large"), random.Random(1).randbytes(200_000))
        await until(lambda: device.uploads.trouble is not None)
        assert (stalls, device.uploads.trouble) == (1, "no progress for 30 seconds")
        assert device.sender.turns.active == 0


# ------------------------------------------------------------------------------------------------------- the connection


class Values(dict[str, object]):
    def meta(self, key: str, default: object = None) -> object:
        return self.get(key, default)

    def set_meta(self, key: str, value: object) -> None:
        self[key] = value


async def test_a_store_that_is_away_does_not_make_the_service_unreachable(autojump_clock: MockClock) -> None:
    connection = Connection(Values(), TrioClock())
    connection.went_well()
    connection.failed(StoreUnavailable("cannot connect to the store"))
    assert connection.state is State.ONLINE
    assert connection.may_push
    assert connection.last_error == "cannot connect to the store"
    assert not connection.is_doubted, "it answered a moment ago"
    await trio.sleep(2 * DOUBTED_AFTER)
    connection.failed(StoreUnavailable("cannot connect to the store"))
    assert connection.is_doubted, "if the network is gone, so is the service: worth a question"
    await connection.wait_doubted()
    connection.went_well()
    assert not connection.is_doubted
    connection.failed(Unreachable("nobody answers"))
    assert connection.state is State.UNREACHABLE


async def test_a_full_disk_does_not_keep_a_person_from_going_online() -> None:
    """Nor a guard from stopping the exchange."""

    class Full(Values):
        def set_meta(self, key: str, value: object) -> None:
            raise DiskFull("no room for this")

    connection = Connection(Full({"offline": True}), TrioClock())
    connection.set_offline(False)
    assert connection.state is State.CONNECTING
    connection.set_paused(True)
    assert connection.paused
    connection.stop("the service lost data")
    assert connection.state is State.STOPPED


# ------------------------------------------------------------------------------------------------------------ the drive


class Answers:
    """A service on which every call succeeds or fails as `fate` says; there is nothing on it."""

    def __init__(self, fate: Callable[[], RemoteError]) -> None:
        self._fate = fate

    async def _fail(self, *_: object, **__: object) -> NoReturn:
        await trio.lowlevel.checkpoint()
        raise self._fate()

    commit = changes = folder = plan_uploads = plan_downloads = manifests = put_object = get_object = account = devices = _fail
    remove_device = _fail


async def with_drive(folder: Path, fate: Callable[[], RemoteError], use: Callable[[Device], Awaitable[None]]) -> Drive:
    async with trio.open_nursery() as nursery:
        drive = Drive(HomePaths.under(folder), Answers(fate), QUICK, TrioClock(), space=b"s" * 16, device="desk")
        await nursery.start(drive.run)
        await use(Device("desk", drive, []))
        nursery.cancel_scope.cancel()
    return drive


async def test_sync_ends_when_a_part_fails_again_and_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The service answers each question with a 503: it can be reached, and nothing ever gets there."""

    async def use(desk: Device) -> None:
        await desk.write("file", random.Random(1).randbytes(200_000))
        began = trio.current_time()
        report = await desk.drive.sync()
        assert not report.complete
        assert report.reason == "come back later"
        assert SYNC_PATIENCE <= trio.current_time() - began < 600
        status = desk.drive.status()
        assert "come back later" in status.trying_again
        assert [queued.error for queued in status.queue.first] == ["come back later"]

    await with_drive(tmp_path, lambda: Overloaded("come back later"), use)


async def test_stopping_a_drive_that_has_ended_already(tmp_path: Path) -> None:
    async def use(desk: Device) -> None:
        await desk.write("file", b"x")

    drive = await with_drive(tmp_path, lambda: Unreachable("nobody"), use)
    await drive.stop()
