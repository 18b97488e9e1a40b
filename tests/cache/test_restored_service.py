"""The real service, restored from a copy of its data folder under running drives: what a person's word brings back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from cache.model import Connection
from remote.server.epochs import begin_epoch
from tests.support.devices import Home, log_in, register, until
from tests.support.service import start_service


async def test_everything_that_two_devices_have_is_on_the_restored_service_again(tmp_path: Path) -> None:
    """Also bytes that its object store lost, as far as a device still has them in its cache."""
    service = start_service(tmp_path / "service")
    email = await register(service.url)
    homes = [Home(tmp_path / name, service.url, await log_in(service.url, email, name)) for name in ("desk", "laptop")]
    old, edited, new = os.urandom(300_000), os.urandom(300_000), os.urandom(400_000)
    async with homes[0].started() as desk, homes[1].started() as laptop:
        desk.make_folder("folder")
        await desk.write("folder/edited", old)
        await desk.write("kept", old)
        await desk.sync()
        await until(lambda: laptop.node("kept"))
        service.stop()
        shutil.copytree(tmp_path / "service", tmp_path / "copy")
        with start_service(tmp_path / "service", port=service.port) as service:
            await desk.write("folder/edited", edited)
            await desk.write("new", new)
            await desk.write("small", b"small")
            await desk.sync()
            await until(lambda: laptop.node("small") and laptop.node("new"))
            service.stop()
        shutil.rmtree(tmp_path / "service")
        (tmp_path / "copy").rename(tmp_path / "service")
        begin_epoch(tmp_path / "service")
        with start_service(tmp_path / "service", port=service.port):
            both = (desk, laptop)
            await until(lambda: all(device.drive.status().connection is Connection.STOPPED for device in both))
            assert set(laptop.tree()) == {"folder", "folder/edited", "kept", "new", "small"}
            await laptop.write("since", b"written while stopped")
            for device in (laptop, desk):
                found = device.drive.reconnect(go_on=False)
                assert found is not None
                assert found.files in (4, 5)
                assert device.drive.reconnect(go_on=True) == found
                assert device.drive.reconnect(go_on=True) is None
            await desk.sync()
            await laptop.sync()
            everything = {
                "folder/edited": edited,
                "kept": old,
                "new": new,
                "small": b"small",
                "since": b"written while stopped",
            }
            await until(lambda: set(desk.tree()) == set(laptop.tree()) == {*everything, "folder"})
            third = Home(tmp_path / "third", service.url, await log_in(service.url, email, "third"))
            async with third.started() as other:
                await until(lambda: set(other.tree()) == {*everything, "folder"})
                assert await other.contents() == everything


async def test_what_only_a_cache_holds_stays_there_until_it_was_sent_again(tmp_path: Path) -> None:
    """The service has no room for it at first, and other files are read meanwhile that fill the whole cache."""
    service = start_service(tmp_path / "service")
    email = await register(service.url)
    desk = Home(tmp_path / "desk", service.url, await log_in(service.url, email, "desk"))
    other, lost = os.urandom(3_000_000), os.urandom(300_000)
    async with desk.started(cache_size=2_000_000) as device:
        await device.write("other", other)
        await device.sync()
        service.stop()
        shutil.copytree(tmp_path / "service", tmp_path / "copy")
        with start_service(tmp_path / "service", port=service.port) as service:
            await device.write("lost", lost)
            await device.sync()
            service.stop()
        shutil.rmtree(tmp_path / "service")
        (tmp_path / "copy").rename(tmp_path / "service")
        begin_epoch(tmp_path / "service")
        quota = set_quota(tmp_path / "service", 0)
        with start_service(tmp_path / "service", port=service.port):
            await until(lambda: device.drive.status().connection is Connection.STOPPED)
            assert device.drive.reconnect(go_on=True) is not None
            await until(lambda: device.drive.status().cache.pinned >= len(lost))
            for _ in range(2):
                assert await device.read("other") == other
            assert await device.drive.evict(device.drive.replica.resolve("lost").ino) == 0
            assert await device.read("lost") == lost
            assert set_quota(tmp_path / "service", quota) == 0
            await device.sync()
            third = Home(tmp_path / "third", service.url, await log_in(service.url, email, "third"))
            async with third.started() as there:
                await until(lambda: there.node("lost"))
                assert await there.read("lost") == lost
            await until(lambda: device.drive.status().cache.pinned < len(lost))


def set_quota(data: Path, quota: int | None) -> int | None:
    """Bytes, or None: the tier's; what it was before."""
    with closing(sqlite3.connect(data / "aloft.db", timeout=60)) as sql, sql:
        (before,) = sql.execute("SELECT own_quota_bytes FROM accounts").fetchone()
        sql.execute("UPDATE accounts SET own_quota_bytes = ?", (quota,))
    return before
