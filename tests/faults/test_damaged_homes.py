"""Files of a home that were truncated, overwritten or lost: a clear error, nothing deleted, and what can be saved is saved."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.pair import arrives, read, sync
from tests.support.mounts import Device, Devices
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

NOISE = bytes(range(255, 0, -1)) * 80


def refused(code: int = errno.EIO) -> Any:
    return pytest.raises(OSError, check=lambda error: error.errno == code)


def overwrite(path: Path, at: int, data: bytes = NOISE) -> None:
    with path.open("r+b") as file:
        file.seek(at if at >= 0 else max(0, path.stat().st_size + at))
        file.write(data)


def truncate(path: Path, keep: float) -> None:
    os.truncate(path, int(path.stat().st_size * keep))


def go_offline(device: Device) -> None:
    """Once the first listing is there."""
    (device.point / "first").write_bytes(b"first")
    sync(device)
    device.aloft("offline")


REPLICA: dict[str, Callable[[Path], None]] = {
    "noise at the beginning": lambda file: overwrite(file, 0),
    "noise in the middle": lambda file: overwrite(file, file.stat().st_size // 2, NOISE * 3),
    "half of it": lambda file: truncate(file, 0.5),
    "nothing": lambda file: truncate(file, 0),
}


def test_a_damaged_replica(devices: Devices, folder: Path) -> None:
    """It is refused and left as it is, with the drafts; moved away, as the message says, all but small drafts is there again."""
    one, two = devices.add("one"), devices.add("two")
    a, b = one.mount(), two.mount()
    on_service = {f"synced {number}": os.urandom(100_000) for number in range(20)}
    for name, content in on_service.items():
        (a / name).write_bytes(content)
    one.umount()
    one.mount("--offline")
    draft = os.urandom(300_000)
    (a / "draft").write_bytes(draft)
    assert one.run("umount", str(a), "--no-wait").returncode == 3
    for name, damage in REPLICA.items():
        home = folder / f"{name} home"
        shutil.copytree(one.home, home, ignore=shutil.ignore_patterns("run"))
        damage(home / "replica.db")
        before = {path.relative_to(home): path.read_bytes() for path in home.rglob("*") if path.is_file()}
        done = one.run("mount", str(folder / "elsewhere"), env={"ALOFT_HOME": str(home)})
        assert done.returncode == 1, (name, done.stdout, done.stderr)
        assert "replica.db" in done.stderr, (name, done.stderr)
        assert "move" in done.stderr, (name, done.stderr)
        assert "Traceback" not in done.stderr
        after = {path.relative_to(home): path.read_bytes() for path in home.rglob("*") if path.is_file()}
        assert {path: content for path, content in after.items() if path in before} == before, name

    REPLICA["noise at the beginning"](one.home / "replica.db")
    for file in one.home.glob("replica.db*"):
        file.rename(folder / file.name)
    one.mount()
    one.aloft("online")
    for name, content in on_service.items():
        arrives(a / name, content)
    (recovered,) = one.json("status")["drive"]["recovered"]
    assert read(a / recovered) == draft
    sync(one)
    arrives(b / recovered, draft)


LOG: dict[str, Callable[[Path], None]] = {
    "noise at the beginning": lambda file: overwrite(file, 0),
    "noise in the middle": lambda file: overwrite(file, file.stat().st_size // 2),
    "half of it": lambda file: truncate(file, 0.5),
    "nothing": lambda file: truncate(file, 0),
}


def test_a_damaged_log_of_a_killed_mount(devices: Devices, folder: Path) -> None:
    """The drafts of small files are in it and nowhere else: it is refused before SQLite forgets them, and left as it is."""
    one, two = devices.add("one"), devices.add("two")
    a, b = one.mount(), two.mount()
    go_offline(one)
    contents = {f"draft {number}": os.urandom(3000) for number in range(60)}
    for name, content in contents.items():
        (a / name).write_bytes(content)
    one.kill()
    for name, damage in LOG.items():
        home = folder / f"{name} home"
        shutil.copytree(one.home, home, ignore=shutil.ignore_patterns("run"))
        damage(home / "replica.db-wal")
        before = {path: path.read_bytes() for path in home.glob("replica.db*")}
        mounting = one.run("mount", str(folder / "elsewhere"), env={"ALOFT_HOME": str(home)})
        assert mounting.returncode == 1, (name, mounting.stdout, mounting.stderr)
        for done in (mounting, one.run("logout", env={"ALOFT_HOME": str(home)})):
            assert done.returncode != 0, (name, done.stdout, done.stderr)
            assert "the latest changes cannot be read" in done.stderr, (name, done.stderr)
            assert done.stderr.count("\n") == 1, (name, done.stderr)
        assert {path: path.read_bytes() for path in home.glob("replica.db*")} == before, name
    overwrite(one.home / "replica.db-shm", 0)
    one.mount()
    assert {name: read(a / name) for name in contents} == contents, "what SQLite can make anew is no reason to stop"
    one.aloft("online")
    sync(one)
    for name, content in contents.items():
        arrives(b / name, content)


def test_damaged_drafts(devices: Devices) -> None:
    one, two = devices.add("one"), devices.add("two")
    a, b = one.mount(), two.mount()
    go_offline(one)
    contents = {name: os.urandom(300_000) for name in ("sound", "cut", "lost")}
    for name, content in contents.items():
        (a / name).write_bytes(content)
    one.kill()
    by_content = {file.read_bytes(): file for file in (one.home / "drafts").iterdir()}
    truncate(by_content[contents["cut"]], 0.5)
    by_content[contents["lost"]].unlink()
    one.mount()
    for name in ("cut", "lost"):
        with refused():
            (a / name).read_bytes()
        assert one.state(a / name) == "error"
    assert read(a / "sound") == contents["sound"]
    one.aloft("online")
    arrives(b / "sound", contents["sound"])
    done = one.run("sync")
    assert done.returncode == 3
    assert "draft" in one.run("status").stdout
    assert read(b / "cut") is None
    for name in ("cut", "lost"):  # a person's word
        (a / name).unlink()
    sync(one)


def test_a_damaged_cache_and_damaged_pins(devices: Devices) -> None:
    """Whatever was in them comes again from the service; no wrong byte is read."""
    one, two = devices.add("one"), devices.add("two")
    a, b = one.mount(), two.mount()
    contents = {f"file {number}": os.urandom(100_000) for number in range(8)}
    for name, content in contents.items():
        (a / name).write_bytes(content)
    sync(one)
    for name, content in contents.items():
        arrives(b / name, content)
    two.aloft("pin", str(b / "file 0"), str(b / "file 1"))
    wait_until(lambda: two.json("status")["drive"]["pins"]["files_done"] == 2)
    caches = (two.home / "cache" / "chunks", two.home / "cache" / "pinned")

    def read_all() -> None:
        assert {name: read(b / name) for name in contents} == contents
        wait_until(lambda: two.state(b / "file 0") == "pinned")

    two.kill()
    for cache in caches:
        chunks = sorted(cache.rglob("*.val"))
        assert chunks, "the layout of the cache is another one"
        overwrite(chunks[0], 50_000)
        if len(chunks) > 1:
            truncate(chunks[1], 0.5)
        for chunk in chunks[2:4]:
            chunk.unlink()
    two.mount()
    read_all()

    for at in (0, 5000):
        two.kill()
        for cache in caches:
            overwrite(cache / "cache.db", at)
            (cache / "cache.db-wal").unlink(missing_ok=True)
        two.mount()
        read_all()


@pytest.mark.parametrize("content", [b"", b"\x00" * 500, b'{"server": 7}', NOISE])
def test_damaged_credentials(device: Device, content: bytes) -> None:
    device.mount()
    go_offline(device)
    (device.point / "draft").write_bytes(draft := os.urandom(100_000))
    assert device.run("umount", str(device.point), "--no-wait").returncode == 3
    credentials = device.home / "credentials.json"
    credentials.write_bytes(content)
    done = device.run("mount", str(device.point))
    assert done.returncode in (1, 4), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "credentials" in done.stderr or "login" in done.stderr
    assert credentials.read_bytes() == content
    credentials.unlink()
    device.login()
    device.mount()
    assert read(device.point / "draft") == draft
    device.aloft("online")
    sync(device)
