"""Fetching: once for all who want it, in few requests, within the budget, and never wrong bytes."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from cache.chunking import MEDIUM_SPLIT
from cache.downloads import Wanted
from cache.encoding import encode
from cache.errors import CorruptData, Offline, TimedOut, Unavailable
from cache.readahead import BEFORE_AHEAD, WINDOW_MAX, ReadAhead
from remote.api import Overloaded
from remote.manifest import ChunkRef, Manifest
from tests.support.contents import Contents, until
from tests.support.memory_service import MemoryService, unreachable

KIB, MIB = 2**10, 2**20


def on_service(service: MemoryService, chunks: int, size: int = 256 * KIB, *, seed: int = 0) -> tuple[bytes, Manifest]:
    """A content of so many chunks, put on the service by somebody else."""
    pieces = [random.Random(seed * 1000 + number).randbytes(size) for number in range(chunks)]
    refs: list[ChunkRef] = []
    for piece in pieces:
        one = encode(piece)
        service.objects[one.ref.object_id] = one.stored
        refs.append(one.ref)
    return b"".join(pieces), Manifest.from_chunks(MEDIUM_SPLIT, tuple(refs))


class Gate:
    """Lets requests of one kind wait."""

    def __init__(self, service: MemoryService, name: str) -> None:
        self.waiting = 0
        self._name = name
        self._open = trio.Event()
        service.before = self._before

    async def _before(self, name: str) -> None:
        if name == self._name:
            self.waiting += 1
            await self._open.wait()

    def open(self) -> None:
        self._open.set()


async def test_a_chunk_that_many_want_is_fetched_once(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 1)
    device = Contents(tmp_path / "a", service)
    gate = Gate(service, "get_object")
    results: list[bytes] = []
    async with device.running(uploads=False):
        ino = device.receive("file", manifest)

        async def read(at: int) -> None:
            results.append(await device.read(ino, at, 10))

        async with trio.open_nursery() as nursery:
            for at in range(20):
                nursery.start_soon(read, at)
            await until(lambda: gate.waiting == 1)
            gate.open()
    assert sorted(results) == sorted(content[at : at + 10] for at in range(20))
    assert len(service.traffic.get_ids) == service.traffic.download_plans == 1


async def test_a_reader_that_goes_away_does_not_end_the_fetch_for_others(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 1)
    device = Contents(tmp_path / "a", service)
    gate = Gate(service, "get_object")
    async with device.running(uploads=False):
        ino = device.receive("file", manifest)
        first = trio.CancelScope()

        async def impatient() -> None:
            with first:
                await device.read(ino, 0, 10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(impatient)
            await until(lambda: gate.waiting == 1)
            first.cancel()
            nursery.start_soon(device.read, ino, 5, 10)
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
        assert await device.read(ino, 0, 10) == content[:10]
        assert len(service.traffic.get_ids) == 1


async def test_who_wants_something_when_fetching_is_over_hears_so(tmp_path: Path) -> None:
    """An upload that reads the bytes below a draft may do so: it was in a thread when the drive stopped."""
    service = MemoryService()
    _, manifest = on_service(service, 2)
    device = Contents(tmp_path / "a", service)
    gate = Gate(service, "get_object")
    wanted = [Wanted(b"S" * 16, ref) for ref in manifest.chunks]

    async def read(one: Wanted) -> None:
        with pytest.raises(Offline):
            await device.downloads.get(one)

    async with trio.open_nursery() as readers:
        async with trio.open_nursery() as nursery:
            await nursery.start(device.downloads.run)
            readers.start_soon(read, wanted[0])
            await until(lambda: gate.waiting == 1)
            nursery.cancel_scope.cancel()
        device.downloads.fetch_ahead(wanted)
        await read(wanted[1])
    device.close()


async def test_a_read_across_chunks_asks_for_links_together(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 24, 64 * KIB)
    device = Contents(tmp_path / "a", service)
    async with device.running(uploads=False):
        ino = device.receive("file", manifest)
        file = device.files.open(ino, writable=False)
        assert await file.read(1, len(content)) == content[1:]
        file.release()
    assert len(service.traffic.get_ids) == 24
    assert service.traffic.download_plans < 12  # how many exactly depends on how busy the machine is


async def test_a_read_in_the_middle_fetches_only_what_it_needs(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 40)
    device = Contents(tmp_path / "a", service)
    async with device.running(uploads=False):
        ino = device.receive("file", manifest)
        assert await device.read(ino, 5 * MIB + 10, 4096) == content[5 * MIB + 10 : 5 * MIB + 10 + 4096]
        await trio.testing.wait_all_tasks_blocked()
        assert len(service.traffic.get_ids) == 1


async def test_a_reader_in_order_is_read_ahead_of(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 40)
    device = Contents(tmp_path / "a", service)
    async with device.running(uploads=False):
        ino = device.receive("file", manifest)
        assert await device.read(ino, 0, MIB) == content[:MIB]
        await until(lambda: len(service.traffic.get_ids) > 5)
        assert await device.read(ino) == content
        assert len(service.traffic.get_ids) == 40


async def test_damage_on_the_way_is_fetched_again(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 1)
    service.damaged[manifest.chunks[0].object_id] = 1
    device = Contents(tmp_path / "a", service)
    async with device.running(uploads=False):
        assert await device.read(device.receive("file", manifest)) == content
        assert device.downloads.counters.corrupt == 1


async def test_damage_that_stays_is_an_error(tmp_path: Path) -> None:
    service = MemoryService()
    _, manifest = on_service(service, 1)
    service.damaged[manifest.chunks[0].object_id] = 99
    device = Contents(tmp_path / "a", service)
    async with device.running(uploads=False):
        with pytest.raises(CorruptData):
            await device.read(device.receive("file", manifest))
    assert len(service.traffic.get_ids) == 2


async def test_damage_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 1)
    first = Contents(tmp_path / "a", service)
    async with first.running(uploads=False):
        ino = first.receive("file", manifest)
        await first.read(ino)
        await until(lambda: first.chunks.has(manifest.chunks[0].object_id) and len(list((tmp_path / "a").rglob("*.val"))) == 1)
    (path,) = (tmp_path / "a").rglob("*.val")
    path.write_bytes(bytes(path.stat().st_size))
    again = Contents(tmp_path / "a", service)
    async with again.running(uploads=False):
        assert await again.read(ino) == content
    assert len(service.traffic.get_ids) == 2


async def test_offline_is_said_at_once(tmp_path: Path) -> None:
    service = MemoryService()
    _, manifest = on_service(service, 1)
    device = Contents(tmp_path / "a", service)
    device.switch.turn(on=False)
    async with device.running(uploads=False):
        ino = device.receive("file", manifest)
        with pytest.raises(Offline):
            await device.read(ino)
    assert service.traffic.manifest_requests == 0


async def test_what_is_here_is_read_offline(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 3)
    first = Contents(tmp_path / "a", service)
    async with first.running(uploads=False):
        ino = first.receive("file", manifest)
        await first.read(ino)
        await until(lambda: len(list((tmp_path / "a" / "cache" / "chunks").rglob("*.val"))) == 3)
    again = Contents(tmp_path / "a", service)
    again.switch.turn(on=False)
    async with again.running(uploads=False):
        assert await again.read(ino) == content


async def test_the_budget_ends_a_read(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 1)
    device = Contents(tmp_path / "a", service, io_timeout=0.05)
    gate = Gate(service, "get_object")
    async with device.running(uploads=False):
        ino = device.receive("file", manifest)
        with pytest.raises(TimedOut):
            await device.read(ino)
        gate.open()
        device.downloads.io_timeout = 30
        assert await device.read(ino) == content
    assert len(service.traffic.get_ids) == 1


async def test_a_transient_failure_is_tried_again(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 1)
    failures = [unreachable(), Overloaded("busy", 0.01)]

    async def fail(name: str) -> None:
        if name == "get_object" and failures:
            raise failures.pop()

    service.before = fail
    device = Contents(tmp_path / "a", service)
    async with device.running(uploads=False):
        assert await device.read(device.receive("file", manifest)) == content
        assert len(device.switch.failures) == 2


async def test_an_object_that_is_gone_is_an_error(tmp_path: Path) -> None:
    service = MemoryService()
    _, manifest = on_service(service, 1)
    service.objects.clear()
    device = Contents(tmp_path / "a", service)
    async with device.running(uploads=False):
        with pytest.raises(Unavailable):
            await device.read(device.receive("file", manifest))


async def test_the_manifests_of_a_folder_are_one_request(tmp_path: Path) -> None:
    service = MemoryService()
    device = Contents(tmp_path / "a", service)
    async with device.running(uploads=False):
        contents = {}
        for number in range(100):
            content, manifest = on_service(service, 1, 5000, seed=number)
            contents[device.receive(f"file {number}", manifest)] = content
        for ino, content in contents.items():
            assert await device.read(ino) == content
    assert service.traffic.manifest_requests == 1


async def test_a_cache_that_is_too_small_does_not_fetch_at_every_read(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 1, MIB)
    device = Contents(tmp_path / "a", service, cache_size=100 * KIB)
    async with device.running(uploads=False):
        assert await device.read(device.receive("file", manifest)) == content
    assert len(service.traffic.get_ids) == 1


class TestReadAhead:
    """`note` as a table: what is asked for after which reads."""

    def test_one_read_asks_for_nothing(self) -> None:
        assert ReadAhead().note(10 * MIB, 10 * MIB + 128 * KIB, 2**30, 0, MIB) is None

    def test_a_random_reader_gets_nothing(self) -> None:
        ahead = ReadAhead()
        offsets = random.Random(0).sample(range(0, 2**40, 64 * MIB), 500)
        assert all(ahead.note(at, at + 128 * KIB, 2**40, 0, MIB) is None for at in offsets)

    def test_the_window_doubles_up_to_what_the_link_needs(self) -> None:
        ahead, asked = ReadAhead(), []
        for at in range(0, 200 * MIB, 128 * KIB):
            found = ahead.note(at, at + 128 * KIB, 2**40, 6 * MIB, MIB)
            if found is not None:
                assert found[0] >= (asked[-1][1] if asked else BEFORE_AHEAD)
                asked.append(found)
        assert all(left[1] == right[0] for left, right in pairwise(asked[4:]))
        assert max(end - start for start, end in asked) <= 16 * MIB
        assert asked[-1][1] >= 200 * MIB

    def test_it_never_asks_beyond_the_end_or_its_bound(self) -> None:
        ahead = ReadAhead()
        for at in range(0, 100 * MIB, 128 * KIB):
            found = ahead.note(at, at + 128 * KIB, 100 * MIB, 2**40, MIB)
            if found is not None:
                assert found[1] <= min(100 * MIB, at + 128 * KIB + WINDOW_MAX)

    def test_two_readers_are_told_apart(self) -> None:
        ahead, found = ReadAhead(), 0
        for at in range(0, 4 * MIB, 128 * KIB):
            for base in (0, 500 * MIB):
                found += ahead.note(base + at, base + at + 128 * KIB, 2**30, 0, MIB) is not None
        assert found >= 4


async def test_a_read_that_waited_in_vain_is_not_made_to_wait_again_at_once(tmp_path: Path) -> None:
    """The kernel asks up to four times for one page before it tells the application."""
    service = MemoryService()
    _, manifest = on_service(service, 1)
    device = Contents(tmp_path / "a", service, io_timeout=0.05)
    Gate(service, "get_object")
    async with device.running(uploads=False):
        ino = device.receive("file", manifest)
        with pytest.raises(TimedOut):
            await device.read(ino, 0, 10)
        file = device.files.open(ino, writable=False)
        with pytest.raises(TimedOut):
            await file.read(0, 10)
        device.downloads.io_timeout = 600
        with trio.fail_after(60), pytest.raises(TimedOut):
            await file.read(0, 10)
        file.release()


async def test_all_parts_of_a_read_share_one_budget(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 1)
    device = Contents(tmp_path / "a", service, io_timeout=0.5)

    async def slow(name: str) -> None:
        await trio.sleep(0.3)

    service.before = slow
    async with device.running(uploads=False):
        ino = device.receive("file", manifest)
        with pytest.raises(TimedOut):  # the list of chunks, the link and the chunk: each of them within it, not all together
            await device.read(ino, 0, 10)
        device.downloads.io_timeout = 60
        assert await device.read(ino, 0, 10) == content[:10]
