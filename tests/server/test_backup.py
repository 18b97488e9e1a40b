"""Backups of a data folder: whole, incremental, never half done, and what is restored from them goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import delete

from remote.server import backupfolder
from remote.server.backup import back_up, restore
from remote.server.backupfolder import CannotBackUp
from remote.server.config import ServerConfig
from remote.server.database.schema import versions
from remote.server.garbage import GRACE_NS, Garbage
from remote.server.objects.local import LocalStore
from tests.support.wire import Clock, Device, World, create, new_id


@pytest.fixture
async def world(tmp_path: Path):  # type: ignore[no-untyped-def]
    world = World.open(tmp_path / "data")
    yield world
    await world.close()


@pytest.fixture
async def ada(world: World) -> Device:
    return await world.device()


def config(world: World) -> ServerConfig:
    return world.service.config


async def reopened(folder: Path, clock: Clock) -> tuple[World, Device]:
    world = World.open(folder)
    world.clock.now_ns = clock.now_ns
    world.accounts["ada@example.org"] = {}
    return world, await world.device()


async def content(device: Device, path: str) -> bytes:
    response = await device.send("GET", "/v1/files/content", params={"path": path})
    assert response.status_code == 200, response.text
    return response.content


async def test_what_was_backed_up_comes_back_in_a_new_epoch(world: World, ada: Device, tmp_path: Path) -> None:
    large, late = os.urandom(50_000), os.urandom(50_000)
    await ada.store(ada.space, "large", new_id(), large)
    await ada.accept(create(ada.space, "small", new_id(), b"small"))
    report = back_up(config(world), tmp_path / "backup")
    assert (report.objects, report.copied, report.lost) == (1, 1, [])
    await ada.store(ada.space, "late", new_id(), late)
    restore(ServerConfig(tmp_path / "again"), tmp_path / "backup")
    other, device = await reopened(tmp_path / "again", world.clock)
    try:
        assert other.epoch != world.epoch
        assert (await content(device, "/large"), await content(device, "/small")) == (large, b"small")
        assert (await device.send("GET", "/v1/files/metadata", params={"path": "/late"})).status_code == 404
        await device.store(device.space, "late", new_id(), late)
        assert await content(device, "/late") == late
    finally:
        await other.close()


async def test_only_what_is_new_is_copied_and_what_nothing_needs_goes(world: World, ada: Device, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    await ada.store(ada.space, "a", new_id(), os.urandom(5000))
    back_up(config(world), target)
    await ada.store(ada.space, "b", new_id(), os.urandom(6000))
    report = back_up(config(world), target)
    assert (report.objects, report.copied, report.copied_bytes, report.removed) == (2, 1, 6000, 0)
    with world.service.database.write() as connection:
        connection.execute(delete(versions))
        connection.exec_driver_sql("DELETE FROM inodes WHERE size = 5000")
    Garbage(world.service.database, world.service.store, world.clock).collect()
    report = back_up(config(world), target)
    assert (report.objects, report.removed) == (1, 1)
    world.clock.advance(GRACE_NS / 10**9)
    Garbage(world.service.database, world.service.store, world.clock).collect()
    assert back_up(config(world), target).lost == []


async def test_one_that_is_interrupted_is_the_last_one(
    world: World, ada: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, first = tmp_path / "backup", os.urandom(5000)
    await ada.store(ada.space, "first", new_id(), first)
    back_up(config(world), target)
    await ada.store(ada.space, "second", new_id(), os.urandom(6000))

    def full(*_: object) -> bool:
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "write", full)
        with pytest.raises(OSError, match="full"):
            back_up(config(world), target)
    restore(ServerConfig(tmp_path / "again"), target)
    other, device = await reopened(tmp_path / "again", world.clock)
    try:
        assert await content(device, "/first") == first
        assert (await device.send("GET", "/v1/files/metadata", params={"path": "/second"})).status_code == 404
    finally:
        await other.close()


async def test_a_restore_that_was_interrupted_leaves_no_service_and_can_be_repeated(
    world: World, ada: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(5000)
    await ada.store(ada.space, "f", new_id(), body)
    back_up(config(world), tmp_path / "backup")
    with monkeypatch.context() as patched:
        patched.setattr(backupfolder, "begin_epoch", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            restore(ServerConfig(tmp_path / "again"), tmp_path / "backup")
    assert not (tmp_path / "again" / "aloft.db").exists()
    report = restore(ServerConfig(tmp_path / "again"), tmp_path / "backup")
    assert report.copied == 0
    other, device = await reopened(tmp_path / "again", world.clock)
    try:
        assert await content(device, "/f") == body
    finally:
        await other.close()


async def test_damaged_and_missing_objects_are_named(world: World, ada: Device, tmp_path: Path) -> None:
    await ada.store(ada.space, "a", new_id(), os.urandom(5000))
    await ada.store(ada.space, "b", new_id(), os.urandom(5000))
    one, other = sorted((tmp_path / "data" / "objects").glob("*/*/*.0"))
    one.unlink()
    with other.open("r+b") as file:
        file.write(b"damage")
    report = back_up(config(world), tmp_path / "backup")
    assert {key.partition("/")[2] for key in report.lost} == {one.name, other.name}


async def test_what_cannot_be_is_said(world: World, ada: Device, tmp_path: Path) -> None:
    with pytest.raises(CannotBackUp, match="own folder"):
        back_up(config(world), tmp_path / "data" / "backup")
    with pytest.raises(CannotBackUp, match="no service"):
        back_up(ServerConfig(data=tmp_path / "nothing"), tmp_path / "b")
    with pytest.raises(CannotBackUp, match="no whole backup"):
        restore(ServerConfig(tmp_path / "new"), tmp_path / "nothing")
    back_up(config(world), tmp_path / "b")
    with pytest.raises(CannotBackUp, match="already"):
        restore(ServerConfig(tmp_path / "data"), tmp_path / "b")
