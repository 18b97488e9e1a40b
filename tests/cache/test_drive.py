"""One drive, most of the time without a service: its start and end, what it refuses, and what it says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import trio

from cache.drive import Drive, DriveOptions, WrongAccount
from cache.errors import NoEntry, Offline, TimedOut
from cache.home import HomePaths
from cache.model import Connection, FileState, Node
from cache.recovery import FOLDER
from cache.replica import unpushed_changes
from cache.store.database import DamagedDatabase
from cache.store.schema import ROOT
from remote.api import Unreachable
from remote.protocol import Kind
from tests.support.devices import QUICK, Device, until

SPACE = b"s" * 16


class NoService:
    """Nobody answers; `hangs`: not even with a refusal."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.hangs = hangs

    async def _refuse(self, *_: object, **__: object) -> NoReturn:
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        raise Unreachable("nobody answers")

    commit = changes = folder = plan_uploads = plan_downloads = manifests = put_object = get_object = account = devices = _refuse
    remove_device = _refuse


@asynccontextmanager
async def running(
    folder: Path, *, options: DriveOptions = QUICK, space: bytes = SPACE, service: NoService | None = None
) -> AsyncIterator[Device]:
    """A drive that is dropped at the end, as if its process had been killed."""
    async with trio.open_nursery() as nursery:
        drive = Drive(HomePaths.under(folder), service or NoService(), options, space=space, device="desk")
        await nursery.start(drive.run)
        yield Device("desk", drive, [])
        nursery.cancel_scope.cancel()


async def test_without_a_service_everything_that_is_here_works(tmp_path: Path) -> None:
    async with running(tmp_path) as desk:
        desk.make_folder("folder")
        await desk.write("folder/file", b"some bytes" * 10_000)
        desk.rename("folder/file", "file")
        assert await desk.contents() == {"file": b"some bytes" * 10_000}
        await until(lambda: desk.drive.status().connection is Connection.UNREACHABLE)
        status = desk.drive.status()
        assert (status.queue.files, status.queue.bytes) == (1, 100_000)
        assert status.last_error == "nobody answers"
        assert [queued.path for queued in status.queue.first] == ["file"]
        report = await desk.drive.sync()
        assert (report.complete, report.reason) == (False, "nobody answers")
        assert report.waiting == ("file", "folder")
        assert await desk.drive.file_status(desk.drive.replica.resolve("file").ino) is FileState.DRAFT
    assert unpushed_changes(tmp_path) == 3  # the root's times, too


async def test_what_was_closed_is_there_after_a_crash(tmp_path: Path) -> None:
    async with running(tmp_path) as desk:
        await desk.write("small", b"small")
        await desk.write("large", b"large" * 100_000)
        gone = desk.drive.files.open(desk.drive.replica.resolve("large").ino, writable=True)
        await gone.write(0, b"never flushed")
        _create(desk, "never closed")
    async with running(tmp_path) as desk:
        contents = await desk.contents()
        assert contents.pop("never closed") == b""
        assert contents.pop("small") == b"small"
        assert len(contents["large"]) == 500_000
        assert (await desk.drive.fsck(repair=False)).problems == ()


async def test_stopping_saves_what_open_files_hold(tmp_path: Path) -> None:
    async with running(tmp_path) as desk:
        node = await desk.write("open", b"")
        file = desk.drive.files.open(node.ino, writable=True)
        await file.write(0, b"not closed")
        await desk.drive.stop()
    async with running(tmp_path) as desk:
        assert await desk.contents() == {"open": b"not closed"}


async def test_a_deleted_file_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as desk:
        node = await desk.write("file", b"x" * 100_000)
        held = await desk.write("held by the kernel", b"x" * 100_000)
        desk.drive.is_held_by_kernel = lambda ino: ino == held.ino
        desk.remove("file")
        desk.remove("held by the kernel")
        desk.drive.replica.forget(node.ino)
        await until(lambda: not _exists(desk, node.ino))
        assert _exists(desk, held.ino)
        desk.drive.is_held_by_kernel = lambda ino: False
        desk.drive.replica.forget(held.ino)
        await until(lambda: not _exists(desk, held.ino))
        await until(lambda: list((tmp_path / "drafts").iterdir()) == [])


