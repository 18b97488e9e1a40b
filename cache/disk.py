"""Small things that every module which writes files here needs: whole writes, and a full disk as our own error."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cache.errors import DiskFull, FileTooLarge

_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_all(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """`pwrite` until all is written; a disk that fills up half-way raises on the next attempt."""
    written = os.pwrite(descriptor, data, offset)
    if written == len(data):
        return
    rest = memoryview(data)
    while written < len(rest):
        written += os.pwrite(descriptor, rest[written:], offset + written)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn what a full disk or a file system's limit says into `DiskFull` and `FileTooLarge`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull("the disk that holds the drafts is full") from error
        if error.errno == errno.EFBIG:
            raise FileTooLarge("the disk that holds the drafts cannot hold a file of this size") from error
        raise


def make_folder(path: Path, mode: int = 0o700) -> None:
    """`path`, private, and what is missing above it, with names that survive power loss."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_folder(path.parent, 0o777)
    path.mkdir(mode, exist_ok=True)
    with suppress(PermissionError):  # a folder that we may write and not read can only be left to the kernel
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
