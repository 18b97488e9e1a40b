"""What is in memory follows what is on the disk: transactions that were rolled back, and work that others cut into."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from cache import uploading, uploads
from cache.drafts import Draft
from cache.errors import DiskFull, Offline, Unavailable
from cache.files import File
from cache.replica import EMPTY_MANIFEST, EMPTY_MANIFEST_ID
from remote.api import Unreachable
from tests.support.contents import Contents, until
from tests.support.memory_service import MemoryService

MIB = 2**20


class Refusing:
    """SQLite, on a disk that is full at the moment of the commit (in WAL mode that is when it writes)."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql
        self.refused = 0

    @property
    def in_transaction(self) -> bool:
        return self._sql.in_transaction

    def execute(self, statement: str) -> object:
        if statement != "COMMIT":
            return self._sql.execute(statement)
        self.refused += 1
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error


@contextmanager
def full_disk(device: Contents) -> Iterator[Refusing]:
    transaction = device.database.transaction()
    refusing = Refusing(device.database.sql)
    transaction._sql = refusing  # type: ignore[assignment]
    try:
        yield refusing
    finally:
        transaction._sql = device.database.sql


@pytest.fixture
def device(tmp_path: Path) -> Contents:
    return Contents(tmp_path / "home", MemoryService())


async def test_a_flush_that_is_rolled_back_is_done_again(device: Contents) -> None:
    async with device.running(uploads=False):
        file = device.files.open(ino := device.create("file"), writable=True)
        await file.write(0, b"precious")
        with full_disk(device), pytest.raises(DiskFull):
            await file.flush()
        await device.write(device.create("another"), b"takes the same id")
        file.release()
        assert await device.read(ino) == b"precious"
        assert device.files.get(ino) is None


async def test_a_second_flush_that_is_rolled_back_is_done_again(device: Contents) -> None:
    async with device.running(uploads=False):
        file = device.files.open(ino := device.create("file"), writable=True)
        await file.write(0, b"1234")
        await file.flush()
        await file.write(0, b"5678")
        with full_disk(device), pytest.raises(DiskFull):
            await file.flush()
        file.release()
        assert await device.read(ino) == b"5678"


async def test_a_truncation_that_is_rolled_back_did_not_happen(device: Contents) -> None:
    async with device.running(uploads=False):
        await device.write(ino := device.create("file"), b"precious")
        with full_disk(device), pytest.raises(DiskFull):
            device.files.open(ino, writable=True, truncate=True)
        device.files.save_unsaved()
        assert await device.read(ino) == b"precious"
        row = device.tree.inode(ino)
        assert row is not None
        assert row.size == 8


async def test_a_batch_that_is_rolled_back_is_taken_again(device: Contents) -> None:
    async with device.running(uploads=False):
        whole, part = device.create("whole"), device.create("part")
        await device.write(part, b"base" * 2000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.uploads.run)
            device.uploads.skip_quiet()
            await device.push(part)
            nursery.cancel_scope.cancel()
        await device.write(part, b"!", 5)
        await device.write(whole, b"small")
        for ino in (part, whole):
            device.uploads._queue._activate(ino)
        with full_disk(device):
            taken, others = device.uploads._take_many([part, whole])
        assert (taken, others) == ([], [part, whole])
        assert device.files._open == {}
        assert not device.uploads._queue._large_ready
        device.uploads._queue._active.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.uploads.run)
            device.uploads.skip_quiet()
            for ino in (part, whole):
                await device.push(ino)
            nursery.cancel_scope.cancel()
        assert (await device.read(part))[:8] == b"baseb!se"


async def test_a_truncation_that_is_rolled_back_leaves_open_files_as_they_were(device: Contents) -> None:
    async with device.running(uploads=False):
        await device.write(ino := device.create("file"), b"precious")
        file = device.files.open(ino, writable=True)
        await file.write(8, b" thing")
        with full_disk(device), pytest.raises(DiskFull):
            await file.truncate(2)
        assert await file.read(0, 100) == b"precious thing"
        await file.flush()
        file.release()
        assert await device.read(ino) == b"precious thing"


