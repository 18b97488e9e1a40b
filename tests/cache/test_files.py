"""Files against the plainest model: a file is a bytearray, whatever lies in which layer."""

from __future__ import annotations

import errno
import os
import random
import tempfile
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.drafts import SMALL, ZERO_RUN
from cache.errors import CorruptData, DiskFull, FileTooLarge, NoEntry, NotAFile
from cache.files import File
from remote.manifest import Manifest, manifest_id
from remote.protocol import Kind
from tests.support.contents import Contents, until
from tests.support.memory_service import MemoryService

KIB, MIB = 1024, 2**20
OLD, NEW = Manifest.from_inline(b"old").encode(), Manifest.from_inline(b"new").encode()
OLD_ID, NEW_ID = manifest_id(OLD), manifest_id(NEW)
offsets = st.integers(0, 40).map(lambda n: n * 7 * KIB)
lengths = st.one_of(st.integers(1, 100), st.integers(1, 25).map(lambda n: n * 9 * KIB - 1))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), offsets, lengths),
        st.tuples(st.just("zeros"), offsets, st.sampled_from([100, ZERO_RUN, 2 * ZERO_RUN + 3])),
        st.tuples(st.just("truncate"), st.one_of(offsets, st.integers(0, 3 * SMALL)), st.just(0)),
        st.tuples(st.sampled_from(["upload", "seal", "squash", "flush", "fsync", "reopen", "restart"]), st.just(0), st.just(0)),
    ),
    min_size=1,
    max_size=14,
)


class Checked:
    """A file and its model."""

    def __init__(self, home: Path) -> None:
        self.service = MemoryService()
        self.home = home
        self.device = Contents(home, self.service)
        self.ino = self.device.create("file")
        self.file = self.device.files.open(self.ino, writable=True)
        self.model = bytearray()
        self.seed = 0

    async def do(self, what: str, offset: int, length: int) -> None:
        device, file = self.device, self.file
        if what in ("write", "zeros"):
            self.seed += 1
            data = random.Random(self.seed).randbytes(length) if what == "write" else bytes(length)
            await file.write(offset, data)
            if offset > len(self.model):
                self.model += bytes(offset - len(self.model))
            self.model[offset : offset + length] = data
        elif what == "truncate":
            await file.truncate(offset)
            del self.model[offset:]
            self.model += bytes(offset - len(self.model))
        elif what == "upload":
            await file.flush()
            device.uploads.skip_quiet()
            if file.layers:
                if len(file.layers) > 1:
                    await file.squash()
                device.uploads.due(self.ino)
                await until(lambda: not file.layers or file.layers[0].complete)
                if file.layers:
                    device.acknowledge(self.ino)
        elif what == "seal":
            await file.seal()
        elif what == "squash":
            if len(file.layers) == 2:
                await file.squash()
        elif what == "flush":
            await file.flush()
        elif what == "fsync":
            await file.fsync()
        elif what == "reopen":
            file.release()
            self.file = device.files.open(self.ino, writable=True)

    async def check(self) -> None:
        assert self.file.size == len(self.model)
        assert await self.file.read(0, len(self.model) + 10) == self.model
        if self.model:
            start = self.seed * 7919 % len(self.model)
            assert await self.file.read(start, 5000) == self.model[start : start + 5000]
        assert await self.file.read(len(self.model), 10) == b""


