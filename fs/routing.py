"""Which side answers a request of the kernel: the drive (`operations`), or `.aloft` (`history`). The one place that decides it.

By number: those of inodes and handles from `FIRST_OF_HISTORY` on are the history's. The way in is one name in the root, which
no listing shows, so that nothing that walks the tree wanders in; something real of that name, from before it was reserved, goes
before, and hides it until it is renamed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

import pyfuse3
from pyfuse3 import EntryAttributes, FUSEError, RequestContext, StatvfsData

from cache.store.schema import ROOT
from fs.history import History
from fs.inodes import FIRST_OF_HISTORY
from fs.operations import Operations
from remote.names import RESERVED_IN_ROOT

_NAME = RESERVED_IN_ROOT.encode()


def _by_number(handler: str, other_at: int | None = None) -> Callable[..., Any]:
    """A request about the inode or handle that is its first argument; `other_at`: and the one there. It is a plain function: the
    handler's coroutine is awaited by the caller, and costs no second one."""

    def route(self: Routes, number: int, *arguments: Any) -> Any:
        highest = number if other_at is None else max(number, arguments[other_at - 1])
        side = self.history if highest >= FIRST_OF_HISTORY else self.drive
        return getattr(side, handler)(number, *arguments)

    return route


def _of_a_name(handler: str, other_at: int | None = None) -> Callable[..., Any]:
    """The same, of a request that takes a name away: `.aloft` itself is there, though the drive does not know it."""
    route = _by_number(handler, other_at)

    async def answer(self: Routes, parent: int, name: bytes, *arguments: Any) -> None:
        try:
            await route(self, parent, name, *arguments)
        except FUSEError as error:
            if error.errno == errno.ENOENT and (parent, name) == (ROOT, _NAME):
                raise FUSEError(errno.EPERM) from error
            raise

    return answer


class Routes(pyfuse3.Operations):
    supports_dot_lookup = Operations.supports_dot_lookup
    enable_writeback_cache = Operations.enable_writeback_cache

    def __init__(self, drive: Operations, history: History) -> None:
        super().__init__()
        self.drive = drive
        self.history = history

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        if parent_inode >= FIRST_OF_HISTORY:
            return await self.history.lookup(parent_inode, name, ctx)
        entry = await self.drive.lookup(parent_inode, name, ctx)
        if entry.st_ino == 0 and name == _NAME and parent_inode == ROOT:
            return self.history.top()
        return entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        of_drive = [pair for pair in inode_list if pair[0] < FIRST_OF_HISTORY]
        if of_drive:
            await self.drive.forget(of_drive)
        if len(of_drive) < len(inode_list):
            await self.history.forget([pair for pair in inode_list if pair[0] >= FIRST_OF_HISTORY])

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        return await self.drive.statfs(ctx)

    getattr = _by_number("getattr")
    setattr = _by_number("setattr")
    readlink = _by_number("readlink")
    mknod = _by_number("mknod")
    mkdir = _by_number("mkdir")
    symlink = _by_number("symlink")
    create = _by_number("create")
    unlink = _of_a_name("unlink")
    rmdir = _of_a_name("rmdir")
    link = _by_number("link", other_at=1)
    rename = _of_a_name("rename", other_at=2)
    open = _by_number("open")
    read = _by_number("read")
    write = _by_number("write")
    flush = _by_number("flush")
    fsync = _by_number("fsync")
    release = _by_number("release")
    opendir = _by_number("opendir")
    readdir = _by_number("readdir")
    releasedir = _by_number("releasedir")
    fsyncdir = _by_number("fsyncdir")
    getxattr = _by_number("getxattr")
    setxattr = _by_number("setxattr")
    listxattr = _by_number("listxattr")
    removexattr = _by_number("removexattr")
