"""What is in `.aloft`: the versions of all files and the trash, as folders that can only be read. One method per request.

    .aloft/README
    .aloft/trash/2026-11-25 14.03.07.250Z name               what was deleted by itself; folders hold what went with them
    .aloft/versions/PATH/2026-11-25 14.03.07.250Z name       for each file of the tree a folder, with all that it held

The folders below `versions` are the replica's tree, without the network. What a file held, and what is in the trash, the
service says (`cache.past`), so these may wait within the I/O budget, and fail at once when offline.

Numbers of inodes and handles begin at `FIRST_OF_HISTORY`; each is given to an item while the kernel holds it, and never again.
Nothing here is invalidated: the kernel believes it for a second. Where it hangs in the mount is `fs.routing`'s business.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext

from cache.errors import IsADirectory, NoEntry, NotADirectory, ReadOnly
from cache.past import Trashed, Version
from cache.store.schema import ROOT
from cache.waits import Waits
from fs.attributes import FORMATS, Owners
from fs.errors import NotUnicode, Superseded, guarded, silent
from fs.inodes import FIRST_OF_HISTORY
from fs.reads import Readable, Reads
from remote.protocol import Kind

if TYPE_CHECKING:
    from cache.drive import Drive

TIMEOUT_SECONDS = 1
"""How long the kernel believes what it was told here."""
README = b"""\
What was before, to be read and copied; nothing can be changed here.

trash/              what was deleted, under the time at which it was
versions/PATH/      what the file at PATH held, each version under the time since which it did

Times are in UTC. To bring something back, copy it out of here, or use
`aloft restore PATH` and `aloft trash restore PATH`, which bring it back as it was.
How long it is kept, `aloft tier` says. Without a connection only what is on this device can be read.
"""
_FOLDER_MODE, _FILE_MODE = 0o555, 0o444
_TOP_MODE = 0o500
"""Only the mounting user enters: below, modes and owners are not those that kept a file from others."""
_PAGE = 100


# What there is: each is the same item, and so has the same number, as long as it is equal.


@dataclass(frozen=True, slots=True)
class Top:
    """`.aloft` itself."""


@dataclass(frozen=True, slots=True)
class Readme:
    pass


@dataclass(frozen=True, slots=True)
class Bin:
    """`.aloft/trash`."""


@dataclass(frozen=True, slots=True)
class LiveFolder:
    """A folder of the tree, of which what is shown are its files' versions."""

    ino: int


@dataclass(frozen=True, slots=True)
class LiveFile:
    """A file of the tree, as the folder of its versions."""

    ino: int
    name: str


Item = Top | Readme | Bin | LiveFolder | LiveFile | Version | Trashed
_TOP_NAMES: Mapping[str, Item] = {"README": Readme(), "trash": Bin(), "versions": LiveFolder(ROOT)}


def live(ino: int, kind: Kind, name: str) -> Item | None:
    """What stands for an entry of the tree; None: it has no versions."""
    if kind is Kind.DIRECTORY:
        return LiveFolder(ino)
    return LiveFile(ino, name) if kind is Kind.FILE else None


@guarded
async def _read_only(*_: Any) -> NoReturn:
    """The handler of everything that would change something."""
    raise ReadOnly("what was cannot be changed")