async def test_a_damaged_replica_is_refused_and_its_drafts_come_back(tmp_path: Path) -> None:
    async with running(tmp_path) as desk:
        await desk.write("large", b"large" * 100_000)
    database = tmp_path / "replica.db"
    with database.open("r+b") as file:
        file.write(b"noise" * 1000)
    with pytest.raises(DamagedDatabase, match="move replica"):
        Drive(HomePaths.under(tmp_path), NoService(), QUICK, space=SPACE, device="desk")
    database.rename(tmp_path / "damaged")
    async with running(tmp_path) as desk:
        assert desk.drive.status().recovered == (f"{FOLDER}/draft 1",)
        assert await desk.contents() == {f"{FOLDER}/draft 1": b"large" * 100_000}


async def test_another_accounts_home_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path):
        pass
    with pytest.raises(WrongAccount):
        Drive(HomePaths.under(tmp_path), NoService(), QUICK, space=b"o" * 16, device="desk")
    async with running(tmp_path):
        pass


async def test_wishes_survive_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, options=replace(QUICK, offline=True)) as desk:
        assert desk.drive.status().connection is Connection.OFFLINE
        desk.drive.pause()
    async with running(tmp_path) as desk:
        assert desk.drive.status().connection is Connection.OFFLINE
        assert desk.drive.status().paused
        desk.drive.set_offline(False)
        desk.drive.resume()
        assert not desk.drive.status().paused
        await until(lambda: desk.drive.status().connection is Connection.UNREACHABLE)


async def test_a_first_listing_that_cannot_come_is_said(tmp_path: Path) -> None:
    async with running(tmp_path, options=replace(QUICK, offline=True)) as desk:
        assert not desk.drive.replica.is_listed(ROOT)
        with pytest.raises(Offline):
            await desk.drive.list_first(ROOT)
        folder = desk.make_folder("made here")
        assert desk.drive.replica.is_listed(folder.ino)


async def test_a_first_listing_is_not_waited_for_longer_than_the_budget(tmp_path: Path) -> None:
    async with running(tmp_path, options=replace(QUICK, io_timeout=0.05), service=NoService(hangs=True)) as desk:
        with pytest.raises(TimedOut):
            await desk.drive.list_first(ROOT)


async def test_sync_waits_no_longer_than_asked(tmp_path: Path) -> None:
    async with running(tmp_path, service=NoService(hangs=True)) as desk:
        await desk.write("file", b"x")
        report = await desk.drive.sync(0.05)
        assert not report.complete
        assert report.waiting == ("file",)


async def test_what_is_still_being_written_is_not_waited_for(tmp_path: Path) -> None:
    async with running(tmp_path) as desk:
        node = _create(desk, "new")
        file = desk.drive.files.open(node.ino, writable=True)
        await file.write(0, b"x" * 200_000)
        report = await desk.drive.sync()
        assert "new" not in report.waiting
        await file.flush()
        report = await desk.drive.sync()
        assert "new" in report.waiting
        file.release()


async def test_pinned_and_evicted(tmp_path: Path) -> None:
    async with running(tmp_path) as desk:
        node = await desk.write("file", b"x" * 10)
        await desk.drive.pin(node.ino)
        await desk.drive.unpin(node.ino)
        assert await desk.drive.evict(node.ino) == 0
        assert await desk.read("file") == b"x" * 10


def _create(desk: Device, name: str) -> Node:
    """CREATE, and no close yet."""
    return desk.drive.replica.create(ROOT, name, Kind.FILE, mode=0o644, uid=None, gid=None)


def _exists(desk: Device, ino: int) -> bool:
    try:
        desk.drive.replica.node(ino)
    except NoEntry:
        return False
    return True
