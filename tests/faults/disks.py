"""Small disks of a test's own: a tmpfs whose size and number of files can be changed while it is used."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 2**20


class SmallDisk:
    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        path.mkdir()
        _mount("-t", "tmpfs", "-o", f"size={size}", "aloft-test", str(path))

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
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = SmallDisk(path, size)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