async def run_steps(home: Path, todo: list[tuple[str, int, int]]) -> None:
    checked = Checked(home)
    batches: list[list[tuple[str, int, int]]] = [[]]
    for step in todo:
        if step[0] == "restart":
            batches.append([])
        else:
            batches[-1].append(step)
    for number, batch in enumerate(batches):
        if number:
            checked.device = Contents(home, checked.service)
            checked.file = checked.device.files.open(checked.ino, writable=True)
        async with checked.device.running():
            await checked.check()
            for step in batch:
                await checked.do(*step)
                await checked.check()
            await checked.file.flush()  # then the process ends without another word
    device = Contents(home, checked.service)
    async with device.running(uploads=False):
        row = device.tree.inode(checked.ino)
        assert row is not None
        assert row.size == len(checked.model)
        assert await device.read(checked.ino) == checked.model


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_equals_a_bytearray(todo: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(partial(run_steps, Path(folder) / "home", todo))


@pytest.fixture
async def device(tmp_path: Path) -> Contents:
    return Contents(tmp_path / "home", MemoryService(), upload_delay=1000)


def new_file(device: Contents) -> File:
    return device.files.open(device.create("file"), writable=True)


async def test_a_huge_sparse_file_takes_no_space_and_goes_up_at_once(device: Contents) -> None:
    async with device.running():
        file = new_file(device)
        assert file.ino is not None
        await file.truncate(10**15)
        await file.write(10**13, b"x")
        file.release()
        device.uploads.skip_quiet()
        manifest = await device.push(file.ino)
        assert manifest.size == 10**15
        assert len(manifest.chunks) == 3
        assert await device.read(file.ino, 10**13 - 5, 10) == bytes(5) + b"x" + bytes(4)


async def test_zeros_written_into_a_hole_take_no_space(device: Contents) -> None:
    async with device.running(uploads=False):
        file = new_file(device)
        for at in range(8):
            await file.write(at * MIB, bytes(MIB))
        await file.flush()
        assert list(device.folder.path.iterdir()) == []
        await file.write(3 * MIB, b"data" * 100_000)
        await file.write(3 * MIB, bytes(MIB))  # over data they are data
        assert await file.read(0, 8 * MIB) == bytes(8 * MIB)
        file.release()


async def test_a_small_draft_is_in_the_replica_and_a_large_one_in_a_file(device: Contents) -> None:
    async with device.running(uploads=False):
        file = new_file(device)
        await file.write(0, b"a" * SMALL)
        await file.flush()
        assert list(device.folder.path.iterdir()) == []
        await file.write(SMALL, b"b")
        await file.flush()
        assert len(list(device.folder.path.iterdir())) == 1
        assert await file.read(SMALL - 1, 2) == b"ab"
        file.release()


async def test_what_was_not_flushed_is_saved_by_release(tmp_path: Path) -> None:
    first = Contents(tmp_path / "home", MemoryService())
    async with first.running(uploads=False):
        file = new_file(first)
        await file.write(0, b"kept")
        file.release()
        ino = file.ino
    assert ino is not None
    again = Contents(tmp_path / "home", MemoryService())
    async with again.running(uploads=False):
        assert await again.read(ino) == b"kept"


async def test_opening_with_truncation_empties_the_file(device: Contents) -> None:
    async with device.running(uploads=False):
        ino = device.create("file")
        await device.write(ino, b"content")
        file = device.files.open(ino, writable=True, truncate=True)
        assert file.size == 0
        file.release()
        row = device.tree.inode(ino)
        assert row is not None
        assert row.size == 0
        assert await device.read(ino) == b""


async def test_truncation_sets_the_times(device: Contents) -> None:
    async with device.running(uploads=False):
        ino = device.create("file")
        await device.write(ino, b"content")
        before = device.clock.wall_ns()
        await device.files.truncate(ino, 3)
        row = device.tree.inode(ino)
        assert row is not None
        assert row.mtime_ns >= before
        assert row.ctime_ns >= before
        assert await device.read(ino) == b"con"


@pytest.mark.parametrize(("ahead_ns", "kept"), [(4_000_000, True), (3600 * 10**9, False)])
async def test_truncation_does_not_take_back_a_stamp_of_the_kernels(device: Contents, ahead_ns: int, *, kept: bool) -> None:
    """The kernel's stamps may be some ms later than our clock, and a file that is emptied just then keeps the one it has."""
    async with device.running(uploads=False):
        ino = device.create("file")
        await device.write(ino, b"content")
        stamp = device.clock.wall_ns() + ahead_ns
        device.tree.update_inode(ino, mtime_ns=stamp)
        await device.files.truncate(ino, 0)
        row = device.tree.inode(ino)
        assert row is not None
        assert (row.mtime_ns == stamp) == kept


async def test_only_files_are_opened(device: Contents) -> None:
    async with device.running(uploads=False):
        with pytest.raises(NoEntry):
            device.files.open(999, writable=False)
        with pytest.raises(NotAFile):
            device.files.open(device.create("folder", kind=Kind.DIRECTORY), writable=False)


async def test_no_file_is_larger_than_the_format(device: Contents) -> None:
    async with device.running(uploads=False):
        file = new_file(device)
        with pytest.raises(FileTooLarge):
            await file.write(2**63 - 2, b"ab")
        with pytest.raises(FileTooLarge):
            await file.truncate(2**63)
        file.release()


async def test_a_draft_without_its_file_is_an_error_that_is_seen(tmp_path: Path) -> None:
    first = Contents(tmp_path / "home", MemoryService())
    async with first.running(uploads=False):
        ino = first.create("file")
        await first.write(ino, b"x" * 100_000)
        next(first.folder.path.iterdir()).unlink()
    again = Contents(tmp_path / "home", MemoryService())
    async with again.running(uploads=False):
        with pytest.raises(CorruptData):
            await again.read(ino)


async def test_a_deleted_file_is_written_and_read_until_it_is_closed(device: Contents) -> None:
    async with device.running(uploads=False):
        file = new_file(device)
        await file.write(0, b"x" * 100_000)
        device.remove("file")
        await file.write(100_000, b"y")
        assert await file.read(99_999, 10) == b"xy"
        await file.flush()
        file.release()
        assert file.ino is not None
        assert device.store.drafts(file.ino) == []
        await until(lambda: list(device.folder.path.iterdir()) == [])


async def test_an_open_file_keeps_the_version_that_it_opened(device: Contents) -> None:
    async with device.running(uploads=True):
        ino = device.create("file")
        await device.write(ino, b"old" * 10_000)
        device.uploads.skip_quiet()
        await device.push(ino)
        old = device.files.open(ino, writable=True)
        with device.database.transaction():  # as a merge that takes the service's content
            device.tree.update_inode(ino, manifest_id=device.service.keep_manifest(b"", NEW), manifest_size=3, size=3)
            device.store.put_manifests([(device.service.keep_manifest(b"", NEW), NEW)])
        device.files.content_replaced(ino)
        assert old.ino is None
        assert old.size == 30_000
        assert await old.read(0, 6) == b"oldold"
        assert await device.read(ino) == b"new"
        assert old.node().size == 30_000
        await old.write(0, b"mine")
        assert old.ino == device.forks[0]
        await old.flush()
        old.release()
        assert (await device.read(device.forks[0]))[:6] == b"mineld"
        assert await device.read(ino) == b"new"


async def test_handles_go_with_the_conflicted_copy(device: Contents) -> None:
    async with device.running(uploads=False):
        file = new_file(device)
        await file.write(0, b"mine")
        await file.flush()
        ino, copy = file.ino, device.create("copy")
        assert ino is not None
        with device.database.transaction():
            device.store.move_drafts(ino, copy)
            device.tree.update_inode(ino, manifest_id=device.service.keep_manifest(b"", NEW), manifest_size=3, size=3)
            device.store.put_manifests([(device.service.keep_manifest(b"", NEW), NEW)])
        device.files.content_moved(ino, copy)
        await file.write(4, b" too")
        file.release()
        assert await device.read(copy) == b"mine too"
        assert await device.read(ino) == b"new"


async def test_what_was_written_and_not_flushed_is_not_lost_to_the_services_content(device: Contents) -> None:
    async with device.running(uploads=False):
        ino = device.create("file")
        with device.database.transaction():
            device.store.put_manifests([(OLD_ID, OLD)])
            device.tree.update_inode(ino, manifest_id=OLD_ID, manifest_size=3, size=3)
        file = device.files.open(ino, writable=True)
        await file.write(3, b" and mine")
        assert device.store.has_drafts(ino)  # so that a merge sees at once that the file is being edited
        with device.database.transaction():  # as a merge does not, but if it did
            device.store.put_manifests([(NEW_ID, NEW)])
            device.tree.update_inode(ino, manifest_id=NEW_ID, manifest_size=3, size=3)
        device.files.content_replaced(ino)
        (copy,) = device.forks
        assert file.ino == copy
        file.release()
        assert await device.read(ino) == b"new"
        assert await device.read(copy) == b"old and mine"
        row = device.tree.inode(copy)
        assert row is not None
        assert row.size == 12


async def test_a_draft_that_a_file_of_its_own_took_over_keeps_its_bytes(device: Contents) -> None:
    """The merge dropped the draft's row; the handle, which had unsaved bytes, made another of it (seed 50318)."""
    async with device.running(uploads=False):
        ino = device.create("file")
        await device.write(ino, b"x" * 100_000)
        file = device.files.open(ino, writable=True)
        await file.write(100_000, b"y")
        with device.database.transaction():
            gone = device.store.drop_drafts(ino)
            device.store.put_manifests([(NEW_ID, NEW)])
            device.tree.update_inode(ino, manifest_id=NEW_ID, manifest_size=3, size=3)
        device.files.content_replaced(ino)
        device.files.acknowledged(ino, gone)
        for _ in range(50):  # threads unlink
            await trio.sleep(0.001)
        assert device.store.draft_ids() == {int(path.name) for path in device.folder.path.iterdir()}
        file.release()
        assert (await device.read(device.forks[0]))[99_999:] == b"xy"


async def test_a_detached_file_is_readable_though_its_drafts_were_dropped(device: Contents) -> None:
    async with device.running(uploads=False):
        ino = device.create("file")
        await device.write(ino, b"x" * 100_000)
        file = device.files.open(ino, writable=True)
        with device.database.transaction():
            gone = device.store.drop_drafts(ino)
            device.store.put_manifests([(NEW_ID, NEW)])
            device.tree.update_inode(ino, manifest_id=NEW_ID, manifest_size=3, size=3)
        device.files.content_replaced(ino)
        device.files.acknowledged(ino, gone)
        assert await file.read(99_999, 10) == b"x"
        await file.write(100_000, b"y")
        await file.flush()
        file.release()
        assert (await device.read(device.forks[0]))[99_999:] == b"xy"
        assert await device.read(ino) == b"new"
        assert device.store.draft_ids() == {int(path.name) for path in device.folder.path.iterdir()}


class FullDisk:
    """Lets writes to draft files fail for want of room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", self._write)

    def _write(self, descriptor: int, data: bytes, offset: int) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._pwrite(descriptor, data, offset)


@pytest.mark.parametrize("size", [1000, 200_000])
async def test_a_full_disk_is_said_and_harms_nothing(device: Contents, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    disk = FullDisk(monkeypatch)
    async with device.running(uploads=False):
        file = new_file(device)
        await file.write(0, b"a" * 150_000)
        disk.full = True
        with pytest.raises(DiskFull):
            await file.write(150_000, b"b" * size)
        assert file.size == 150_000
        disk.full = False
        await file.write(150_000, b"c" * size)
        await file.flush()
        file.release()
        assert file.ino is not None
        assert await device.read(file.ino) == b"a" * 150_000 + b"c" * size


async def test_a_small_file_that_finds_the_disk_full_stays_in_memory(device: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise DiskFull("full")

    async with device.running(uploads=False):
        file = new_file(device)
        await file.write(0, b"precious")
        monkeypatch.setattr(device.store, "add_draft", full)
        with pytest.raises(DiskFull):
            await file.flush()
        with pytest.raises(DiskFull):
            file.release()
        assert file.ino is not None
        assert await file.read(0, 100) == b"precious"
        monkeypatch.undo()
        device.files.save_unsaved()
        assert device.store.has_drafts(file.ino)
        assert device.files.get(file.ino) is None


@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 5, 8])
async def test_an_acknowledgement_in_the_middle_of_a_squash_harms_nothing(device: Contents, rounds: int) -> None:
    async with device.running():
        ino = device.create("file")
        content = bytearray(random.Random(0).randbytes(6 * MIB))
        await device.write(ino, bytes(content))
        device.uploads.skip_quiet()
        await device.wait_complete(ino)
        file = device.files.open(ino, writable=True)
        content[MIB : MIB + 9] = b"on top of"
        await file.write(MIB, b"on top of")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.squash)
            for _ in range(rounds):
                await trio.sleep(0.001)
            if device.store.drafts(ino)[0].complete:
                device.acknowledge(ino)
        assert await file.read(0, len(content)) == content
        await file.flush()
        file.release()
        device.uploads.skip_quiet()
        await device.push(ino)
        assert await device.read(ino) == content
        assert device.store.drafts(ino) == []


async def test_the_last_of_the_disk_is_left_to_the_replica(device: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that on a full disk files can still be deleted, renamed, and saved if they are small."""
    almost_full = os.statvfs_result((4096, 4096, 2**20, 1000, 1000, 0, 0, 0, 0, 255))
    async with device.running(uploads=False):
        large, small = new_file(device), device.files.open(device.create("small"), writable=True)
        monkeypatch.setattr(os, "statvfs", lambda path: almost_full)
        with pytest.raises(DiskFull):
            await large.write(0, b"x" * 200_000)
        assert large.size == 0
        await small.write(0, b"kept")
        await small.flush()
        monkeypatch.undo()
        await large.write(0, b"x" * 200_000)
        assert await large.read(199_999, 1) == b"x"
        large.release()
        small.release()
