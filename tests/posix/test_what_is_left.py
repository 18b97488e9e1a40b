"""What the cases before have left: on the service it is the same, and so it is after a new mount.

The kernel answers much of the other cases from its own caches. Here a second device, and the first one after a new mount,
tell what was really kept. Runs last; on its own it still has the files that it makes itself.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.posix.calls import ALICE, KINDS, make, make_for, set_times, tick
from tests.posix.conftest import Service
from tests.support.waiting import wait_until

WHOLE = 2**20
"""Larger files are compared at both ends only: some are mostly holes."""


@pytest.fixture(scope="module")
def left(only_aloft_module: None, mounted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mount, with something of every sort in it."""
    folder = mounted / "something of every sort"
    folder.mkdir()
    for kind in KINDS:
        for mode in (0o000, 0o644, 0o7777):
            path = make_for(ALICE, kind, folder / f"{kind} {mode:o}", mode)
            set_times(path, (1_000_000_000, 1), (1_100_000_000, 999_999_999), follow=False)
            if kind != "folder":
                os.link(path, folder / f"{kind} {mode:o} again", follow_symlinks=False)
    (folder / "content").write_bytes(os.urandom(200_000))
    (folder / "small content").write_bytes(b"small")
    (folder / "empty").touch()
    for name, flags in (("emptied", os.O_WRONLY), ("emptied by a reader", os.O_RDONLY)):
        (folder / name).write_bytes(b"content")
        os.close(os.open(folder / name, flags | os.O_TRUNC))
    empty_with_fine_stamps(folder, tmp_path_factory.mktemp("elsewhere") / "file")
    (folder / "resized to the same").write_bytes(b"content")
    tick(folder / "resized to the same")
    os.truncate(folder / "resized to the same", 7)
    make("folder", folder / "full")
    make("regular", folder / "full" / ("n" * 255))
    with (folder / "hole").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    return mounted


def empty_with_fine_stamps(folder: Path, elsewhere: Path) -> None:
    """Empty files while a file of the machine's own file system, changed right after it was looked at, gets stamps that are
    finer than the kernel's coarse clock: all other stamps are then as late as that one."""
    elsewhere.touch()
    for number in range(30):
        elsewhere.stat()
        os.utime(elsewhere)
        path = folder / f"emptied at once {number}"
        path.write_bytes(b"content")
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))


@pytest.fixture(scope="module")
def only_aloft_module() -> None:
    if os.environ.get("ALOFT_POSIX_DIRECTORY") is not None:
        pytest.skip("a case about Aloft's own rules")


Facts = tuple[object, ...]


def describe(root: Path) -> dict[str, Facts]:
    """Everything that must be the same everywhere. Neither atime nor ctime: they are a device's own."""
    described = {}
    for path in walk(root):
        status = path.lstat()
        facts: Facts = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_rdev, status.st_mtime_ns)
        if stat.S_ISLNK(status.st_mode):
            facts += (os.readlink(path),)
        elif stat.S_ISREG(status.st_mode):
            facts += (status.st_size, content_of(path, status.st_size))
        described[os.fspath(path.relative_to(root))] = facts
    return described


def walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            yield Path(folder, name)


def content_of(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        if size <= WHOLE:
            return file.read()
        start = file.read(4096)
        file.seek(size - 4096)
        return start + file.read()


def same(expected: dict[str, Facts], found: dict[str, Facts]) -> None:
    assert expected.keys() == found.keys()
    different = {name: (facts, found[name]) for name, facts in expected.items() if facts != found[name]}
    assert different == {}


def test_a_second_device_sees_the_same(left: Path, service: Service) -> None:
    expected = describe(left)
    service.settle("first")
    service.aloft("second", "login", "--server", service.url, "--email", service.email, "--device", "second")
    point = service.mount("second")
    try:
        # Until then the links of a folder are those that have arrived.
        wait_until(lambda: json.loads(service.aloft("second", "status", "--json"))["drive"]["listing"]["finished"])
        same(expected, describe(point))
    finally:
        service.umount("second")
    service.aloft("second", "fsck")


def test_a_new_mount_shows_the_same(left: Path, service: Service) -> None:
    expected = describe(left)
    service.umount("first")
    service.aloft("first", "fsck")
    service.aloft("first", "mount", str(left), "--allow-other")
    same(expected, describe(left))
