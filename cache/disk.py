"""Small things that every module which writes files here needs: whole writes, and what a disk refuses as our own error."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cache.errors import DiskError, DiskFailed, DiskFull, FileTooLarge

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FAILED = (errno.EIO, errno.EROFS, errno.ENXIO, errno.ENODEV, errno.EUCLEAN)
_SQLITE_FULL = 13
_SQLITE_IOERR_SHMSIZE = 4874
_SQLITE_FAILED = (8, 10, 14)
"""Read-only, an I/O error, a file that cannot be opened."""
_SQLITE_IOERR_SHORT_READ = 522
"""A file that was cut says this, on a disk that is sound."""


def write_all(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """`pwrite` until all is written; a disk that fills up half-way raises on the next attempt."""
    written = os.pwrite(descriptor, data, offset)
    if written == len(data):
        return
    rest = memoryview(data)
    while written < len(rest):
        written += os.pwrite(descriptor, rest[written:], offset + written)


def as_disk_error(error: BaseException, what: str = "home") -> DiskError | None:
    """What the system or SQLite says of the disk that holds `what`; None: something else is wrong."""
    if isinstance(error, DiskError):
        return error
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return DiskFull(f"the disk that holds the {what} is full")
        return DiskFailed(f"the disk that holds the {what} fails: {error.strerror}") if error.errno in _FAILED else None
    code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
    if not isinstance(code, int) or code == _SQLITE_IOERR_SHORT_READ:
        return None
    if code & 0xFF == _SQLITE_FULL or code == _SQLITE_IOERR_SHMSIZE:
        return DiskFull(f"the disk that holds the {what} is full")
    return DiskFailed(f"the disk that holds the {what} fails: {error}") if code & 0xFF in _SQLITE_FAILED else None


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn what the disk or a file system's limit says into `DiskError` and `FileTooLarge`."""
    try:
        yield
    except OSError as error:
        refused = as_disk_error(error, "drafts")
        if refused is not None:
            raise refused from error
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
