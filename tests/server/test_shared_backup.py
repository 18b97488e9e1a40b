"""Backups of a service with PostgreSQL: as those of a data folder are, and what is restored starts only when all of it is there.

`tests/contract/test_backup_of_s3.py` does the same with real object stores.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from remote.server import backup
from remote.server.backup import BackedUp, back_up, restore
from remote.server.backupfolder import CannotBackUp
from remote.server.config import ServerConfig
from remote.server.database import keys as key_rows
from remote.server.folder import DataFolderError
from remote.server.garbage import GRACE_NS, Garbage
from remote.server.objects.store import StoreUnavailable
from tests.support.postgresql import Cluster
from tests.support.schemas import go_back_to_0015
from tests.support.wire import Device, World, create, new_id, remove


@pytest.fixture
def new_database(postgresql: Cluster) -> Iterator[Callable[[], str]]:
    """URLs of databases that no service has seen."""
    made: list[str] = []

    def make() -> str:
        made.append(postgresql.empty_database())
        return made[-1]

    yield make
    for url in made:
        postgresql.drop_database(url)


@pytest.fixture
async def world(tmp_path: Path, new_database: Callable[[], str]) -> AsyncIterator[World]:
    world = World.open(tmp_path / "data", database=new_database())
    yield world
    await world.close()


@pytest.fixture
async def ada(world: World) -> Device:
    return await world.device()


@pytest.fixture
def target(tmp_path: Path, new_database: Callable[[], str]) -> ServerConfig:
    """Where a backup is restored: an empty database, and a folder for the objects."""
    return ServerConfig(tmp_path / "again", database=new_database(), password_memory_kib=64)


def config(world: World) -> ServerConfig:
    return world.service.config


async def content(device: Device, path: str) -> bytes | None:
    response = await device.send("GET", "/v1/files/content", params={"path": path})
    return response.content if response.status_code == 200 else None


async def reopened(config: ServerConfig, old: World, device: Device) -> tuple[World, Device]:
    """The service that was restored; and the same device, with the tokens that it had."""
    world = World.open(config.data, database=config.database)
    world.clock.now_ns = old.clock.now_ns
    return world, Device(world, device.account, device.device, device.tokens, device.installation)


async def test_what_was_backed_up_comes_back_in_a_new_epoch(
    world: World, ada: Device, target: ServerConfig, tmp_path: Path
) -> None:
    large, late = os.urandom(50_000), os.urandom(50_000)
    await ada.store(ada.space, "large", new_id(), large)
    await ada.accept(create(ada.space, "small", new_id(), b"small"))
    told: list[tuple[int, int]] = []
    report = back_up(config(world), tmp_path / "backup", lambda done, total: told.append((done, total)))
    assert (report.objects, report.copied, report.lost, told) == (1, 1, [], [(1, 1)])
    assert {file.name for file in (tmp_path / "backup").iterdir()} == {
        "aloft.dump",
        "backup.lock",
        "folders.json",
        "master.key",
        "objects",
    }
    assert (tmp_path / "backup" / "aloft.dump").stat().st_mode & 0o077 == 0, "the keys are in it"
    await ada.store(ada.space, "late", new_id(), late)
    assert restore(target, tmp_path / "backup").copied == 1
    other, device = await reopened(target, world, ada)
    try:
        assert other.epoch != world.epoch
        assert (await content(device, "/large"), await content(device, "/small")) == (large, b"small")
        assert await content(device, "/late") is None
        device.number, device.replica = 0, new_id()
        await device.store(device.space, "late", new_id(), late)
        assert await content(device, "/late") == late
        with world.service.database.read() as one, other.service.database.read() as two:
            assert key_rows.load(one, "tokens") == key_rows.load(two, "tokens")
    finally:
        await other.close()


async def test_only_what_is_new_is_copied_and_what_nothing_needs_goes(world: World, ada: Device, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    await ada.store(ada.space, "a", gone := new_id(), os.urandom(5000))
    back_up(config(world), backup)
    await ada.store(ada.space, "b", new_id(), os.urandom(6000))
    report = back_up(config(world), backup)
    assert (report.objects, report.copied, report.copied_bytes, report.removed) == (2, 1, 6000, 0)
    rows = (await ada.listing())[1]
    await ada.accept(remove(ada.space, "a", gone, seen=rows[gone]["content_rev"]))
    assert (await ada.send("DELETE", "/v1/trash")).status_code == 200
    Garbage(world.service.database, world.service.store, world.clock).collect()
    report = back_up(config(world), backup)
    assert (report.objects, report.copied, report.removed, report.lost) == (1, 0, 1, [])
    world.clock.advance(GRACE_NS / 10**9)
    Garbage(world.service.database, world.service.store, world.clock).collect()
    assert back_up(config(world), backup).lost == []


async def test_one_that_is_interrupted_is_the_last_one(
    world: World, ada: Device, target: ServerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = os.urandom(5000)
    await ada.store(ada.space, "first", new_id(), first)
    back_up(config(world), tmp_path / "backup")
    await ada.store(ada.space, "second", new_id(), os.urandom(6000))

    def away(*_: object) -> BackedUp:
        raise StoreUnavailable("the object store does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(backup, "_copy", away)
        with pytest.raises(StoreUnavailable):
            back_up(config(world), tmp_path / "backup")
    restore(target, tmp_path / "backup")
    other, device = await reopened(target, world, ada)
    try:
        assert (await content(device, "/first"), await content(device, "/second")) == (first, None)
    finally:
        await other.close()


async def test_no_service_starts_on_what_was_half_restored_and_it_can_be_repeated(
    world: World, ada: Device, target: ServerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(5000)
    await ada.store(ada.space, "f", new_id(), body)
    back_up(config(world), tmp_path / "backup")

    def dies(*_: object) -> BackedUp:
        raise KeyboardInterrupt

    for place in ("_copy", "begin_epoch_in"):
        with monkeypatch.context() as patched:
            patched.setattr(backup, place, dies)
            with pytest.raises(KeyboardInterrupt):
                restore(target, tmp_path / "backup")
        with pytest.raises(DataFolderError, match="run aloft admin restore again"):
            World.open(target.data, database=target.database)
    report = restore(target, tmp_path / "backup")
    assert (report.objects, report.copied) == (1, 0), "the object was put back before the second death"
    other, device = await reopened(target, world, ada)
    try:
        assert other.epoch != world.epoch
        assert await content(device, "/f") == body
    finally:
        await other.close()


async def test_a_database_with_something_in_it_is_overwritten_only_if_that_is_said(
    world: World, ada: Device, target: ServerConfig, tmp_path: Path
) -> None:
    body = os.urandom(5000)
    await ada.store(ada.space, "f", new_id(), body)
    back_up(config(world), tmp_path / "backup")
    occupied = World.open(target.data, database=target.database)
    await occupied.device("eve@example.org")
    with pytest.raises(CannotBackUp, match="something in the database already"):
        restore(target, tmp_path / "backup")
    with pytest.raises(CannotBackUp, match="a service is connected"):
        restore(target, tmp_path / "backup", overwrite=True)
    assert (await occupied.try_login("eve@example.org", new_id())).status_code == 200
    await occupied.close()
    restore(target, tmp_path / "backup", overwrite=True)
    other, device = await reopened(target, world, ada)
    try:
        assert await content(device, "/f") == body
        assert (await other.try_login("eve@example.org", new_id())).status_code == 401
        assert back_up(target, tmp_path / "another").lost == []
    finally:
        await other.close()


async def test_an_older_backup_is_migrated_when_it_is_restored(
    world: World, ada: Device, target: ServerConfig, tmp_path: Path
) -> None:
    with world.service.database.write() as connection:
        go_back_to_0015(connection)
    back_up(config(world), tmp_path / "backup")
    restore(target, tmp_path / "backup")
    other = World.open(target.data, database=target.database)
    try:
        assert other.epoch != world.epoch
        with other.service.database.read() as connection:
            assert len(key_rows.load(connection, "tokens")) == 1
    finally:
        await other.close()


async def test_damaged_and_missing_objects_are_named_and_never_put_back(
    world: World, ada: Device, target: ServerConfig, tmp_path: Path
) -> None:
    for name in "abcd":
        await ada.store(ada.space, name, new_id(), os.urandom(5000))
    gone, wrong, *others = sorted((tmp_path / "data" / "objects").glob("*/*/*.0"))
    gone.unlink()
    with wrong.open("r+b") as file:
        file.write(b"damage")
    report = back_up(config(world), tmp_path / "backup")
    assert {key.partition("/")[2] for key in report.lost} == {gone.name, wrong.name}
    assert report.copied == 2
    (later,) = (tmp_path / "backup" / "objects").glob(f"*/*/{others[0].name}")
    with later.open("r+b") as file:
        file.write(b"damage")
    report = restore(target, tmp_path / "backup")
    assert {key.partition("/")[2] for key in report.lost} == {gone.name, wrong.name, later.name}
    assert [file.name for file in (tmp_path / "again" / "objects").glob("*/*/*.0")] == [others[1].name]


async def test_what_cannot_be_is_said(
    world: World, target: ServerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CannotBackUp, match="own folder"):
        back_up(config(world), tmp_path / "data" / "backup")
    with pytest.raises(CannotBackUp, match="no whole backup of PostgreSQL"):
        restore(target, tmp_path / "nothing")
    with pytest.raises(CannotBackUp, match=r"cannot be used: .*objects"):
        back_up(target, tmp_path / "of nothing")
    away = ServerConfig(tmp_path / "x", database="postgresql+psycopg://nobody@/nothing?host=/nonexistent")
    with pytest.raises(CannotBackUp, match="the database nothing on this machine cannot be used"):
        back_up(away, tmp_path / "away")
    embedded = World.open(tmp_path / "embedded")
    back_up(embedded.service.config, tmp_path / "of sqlite")
    await embedded.close()
    with pytest.raises(CannotBackUp, match="another kind of database"):
        back_up(config(world), tmp_path / "of sqlite")
    back_up(config(world), tmp_path / "backup")
    with pytest.raises(CannotBackUp, match="another kind of database"):
        back_up(embedded.service.config, tmp_path / "backup")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotBackUp, match=r"pg_dump is not there: install .*postgresql-client"):
        back_up(config(world), tmp_path / "backup")


async def test_a_dump_that_fails_says_why_and_shows_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    program = tmp_path / "bin" / "pg_dump"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\necho "$@" > "$0.arguments"\necho "$PGPASSWORD" > "$0.password"\necho "server version mismatch" >&2\nexit 1\n'
    )
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    url = str(config(world).database).replace("postgres@", "postgres:geheim@")
    with pytest.raises(CannotBackUp, match="pg_dump failed: server version mismatch"):
        back_up(ServerConfig(tmp_path / "data", database=url), tmp_path / "backup")
    assert "geheim" not in program.with_name("pg_dump.arguments").read_text()
    assert program.with_name("pg_dump.password").read_text().strip() == "geheim"
    assert not (tmp_path / "backup" / "aloft.dump").exists()
