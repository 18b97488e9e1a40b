"""Disks that are full: writes say so, nothing that was there is lost, files can be read and deleted, and when there is room again
everything goes up."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import behind
from tests.faults.disks import MIB, SmallDisk, small_disk
from tests.faults.pair import arrives, drive_status, read, said_by, sync, wait_for_status
from tests.support.fault_proxy import FaultProxy
from tests.support.mounts import Device, Devices, Service
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long


@dataclass
class World:
    """Two devices: all state of the first is on a small disk."""

    disk: SmallDisk
    one: Device
    two: Device
    a: Path
    b: Path


@pytest.fixture
def world(folder: Path, tmp_path: Path) -> Iterator[World]:
    with FaultProxy() as proxy, small_disk(folder / "disk", 64 * MIB) as disk:
        service = behind(proxy, tmp_path)
        devices = Devices(folder, service)
        two = devices.add("two")
        one = Device(service, two.email, disk.path, "one")
        one.point.rmdir()
        one.point = folder / "one"
        one.point.mkdir()
        one.login()
        devices.made.append(one)
        yield World(disk, one, two, one.mount(), two.mount())
        disk.empty()
        wrong = devices.finish()
        service.stop()
    assert not wrong, "\n".join(wrong)


def refused(code: int = errno.ENOSPC) -> Any:
    return pytest.raises(OSError, check=lambda error: error.errno == code)


def write_until_full(path: Path) -> int:
    """How much was written, as far as the application knows."""
    written = 0
    with refused(), path.open("wb", buffering=0) as file:
        while True:
            written += file.write(os.urandom(MIB))
            os.fsync(file.fileno())
    return written


def test_a_device_with_a_full_disk(world: World) -> None:
    disk, a, b = world.disk, world.a, world.b
    kept = {f"kept {number}": os.urandom(size) for number, size in enumerate((10, 5_000, 200_000))}
    for name, content in kept.items():
        (a / name).write_bytes(content)
    sync(world.one)
    (b / "from elsewhere").write_bytes(elsewhere := os.urandom(300_000))
    world.one.aloft("offline")
    waiting = {f"waiting {number}": os.urandom(size) for number, size in enumerate((10, 5_000, 200_000))}
    for name, content in waiting.items():
        (a / name).write_bytes(content)
    (a / "to be deleted").write_bytes(os.urandom(MIB))

    written = write_until_full(a / "too large")
    assert written > 0
    for name, content in (kept | waiting).items():
        assert read(a / name) == content
    (a / "to be deleted").unlink()
    (a / "kept 0").rename(a / "renamed")
    kept["renamed"] = kept.pop("kept 0")

    disk.fill_up()
    for name, content in (kept | waiting).items():
        assert read(a / name) == content
    assert os.listdir(a)
    with refused():
        (a / "more").write_bytes(os.urandom(300_000))
    world.one.aloft("online")
    wait_until(lambda: drive_status(world.one)["connection"] == "online")

    disk.empty()
    (a / "too large").unlink()
    (a / "small again").write_bytes(b"there is room")
    sync(world.one)
    for name, content in (kept | waiting | {"small again": b"there is room"}).items():
        arrives(b / name, content)
    assert not (b / "to be deleted").exists()
    arrives(a / "from elsewhere", elsewhere)


def test_a_full_disk_that_is_killed_and_mounted_again(world: World) -> None:
    world.one.aloft("offline")
    contents = {f"file {number}": os.urandom(size) for number, size in enumerate((10, 5_000, 2_000_000))}
    for name, content in contents.items():
        (world.a / name).write_bytes(content)
    world.disk.fill_up()
    world.one.kill()
    done = world.one.run("mount", str(world.one.point), "--upload-delay", "0")
    if done.returncode == 0:
        assert {name: read(world.a / name) for name in contents} == contents
        world.one.kill()
    else:
        assert "full" in done.stderr or "space" in done.stderr, done.stderr
    world.disk.empty()
    world.one.mount()
    assert {name: read(world.a / name) for name in contents} == contents
    world.one.aloft("online")
    sync(world.one)
    for name, content in contents.items():
        arrives(world.b / name, content)


def test_no_more_files_on_the_disk(world: World) -> None:
    """Large drafts and cached chunks are files; names and small contents are not."""
    a, b = world.a, world.b
    (a / "before").write_bytes(before := os.urandom(200_000))
    sync(world.one)
    world.disk.limit_files(0)
    (a / "small").write_bytes(b"needs no file")
    with refused():
        (a / "large").write_bytes(os.urandom(300_000))
    assert read(a / "before") == before
    (b / "elsewhere").write_bytes(elsewhere := os.urandom(200_000))
    arrives(a / "elsewhere", elsewhere)
    world.disk.any_number_of_files()
    (a / "large").write_bytes(large := os.urandom(300_000))
    sync(world.one)
    arrives(b / "large", large)
    arrives(b / "small", b"needs no file")


def test_pinning_on_a_full_disk(world: World) -> None:
    a, b = world.a, world.b
    (b / "wanted").write_bytes(content := os.urandom(3 * MIB))
    wait_until((a / "wanted").exists)
    world.disk.fill(leave=2 * MIB)
    world.one.aloft("pin", str(a / "wanted"))
    wait_until(lambda: (drive_status(world.one)["pins"]["error"] or "").find("no room") >= 0)
    assert read(a / "wanted") == content, "it can be read all the same"
    world.disk.empty()
    world.one.aloft("unpin", str(a / "wanted"))
    world.one.aloft("pin", str(a / "wanted"))
    wait_until(lambda: world.one.state(a / "wanted") == "pinned" and drive_status(world.one)["pins"]["error"] is None)


def test_a_service_with_a_full_disk(folder: Path) -> None:
    with FaultProxy() as proxy, small_disk(folder / "disk", 48 * MIB) as disk:
        service = Service(disk.path, options=["--public-url", proxy.store_url], address=proxy.url)
        service.start()
        proxy.upstream = service.port
        devices = Devices(folder, service)
        one, two = devices.add("one"), devices.add("two")
        a, b = one.mount(), two.mount()
        (a / "before").write_bytes(before := os.urandom(200_000))
        arrives(b / "before", before)
        disk.fill_up()
        contents = {f"file {number}": os.urandom(size) for number, size in enumerate((10, 200_000, 2_000_000))}
        for name, content in contents.items():
            (a / name).write_bytes(content)
        wait_for_status(one, "does not answer")
        assert {name: read(a / name) for name in contents} == contents
        assert read(b / "before") == before
        disk.empty()
        sync(one)
        for name, content in contents.items():
            arrives(b / name, content)
        assert "Traceback" not in service.log(), said_by(one) + service.log()
        wrong = devices.finish()
        service.stop()
    assert not wrong, "\n".join(wrong)
