"""Small disks of a test's own: a tmpfs whose size and number of files can be changed while it is used, an ext4 in a file, and
one that fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 2**20


class Disk:
    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, leave: int = 0) -> None:
        """With a file that nobody needs, up to so many bytes."""
        free = os.statvfs(self.path)
        wanted = max(0, free.f_bavail * free.f_frsize - leave)
        with (self.path / "ballast").open("ab") as file:
            end = file.seek(0, os.SEEK_END)
            os.posix_fallocate(file.fileno(), end, max(1, wanted))

    def fill_up(self) -> None:
        """To the last byte."""
        with (self.path / "ballast").open("ab", buffering=0) as file:
            size = MIB
            while size >= 512:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2

    def empty(self) -> None:
        """There is room again."""
        (self.path / "ballast").unlink(missing_ok=True)


class SmallDisk(Disk):
    def limit_files(self, more: int) -> None:
        """Only so many more files."""
        there = os.statvfs(self.path)
        self._remount(f"nr_inodes={there.f_files - there.f_ffree + more}")

    def any_number_of_files(self) -> None:
        self._remount("nr_inodes=1000000")

    def _remount(self, options: str) -> None:
        _mount("-o", f"remount,{options}", str(self.path))


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[SmallDisk]:
    """A tmpfs."""
    with _mounted(path, "-t", "tmpfs", "-o", f"size={size}", "aloft-test"):
        yield SmallDisk(path)


@contextmanager
def ext4_disk(path: Path, size: int) -> Iterator[Disk]:
    image = path.with_name(path.name + ".image")
    with image.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    _make_ext4(image)
    try:
        with _mounted(path, "-o", "loop", str(image)):
            yield Disk(path)
    finally:
        image.unlink()


@contextmanager
def _mounted(path: Path, *arguments: str) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    path.mkdir()
    _mount(*arguments, str(path))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _make_ext4(image: Path) -> None:
    options = ["-m", "0", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]
    subprocess.run(["mkfs.ext4", "-q", "-F", *options, str(image)], check=True)
