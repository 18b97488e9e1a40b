"""Uploads end to end: what is written reaches the service, no more often than it must, and stays readable."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cache.files import File
from tests.support.contents import Contents, until
from tests.support.memory_service import MemoryService, unreachable

MIB = 2**20


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


async def test_a_tiny_file_needs_no_object(tmp_path: Path) -> None:
    device = Contents(tmp_path / "a", service := MemoryService())
    async with device.running():
        ino = device.create("tiny")
        await device.write(ino, b"hello")
        manifest = await device.push(ino)
        assert manifest.inline == b"hello"
        assert service.traffic.put_ids == []
        assert await device.read(ino) == b"hello"
        assert device.store.drafts(ino) == []


async def test_an_empty_file_is_published_when_it_is_closed(tmp_path: Path) -> None:
    device = Contents(tmp_path / "a", MemoryService())
    async with device.running():
        ino = device.create("empty")
        await device.write(ino, b"")
        assert (await device.push(ino)).inline == b""


async def test_a_large_file_is_read_back_by_another_device(tmp_path: Path) -> None:
    service = MemoryService()
    content = noise(9 * MIB + 17)
    a = Contents(tmp_path / "a", service)
    async with a.running():
        ino = a.create("large")
        await a.write(ino, content)
        manifest = await a.push(ino)
        assert len(manifest.chunks) > 3
        assert await a.read(ino) == content
        assert service.traffic.get_ids == []  # its chunks went into the cache when they were sent
    b = Contents(tmp_path / "b", service)
    async with b.running():
        ino = b.receive("large", manifest)
        assert await b.read(ino) == content
        assert sorted(service.traffic.get_ids) == sorted(manifest.object_ids())


async def test_one_changed_byte_sends_at_most_two_chunks(tmp_path: Path) -> None:
    service = MemoryService()
    content = bytearray(noise(20 * MIB))
    device = Contents(tmp_path / "a", service)
    async with device.running():
        ino = device.create("large")
        await device.write(ino, bytes(content))
        await device.push(ino)
        service.traffic.put_ids.clear()
        content[7 * MIB] ^= 1
        await device.write(ino, bytes(content[7 * MIB : 7 * MIB + 1]), 7 * MIB)
        await device.push(ino)
        assert 1 <= len(service.traffic.put_ids) <= 2
        assert await device.read(ino) == content


async def test_a_rewrite_with_an_inserted_byte_sends_at_most_two_chunks(tmp_path: Path) -> None:
    service = MemoryService()
    content = noise(20 * MIB)
    device = Contents(tmp_path / "a", service)
    async with device.running():
        await device.write(one := device.create("one"), content)
        await device.push(one)
        service.traffic.put_ids.clear()
        changed = content[: 5 * MIB] + b"!" + content[5 * MIB :]
        await device.write(two := device.create("two"), changed)
        await device.push(two)
        assert 1 <= len(service.traffic.put_ids) <= 2
        assert await device.read(two) == changed


async def test_a_copy_sends_nothing(tmp_path: Path) -> None:
    service = MemoryService()
    device = Contents(tmp_path / "a", service)
    async with device.running():
        for size in (1000, 30_000, 700_000, 5 * MIB):
            content = noise(size, size)
            await device.write(one := device.create(f"one {size}"), content)
            first = await device.push(one)
            service.traffic.put_ids.clear()
            await device.write(two := device.create(f"two {size}"), content)
            assert await device.push(two) == first
            assert service.traffic.put_ids == []


async def test_small_files_share_objects(tmp_path: Path) -> None:
    service = MemoryService()
    device = Contents(tmp_path / "a", service, upload_delay=1000)
    async with device.running():
        contents = {device.create(f"file {n}"): noise(5000 + n, n) for n in range(300)}
        for ino, content in contents.items():
            await device.write(ino, content)
        device.uploads.skip_quiet()
        for ino in contents:
            await device.push(ino)
        assert len(service.traffic.put_ids) <= 4
        assert service.traffic.upload_plans <= 8
        for ino, content in contents.items():
            assert await device.read(ino) == content


async def test_text_is_compressed(tmp_path: Path) -> None:
    service = MemoryService()
    device = Contents(tmp_path / "a", service)
    async with device.running():
        content = b"".join(b"line %d of a long text\n" % n for n in range(200_000))
        await device.write(ino := device.create("text"), content)
        await device.push(ino)
        assert service.traffic.put_bytes < len(content) / 3
        await device.chunks.evict(list(service.objects))
        assert await device.read(ino) == content


async def test_a_cut_upload_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    service = MemoryService()
    content = noise(12 * MIB)
    a = Contents(tmp_path / "a", service)

    async def cut_after_three(name: str) -> None:
        if name == "put_object" and len(service.traffic.put_ids) >= 3:
            a.switch.turn(on=False)
            raise unreachable()

    service.before = cut_after_three
    async with a.running():
        ino = a.create("large")
        await a.write(ino, content)
        await until(lambda: not a.switch.online)
    sent = len(service.traffic.put_ids)
    assert sent >= 3
    service.before = None
    again = Contents(tmp_path / "a", service)
    async with again.running():
        manifest = await again.push(ino)
        assert len(service.traffic.put_ids) == len(set(service.traffic.put_ids)) == len(manifest.object_ids())
        assert await again.read(ino) == content


async def test_without_room_it_stays_a_draft_until_there_is(tmp_path: Path) -> None:
    service = MemoryService()
    service.quota = 1000
    device = Contents(tmp_path / "a", service)
    async with device.running():
        ino = device.create("file")
        await device.write(ino, noise(20_000))
        await until(lambda: device.uploads.queue()[0].error is not None)
        assert await device.read(ino) == noise(20_000)
        service.quota = None
        device.uploads.skip_quiet()  # instead of waiting for the back-off
        await device.push(ino)
        assert device.uploads.queue() == []


async def test_a_write_while_it_is_sent_goes_up_afterwards(tmp_path: Path) -> None:
    service = MemoryService()
    gate = trio.Event()

    async def wait(name: str) -> None:
        if name == "put_object":
            await gate.wait()

    service.before = wait
    device = Contents(tmp_path / "a", service)
    async with device.running():
        ino = device.create("file")
        await device.write(ino, noise(100_000))
        await until(lambda: device.uploads.is_uploading(ino))
        await device.write(ino, b"changed", 50)
        expected = noise(100_000)[:50] + b"changed" + noise(100_000)[57:]
        assert await device.read(ino) == expected
        gate.set()
        await device.push(ino)
        assert await device.read(ino) == expected
        await device.push(ino)
        assert await device.read(ino) == expected
        assert device.store.drafts(ino) == []


async def test_objects_that_the_service_lost_are_sent_again(tmp_path: Path) -> None:
    service = MemoryService()
    device = Contents(tmp_path / "a", service)
    async with device.running():
        ino = device.create("file")
        await device.write(ino, noise(3 * MIB))
        manifest = await device.wait_complete(ino)
        lost = next(iter(manifest.object_ids()))
        del service.objects[lost]
        device.uploads.objects_missing(ino, [lost])
        assert await device.push(ino) == manifest
        assert lost in service.objects


class TestOpenFiles:
    """When a file goes up that stays open. Tiny contents, which need no threads, so that the clock may jump."""

    @pytest.fixture
    def device(self, tmp_path: Path) -> Contents:
        return Contents(tmp_path / "a", MemoryService(), upload_delay=0.5)

    async def existing(self, device: Contents) -> tuple[int, File]:
        ino = device.create("file")
        await device.write(ino, b"begin")
        await device.push(ino)
        return ino, device.files.open(ino, writable=True)

    async def test_after_ten_seconds_without_a_write(self, device: Contents, autojump_clock: MockClock) -> None:
        async with device.running():
            ino, file = await self.existing(device)
            await file.write(0, b"B")
            began = trio.current_time()
            assert (await device.push(ino)).inline == b"Begin"
            assert trio.current_time() - began >= 10
            await file.write(1, b"E")
            assert (await device.push(ino)).inline == b"BEgin"
            file.release()

    async def test_each_minute_if_it_is_only_appended_to(self, device: Contents, autojump_clock: MockClock) -> None:
        async with device.running():
            ino, file = await self.existing(device)
            began = trio.current_time()
            while not any(draft.complete for draft in device.store.drafts(ino)):
                await file.write(file.size, b"+")
                await trio.sleep(1)
            assert 60 <= trio.current_time() - began < 120
            file.release()

    async def test_not_while_it_is_written_here_and_there(self, device: Contents, autojump_clock: MockClock) -> None:
        async with device.running():
            ino, file = await self.existing(device)
            began = trio.current_time()
            while trio.current_time() - began < 100:
                await file.write(0, b"x")
                await trio.sleep(1)
            assert not any(draft.sealed for draft in device.store.drafts(ino))
            file.release()

    async def test_after_fsync(self, device: Contents, autojump_clock: MockClock) -> None:
        async with device.running():
            ino = device.create("file")
            file = device.files.open(ino, writable=True)
            await file.write(0, b"new")
            await trio.sleep(200)
            assert device.store.drafts(ino) == []  # a new file is nobody's business before its first close or fsync
            await file.fsync()
            assert (await device.push(ino)).inline == b"new"
            file.release()

    async def test_a_file_that_is_closed_often_is_one_version(self, device: Contents, autojump_clock: MockClock) -> None:
        async with device.running():
            ino = device.create("file")
            for number in range(10):
                await device.write(ino, b"%d" % number)
            await device.push(ino)
            assert device.store.drafts(ino) == []
            assert await device.read(ino) == b"9"


async def test_what_is_appended_while_the_push_waits_goes_up_in_the_end(tmp_path: Path) -> None:
    device = Contents(tmp_path / "a", MemoryService())
    async with device.running():
        ino = device.create("file")
        await device.write(ino, b"one")
        await device.wait_complete(ino)
        await device.write(ino, b"two", 3)  # nobody commits the first one
        await until(lambda: [draft.complete for draft in device.store.drafts(ino)] == [True] and file_is(device, ino, 6))
        assert (await device.push(ino)).inline == b"onetwo"


def file_is(device: Contents, ino: int, size: int) -> bool:
    return device.store.drafts(ino)[0].size == size
