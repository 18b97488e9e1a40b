"""The adapter between the kernel and the drive: one short method per request, and no decision beyond that.

Which errno an exception becomes is `errors`' business, which number an inode has `inodes`', what an attribute looks like
`attributes`'. Only READ, and the opening of folders while the very first listing still loads, may wait for the network.

What the kernel does by itself and is not repeated here: permissions and sticky folders (`default_permissions`), umask, the
group rules of chmod and chown, ETXTBSY, loops made by rename, the clearing of set-id bits on write (which arrives as a
SETATTR), locks.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext, SetattrFields, StatvfsData

from cache.errors import EntryExists, InvalidName, NameTooLong, NoEntry
from cache.files import File
from cache.model import AttributeUpdate, Node, RenameMode
from cache.waits import Waits
from fs.attributes import Owners, entry_attributes, kind_of_mode, no_entry, requested_update
from fs.errors import NotUnicode, Superseded, Unsupported, guarded, silent
from fs.handles import DirectoryHandle, FileHandle, Handles
from fs.inodes import Inodes
from fs.reads import Reads
from remote.names import MAX_NAME_BYTES, MAX_TARGET_BYTES
from remote.protocol import Kind

if TYPE_CHECKING:
    from cache.drive import Drive

log = logging.getLogger(__name__)

_BLOCK = 4096
_DOTS = 2
_QUOTA_UNKNOWN = 2**50
"""Shown until the service has said what the account may store: a full disk would keep programs from writing."""
_RENAME_MODES = {
    0: RenameMode.REPLACE,
    pyfuse3.RENAME_NOREPLACE: RenameMode.NO_REPLACE,
    pyfuse3.RENAME_EXCHANGE: RenameMode.EXCHANGE,
}
_NO_UPDATE = AttributeUpdate()
_XATTR_NAMESPACE = "user."


class Operations(pyfuse3.Operations):
    """Requests of the kernel, answered from `drive`. Numbers in arguments are FUSE numbers, `ino` is the replica's."""

    supports_dot_lookup = False
    enable_writeback_cache = True

    def __init__(self, drive: Drive, inodes: Inodes, owners: Owners, forget_attributes: Callable[[int], Awaitable[None]]) -> None:
        """`forget_attributes(number)`: make the kernel ask again; see `Invalidator.tell_of_attributes`."""
        super().__init__()
        self._forget_attributes = forget_attributes
        self._drive = drive
        self._replica = drive.replica
        self._files = drive.files
        self._inodes = inodes
        self._owners = owners
        self._handles = Handles()
        self.waits = Waits()
        self.reads = Reads(self.waits)
        drive.is_held_by_kernel = inodes.is_held

    # ------------------------------------------------------------------------------------------------ names

    @guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        parent = self._inodes.ino(parent_inode)
        text = _name(name)
        try:
            return self._entry(self._replica.lookup(parent, text))
        except NoEntry:
            if self._replica.is_listed(parent):
                return no_entry()
        await self._list_first(parent)
        try:
            return self._entry(self._replica.lookup(parent, text))
        except NoEntry:
            return no_entry()

    @silent
    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for number, lookups in inode_list:
            ino = self._inodes.forget(number, lookups)
            if ino is not None:
                self._replica.forget(ino)

    @guarded
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        ino = self._inodes.ino(inode)
        if not self._replica.is_listed(ino):
            await self._list_first(ino)
        return self._handles.add_directory(DirectoryHandle(ino))

    @guarded
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """Entries are read anew for each answer: one that was kept from before could be older than an invalidation.

        Positions 1 and 2 are after `.` and `..`, the others two after the replica's cookie.
        """
        handle = self._handles.directory(fh)
        if start_id < _DOTS and not self._reply_dots(handle.ino, start_id, token):
            return
        taken = 0
        for listed in self._replica.list_entries(handle.ino, max(start_id - _DOTS, 0), handle.page):
            entry = self._entry(listed.node)
            if not pyfuse3.readdir_reply(token, listed.name.encode(), entry, listed.cookie + _DOTS):
                self._inodes.forget(entry.st_ino, 1)
                handle.page = taken + 1
                return
            taken += 1
        if taken == handle.page:
            handle.page *= 2

    def _reply_dots(self, ino: int, start_id: int, token: ReaddirToken) -> bool:
        """The kernel does not count these two as looked up."""
        dots = ((b".", ino), (b"..", self._parent_of(ino)))
        for position, (name, directory) in list(enumerate(dots, 1))[start_id:]:
            entry = self._shown(self._replica.node(directory), directory)
            if not pyfuse3.readdir_reply(token, name, entry, position):
                return False
        return True

    def _parent_of(self, ino: int) -> int:
        """Itself for a root, and for a folder that was removed and is still open."""
        path = self._replica.path_of(ino)
        return self._replica.resolve(path.rpartition("/")[0]).ino if path else ino

    @guarded
    async def releasedir(self, fh: int) -> None:
        self._handles.remove_directory(fh)

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Names are in the replica when a request returns, which survives `kill -9`; here they are made to survive power loss."""
        await self._drive.make_durable()

    @guarded
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return self._replica.read_link(self._inodes.ino(inode)).encode()

    @guarded
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        kind = kind_of_mode(mode)
        number = rdev if kind in (Kind.CHARACTER, Kind.BLOCK) else 0
        return self._entry(self._create(parent_inode, name, kind, mode, ctx, device_number=number, published=True))

    @guarded
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        return self._entry(self._create(parent_inode, name, Kind.DIRECTORY, mode, ctx))

    @guarded
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        if len(target) > MAX_TARGET_BYTES:
            raise NameTooLong(f"a target of {len(target)} bytes")
        return self._entry(self._create(parent_inode, name, Kind.SYMLINK, 0o777, ctx, target=_text(target)))

    @guarded
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        try:
            node = self._create(parent_inode, name, Kind.FILE, mode, ctx)
        except EntryExists:
            if flags & os.O_EXCL:
                raise
            raise Superseded("the name appeared after the kernel looked") from None  # it looks again and opens
        file = self._files.open(node.ino, writable=True)
        entry = self._entry(node)
        return self._opened(entry.st_ino, file, writable=True), entry

    @guarded
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        ino, parent = self._inodes.ino(inode), self._inodes.ino(new_parent_inode)
        return self._entry(self._replica.link(ino, parent, _name(new_name)))

    @guarded
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        self._replica.unlink(self._inodes.ino(parent_inode), _name(name))

    @guarded
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        parent, text = self._inodes.ino(parent_inode), _name(name)
        folder = self._replica.lookup(parent, text).ino
        if not self._replica.is_listed(folder):  # it may hold what has not arrived yet
            await self._list_first(folder)
        self._replica.rmdir(parent, text)

    @guarded
    async def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: RequestContext
    ) -> None:
        mode = _RENAME_MODES.get(flags)
        if mode is None:
            raise FUSEError(errno.EINVAL)
        old, new = self._inodes.ino(parent_inode_old), self._inodes.ino(parent_inode_new)
        replacing = self._replica.replacing(old, _name(name_old), new, _name(name_new), mode)
        if replacing is not None:
            await self._files.settle_before_replacing(replacing)
        self._replica.rename(old, _name(name_old), new, _name(name_new), mode)

    # ------------------------------------------------------------------------------------------- attributes

    @guarded
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return self._attributes(inode)

    @guarded
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        held = self._inodes.held(inode)
        if fields.update_size:
            await self._truncate(inode, attr.st_size, fh)
        if held.ino is None:  # detached: its times and mode go with its content, nowhere
            return self._attributes(inode)
        update = requested_update(held, attr, fields, self._owners)
        if fields.update_mtime:
            held.mtime_ns = attr.st_mtime_ns
        if update == _NO_UPDATE:
            return self._attributes(inode)
        node = self._replica.set_attributes(held.ino, update)
        entry = self._shown(node, inode)
        if isinstance(held.file, File):
            entry.st_size = held.file.size  # the replica learns it when the file is flushed
        return entry

    @guarded
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        usage = self._replica.usage()
        quota = usage.quota or _QUOTA_UNKNOWN
        free = max(0, quota - usage.used) // _BLOCK
        data = StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK
        data.f_blocks = max(quota, usage.used) // _BLOCK
        data.f_bfree = data.f_bavail = free
        data.f_ffree = data.f_favail = 2**32
        data.f_files = usage.inodes + 2**32
        data.f_namemax = MAX_NAME_BYTES
        return data

    # ----------------------------------------------------------------------------------------------- content

    @guarded
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """O_APPEND and O_WRONLY need nothing: with the writeback cache the kernel seeks by itself, and reads what it
        writes over. O_TRUNC brings no SETATTR, so the set-id bits are cleared here."""
        held = self._inodes.held(inode)
        self._inodes.follow_file(inode)
        if held.ino is None or (held.superseded and held.file is None):
            raise Superseded("the kernel looks again and opens what is there now")
        truncate = bool(flags & os.O_TRUNC)
        writable = truncate or flags & os.O_ACCMODE != os.O_RDONLY  # O_RDONLY with O_TRUNC empties the file, too
        if writable:
            self._replica.require_writable(held.ino)
        info = self._opened(inode, self._files.open(held.ino, writable=writable, truncate=truncate), writable=writable)
        if truncate and ctx.uid != 0 and self._clear_set_id(held.ino):  # root's writing keeps them
            await self._forget_attributes(inode)
        return info

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await self.reads.read(self._handles.file(fh).file, off, size)

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        handle = self._handles.file(fh)
        await handle.file.write(off, buf)
        self._inodes.follow_file(handle.number)  # writing to a detached file made a conflicted copy
        return len(buf)

    @guarded
    async def flush(self, fh: int) -> None:
        handle = self._handles.file(fh)
        if handle.writable:
            await handle.file.flush()

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._handles.file(fh).file.fsync()

    @guarded
    async def release(self, fh: int) -> None:
        handle = self._handles.remove_file(fh)
        self._inodes.closed(handle.number)
        handle.file.release()

    def kernel_is_gone(self) -> None:
        """Nobody waits for answers any more: handlers that wait for the network end now."""
        self.waits.end_for_good()

    async def end_of_session(self) -> None:
        """The kernel is gone: what it still held is released as if it had said so."""
        for fh in self._handles.open_files():
            try:
                await self.release(fh)
            except FUSEError as error:  # nobody is left to hear it; the others are to be released all the same
                log.error("what was written to an open file could not be saved: %s", error)
        for ino in tuple(self._inodes.all_held()):
            self._replica.forget(ino)

    # ------------------------------------------------------------------------------------------------- parts

    async def _list_first(self, directory: int) -> None:
        with self.waits.one():
            await self._drive.list_first(directory)
            return
        raise FUSEError(errno.ENOTCONN)

    def _entry(self, node: Node) -> EntryAttributes:
        """The reply for a name: from here on the kernel holds the number."""
        return self._shown(node, self._inodes.remember(node))

    def _attributes(self, number: int) -> EntryAttributes:
        held = self._inodes.held(number)
        file = held.file
        node = file.node() if isinstance(file, File) else self._replica.node(self._inodes.ino(number))
        return self._shown(node, number)

    def _shown(self, node: Node, number: int) -> EntryAttributes:
        return entry_attributes(node, number, self._owners, writable=self._replica.is_writable(node.ino))

    def _create(
        self,
        parent_number: int,
        name: bytes,
        kind: Kind,
        mode: int,
        ctx: RequestContext,
        *,
        target: str | None = None,
        device_number: int = 0,
        published: bool = False,
    ) -> Node:
        return self._replica.create(
            self._inodes.ino(parent_number),
            _name(name),
            kind,
            mode=mode & 0o7777,
            uid=self._owners.kept_uid(ctx.uid),
            gid=self._owners.kept_gid(ctx.gid),
            target=target,
            device_number=device_number,
            published=published,
        )

    def _opened(self, number: int, file: File, *, writable: bool) -> FileInfo:
        self._inodes.opened(number, file)
        fh = self._handles.add_file(FileHandle(number, file, writable))
        return FileInfo(fh=fh, keep_cache=True)

    async def _truncate(self, number: int, size: int, fh: int | None) -> None:
        if fh is not None:
            await self._handles.file(fh).file.truncate(size)
            self._inodes.follow_file(number)
            return
        held = self._inodes.held(number)
        if held.superseded and held.file is None:
            raise Superseded("the kernel looks again and truncates what is there now")
        self._replica.require_writable(self._inodes.ino(number))
        await self._files.truncate(self._inodes.ino(number), size)

    def _clear_set_id(self, ino: int) -> bool:
        """Whether there were any."""
        mode = self._replica.node(ino).mode
        cleared = mode & ~stat.S_ISUID
        if mode & stat.S_IXGRP:  # without it, sgid means mandatory locking and stays
            cleared &= ~stat.S_ISGID
        if cleared != mode:
            self._replica.set_attributes(ino, AttributeUpdate(mode=cleared))
        return cleared != mode


class OperationsWithXattrs(Operations):
    """With `--enable-xattr`. Without, the base class says ENOSYS once, and the kernel never asks again at each write."""

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        return self._replica.get_xattr(self._inodes.ino(inode), _xattr_name(name))

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """pyfuse3 has checked XATTR_CREATE and XATTR_REPLACE by then."""
        self._replica.set_xattr(self._inodes.ino(inode), _xattr_name(name), value, create=False, replace=False)

    @guarded
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        return [name.encode() for name in self._replica.list_xattrs(self._inodes.ino(inode))]

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        self._replica.remove_xattr(self._inodes.ino(inode), _xattr_name(name))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise NotUnicode(f"{raw!r} is not UTF-8") from None


def _name(raw: bytes) -> str:
    if len(raw) > MAX_NAME_BYTES:
        raise NameTooLong(f"a name of {len(raw)} bytes")
    return _text(raw)


def _xattr_name(raw: bytes) -> str:
    name = _text(raw)
    if not name.startswith(_XATTR_NAMESPACE):
        raise Unsupported(f"only {_XATTR_NAMESPACE}* is kept, not {name}")
    if name == _XATTR_NAMESPACE:
        raise InvalidName("an extended attribute without a name")
    return name
