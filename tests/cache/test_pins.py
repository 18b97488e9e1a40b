"""What stays here, what leaves, and what status says of a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
import trio.testing

from cache.model import FileState
from remote.protocol import Kind
from tests.cache.test_downloads import on_service
from tests.support.contents import Contents, until
from tests.support.memory_service import MemoryService


@asynccontextmanager
async def pinning(device: Contents) -> AsyncIterator[None]:
    async with device.running(), trio.open_nursery() as nursery:
        nursery.start_soon(device.pins.run)
        yield
        nursery.cancel_scope.cancel()


async def test_a_pinned_file_is_fetched_and_read_offline(tmp_path: Path) -> None:
    service = MemoryService()
    content, manifest = on_service(service, 5)
    device = Contents(tmp_path / "a", service)
    async with pinning(device):
        ino = device.receive("file", manifest)
        assert await device.pins.state_of(ino) is FileState.ONLINE_ONLY
        device.pins.pin(ino)
        await device.pins.wait_finished()
        assert await device.pins.state_of(ino) is FileState.PINNED
        assert device.pins.progress.files_done == 1
        assert await device.pins.evict(ino) == 0
        device.switch.turn(on=False)
        assert await device.read(ino) == content


async def test_what_appears_below_a_pinned_folder_is_pinned(tmp_path: Path) -> None:
    service = MemoryService()
    device = Contents(tmp_path / "a", service)
    async with pinning(device):
        folder = device.create("folder", kind=Kind.DIRECTORY)
        device.pins.pin(folder)
        await device.pins.wait_finished()
        content, manifest = on_service(service, 2)
        ino = device.receive("file", manifest, parent=folder)
        await device.pins.wait_finished()
        device.switch.turn(on=False)
        assert await device.read(ino) == content


async def test_pinning_waits_for_the_connection(tmp_path: Path) -> None:
    service = MemoryService()
    _, manifest = on_service(service, 2)
    device = Contents(tmp_path / "a", service)
    device.switch.turn(on=False)
    async with pinning(device):
        ino = device.receive("file", manifest)
        device.pins.pin(ino)
        await trio.testing.wait_all_tasks_blocked()
        assert service.traffic.get_ids == []
        device.switch.turn(on=True)
        await until(lambda: device.pins.progress.files_done == 1)


async def test_an_unpinned_file_can_be_evicted(tmp_path: Path) -> None:
    service = MemoryService()
    _, manifest = on_service(service, 3)
    device = Contents(tmp_path / "a", service)
    async with pinning(device):
        ino = device.receive("file", manifest)
        device.pins.pin(ino)
        await device.pins.wait_finished()
        assert device.pins.unpin(ino)
        assert not device.pins.unpin(ino)
        await device.pins.wait_finished()
        assert await device.pins.state_of(ino) is FileState.CACHED
        assert await device.pins.evict(ino) == 3
        assert await device.pins.state_of(ino) is FileState.ONLINE_ONLY


async def test_what_is_only_here_is_not_evicted(tmp_path: Path) -> None:
    service = MemoryService()
    device = Contents(tmp_path / "a", service)
    async with pinning(device):
        ino = device.create("file")
        await device.write(ino, bytes(range(256)) * 1000)
        await device.wait_complete(ino)
        assert await device.pins.evict(ino) == 0
        assert await device.pins.state_of(ino) is FileState.DRAFT
        device.acknowledge(ino)
        assert await device.pins.state_of(ino) is FileState.CACHED
        assert await device.pins.evict(ino) == 1


async def test_a_pinned_file_that_is_written_stays_pinned(tmp_path: Path) -> None:
    service = MemoryService()
    device = Contents(tmp_path / "a", service)
    async with pinning(device):
        ino = device.create("file")
        device.pins.pin(ino)
        await device.write(ino, bytes(range(256)) * 1000)
        await device.push(ino)
        await device.pins.wait_finished()
        assert await device.pins.evict(ino) == 0
        assert service.traffic.get_ids == []
        assert await device.pins.state_of(ino) is FileState.PINNED


async def test_the_state_tells_of_errors(tmp_path: Path) -> None:
    service = MemoryService()
    service.quota = 0
    device = Contents(tmp_path / "a", service)
    async with pinning(device):
        ino = device.create("file")
        await device.write(ino, bytes(range(256)) * 1000)
        await until(lambda: device.uploads.queue()[0].error is not None)
        assert await device.pins.state_of(ino) is FileState.ERROR
