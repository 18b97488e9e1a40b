"""`.aloft` without a kernel: requests as the kernel would send them, over the real replica and a past of the test's own."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pyfuse3
import pytest
import trio
from pyfuse3 import EntryAttributes, FUSEError
from trio.testing import wait_all_tasks_blocked

from cache.errors import NoEntry, Offline
from cache.past import Trashed, Version
from cache.store.schema import ROOT
from fs.attributes import Owners
from fs.history import README, TIMEOUT_SECONDS, History
from fs.inodes import FIRST_OF_HISTORY, Inodes
from fs.operations import Operations, OperationsWithXattrs
from fs.routing import Routes
from remote.protocol import Kind
from tests.support.local_drive import SPACE, LocalDrive

if TYPE_CHECKING:
    from cache.drive import Drive

USER = 1000
CTX = SimpleNamespace(uid=USER, gid=USER, pid=1, umask=0o022)
OLD = Version(SPACE, bytes(16), bytes(32), 1, 3, 7, 8)
FILE = Trashed(SPACE, bytes(16), Kind.FILE, 0o644, 3, 7, 9, bytes(32), None, 0)
FOLDER = replace(FILE, inode=b"d" * 16, kind=Kind.DIRECTORY, size=0, manifest_id=None)
LINK = replace(FILE, inode=b"l" * 16, kind=Kind.SYMLINK, size=0, manifest_id=None, target="f")


class Content:
    async def read(self, offset: int, size: int) -> bytes:
        return b"old"[offset : offset + size]


@dataclass
class StubPast:
    """Says what the test says."""

    found: Mapping[str, Version] = field(default_factory=dict)
    bin: Mapping[str, Trashed] = field(default_factory=dict)
    inside: Mapping[str, Trashed] = field(default_factory=dict)
    before: Callable[[], None] = lambda: None
    hold: trio.Event | None = None

    async def versions(self, ino: int, name: str) -> Mapping[str, Version]:
        return self.found

    async def trash(self) -> Mapping[str, Trashed]:
        self.before()
        if self.hold is not None:
            await self.hold.wait()
        return self.bin

    async def trash_in(self, folder: Trashed) -> Mapping[str, Trashed]:
        return self.inside

    def content(self, what: Version | Trashed) -> Content:
        return Content()


class Kernel:
    def __init__(self, drive: LocalDrive, kind: type[Operations] = Operations) -> None:
        self.drive, self.past = drive, StubPast()
        drive.past = self.past  # type: ignore[attr-defined]
        owners = Owners(USER, USER, numeric=False)
        self.inodes = Inodes()
        self.of_drive = kind(cast("Drive", drive), self.inodes, owners, self._nothing)
        history = History(cast("Drive", drive), owners, self.of_drive.reads, self.of_drive.waits, 5)
        self.ops: Any = Routes(self.of_drive, history)

    async def _nothing(self, number: int) -> None:
        pass

    async def lookup(self, name: str, parent: int = ROOT) -> EntryAttributes:
        entry: EntryAttributes = await self.ops.lookup(parent, name.encode(), CTX)
        return entry

    async def walk(self, path: str) -> int:
        """The number of what is at a path."""
        number = ROOT
        for name in path.split("/"):
            number = (await self.lookup(name, number)).st_ino
        return number

    async def make(self, name: str, parent: int = ROOT) -> int:
        entry = await self.ops.mknod(parent, name.encode(), stat.S_IFREG | 0o644, 0, CTX)
        return int(entry.st_ino)

    async def list(self, number: int, monkeypatch: pytest.MonkeyPatch, room: int = 1000) -> list[str]:
        seen: list[tuple[str, int]] = []
        left = room

        def reply(token: object, name: bytes, entry: EntryAttributes, position: int) -> bool:
            nonlocal left
            left -= 1
            if left >= 0:
                seen.append((name.decode(), position))
            return left >= 0

        monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
        fh, before = await self.ops.opendir(number, CTX), -1
        while len(seen) != before:
            before, left = len(seen), room
            await self.ops.readdir(fh, seen[-1][1] if seen else 0, object())
        await self.ops.releasedir(fh)
        return [name for name, _ in seen]


@pytest.fixture
def kernel(drive: LocalDrive) -> Kernel:
    return Kernel(drive)


def refused(code: int) -> Any:
    return pytest.raises(FUSEError, check=lambda error: error.errno == code)


# --------------------------------------------------------------------------------------------------------- the way in


async def test_the_name_is_there_and_in_no_listing(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    await kernel.make("f")
    top = await kernel.lookup(".aloft")
    assert (top.st_mode, top.st_uid, top.entry_timeout) == (stat.S_IFDIR | 0o500, USER, TIMEOUT_SECONDS)
    assert await kernel.list(ROOT, monkeypatch) == [".", "..", "f"]
    assert await kernel.list(top.st_ino, monkeypatch) == ["README", "trash", "versions"]
    folder = await kernel.ops.mkdir(ROOT, b"d", 0o755, CTX)
    assert (await kernel.lookup(".aloft", folder.st_ino)).st_ino == 0, "only in the root"


async def test_what_had_the_name_before_hides_it_until_it_is_renamed(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr("cache.replica.RESERVED_IN_ROOT", "no name")
        real = (await kernel.ops.mkdir(ROOT, b".aloft", 0o755, CTX)).st_ino
    assert (await kernel.lookup(".aloft")).st_ino == real < FIRST_OF_HISTORY
    assert ".aloft" in await kernel.list(ROOT, monkeypatch)
    await kernel.make("inside", real)
    await kernel.ops.rename(ROOT, b".aloft", ROOT, b"mine", 0, CTX)
    assert (await kernel.lookup(".aloft")).st_ino >= FIRST_OF_HISTORY
    with refused(errno.EPERM):
        await kernel.ops.rename(ROOT, b"mine", ROOT, b".aloft", 0, CTX)


async def test_the_name_is_given_to_nothing_and_not_taken_away(kernel: Kernel) -> None:
    number = await kernel.make("f")
    for attempt in (
        lambda: kernel.ops.mkdir(ROOT, b".aloft", 0o755, CTX),
        lambda: kernel.ops.mknod(ROOT, b".aloft", stat.S_IFREG, 0, CTX),
        lambda: kernel.ops.create(ROOT, b".aloft", stat.S_IFREG, os.O_RDWR, CTX),
        lambda: kernel.ops.symlink(ROOT, b".aloft", b"x", CTX),
        lambda: kernel.ops.link(number, ROOT, b".aloft", CTX),
        lambda: kernel.ops.rename(ROOT, b"f", ROOT, b".aloft", 0, CTX),
        lambda: kernel.ops.rename(ROOT, b".aloft", ROOT, b"g", 0, CTX),
        lambda: kernel.ops.rmdir(ROOT, b".aloft", CTX),
        lambda: kernel.ops.unlink(ROOT, b".aloft", CTX),
    ):
        with refused(errno.EPERM):
            await attempt()
    with refused(errno.ENOENT):
        await kernel.ops.rmdir(ROOT, b"nothing", CTX)


# ------------------------------------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("room", [1, 3, 1000])
async def test_versions_mirror_the_tree(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    folder = (await kernel.ops.mkdir(ROOT, b"d", 0o755, CTX)).st_ino
    names = [f"f{number}" for number in range(150)]
    for name in names:
        await kernel.make(name, folder)
    await kernel.ops.symlink(folder, b"link", b"f1", CTX)
    assert await kernel.list(await kernel.walk(".aloft/versions"), monkeypatch, room) == ["d"]
    shown = await kernel.list(await kernel.walk(".aloft/versions/d"), monkeypatch, room)
    assert sorted(shown) == sorted(names), "a symlink has no versions"
    with refused(errno.ENOENT):
        await kernel.walk(".aloft/versions/d/link")
    file = await kernel.lookup("f1", await kernel.walk(".aloft/versions/d"))
    assert (file.st_mode, file.st_nlink) == (stat.S_IFDIR | 0o555, 1)


async def test_a_version_has_its_own_size_and_times_and_is_read(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    await kernel.make("f")
    kernel.past.found = {"old f": OLD, "new f": replace(OLD, revision=2)}
    folder = await kernel.walk(".aloft/versions/f")
    assert await kernel.list(folder, monkeypatch, 1) == ["old f", "new f"]
    entry = await kernel.lookup("old f", folder)
    shown = (entry.st_mode, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns, entry.attr_timeout)
    assert shown == (stat.S_IFREG | 0o444, 3, 7, 8, TIMEOUT_SECONDS)
    info = await kernel.ops.open(entry.st_ino, os.O_RDONLY, CTX)
    assert await kernel.ops.read(info.fh, 1, 100) == b"ld"
    await kernel.ops.flush(info.fh)
    await kernel.ops.fsync(info.fh, False)
    await kernel.ops.release(info.fh)


async def test_the_trash_has_files_folders_and_links(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.past.bin, kernel.past.inside = {"f": FILE, "d": FOLDER, "l": LINK}, {"g": FILE}
    assert await kernel.list(await kernel.walk(".aloft/trash"), monkeypatch) == ["f", "d", "l"]
    assert await kernel.list(await kernel.walk(".aloft/trash/d"), monkeypatch) == ["g"]
    assert await kernel.walk(".aloft/trash/d/g") == await kernel.walk(".aloft/trash/f"), "the same item has one number"
    assert await kernel.ops.readlink(await kernel.walk(".aloft/trash/l"), CTX) == b"f"
    for path, code in ((".aloft/trash/f/x", errno.ENOTDIR), (".aloft/trash/x", errno.ENOENT), (".aloft/x", errno.ENOENT)):
        with refused(code):
            await kernel.walk(path)
    with refused(errno.EINVAL):
        await kernel.ops.readlink(await kernel.walk(".aloft/trash/f"), CTX)
    with refused(errno.EISDIR):
        await kernel.ops.open(await kernel.walk(".aloft/trash/d"), os.O_RDONLY, CTX)


async def test_the_readme_is_read(kernel: Kernel) -> None:
    entry = await kernel.lookup("README", await kernel.walk(".aloft"))
    info = await kernel.ops.open(entry.st_ino, os.O_RDONLY, CTX)
    assert (await kernel.ops.read(info.fh, 0, 10_000), entry.st_size) == (README, len(README))


async def test_nothing_changes(kernel: Kernel) -> None:
    kernel.past.bin = {"f": FILE}
    number, file = await kernel.make("mine"), await kernel.walk(".aloft/trash/f")
    folder, fields = await kernel.walk(".aloft/trash"), SimpleNamespace()
    for attempt in (
        lambda: kernel.ops.mkdir(folder, b"x", 0o755, CTX),
        lambda: kernel.ops.mknod(folder, b"x", stat.S_IFREG, 0, CTX),
        lambda: kernel.ops.create(folder, b"x", stat.S_IFREG, os.O_RDWR, CTX),
        lambda: kernel.ops.symlink(folder, b"x", b"x", CTX),
        lambda: kernel.ops.unlink(folder, b"f", CTX),
        lambda: kernel.ops.rmdir(folder, b"f", CTX),
        lambda: kernel.ops.rename(folder, b"f", folder, b"g", 0, CTX),
        lambda: kernel.ops.rename(folder, b"f", ROOT, b"g", 0, CTX),
        lambda: kernel.ops.rename(ROOT, b"mine", folder, b"g", 0, CTX),
        lambda: kernel.ops.link(file, ROOT, b"g", CTX),
        lambda: kernel.ops.link(number, folder, b"g", CTX),
        lambda: kernel.ops.setattr(file, EntryAttributes(), fields, None, CTX),
        lambda: kernel.ops.setxattr(file, b"user.x", b"", CTX),
        lambda: kernel.ops.removexattr(file, b"user.x", CTX),
        lambda: kernel.ops.open(file, os.O_RDWR, CTX),
        lambda: kernel.ops.open(file, os.O_RDONLY | os.O_TRUNC, CTX),
    ):
        with refused(errno.EROFS):
            await attempt()
    assert (await kernel.lookup("mine")).st_ino == number


async def test_nothing_has_extended_attributes(drive: LocalDrive) -> None:
    kernel = Kernel(drive, OperationsWithXattrs)
    top = await kernel.walk(".aloft")
    assert await kernel.ops.listxattr(top, CTX) == []
    with refused(errno.ENODATA):
        await kernel.ops.getxattr(top, b"user.x", CTX)


# -------------------------------------------------------------------------------------------------- numbers and the end


async def test_a_number_is_held_as_often_as_it_was_told_and_never_given_again(kernel: Kernel) -> None:
    kernel.past.bin = {"f": FILE}
    number = await kernel.walk(".aloft/trash/f")
    assert await kernel.walk(".aloft/trash/f") == number >= FIRST_OF_HISTORY
    real = await kernel.make("real")
    await kernel.ops.forget([(number, 1), (real, 1)])
    assert kernel.inodes.held_number(real) is None
    assert (await kernel.ops.getattr(number, CTX)).st_ino == number
    await kernel.ops.forget([(number, 1)])
    with refused(errno.ESTALE):
        await kernel.ops.getattr(number, CTX)
    assert await kernel.walk(".aloft/trash/f") > number
    await kernel.ops.forget([(number, 1), (ROOT, 1)])


async def test_what_does_not_fit_into_an_answer_is_not_held(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.past.bin = {"f": FILE}
    folder = await kernel.walk(".aloft/trash")
    assert await kernel.list(folder, monkeypatch, 0) == []
    assert await kernel.list(folder, monkeypatch, 1) == ["f"]
    number = await kernel.walk(".aloft/trash/f")
    await kernel.ops.forget([(number, 2)])
    with refused(errno.ESTALE):
        await kernel.ops.getattr(number, CTX)


async def test_a_file_that_is_gone_has_no_folder_of_versions_any_more(kernel: Kernel) -> None:
    await kernel.make("f")
    number = await kernel.walk(".aloft/versions/f")

    async def gone(ino: int, name: str) -> Mapping[str, Version]:
        raise NoEntry(name)

    kernel.past.versions = gone  # type: ignore[method-assign]
    with refused(errno.ENOENT):
        await kernel.ops.opendir(number, CTX)


async def test_errors_are_those_of_the_table(kernel: Kernel) -> None:
    def offline() -> None:
        raise Offline("no connection")

    kernel.past.before = offline
    folder = await kernel.walk(".aloft/trash")
    for attempt in (lambda: kernel.ops.opendir(folder, CTX), lambda: kernel.lookup("f", folder)):
        with refused(errno.ENETDOWN):
            await attempt()
    with refused(errno.EILSEQ):
        await kernel.ops.lookup(folder, b"\xff", CTX)


async def test_who_waits_is_let_go_when_the_kernel_is_gone(kernel: Kernel) -> None:
    folder = await kernel.walk(".aloft/trash")
    kernel.past.hold = trio.Event()

    async def look() -> None:
        with refused(errno.ENOTCONN):
            await kernel.ops.opendir(folder, CTX)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await wait_all_tasks_blocked()
        kernel.of_drive.kernel_is_gone()


async def test_the_drives_requests_go_to_the_drive(kernel: Kernel) -> None:
    info, entry = await kernel.ops.create(ROOT, b"f", stat.S_IFREG | 0o644, os.O_RDWR, CTX)
    assert await kernel.ops.write(info.fh, 0, b"bytes") == 5
    await kernel.ops.flush(info.fh)
    assert await kernel.ops.read(info.fh, 0, 10) == b"bytes"
    await kernel.ops.release(info.fh)
    assert (await kernel.ops.getattr(entry.st_ino, CTX)).st_size == 5
    assert (await kernel.ops.statfs(CTX)).f_bsize == 4096
    for name in ("getxattr", "listxattr"):
        with refused(errno.ENOSYS):
            await getattr(kernel.ops, name)(entry.st_ino, *([b"user.x"] if name == "getxattr" else []), CTX)
