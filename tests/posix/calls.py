"""System calls as the conformance suite makes them: plain functions that raise OSError, identities to make them as.

It owns the calls that Python does not offer, and the tables of file kinds. It knows nothing of the file system under test.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

KINDS = ("regular", "folder", "fifo", "block", "character", "socket", "symlink")
NOT_FOLDERS = tuple(kind for kind in KINDS if kind != "folder")
NOT_FOLLOWED = ("regular", "fifo", "block", "character", "socket")
"""Kinds that are neither folders nor lead elsewhere."""

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_SYMLINK_FOLLOW = 0x400
REALTIME_COARSE = 5
"""The clock of file times; Python has no name for it."""
MAX_PATH = 4096
"""Bytes of a path with its final NUL."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


ALICE = User(65533, 65533)
BOB = User(65532, 65532)


def _check(result: int, path: object) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))


def rename_with(old: str | Path, new: str | Path, flags: int) -> None:
    _check(_libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), ctypes.c_uint(flags)), old)


def link_following(source: Path, target: Path) -> None:
    """`linkat` with AT_SYMLINK_FOLLOW, which `os.link` does not pass on."""
    _check(_libc.linkat(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), AT_SYMLINK_FOLLOW), source)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def set_times(path: Path, atime: tuple[int, int], mtime: tuple[int, int], *, follow: bool = True) -> None:
    """`utimensat` with (seconds, nanoseconds), where the nanoseconds may be UTIME_NOW or UTIME_OMIT."""
    times = (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime))
    _check(_libc.utimensat(AT_FDCWD, os.fsencode(path), times, 0 if follow else AT_SYMLINK_NOFOLLOW), path)


def truncate_to(path: Path, size: int) -> None:
    """`truncate` itself: Python's refuses sizes that the kernel should refuse."""
    _check(_libc.truncate(os.fsencode(path), ctypes.c_long(size)), path)


@contextlib.contextmanager
def acting_as(user: User) -> Iterator[None]:
    """Make calls with a user's identity. Root's capabilities are gone meanwhile, and the process's own come back after."""
    before = os.getgroups()
    os.setgroups(user.groups)
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


@contextlib.contextmanager
def refused(*codes: int) -> Iterator[None]:
    """The call inside must fail with one of these errnos."""
    wanted = " or ".join(errno.errorcode[code] for code in codes)
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            pytest.fail(f"{wanted} expected, not {errno.errorcode.get(error.errno or 0)}: {error}")
    else:
        pytest.fail(f"{wanted} expected, but the call succeeded")


def make(kind: str, path: Path, mode: int = 0o644) -> Path:
    """Create a file of a kind. A symlink leads to nothing unless a test creates its target."""
    match kind:
        case "regular":
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
        case "folder":
            path.mkdir(mode)
        case "fifo":
            os.mkfifo(path, mode)
        case "block":
            os.mknod(path, mode | stat.S_IFBLK, os.makedev(1, 2))
        case "character":
            os.mknod(path, mode | stat.S_IFCHR, os.makedev(1, 3))
        case "socket":
            os.mknod(path, mode | stat.S_IFSOCK)
        case "symlink":
            path.symlink_to("nowhere")
        case _:
            raise ValueError(kind)
    return path


def make_for(user: User, kind: str, path: Path, mode: int = 0o644) -> Path:
    make(kind, path, mode)
    os.chown(path, user.uid, user.gid, follow_symlinks=False)
    if kind != "symlink":
        path.chmod(mode)
    return path


def remove(path: Path) -> None:
    if stat.S_ISDIR(path.lstat().st_mode):
        path.rmdir()
    else:
        path.unlink()


def file_type(path: Path) -> str:
    mode = path.lstat().st_mode
    types = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISFIFO, stat.S_ISBLK, stat.S_ISCHR, stat.S_ISSOCK, stat.S_ISLNK)
    return next(kind for kind, is_kind in zip(KINDS, types, strict=True) if is_kind(mode))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def tick(*paths: Path) -> None:
    """Wait until the kernel's clock for file times has left the change times of these files behind."""
    latest = max((path.lstat().st_ctime_ns for path in paths), default=time.clock_gettime_ns(REALTIME_COARSE))
    deadline = time.monotonic() + 5
    while time.clock_gettime_ns(REALTIME_COARSE) <= latest:
        assert time.monotonic() < deadline, f"a change time that lies in the future: {latest}"
        time.sleep(0.0005)


@contextlib.contextmanager
def changes_times(*paths: Path, mtime: bool) -> Iterator[None]:
    """What happens inside must give these files a new change time, and a new modification time if `mtime`."""
    tick(*paths)
    before = [path.lstat() for path in paths]
    yield
    for path, was in zip(paths, before, strict=True):
        now = path.lstat()
        assert now.st_ctime_ns > was.st_ctime_ns, f"the change time of {path} stayed"
        if mtime:
            assert now.st_mtime_ns > was.st_mtime_ns, f"the modification time of {path} stayed"


@contextlib.contextmanager
def keeps_times(*paths: Path) -> Iterator[None]:
    tick(*paths)
    before = [path.lstat() for path in paths]
    yield
    for path, was in zip(paths, before, strict=True):
        now = path.lstat()
        assert (now.st_ctime_ns, now.st_mtime_ns) == (was.st_ctime_ns, was.st_mtime_ns), f"the times of {path} changed"