async def test_opening_with_truncation_in_the_middle_of_a_squash_leaves_nothing_of_the_old(
    device: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_into = Draft.read_into
    copied = 0

    async def read_and_truncate(draft: Draft, pieces: list[tuple[int, memoryview]]) -> None:
        nonlocal copied
        await read_into(draft, pieces)
        copied += 1
        if copied == 3:
            device.files.open(ino, writable=True, truncate=True)

    async with device.running(uploads=False):
        await device.write(ino := device.create("file"), random.Random(1).randbytes(6 * MIB))
        file = device.files.open(ino, writable=True)
        await file.seal()
        await file.write(0, b"on top of")
        monkeypatch.setattr(Draft, "read_into", read_and_truncate)
        await file.squash()
        await file.truncate(6 * MIB)
        assert not any(await file.read(0, 6 * MIB))


async def test_what_cannot_become_a_file_of_its_own_for_want_of_room_does_so_later(device: Contents) -> None:
    """Written to a file, not yet flushed, while the service's content took its place."""
    async with device.running(uploads=False):
        await device.write(ino := device.create("file"), b"old")
        file = device.files.open(ino, writable=True)
        await file.write(0, b"mine, and long enough")
        with device.database.transaction():
            gone = device.store.drop_drafts(ino)
            device.store.put_manifests([(EMPTY_MANIFEST_ID, EMPTY_MANIFEST)])
            device.tree.update_inode(ino, manifest_id=EMPTY_MANIFEST_ID, manifest_size=0, size=0)
        with full_disk(device):
            device.files.content_replaced(ino)
        device.files.acknowledged(ino, gone)
        assert device.forks == [device.forks[0]]
        device.forks.clear()
        assert file.ino is None
        with full_disk(device), pytest.raises(DiskFull):
            await file.flush()
        device.forks.clear()
        file.release()
        assert await device.read(device.forks[0]) == b"mine, and long enough"
        assert await device.read(ino) == b""
        assert not device.files._detached


async def test_one_file_that_cannot_be_saved_keeps_no_other_from_it(device: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    async with device.running(uploads=False):
        files = [device.files.open(device.create(name), writable=True) for name in ("one", "two", "three")]
        for file in files:
            await file.write(0, b"precious")
        add_draft = device.store.add_draft

        def add(ino: int, *rest: object) -> int:
            if ino == files[1].ino:
                raise DiskFull("full")
            return add_draft(ino, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(device.store, "add_draft", add)
        with pytest.raises(DiskFull):
            device.files.save_open()
        assert [file.unsaved for file in files] == [False, True, False]


async def test_uploads_that_are_cut_off_hold_no_file(device: Contents) -> None:
    async def wait_for_ever(name: str) -> None:
        if name == "put_object":
            await trio.sleep_forever()

    device.service.before = wait_for_ever
    async with device.running(uploads=False):
        inos = [device.create(f"file {number}") for number in range(3)]
        for ino, size in zip(inos, (10_000, 20_000, 3 * MIB), strict=True):
            await device.write(ino, random.Random(ino).randbytes(size))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.uploads.run)
            device.uploads.skip_quiet()
            await until(lambda: len(device.uploads._sending) == 3)
            nursery.cancel_scope.cancel()
        device.service.before = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.uploads.run)
            device.uploads.skip_quiet()
            for ino in inos:
                await device.push(ino)
            await until(lambda: device.uploads.idle)
            nursery.cancel_scope.cancel()
        assert not device.files._open


async def test_a_connection_that_breaks_in_several_places_is_one_failure(
    device: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes beneath an edit cannot be read, and those of the edit not be sent, at the same time."""

    async def fails(*_: object) -> None:
        raise ExceptionGroup("both", [Offline("cannot be read"), ExceptionGroup("sent", [Unreachable("cannot be sent")])])

    async with device.running(uploads=False):
        await device.write(ino := device.create("file"), bytes(range(256)) * 100)
        file = device.files.open(ino, writable=True)
        draft = await file.seal()
        assert draft is not None
        monkeypatch.setattr(uploading._Upload, "run", fails)
        with pytest.raises(Unreachable):
            await device.uploader.upload(uploading.Job(file, draft, "file", None, frozenset(), False, 1))
        file.release()


async def test_a_fetch_that_fails_in_an_unforeseen_way_ends_no_other(device: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    async with device.running():
        await device.write(ino := device.create("file"), random.Random(4).randbytes(2 * MIB))
        manifest = await device.push(ino)
        await device.chunks.evict(list(manifest.object_ids()))

        async def broken(*_: object, **__: object) -> None:
            raise OSError("too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(device.service, "get_object", broken)
            with pytest.raises(Unavailable):
                await device.read(ino)
        assert len(await device.read(ino)) == 2 * MIB


async def test_closing_saves_though_an_upload_still_holds_the_file(device: Contents) -> None:
    async with device.running(uploads=False):
        file = device.files.open(ino := device.create("file"), writable=True)
        held = device.files.hold(ino)
        await file.write(0, b"written by mmap, after the flush")
        file.release()
        assert device.store.has_drafts(ino)
        device.files.unhold(held)
        assert device.files.get(ino) is None


async def test_a_large_new_file_has_one_size_from_its_first_byte_on(device: Contents) -> None:
    async with device.running(uploads=False):
        file = device.files.open(ino := device.create("file"), writable=True)
        await file.write(0, b"a" * 60_000)
        await file.write(60_000, b"b" * 60_000)
        row = device.tree.inode(ino)
        assert row is not None
        assert row.size == device.store.drafts(ino)[-1].size
        file.release()


async def test_what_waits_is_looked_at_in_slices(device: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "WAITING_AT_ONCE", 3)
    device.switch.turn(on=False)
    async with device.running(uploads=False):
        inos = [device.create(f"file {number}") for number in range(10)]
        for ino in inos:
            await device.write(ino, b"x")
        for ino in inos:
            device.uploads._queue.drop(ino)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.uploads.run)
            await until(lambda: all(ino in device.uploads._queue for ino in inos))
            nursery.cancel_scope.cancel()


async def test_a_conflicted_copy_finds_what_lies_beneath_it_by_the_original(device: Contents) -> None:
    """Its original was never read here, so that the list of its chunks is only on the service, under the original's id."""
    content = random.Random(5).randbytes(3 * MIB)
    other = Contents(device.home.parent / "other", device.service)
    async with other.running():
        await other.write(ino := other.create("file"), content)
        manifest = await other.push(ino)
    async with device.running():
        original = device.receive("file", manifest)
        for number in range(200):
            device.create(f"other {number}")
        await device.files.truncate(original, 2 * MIB)
        copy = device.create("file (conflicted copy)")
        row = device.tree.inode(original)
        assert row is not None
        with device.database.transaction():
            device.tree.update_inode(copy, manifest_id=row.manifest_id, manifest_size=row.manifest_size, size=row.size)
            device.store.move_drafts(original, copy)
            device.store.put_manifests([(EMPTY_MANIFEST_ID, EMPTY_MANIFEST)])
            device.tree.update_inode(original, manifest_id=EMPTY_MANIFEST_ID, manifest_size=0, size=0)
        device.files.content_moved(original, copy)
        assert (await device.push(copy)).size == 2 * MIB
        assert await device.read(copy) == content[: 2 * MIB]


async def test_a_large_upload_that_failed_is_not_copied_under_a_writers_feet(
    device: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can write a file while what was sealed of it is copied."""
    monkeypatch.setattr(uploads, "SQUASH_MAX", MIB)

    async def unreachable(name: str) -> None:
        if name == "put_object":
            raise Unreachable("gone")

    async def squash(_: File) -> None:
        raise AssertionError("three megabytes are copied")

    content = bytearray(random.Random(6).randbytes(3 * MIB))
    device.service.before = unreachable
    async with device.running():
        await device.write(ino := device.create("file"), bytes(content))
        device.uploads.skip_quiet()
        await until(lambda: ino in device.uploads._queue and device.uploads._queue[ino].failed)
        monkeypatch.setattr(File, "squash", squash)
        content[5:8] = b"new"
        await device.write(ino, b"new", 5)
        device.service.before = None
        await device.push(ino)
        await device.push(ino)
        assert await device.read(ino) == content


async def test_a_batch_of_small_files_leaves_the_loop_alone(device: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once: list[int] = []
    take, finish = uploads.Uploads._take_many, uploads.Uploads._finish_some

    def taken(self: uploads.Uploads, inos: list[int]) -> object:
        at_once.append(len(inos))
        return take(self, inos)

    def finished(self: uploads.Uploads, members: list[Any]) -> None:
        at_once.append(len(members))
        finish(self, members)

    monkeypatch.setattr(uploads.Uploads, "_take_many", taken)
    monkeypatch.setattr(uploads.Uploads, "_finish_some", finished)
    async with device.running():
        inos = [device.create(f"file {number}") for number in range(100)]
        for number, ino in enumerate(inos):
            await device.write(ino, random.Random(number).randbytes(100 + number % 2 * 20_000))
        device.uploads.skip_quiet()
        for ino in inos:
            await device.push(ino)
    assert sum(at_once) == 200
    assert max(at_once) <= uploads.TAKEN_AT_ONCE


async def test_what_was_synced_is_cut_only_when_its_row_cannot_come_back(
    device: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    make_durable, cut = device.database.make_durable, os.ftruncate

    def durable() -> None:
        done.append("row")
        make_durable()

    def ftruncate(descriptor: int, size: int) -> None:
        done.append("file")
        cut(descriptor, size)

    monkeypatch.setattr(device.database, "make_durable", durable)
    monkeypatch.setattr(os, "ftruncate", ftruncate)
    async with device.running(uploads=False):
        file = device.files.open(device.create("file"), writable=True)
        await file.write(0, b"x" * 200_000)
        await file.truncate(150_000)
        await file.fsync()
        assert done == ["file", "row"]
        await file.truncate(100_000)
        assert done == ["file", "row", "row", "file"]
        file.release()
