"""A file system that passes everything through to a folder, and logs what changes it: the disk of a power-cut test.

    python -m tests.powerloss.recorder BACKING MOUNTPOINT LOG

Each change and each sync is appended to LOG before the caller hears that it was done, in one order for all processes, so the
length of LOG is a moment in time: whatever had returned by then is in it. `replay.py` makes of a log what a disk could hold
if the power failed at such a moment. The kernel caches no writes here (no writeback cache), so a write is logged when it is made.

What SQLite maps (`-shm`) is passed through and not logged: it holds nothing that has to survive. Locks (flock, fcntl) are
the kernel's.
"""

from __future__ import annotations

import errno
import os
import pickle
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyfuse3
import trio
from pyfuse3 import FUSEError

from tests.powerloss.replay import Operation

_NOT_KEPT = "-shm"


class Recorder(pyfuse3.Operations):
    """Inode numbers are the backing folder's, which holds them while a file is open or named."""

    def __init__(self, backing: Path, log: BinaryIO) -> None:
        super().__init__()
        self._log = log
        root = os.stat(backing)
        self._paths: dict[int, set[Path]] = {pyfuse3.ROOT_INODE: {backing}}
        self._root = root.st_ino
        self._open: dict[int, tuple[int, bool]] = {}
        """Descriptor → (inode, whether it is logged)."""

    # ------------------------------------------------------------------------------------------------------------ the log

    def _record(self, kind: str, *arguments: Any) -> None:
        self._log.write(pickle.dumps(Operation(kind, arguments), protocol=5))
        self._log.flush()

    # -------------------------------------------------------------------------------------------------------------- paths

    def _number(self, ino: int) -> int:
        return pyfuse3.ROOT_INODE if ino == self._root else ino

    def _path(self, inode: int) -> Path:
        try:
            return next(iter(self._paths[inode]))
        except (KeyError, StopIteration):
            raise FUSEError(errno.ENOENT) from None

    def _child(self, parent: int, name: bytes) -> Path:
        return self._path(parent) / os.fsdecode(name)

    def _entry(self, path: Path) -> pyfuse3.EntryAttributes:
        attributes = _attributes(path)
        attributes.st_ino = self._number(attributes.st_ino)
        self._paths.setdefault(attributes.st_ino, set()).add(path)
        return attributes

    def _moved(self, old: Path, new: Path) -> None:
        for paths in self._paths.values():
            for path in [path for path in paths if path == old or old in path.parents]:
                paths.discard(path)
                paths.add(new / path.relative_to(old))

    def _gone(self, path: Path) -> None:
        for paths in self._paths.values():
            paths.discard(path)

    # -------------------------------------------------------------------------------------------------------------- reads

    async def lookup(self, parent_inode: int, name: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        with _errors():
            return self._entry(self._child(parent_inode, name))

    async def getattr(self, inode: int, ctx: object) -> pyfuse3.EntryAttributes:
        with _errors():
            for descriptor, (opened, _) in self._open.items():
                if opened == inode:
                    attributes = _attributes(descriptor)
                    attributes.st_ino = inode
                    return attributes
            return self._entry(self._path(inode))

    async def readlink(self, inode: int, ctx: object) -> bytes:
        with _errors():
            return os.fsencode(os.readlink(self._path(inode)))

    async def opendir(self, inode: int, ctx: object) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: object) -> None:
        with _errors():
            names = sorted(os.listdir(self._path(fh)))
        for number, name in list(enumerate(names, 1))[start_id:]:
            try:
                entry = self._entry(self._path(fh) / name)
            except FileNotFoundError:
                continue
            if not pyfuse3.readdir_reply(token, os.fsencode(name), entry, number):
                return

    async def statfs(self, ctx: object) -> pyfuse3.StatvfsData:
        found = os.statvfs(self._path(pyfuse3.ROOT_INODE))
        data = pyfuse3.StatvfsData()
        for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(data, name, getattr(found, name))
        data.f_namemax = 255
        return data

    async def open(self, inode: int, flags: int, ctx: object) -> pyfuse3.FileInfo:
        with _errors():
            path = self._path(inode)
            return self._opened(os.open(path, flags & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)), inode, path, flags)

    def _opened(self, descriptor: int, inode: int, path: Path, flags: int) -> pyfuse3.FileInfo:
        logged = not path.name.endswith(_NOT_KEPT)
        self._open[descriptor] = inode, logged
        if logged and flags & os.O_TRUNC:
            self._record("truncate", inode, 0)
        return pyfuse3.FileInfo(fh=descriptor)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        with _errors():
            return os.pread(fh, size, off)

    # ------------------------------------------------------------------------------------------------------------ changes

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: object
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        with _errors():
            path = self._child(parent_inode, name)
            is_new = not path.exists()
            descriptor = os.open(path, flags | os.O_CREAT, mode)
            entry = self._entry(path)
            logged = not path.name.endswith(_NOT_KEPT)
            if logged and is_new:
                self._record("create", entry.st_ino, parent_inode, path.name, stat.S_IMODE(mode))
            return self._opened(descriptor, entry.st_ino, path, 0 if is_new else flags), entry

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        with _errors():
            inode, logged = self._open[fh]
            data = bytes(buf)
            at = 0
            while at < len(data):
                at += os.pwrite(fh, data[at:], off + at)
            if logged:
                self._record("write", inode, off, data)
            return len(data)

    async def setattr(
        self, inode: int, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: object
    ) -> pyfuse3.EntryAttributes:
        with _errors():
            path = self._path(inode) if fh is None else None
            where: Any = fh if path is None else path
            if fields.update_size:
                os.truncate(where, attr.st_size)
                if self._open[fh][1] if fh is not None else not where.name.endswith(_NOT_KEPT):
                    self._record("truncate", inode, attr.st_size)
            if fields.update_mode:
                os.chmod(where, stat.S_IMODE(attr.st_mode))
            if fields.update_mtime:
                os.utime(where, ns=(os.stat(where).st_atime_ns, attr.st_mtime_ns))
            return await self.getattr(inode, ctx)

    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: object) -> pyfuse3.EntryAttributes:
        """Sockets, which mean nothing without their processes: they are not logged."""
        if not stat.S_ISSOCK(mode):
            raise FUSEError(errno.EPERM)
        with _errors():
            path = self._child(parent_inode, name)
            os.mknod(path, mode)
            return self._entry(path)

    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: object) -> pyfuse3.EntryAttributes:
        with _errors():
            path = self._child(parent_inode, name)
            path.mkdir(stat.S_IMODE(mode))
            entry = self._entry(path)
            self._record("mkdir", entry.st_ino, parent_inode, path.name, stat.S_IMODE(mode))
            return entry

    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        with _errors():
            path = self._child(new_parent_inode, new_name)
            os.link(self._path(inode), path)
            self._record("link", inode, new_parent_inode, path.name)
            return self._entry(path)

    async def unlink(self, parent_inode: int, name: bytes, ctx: object) -> None:
        with _errors():
            path = self._child(parent_inode, name)
            path.unlink()
            self._gone(path)
            if not path.name.endswith(_NOT_KEPT):
                self._record("unlink", parent_inode, path.name)

    async def rmdir(self, parent_inode: int, name: bytes, ctx: object) -> None:
        with _errors():
            path = self._child(parent_inode, name)
            path.rmdir()
            self._gone(path)
            self._record("unlink", parent_inode, path.name)

    async def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: object
    ) -> None:
        if flags:
            raise FUSEError(errno.EINVAL)
        with _errors():
            old, new = self._child(parent_inode_old, name_old), self._child(parent_inode_new, name_new)
            old.rename(new)
            self._gone(new)
            self._moved(old, new)
            self._record("rename", parent_inode_old, old.name, parent_inode_new, new.name)

    # -------------------------------------------------------------------------------------------------------------- syncs

    async def fsync(self, fh: int, datasync: bool) -> None:
        self._record("fsync", self._open[fh][0])

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        self._record("fsyncdir", fh)

    async def flush(self, fh: int) -> None:
        pass

    async def release(self, fh: int) -> None:
        del self._open[fh]
        os.close(fh)

    async def releasedir(self, fh: int) -> None:
        pass

    async def forget(self, inode_list: list[tuple[int, int]]) -> None:
        pass


@contextmanager
def _errors() -> Iterator[None]:
    """Whatever the backing folder says is what the caller hears."""
    try:
        yield
    except OSError as error:
        raise FUSEError(error.errno or errno.EIO) from error


def _attributes(where: Path | int) -> pyfuse3.EntryAttributes:
    found = os.fstat(where) if isinstance(where, int) else os.lstat(where)
    entry = pyfuse3.EntryAttributes()
    for name in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev", "st_size", "st_ino"):
        setattr(entry, name, getattr(found, name))
    entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns = found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns
    entry.st_blksize, entry.st_blocks = 4096, (found.st_size + 511) // 512
    entry.entry_timeout = entry.attr_timeout = 0.0
    return entry


def main() -> None:
    backing, point, log = sys.argv[1:]
    os.umask(0)
    with Path(log).open("ab") as file:
        options = set(pyfuse3.default_options) | {"fsname=powerloss"}
        options.discard("default_permissions")
        pyfuse3.init(Recorder(Path(backing), file), point, options)
        try:
            trio.run(pyfuse3.main)
        finally:
            pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
