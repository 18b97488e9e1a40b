"""The adapter without a kernel: requests as the kernel would send them, over the real replica and the real files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pyfuse3
import pytest
from pyfuse3 import EntryAttributes, FUSEError

from cache.errors import DiskFull
from cache.model import AttributeUpdate, ContentChanged
from cache.store.schema import ROOT
from fs.attributes import TIMEOUT_SECONDS, Owners
from fs.inodes import Inodes
from fs.invalidation import notices
from fs.operations import Operations, OperationsWithXattrs
from remote.manifest import Manifest, manifest_id
from tests.support.local_drive import LocalDrive

if TYPE_CHECKING:
    from cache.drive import Drive

USER, OTHER = 1000, 2000
SECOND = 10**9


@dataclass
class Kernel:
    """Sends requests. Arguments that pyfuse3 cannot be made to give are stood in for by objects of the same shape."""

    drive: LocalDrive
    owners: Owners = field(default_factory=lambda: Owners(USER, USER, numeric=False))
    kind: type[Operations] = Operations
    ctx: Any = field(default_factory=lambda: SimpleNamespace(uid=USER, gid=USER, pid=1, umask=0o022))

    def __post_init__(self) -> None:
        self.inodes = Inodes()
        self.told_to_forget: list[int] = []
        self.ops: Any = self.kind(cast("Drive", self.drive), self.inodes, self.owners, self._forget_attributes)

    async def _forget_attributes(self, number: int) -> None:
        self.told_to_forget.append(number)

    async def lookup(self, name: str, parent: int = ROOT) -> EntryAttributes:
        entry: EntryAttributes = await self.ops.lookup(parent, name.encode(), self.ctx)
        return entry

    async def make(self, name: str, content: bytes = b"", parent: int = ROOT) -> int:
        """A file, written and closed. Its number."""
        info, entry = await self.ops.create(parent, name.encode(), stat.S_IFREG | 0o644, os.O_RDWR, self.ctx)
        if content:
            await self.ops.write(info.fh, 0, content)
        await self.ops.flush(info.fh)
        await self.ops.release(info.fh)
        return int(entry.st_ino)

    async def make_acknowledged(self, name: str, content: bytes) -> int:
        """A file whose content the service has. Its number."""
        entry = await self.ops.mknod(ROOT, name.encode(), stat.S_IFREG | 0o644, 0, self.ctx)
        manifest = Manifest.from_inline(content).encode()
        self.drive.contents.put_manifests([(manifest_id(manifest), manifest)])
        size = len(content)
        self.drive.tree.update_inode(entry.st_ino, manifest_id=manifest_id(manifest), manifest_size=size, size=size)
        return int(entry.st_ino)

    async def mkdir(self, name: str, parent: int = ROOT, mode: int = 0o755) -> int:
        return int((await self.ops.mkdir(parent, name.encode(), mode, self.ctx)).st_ino)

    async def open(self, number: int, flags: int = os.O_RDONLY) -> int:
        return int((await self.ops.open(number, flags, self.ctx)).fh)

    async def read(self, number: int) -> bytes:
        fh = await self.open(number)
        data: bytes = await self.ops.read(fh, 0, 2**20)
        await self.ops.release(fh)
        return data

    async def setattr(self, number: int, fh: int | None = None, **changes: int) -> EntryAttributes:
        attr = EntryAttributes()
        names = ("mode", "uid", "gid", "size", "atime", "mtime", "ctime")
        fields = SimpleNamespace(**{f"update_{name}": name in changes for name in names})
        for name, value in changes.items():
            setattr(attr, f"st_{name}_ns" if name.endswith("time") else f"st_{name}", value)
        result: EntryAttributes = await self.ops.setattr(number, attr, fields, fh, self.ctx)
        return result

    def forget(self, number: int, lookups: int = 1) -> Awaitable[None]:
        result: Awaitable[None] = self.ops.forget([(number, lookups)])
        return result

    def replace_content(self, number: int, size: int) -> None:
        """What a merge does when the service's content takes a file's place: rows first, open files, then the kernel."""
        ino = self.inodes.ino(number)
        self.drive.tree.update_inode(ino, size=size, mtime_ns=7 * SECOND)
        self.drive.files.content_replaced(ino)
        notices([ContentChanged(ino, tuple(self.drive.tree.names(ino)))], self.inodes)


@pytest.fixture
def kernel(drive: LocalDrive) -> Kernel:
    return Kernel(drive)


def refused(code: int) -> Any:
    return pytest.raises(FUSEError, check=lambda error: error.errno == code)


# ------------------------------------------------------------------------------------------------------------- names


async def test_a_missing_name_is_an_answer_to_keep(kernel: Kernel) -> None:
    entry = await kernel.lookup("nothing")
    assert entry.st_ino == 0
    assert entry.entry_timeout == TIMEOUT_SECONDS


async def test_a_name_that_is_missing_while_the_first_listing_loads_is_asked_for(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel.drive.replica, "is_listed", lambda ino: False)
    await kernel.make("here")
    await kernel.lookup("here")
    assert kernel.drive.listed_first == []
    await kernel.lookup("nothing")
    assert kernel.drive.listed_first == [ROOT]


@pytest.mark.parametrize(
    ("name", "code"),
    [(b"n" * 256, errno.ENAMETOOLONG), ("\u00e9".encode() * 128, errno.ENAMETOOLONG), (b"\xff\xfe", errno.EILSEQ)],
)
async def test_names_that_cannot_be(kernel: Kernel, name: bytes, code: int) -> None:
    with refused(code):
        await kernel.ops.lookup(ROOT, name, kernel.ctx)
    with refused(code):
        await kernel.ops.mkdir(ROOT, name, 0o755, kernel.ctx)


async def test_a_name_of_255_bytes(kernel: Kernel) -> None:
    await kernel.mkdir("n" * 255)
    assert (await kernel.lookup("n" * 255)).st_ino != 0


async def test_targets_of_symbolic_links(kernel: Kernel) -> None:
    entry = await kernel.ops.symlink(ROOT, b"link", "tó/there".encode(), kernel.ctx)
    assert await kernel.ops.readlink(entry.st_ino, kernel.ctx) == "tó/there".encode()
    assert stat.S_ISLNK(entry.st_mode)
    assert entry.st_size == len("tó/there".encode())
    with refused(errno.EILSEQ):
        await kernel.ops.symlink(ROOT, b"other", b"\xff", kernel.ctx)
    with refused(errno.ENAMETOOLONG):
        await kernel.ops.symlink(ROOT, b"long", b"t" * 4096, kernel.ctx)


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFREG, 0])
async def test_mknod(kernel: Kernel, kind: int) -> None:
    entry = await kernel.ops.mknod(ROOT, b"node", kind | 0o640, os.makedev(8, 1), kernel.ctx)
    assert stat.S_IFMT(entry.st_mode) == kind or stat.S_IFREG
    assert stat.S_IMODE(entry.st_mode) == 0o640
    assert entry.st_rdev == (os.makedev(8, 1) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0)


async def test_a_second_name(kernel: Kernel) -> None:
    number = await kernel.make("one", b"content")
    entry = await kernel.ops.link(number, ROOT, b"two", kernel.ctx)
    assert (entry.st_ino, entry.st_nlink) == (number, 2)
    await kernel.ops.unlink(ROOT, b"one", kernel.ctx)
    assert (await kernel.ops.getattr(number, kernel.ctx)).st_nlink == 1


async def test_rename_modes(kernel: Kernel) -> None:
    await kernel.make("a", b"A")
    await kernel.make("b", b"B")
    with refused(errno.EEXIST):
        await kernel.ops.rename(ROOT, b"a", ROOT, b"b", pyfuse3.RENAME_NOREPLACE, kernel.ctx)
    await kernel.ops.rename(ROOT, b"a", ROOT, b"b", pyfuse3.RENAME_EXCHANGE, kernel.ctx)
    assert await kernel.read((await kernel.lookup("b")).st_ino) == b"A"
    with refused(errno.EINVAL):
        await kernel.ops.rename(ROOT, b"a", ROOT, b"c", 4, kernel.ctx)
    await kernel.ops.rename(ROOT, b"a", ROOT, b"b", 0, kernel.ctx)
    assert await kernel.read((await kernel.lookup("b")).st_ino) == b"B"


async def test_folders_are_removed_only_when_empty(kernel: Kernel) -> None:
    folder = await kernel.mkdir("folder")
    await kernel.make("file", parent=folder)
    with refused(errno.ENOTEMPTY):
        await kernel.ops.rmdir(ROOT, b"folder", kernel.ctx)
    with refused(errno.EISDIR):
        await kernel.ops.unlink(ROOT, b"folder", kernel.ctx)
    with refused(errno.ENOTDIR):
        await kernel.ops.rmdir(folder, b"file", kernel.ctx)


async def test_creating_what_appeared_meanwhile_makes_the_kernel_look_again(kernel: Kernel) -> None:
    await kernel.make("file")
    with refused(errno.ESTALE):
        await kernel.ops.create(ROOT, b"file", 0o644, os.O_WRONLY, kernel.ctx)
    with refused(errno.EEXIST):
        await kernel.ops.create(ROOT, b"file", 0o644, os.O_WRONLY | os.O_EXCL, kernel.ctx)


# ---------------------------------------------------------------------------------------------------------- listing


class Listing:
    """Takes at most `room` entries per READDIRPLUS, as the kernel's buffer would."""

    def __init__(self, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.seen: list[tuple[str, int, int]] = []
        self._kernel = kernel
        self._room = room
        monkeypatch.setattr(pyfuse3, "readdir_reply", self._reply)

    def _reply(self, token: object, name: bytes, entry: EntryAttributes, cookie: int) -> bool:
        if self._left == 0:
            return False
        self._left -= 1
        self.seen.append((name.decode(), int(entry.st_ino), cookie))
        return True

    async def read(self, number: int = ROOT) -> list[str]:
        fh = await self._kernel.ops.opendir(number, self._kernel.ctx)
        self.seen.clear()
        before = -1
        while len(self.seen) != before:
            before = len(self.seen)
            self._left = self._room
            await self._kernel.ops.readdir(fh, self.seen[-1][2] if self.seen else 0, object())
        await self._kernel.ops.releasedir(fh)
        return [name for name, _, _ in self.seen]


@pytest.mark.parametrize("room", [1, 3, 7, 1000])
async def test_a_folder_is_listed_whole_whatever_fits_into_one_answer(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    names = [f"file {number}" for number in range(100)]
    for name in names:
        await kernel.make(name)
    assert await Listing(kernel, monkeypatch, room).read() == [".", "..", *names]


async def test_only_what_was_listed_is_counted_as_looked_up(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [await kernel.make(f"file {number}") for number in range(20)]
    listing = Listing(kernel, monkeypatch, 3)
    await listing.read()
    for number in numbers:
        await kernel.forget(number, 2)  # CREATE and READDIRPLUS
        assert not kernel.inodes.is_held(number)
    assert kernel.inodes.is_held(ROOT)


async def test_the_dots_name_the_folder_and_the_one_above(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    above = await kernel.mkdir("above")
    folder = await kernel.mkdir("folder", above)
    listing = Listing(kernel, monkeypatch, 9)
    await listing.read(folder)
    assert [(name, number) for name, number, _ in listing.seen] == [(".", folder), ("..", above)]


# -------------------------------------------------------------------------------------------------------- attributes


async def test_files_belong_to_the_mounting_user_whoever_made_them(kernel: Kernel) -> None:
    kernel.ctx = SimpleNamespace(uid=OTHER, gid=OTHER, pid=1, umask=0o022)
    entry = await kernel.ops.getattr(await kernel.make("file"), kernel.ctx)
    assert (entry.st_uid, entry.st_gid) == (USER, USER)


async def test_another_owner_is_accepted_and_has_no_effect(kernel: Kernel) -> None:
    number = await kernel.make("file")
    assert (await kernel.setattr(number, uid=OTHER, gid=OTHER)).st_uid == USER
    assert kernel.drive.replica.node(number).uid is None


async def test_numeric_owners_where_they_count(drive: LocalDrive) -> None:
    kernel = Kernel(drive, Owners(0, 0, numeric=True), ctx=SimpleNamespace(uid=OTHER, gid=OTHER, pid=1, umask=0))
    number = await kernel.make("theirs")
    assert drive.replica.node(number).uid == OTHER
    entry = await kernel.setattr(number, uid=0)
    assert (entry.st_uid, entry.st_gid) == (0, OTHER)
    assert drive.replica.node(number).uid is None, "the mounting user is the account, on every device"
    unprivileged = Kernel(drive)
    assert (await unprivileged.lookup("theirs")).st_gid == USER


async def test_a_set_gid_folder_hands_its_group_down(drive: LocalDrive) -> None:
    kernel = Kernel(drive, Owners(0, 0, numeric=True), ctx=SimpleNamespace(uid=0, gid=0, pid=1, umask=0))
    folder = await kernel.mkdir("folder")
    await kernel.setattr(folder, gid=OTHER, mode=0o2775)
    below = await kernel.ops.getattr(await kernel.mkdir("below", folder), kernel.ctx)
    assert (below.st_gid, stat.S_IMODE(below.st_mode)) == (OTHER, 0o2755)
    file = await kernel.ops.getattr(await kernel.make("file", parent=folder), kernel.ctx)
    assert (file.st_gid, stat.S_IMODE(file.st_mode)) == (OTHER, 0o644)


async def test_times_have_nanoseconds(kernel: Kernel) -> None:
    number = await kernel.make("file")
    await kernel.setattr(number, atime=5 * SECOND + 1, mtime=-(3 * SECOND) + 2, ctime=9 * SECOND + 3)
    entry = await kernel.ops.getattr(number, kernel.ctx)
    assert (entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns) == (5 * SECOND + 1, -(3 * SECOND) + 2, 9 * SECOND + 3)


async def test_the_kernel_s_old_mtime_does_not_undo_a_remote_change(kernel: Kernel) -> None:
    number = await kernel.make_acknowledged("file", b"old")
    await kernel.setattr(number, mtime=3 * SECOND)
    kernel.replace_content(number, 7)
    await kernel.setattr(number, mtime=3 * SECOND, ctime=4 * SECOND)
    assert kernel.drive.replica.node(number).mtime_ns == 7 * SECOND
    await kernel.setattr(number, mtime=5 * SECOND)
    assert kernel.drive.replica.node(number).mtime_ns == 5 * SECOND, "another mtime is somebody's wish"


async def test_statfs(kernel: Kernel) -> None:
    kernel.drive.database.set_meta("usage", {"quota": 10 * 2**30, "used": 4 * 2**30})
    data = await kernel.ops.statfs(kernel.ctx)
    assert data.f_blocks * data.f_frsize == 10 * 2**30
    assert data.f_bavail * data.f_frsize == 6 * 2**30
    assert data.f_namemax == 255


# ----------------------------------------------------------------------------------------------------------- content


async def test_write_and_read_back(kernel: Kernel) -> None:
    number = await kernel.make("file", b"content")
    assert await kernel.read(number) == b"content"
    assert (await kernel.ops.getattr(number, kernel.ctx)).st_size == 7


async def test_open_with_truncation_cuts_and_clears_the_set_id_bits(kernel: Kernel) -> None:
    number = await kernel.make("file", b"content")
    await kernel.setattr(number, mode=0o6755)
    fh = await kernel.open(number, os.O_WRONLY | os.O_TRUNC)
    entry = await kernel.ops.getattr(number, kernel.ctx)
    assert (entry.st_size, stat.S_IMODE(entry.st_mode)) == (0, 0o755)
    assert kernel.told_to_forget == [number]
    await kernel.ops.release(fh)


async def test_root_s_truncation_leaves_the_set_id_bits(drive: LocalDrive) -> None:
    kernel = Kernel(drive, Owners(0, 0, numeric=True), ctx=SimpleNamespace(uid=0, gid=0, pid=1, umask=0))
    number = await kernel.make("file", b"content")
    await kernel.setattr(number, mode=0o6755)
    fh = await kernel.open(number, os.O_WRONLY | os.O_TRUNC)
    assert stat.S_IMODE((await kernel.ops.getattr(number, kernel.ctx)).st_mode) == 0o6755
    await kernel.ops.release(fh)


async def test_truncation_with_and_without_a_handle(kernel: Kernel) -> None:
    number = await kernel.make("file", b"content")
    assert (await kernel.setattr(number, size=3)).st_size == 3
    fh = await kernel.open(number, os.O_RDWR)
    assert (await kernel.setattr(number, fh, size=5)).st_size == 5
    assert await kernel.ops.read(fh, 0, 100) == b"con\0\0"
    await kernel.ops.release(fh)


async def test_what_no_flush_saved_the_release_saves(kernel: Kernel) -> None:
    info, entry = await kernel.ops.create(ROOT, b"file", 0o644, os.O_WRONLY, kernel.ctx)
    await kernel.ops.write(info.fh, 0, b"content")
    await kernel.ops.release(info.fh)
    assert await kernel.read(entry.st_ino) == b"content"


async def test_an_unlinked_file_lives_on_in_its_handles(kernel: Kernel) -> None:
    number = await kernel.make("file", b"content")
    fh = await kernel.open(number, os.O_RDWR)
    await kernel.ops.unlink(ROOT, b"file", kernel.ctx)
    kernel.drive.replica.sweep()
    await kernel.ops.write(fh, 7, b" and more")
    assert await kernel.ops.read(fh, 0, 100) == b"content and more"
    assert (await kernel.ops.getattr(number, kernel.ctx)).st_nlink == 0
    await kernel.ops.release(fh)


async def test_the_end_of_a_session_saves_what_was_open(kernel: Kernel) -> None:
    info, entry = await kernel.ops.create(ROOT, b"file", 0o644, os.O_WRONLY, kernel.ctx)
    await kernel.ops.write(info.fh, 0, b"content")
    await kernel.ops.end_of_session()
    assert kernel.drive.replica.node(int(entry.st_ino)).size == 7
    assert kernel.drive.files.get(int(entry.st_ino)) is None


async def test_the_end_of_a_session_saves_what_it_can(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = [await kernel.ops.create(ROOT, name, 0o644, os.O_WRONLY, kernel.ctx) for name in (b"one", b"two")]
    for info, _ in opened:
        await kernel.ops.write(info.fh, 0, b"content")
    first, second = (int(entry.st_ino) for _, entry in opened)
    add_draft = kernel.drive.contents.add_draft

    def add(ino: int, *rest: Any) -> int:
        if ino == first:
            raise DiskFull("full")
        return add_draft(ino, *rest)

    monkeypatch.setattr(kernel.drive.contents, "add_draft", add)
    await kernel.ops.end_of_session()
    assert kernel.drive.replica.node(second).size == 7
    monkeypatch.undo()
    kernel.drive.files.save_unsaved()
    assert kernel.drive.replica.node(first).size == 7


async def test_new_content_gets_a_new_number_and_the_old_handle_keeps_the_old_content(kernel: Kernel) -> None:
    number = await kernel.make_acknowledged("file", b"old")
    fh = await kernel.open(number)
    kernel.replace_content(number, 24)
    entry = await kernel.lookup("file")
    assert entry.st_ino != number
    assert entry.st_size == 24
    assert (await kernel.ops.getattr(number, kernel.ctx)).st_size == 3
    assert await kernel.ops.read(fh, 0, 100) == b"old"
    with refused(errno.ESTALE):
        await kernel.open(number)


async def test_writing_to_the_old_content_makes_a_copy_that_the_kernel_knows_by_the_same_number(kernel: Kernel) -> None:
    number = await kernel.make_acknowledged("file.txt", b"old")
    fh = await kernel.open(number, os.O_RDWR)
    kernel.replace_content(number, 24)
    await kernel.ops.write(fh, 3, b" but newer")
    await kernel.ops.release(fh)
    copy = await kernel.lookup("file (conflicted copy, laptop, 2026-11-20).txt")
    assert copy.st_ino == number
    assert await kernel.read(number) == b"old but newer"


async def test_a_path_that_the_kernel_still_believes_is_looked_up_again(kernel: Kernel) -> None:
    number = await kernel.make_acknowledged("file", b"old")
    kernel.replace_content(number, 24)
    with refused(errno.ESTALE):
        await kernel.open(number)
    with refused(errno.ESTALE):
        await kernel.setattr(number, size=0)


async def test_reads_beyond_the_kernel_s_limit_fail_instead_of_blocking_everybody(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    import trio

    number = await kernel.make("file", b"content")
    fh = await kernel.open(number)
    file = kernel.drive.files.get(number)

    async def slow(offset: int, size: int) -> bytes:
        await trio.sleep(60)
        return b"late"

    monkeypatch.setattr(file, "read", slow)
    kernel.ops.reads.limit(2)
    answers: list[object] = []

    async def read() -> None:
        try:
            answers.append(await kernel.ops.read(fh, 0, 4))
        except FUSEError as error:
            answers.append(error.errno)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(read)
    assert answers == [errno.ETIMEDOUT, errno.ETIMEDOUT, b"late", b"late"]


# ------------------------------------------------------------------------------------------------ extended attributes


async def test_extended_attributes_are_off_unless_asked_for(kernel: Kernel) -> None:
    with refused(errno.ENOSYS):
        await kernel.ops.getxattr(ROOT, b"user.a", kernel.ctx)


async def test_extended_attributes(drive: LocalDrive) -> None:
    kernel = Kernel(drive, kind=OperationsWithXattrs)
    number = await kernel.make("file")
    await kernel.ops.setxattr(number, b"user.a", b"\0value", kernel.ctx)
    assert await kernel.ops.getxattr(number, b"user.a", kernel.ctx) == b"\0value"
    assert await kernel.ops.listxattr(number, kernel.ctx) == [b"user.a"]
    await kernel.ops.removexattr(number, b"user.a", kernel.ctx)
    with refused(errno.ENODATA):
        await kernel.ops.getxattr(number, b"user.a", kernel.ctx)
    with refused(errno.EOPNOTSUPP):
        await kernel.ops.setxattr(number, b"system.posix_acl_access", b"", kernel.ctx)
    with refused(errno.EILSEQ):
        await kernel.ops.setxattr(number, b"user.\xff", b"", kernel.ctx)


async def test_an_attribute_update_without_change_writes_nothing(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    number = await kernel.make("file")
    monkeypatch.setattr(kernel.drive.replica, "set_attributes", None)
    await kernel.setattr(number, uid=OTHER)
    assert replace(AttributeUpdate()) == AttributeUpdate()