class History(pyfuse3.Operations):
    """`reads` and `waits`: those of the whole mount. `top` gives the entry of `.aloft`."""

    def __init__(self, drive: Drive, owners: Owners, reads: Reads, waits: Waits, now_ns: int) -> None:
        super().__init__()
        self._drive = drive
        self._owners = owners
        self._reads = reads
        self._waits = waits
        self._now_ns = now_ns
        self._numbers = _Numbers()
        self._handle_numbers = count(FIRST_OF_HISTORY)
        self._files: dict[int, Readable] = {}
        self._folders: dict[int, _Listing] = {}

    def top(self) -> EntryAttributes:
        """The reply for the name; counts a lookup of it."""
        return self._entry(Top())

    # ----------------------------------------------------------------------------------------------------------- names

    @guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        return self._entry(await self._child(self._numbers.item(parent_inode), _text(name)))

    @silent
    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for number, lookups in inode_list:
            self._numbers.forget(number, lookups)

    @guarded
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        item = self._numbers.item(inode)
        if isinstance(item, LiveFolder):
            await self._list_first(item.ino)
            listing: _Listing = _LiveListing(self._drive, item.ino)
        else:
            listing = _WholeListing(list((await self._children(item)).items()))
        fh = next(self._handle_numbers)
        self._folders[fh] = listing
        return fh

    @guarded
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """Without `.` and `..`: the kernel knows both by itself, and no folder here is left by its number."""
        for position, name, item in self._folders[fh].after(start_id):
            entry = self._entry(item)
            if not pyfuse3.readdir_reply(token, name.encode(), entry, position):
                self._numbers.forget(entry.st_ino, 1)
                return

    @guarded
    async def releasedir(self, fh: int) -> None:
        del self._folders[fh]

    @guarded
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        item = self._numbers.item(inode)
        if not isinstance(item, Trashed) or item.target is None:
            raise FUSEError(errno.EINVAL)
        return item.target.encode()

    @guarded
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return self._attributes(self._numbers.item(inode), inode)

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        raise FUSEError(errno.ENODATA)

    @guarded
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        return []

    # --------------------------------------------------------------------------------------------------------- content

    @guarded
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            raise ReadOnly("what was cannot be changed")
        fh = next(self._handle_numbers)
        self._files[fh] = self._content(self._numbers.item(inode))
        return FileInfo(fh=fh, keep_cache=True)

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await self._reads.read(self._files[fh], off, size)

    @guarded
    async def flush(self, fh: int) -> None:
        pass

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        pass

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        pass

    @guarded
    async def release(self, fh: int) -> None:
        del self._files[fh]

    # ------------------------------------------------------------------------------------------------- what is refused

    mknod = mkdir = symlink = create = link = unlink = rmdir = rename = setattr = write = setxattr = removexattr = cast(
        Any, _read_only
    )

    # ----------------------------------------------------------------------------------------------------------- parts

    async def _child(self, folder: Item, name: str) -> Item:
        if isinstance(folder, LiveFolder):
            await self._list_first(folder.ino)
            node = self._drive.replica.lookup(folder.ino, name)
            child = live(node.ino, node.kind, name)
        else:
            child = (await self._children(folder)).get(name)
        if child is None:
            raise NoEntry(name)
        return child

    async def _children(self, folder: Item) -> Mapping[str, Item]:
        """What is in a folder that is not the replica's."""
        if isinstance(folder, Top):
            return _TOP_NAMES
        with self._waits.one():
            match folder:
                case Bin():
                    return await self._drive.past.trash()
                case LiveFile(ino, name):
                    return await self._drive.past.versions(ino, name)
                case Trashed(kind=Kind.DIRECTORY):
                    return await self._drive.past.trash_in(folder)
            raise NotADirectory("it is a file")
        raise FUSEError(errno.ENOTCONN)

    async def _list_first(self, ino: int) -> None:
        if self._drive.replica.is_listed(ino):
            return
        with self._waits.one():
            await self._drive.list_first(ino)
            return
        raise FUSEError(errno.ENOTCONN)

    def _content(self, item: Item) -> Readable:
        if isinstance(item, Readme):
            return _Bytes(README)
        if isinstance(item, Version) or (isinstance(item, Trashed) and item.kind is Kind.FILE):
            return self._drive.past.content(item)
        raise IsADirectory("it is a folder")

    def _entry(self, item: Item) -> EntryAttributes:
        """The reply for a name: from here on the kernel holds the number."""
        entry = self._attributes(item, 0)
        entry.st_ino = self._numbers.remember(item)
        return entry

    def _attributes(self, item: Item, number: int) -> EntryAttributes:
        """A folder has one link: programs that walk conclude nothing from it."""
        entry = EntryAttributes()
        entry.st_ino = number
        entry.st_nlink = 1
        entry.st_uid, entry.st_gid = self._owners.uid, self._owners.gid
        entry.st_mode = stat.S_IFDIR | _FOLDER_MODE
        changed_ns = modified_ns = self._now_ns
        size = 0
        match item:
            case Top():
                entry.st_mode = stat.S_IFDIR | _TOP_MODE
            case Readme():
                entry.st_mode, size = stat.S_IFREG | _FILE_MODE, len(README)
            case LiveFolder(ino) | LiveFile(ino, _):
                node = self._drive.replica.node(ino)
                modified_ns, changed_ns = node.mtime_ns, node.ctime_ns
            case Version():
                entry.st_mode, size = stat.S_IFREG | _FILE_MODE, item.size
                modified_ns, changed_ns = item.mtime_ns, item.since_ns
            case Trashed():
                entry.st_mode = FORMATS[item.kind] | (_FOLDER_MODE if item.kind is Kind.DIRECTORY else _FILE_MODE)
                entry.st_rdev, size = item.device_number, item.size
                modified_ns, changed_ns = item.mtime_ns, item.deleted_ns
        entry.st_size = size
        entry.st_blocks = (size + 511) // 512
        entry.st_atime_ns = entry.st_mtime_ns = modified_ns
        entry.st_ctime_ns = changed_ns
        entry.entry_timeout = entry.attr_timeout = TIMEOUT_SECONDS
        return entry


class _Numbers:
    """Which item each number stands for, and how often the kernel counts on it."""

    def __init__(self) -> None:
        self._next = count(FIRST_OF_HISTORY)
        self._items: dict[int, Item] = {}
        self._numbers: dict[Item, int] = {}
        self._lookups: dict[int, int] = {}

    def item(self, number: int) -> Item:
        """`Superseded` for a number that the kernel should not know."""
        try:
            return self._items[number]
        except KeyError:
            raise Superseded(f"number {number} is not held") from None

    def remember(self, item: Item) -> int:
        number = self._numbers.get(item)
        if number is None:
            number = self._numbers[item] = next(self._next)
            self._items[number] = item
        self._lookups[number] = self._lookups.get(number, 0) + 1
        return number

    def forget(self, number: int, lookups: int) -> None:
        left = self._lookups.get(number, 0) - lookups
        if left > 0:
            self._lookups[number] = left
        elif number in self._items:
            del self._lookups[number]
            del self._numbers[self._items.pop(number)]


class _Listing:
    """An open folder."""

    def after(self, position: int) -> Iterator[tuple[int, str, Item]]:
        """Entries after a position, each with its own."""
        raise NotImplementedError


class _WholeListing(_Listing):
    """As it was when it was opened."""

    def __init__(self, items: Sequence[tuple[str, Item]]) -> None:
        self._items = items

    def after(self, position: int) -> Iterator[tuple[int, str, Item]]:
        for at in range(position, len(self._items)):
            name, item = self._items[at]
            yield at + 1, name, item


class _LiveListing(_Listing):
    """Read from the replica as far as it is asked for."""

    def __init__(self, drive: Drive, ino: int) -> None:
        self._drive = drive
        self._ino = ino

    def after(self, position: int) -> Iterator[tuple[int, str, Item]]:
        while page := self._drive.replica.list_entries(self._ino, position, _PAGE):
            for listed in page:
                position = listed.cookie
                item = live(listed.node.ino, listed.node.kind, listed.name)
                if item is not None:
                    yield position, listed.name, item


class _Bytes:
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def read(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size]


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise NotUnicode(f"{name!r} is not UTF-8") from None
