"""A disk that fails on demand: everything is passed through to a folder, and chosen calls on chosen files end with EIO.

    python -m tests.faults.failing_disk BACKING MOUNTPOINT RULES

RULES is a file: lines `CALL PATTERN`, of which CALL is create, read, write, truncate, unlink or sync, and PATTERN a file's name
as a shell would match it. They hold from the call on that comes after they were written.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO

import pyfuse3
import trio
from pyfuse3 import FUSEError

from tests.powerloss.recorder import Recorder
from tests.support.service import REPOSITORY
from tests.support.waiting import PATIENCE, wait_until


class Failing(Recorder):
    """The recorder of the power cuts, whose log nobody reads."""

    def __init__(self, backing: Path, rules: Path, log: BinaryIO) -> None:
        super().__init__(backing, log)
        self._rules = rules

    def _may(self, call: str, path: Path) -> None:
        for rule in self._rules.read_text().splitlines():
            wanted, pattern = rule.split()
            if wanted == call and fnmatch(path.name, pattern):
                raise FUSEError(errno.EIO)

    def _opened_path(self, descriptor: int) -> Path:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}"))

    async def create(self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: object) -> Any:
        self._may("create", self._child(parent_inode, name))
        return await super().create(parent_inode, name, mode, flags, ctx)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        self._may("read", self._opened_path(fh))
        return await super().read(fh, off, size)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        self._may("write", self._opened_path(fh))
        return await super().write(fh, off, buf)

    async def setattr(
        self, inode: int, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: object
    ) -> pyfuse3.EntryAttributes:
        if fields.update_size:
            self._may("truncate", self._path(inode))
        return await super().setattr(inode, attr, fields, fh, ctx)

    async def unlink(self, parent_inode: int, name: bytes, ctx: object) -> None:
        self._may("unlink", self._child(parent_inode, name))
        await super().unlink(parent_inode, name, ctx)

    async def fsync(self, fh: int, datasync: bool) -> None:
        self._may("sync", self._opened_path(fh))

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        pass


class FailingDisk:
    """`path`: the mounted folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self._rules, self._errors = folder / "rules", folder / "disk.log"
        backing = folder / "backing"
        for made in (self.path, backing):
            made.mkdir()
        self.mend()
        command = [sys.executable, "-m", "tests.faults.failing_disk", str(backing), str(self.path), str(self._rules)]
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(command, cwd=REPOSITORY, stderr=errors)
        wait_until(lambda: self._process.poll() is not None or self.path.is_mount(), "the failing disk")
        assert self.path.is_mount(), self._errors.read_text()

    def fail(self, *rules: str) -> None:
        """From now on, and nothing else."""
        new = self._rules.with_suffix(".new")
        new.write_text("".join(f"{rule}\n" for rule in rules))
        new.replace(self._rules)

    def mend(self) -> None:
        self.fail()

    def stop(self) -> None:
        subprocess.run(["fusermount3", "-uz", str(self.path)], check=True, capture_output=True)
        self._process.wait(PATIENCE)
        assert "Traceback" not in self._errors.read_text(), self._errors.read_text()


@contextmanager
def failing_disk(folder: Path) -> Iterator[FailingDisk]:
    disk = FailingDisk(folder)
    try:
        yield disk
    finally:
        disk.stop()


def main() -> None:
    backing, point, rules = sys.argv[1:]
    os.umask(0)
    options = set(pyfuse3.default_options) | {"fsname=failing"}
    options.discard("default_permissions")
    with Path(os.devnull).open("wb") as log:
        pyfuse3.init(Failing(Path(backing), Path(rules), log), point, options)
        try:
            trio.run(pyfuse3.main)
        finally:
            pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
