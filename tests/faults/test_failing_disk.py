"""A disk that answers with EIO: who writes or syncs hears it, what was there stays, the log has no traceback, and when the disk
is well again everything goes up."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.failing_disk import FailingDisk, failing_disk
from tests.faults.pair import arrives, read, sync, wait_for_status
from tests.support.mounts import Device, Devices, Service
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

DRAFTS = "[0-9]*"
LOG = "replica.db-wal"


@dataclass
class World:
    """Two devices: the home of the first is on a disk that can fail."""

    disk: FailingDisk
    one: Device
    two: Device
    a: Path
    b: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, shared_service: Service) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("failing")
    with failing_disk(folder) as disk:
        devices = Devices(folder, shared_service)
        two = devices.add("two")
        one = Device(shared_service, two.email, folder, "one")
        one.home = disk.path / "home"
        one.login()
        devices.made.append(one)
        yield World(disk, one, two, one.mount(), two.mount())
        disk.mend()
        wrong = devices.finish()
    assert not wrong, "\n".join(wrong)


@pytest.fixture(autouse=True)
def the_disk_is_well(world: World) -> Iterator[None]:
    yield
    world.disk.mend()


def refused() -> Any:
    return pytest.raises(OSError, check=lambda error: error.errno == errno.EIO)


def fsynced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def test_bytes_that_cannot_be_written(world: World) -> None:
    a, b = world.a, world.b
    (a / "before").write_bytes(before := os.urandom(300_000))
    world.disk.fail(f"write {DRAFTS}", f"create {DRAFTS}")
    with refused():
        fsynced(a / "large", os.urandom(300_000))
    (a / "small").write_bytes(b"is a row")
    assert read(a / "before") == before
    arrives(b / "small", b"is a row")
    world.disk.mend()
    (a / "large").write_bytes(large := os.urandom(300_000))
    sync(world.one)
    for name, content in {"before": before, "large": large}.items():
        arrives(b / name, content)


def test_bytes_that_cannot_be_synced(world: World) -> None:
    """The kernel says so once, and would then take them for written: it is the drive that writes them again."""
    world.disk.fail(f"sync {DRAFTS}")
    content = os.urandom(300_000)
    with refused():
        fsynced(world.a / "synced", content)
    assert read(world.a / "synced") == content
    world.disk.mend()
    with (world.a / "synced").open("r+b") as file:
        os.fsync(file.fileno())
    sync(world.one)
    arrives(world.b / "synced", content)


def test_rows_that_cannot_be_synced(world: World) -> None:
    """Nothing is sent, either: a commit must be durable before."""
    world.disk.fail(f"sync {LOG}")
    content = b"a small one"
    with refused():
        fsynced(world.a / "row", content)
    wait_for_status(world.one, "the disk that holds the")
    assert read(world.b / "row") is None
    world.disk.mend()
    sync(world.one)
    arrives(world.b / "row", content)
    fsynced(world.a / "row", b"another")
    arrives(world.b / "row", b"another")


def test_rows_that_cannot_be_written(world: World) -> None:
    a = world.a
    (a / "there").write_bytes(b"there")
    sync(world.one)
    world.disk.fail(f"write {LOG}")
    with refused():
        (a / "new").write_bytes(b"new")
    with refused():
        (a / "there").unlink()
    assert read(a / "there") == b"there"
    assert "there" in os.listdir(a)
    world.disk.mend()
    (a / "new").write_bytes(b"in the end")
    (a / "there").unlink()
    sync(world.one)
    arrives(world.b / "new", b"in the end")
    wait_until(lambda: not (world.b / "there").exists())


def test_a_draft_that_cannot_be_read(world: World) -> None:
    world.one.aloft("offline")
    (world.a / "unread").write_bytes(content := os.urandom(300_000))
    world.disk.fail(f"read {DRAFTS}")
    world.one.aloft("online")
    wait_for_status(world.one, "the disk that holds the")
    world.disk.mend()
    sync(world.one)
    arrives(world.b / "unread", content)


def test_a_cache_that_cannot_be_used(world: World) -> None:
    """What is not cached is read from memory, what was is fetched again."""
    a, b = world.a, world.b
    contents = {f"elsewhere {number}": os.urandom(100_000) for number in range(2)}
    for name, content in contents.items():
        (b / name).write_bytes(content)
    arrives(a / "elsewhere 0", contents["elsewhere 0"])
    wait_until((a / "elsewhere 1").exists)
    world.disk.fail("write *.val", "create *.val", "read *.val", "write cache.db*", "sync cache.db*")
    for name, content in contents.items():
        arrives(a / name, content)
