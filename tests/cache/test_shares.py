"""Shared folders in the replica: what the tree shows of a mount, and what becomes of unsent changes when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest import mock

import pytest
import trio

from cache.clock import SystemRandomness
from cache.errors import Busy, NoEntry, NotAllowed
from cache.model import AttributesChanged, AttributeUpdate, Change, EntryChanged, RenameMode
from cache.replica import Replica
from cache.shares import Shares
from cache.store import check
from cache.store.schema import ROOT
from cache.store.sync import ShareState, SyncStore
from remote.protocol import Kind
from tests.cache.test_downloads import on_service
from tests.support.contents import Contents, until
from tests.support.memory_service import MemoryService

SHARED = b"H" * 16
EDITOR, VIEWER = 0o755, 0o555


class Member(Contents):
    """One device, with the mount of a shared folder named `shared`, as the feed brings it."""

    def __init__(self, home: Path, *, known: bool = True, mode: int = EDITOR) -> None:
        super().__init__(home, MemoryService())
        self.sync = SyncStore(self.database, self.tree)
        self.replica = Replica(self.database, self.tree, self.clock, SystemRandomness())
        self.told: list[Change] = []
        self.shares = Shares(self.tree, self.sync, self.replica, self.files, self.told.extend)
        with self.database.transaction():
            if known:
                self.tree.add_space(SHARED, now_ns=0)
            self.mount = self.tree.insert_inode(
                b"M" * 16, 1, Kind.MOUNT, mode=mode, uid=None, gid=None, now_ns=0, target=SHARED.hex()
            )
            self.tree.put_entry(ROOT, "shared", self.mount)
        self.believe()
        self.shares.follow()

    def believe(self) -> None:
        """The service has everything that is here."""
        with self.database.transaction():
            for table in ("entry_base", "inode_base"):
                self.database.sql.execute(f"DELETE FROM {table}")

    @property
    def root(self) -> int:
        return self.replica.lookup(ROOT, "shared").ino

    def becomes(self, mode: int | None) -> None:
        """The feed says so; None: the membership ended."""
        with self.database.transaction():
            if mode is None:
                self.tree.put_entry(ROOT, "shared", None)
            else:
                self.tree.update_inode(self.mount, mode=mode)
            for table, column in (("entry_base", "parent = 1 AND name"), ("inode_base", "ino")):
                key = "shared" if table == "entry_base" else self.mount
                self.database.sql.execute(f"DELETE FROM {table} WHERE {column} = ?", (key,))
        self.shares.follow()

    def recovered(self) -> list[str]:
        try:
            folder = self.replica.lookup(ROOT, "Recovered files").ino
        except NoEntry:
            return []
        return sorted(listed.name for listed in self.replica.list_entries(folder, 0, 100))

    async def recovered_bytes(self, name: str) -> bytes:
        return await self.read(self.replica.resolve(f"Recovered files/{name}").ino)

    async def new_file(self, name: str, content: bytes) -> int:
        node = self.replica.create(self.root, name, Kind.FILE, mode=0o640, uid=None, gid=None)
        await self.write(node.ino, content)
        return node.ino

    async def is_cleared(self) -> None:
        space = self.sync.space_number(SHARED)
        await until(
            lambda: self.sync.space_number(SHARED) is None or self.sync.share(space or 0) is ShareState.VIEWER,
        )


@asynccontextmanager
async def _looking_after(member: Member) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.shares.run)
        yield
        nursery.cancel_scope.cancel()


def _received(member: Member, manifest: bytes, size: int) -> int:
    """A file in the shared folder that the service has."""
    ino = member.replica.create(member.root, "file", Kind.FILE, mode=0o644, uid=None, gid=None, published=True).ino
    id_ = member.service.keep_manifest(member.tree.id_of(ino), manifest)
    with member.database.transaction():
        member.store.put_manifests([(id_, manifest)])
        member.tree.update_inode(ino, manifest_id=id_, manifest_size=size, sha256=None, size=size)
    member.believe()
    return ino


async def test_a_mount_is_the_root_folder_of_the_space(tmp_path: Path) -> None:
    member = Member(tmp_path / "a")
    root = member.replica.lookup(ROOT, "shared")
    assert (root.kind, root.ino) == (Kind.DIRECTORY, member.tree.root_of(2))
    (listed,) = member.replica.list_entries(ROOT, 0, 10)
    assert listed.node == root
    file = member.replica.create(root.ino, "file", Kind.FILE, mode=0o644, uid=None, gid=None, published=True)
    assert member.replica.path_of(file.ino) == "shared/file"
    assert member.replica.resolve("shared/file").ino == file.ino
    member.replica.rename(ROOT, "shared", ROOT, "work", RenameMode.REPLACE)
    assert member.replica.path_of(file.ino) == "work/file"
    assert list(check.find(member.database.sql)) == []
    member.close()


async def test_a_mount_whose_space_is_not_known_yet_is_an_empty_folder(tmp_path: Path) -> None:
    member = Member(tmp_path / "a", known=False)
    node = member.replica.lookup(ROOT, "shared")
    assert (node.ino, node.kind, node.mode) == (member.mount, Kind.DIRECTORY, 0o555)
    assert member.replica.node(node.ino) == node
    assert member.replica.list_entries(node.ino, 0, 10) == []
    with member.database.transaction():
        member.tree.add_space(SHARED, now_ns=0)
    member.shares.follow()
    assert EntryChanged(ROOT, "shared", gone=False) in member.told
    assert member.root != member.mount
    member.close()


async def test_only_sharing_takes_a_mount_away(tmp_path: Path) -> None:
    member = Member(tmp_path / "a")
    member.replica.create(ROOT, "folder", Kind.DIRECTORY, mode=0o755, uid=None, gid=None)
    with pytest.raises(Busy):
        member.replica.rmdir(ROOT, "shared")
    for mode in (RenameMode.REPLACE, RenameMode.EXCHANGE):
        with pytest.raises(Busy):
            member.replica.rename(ROOT, "folder", ROOT, "shared", mode)
        with pytest.raises(Busy):
            member.replica.rename(ROOT, "shared", ROOT, "folder", mode)
    member.close()


async def test_a_viewer_changes_nothing(tmp_path: Path) -> None:
    member = Member(tmp_path / "a")
    file = member.replica.create(member.root, "file", Kind.FILE, mode=0o644, uid=None, gid=None, published=True).ino
    folder = member.replica.create(member.root, "folder", Kind.DIRECTORY, mode=0o755, uid=None, gid=None).ino
    member.replica.set_xattr(file, "user.x", b"1")
    member.believe()
    member.told.clear()
    member.becomes(VIEWER)
    assert {AttributesChanged(ino) for ino in (member.root, file, folder)} <= set(member.told)
    replica, root = member.replica, member.root
    attempts = (
        lambda: replica.create(root, "new", Kind.FILE, mode=0o644, uid=None, gid=None),
        lambda: replica.create(folder, "new", Kind.SYMLINK, mode=0o777, uid=None, gid=None, target="x"),
        lambda: replica.unlink(root, "file"),
        lambda: replica.rmdir(root, "folder"),
        lambda: replica.rename(root, "file", folder, "file", RenameMode.REPLACE),
        lambda: replica.link(file, folder, "file"),
        lambda: replica.set_attributes(file, AttributeUpdate(mode=0o600)),
        lambda: replica.set_attributes(root, AttributeUpdate(mtime_ns=1)),
        lambda: replica.set_xattr(file, "user.x", b"2"),
        lambda: replica.remove_xattr(file, "user.x"),
    )
    for attempt in attempts:
        with pytest.raises(NotAllowed):
            attempt()
    assert not replica.is_writable(file)
    member.becomes(EDITOR)
    assert replica.is_writable(file)
    member.close()


async def test_what_a_device_never_sent_is_recovered_when_a_membership_ends(tmp_path: Path) -> None:
    member = Member(tmp_path / "a")
    async with member.running(uploads=False):
        await member.new_file("new.txt", b"never sent")
        member.replica.create(member.root, "empty", Kind.FILE, mode=0o600, uid=None, gid=None, published=True)
        member.becomes(None)
        async with _looking_after(member):
            await member.is_cleared()
        assert member.recovered() == ["empty", "new.txt"]
        assert await member.recovered_bytes("new.txt") == b"never sent"
        assert member.replica.resolve("Recovered files/new.txt").mode == 0o640
        assert list(check.find(member.database.sql)) == []


async def test_what_cannot_be_read_any_more_is_said_in_the_name(tmp_path: Path) -> None:
    member = Member(tmp_path / "a")
    content, manifest = on_service(member.service, 4)
    async with member.running(uploads=False):
        ino = _received(member, manifest.encode(), manifest.size)
        await member.write(ino, b"edited", 0)
        member.switch.turn(on=False)
        member.becomes(None)
        async with _looking_after(member):
            await member.is_cleared()
        assert member.recovered() == ["file (perhaps incomplete)"]
        assert len(await member.recovered_bytes("file (perhaps incomplete)")) == len(content)


async def test_a_viewer_who_was_an_editor_waits_for_what_can_still_be_read(tmp_path: Path) -> None:
    member = Member(tmp_path / "a")
    content, manifest = on_service(member.service, 4)
    async with member.running(uploads=False):
        ino = _received(member, manifest.encode(), manifest.size)
        await member.write(ino, b"edited", 0)
        member.switch.turn(on=False)
        member.becomes(VIEWER)
        with mock.patch("cache.shares.RETRY_SECONDS", 0.01):
            async with _looking_after(member):
                await until(lambda: bool(member.recovered()))
                member.switch.turn(on=True)
                await member.is_cleared()
        assert member.recovered() == ["file"]
        assert await member.recovered_bytes("file") == b"edited" + content[6:]
        assert await member.read(ino) == content


async def test_a_file_whose_recovery_was_stopped_is_recovered_once(tmp_path: Path) -> None:
    member = Member(tmp_path / "a")
    async with member.running(uploads=False):
        await member.new_file("new.txt", b"never sent")
        member.becomes(None)
        with mock.patch.object(member.files, "drop_drafts", side_effect=RuntimeError), pytest.raises(BaseExceptionGroup):
            async with _looking_after(member):
                await until(lambda: False)
        assert "new.txt" not in member.recovered()
        async with _looking_after(member):
            await member.is_cleared()
        assert member.recovered() == ["new.txt"]
        assert await member.recovered_bytes("new.txt") == b"never sent"


async def test_numbers_of_a_space_that_went_are_not_used_again(tmp_path: Path) -> None:
    member = Member(tmp_path / "a")
    root = member.root
    member.sync.drop_space(2)
    with member.database.transaction():
        assert member.tree.add_space(SHARED, now_ns=0) == 3
    assert member.root > root
    member.close()


async def test_a_pin_reaches_into_the_shared_folders_below(tmp_path: Path) -> None:
    member = Member(tmp_path / "a")
    file = member.replica.create(member.root, "file", Kind.FILE, mode=0o644, uid=None, gid=None, published=True).ino
    member.store.pin(ROOT)
    assert member.store.is_pinned(file)
    assert member.store.pinned_files() == [file]
    member.close()


async def test_a_file_that_is_open_while_its_space_goes_holds_nothing_up(tmp_path: Path) -> None:
    member = Member(tmp_path / "a")
    file = await member.new_file("file", b"x")
    member.believe()
    opened = member.files.open(file, writable=False)
    with member.database.transaction():
        member.database.sql.execute("DELETE FROM identity WHERE ino = ?", (file,))
    member.becomes(None)
    async with _looking_after(member):
        await until(lambda: member.sync.space_number(SHARED) is None)
    with pytest.raises(NoEntry):
        member.tree.space_of(file)
    opened.release()
    member.close()


async def test_why_a_shared_folder_that_ended_waits_is_said(tmp_path: Path) -> None:
    member = Member(tmp_path / "a")
    file = await member.new_file("file", b"unsent")
    opened = member.files.open(file, writable=False)
    member.becomes(None)
    async with _looking_after(member):
        await until(lambda: member.shares.trouble is not None)
        assert "when it is closed" in (member.shares.trouble or "")
        opened.release()
        await until(lambda: member.recovered() == ["file"] and member.shares.trouble is None)
    member.close()


async def test_a_role_is_looked_up_once_until_the_mounts_say_something_else(tmp_path: Path) -> None:
    member = Member(tmp_path / "a")
    asked = mock.Mock(wraps=member.tree.mount_of)
    with mock.patch.object(member.tree, "mount_of", asked):
        assert all(member.replica.is_writable(member.root) for _ in range(5))
        assert asked.call_count == 1
    member.becomes(VIEWER)
    assert not member.replica.is_writable(member.root)
    member.close()
