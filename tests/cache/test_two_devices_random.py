"""Random work on two drives, on- and offline, with crashes: nothing is lost, and both end with the same tree."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from cache.errors import CacheError
from cache.model import RenameMode
from remote.protocol import Kind
from tests.support.devices import PATIENCE, Device, Home, log_in, register, until
from tests.support.service import RunningService, start_service

NAMES = ("a", "b", "c.txt", "d")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("service") / "data") as service:
        yield service


class Work:
    """Operations on both devices. `written` are all contents that were ever closed; `given_up` those that somebody who saw
    them replaced or deleted: only these may be gone at the end."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.written: set[bytes] = set()
        self.given_up: set[bytes] = set()
        self.count = 0

    async def step(self, device: Device) -> None:
        operation = self.random.choice((self.write, self.write, self.write, self.rename, self.rename, self.remove, self.folder))
        with suppress(CacheError):  # refused, as the file system would refuse it
            await operation(device)

    def folder_of(self, device: Device) -> str:
        folders = [path for path, node in device.tree().items() if node.kind is Kind.DIRECTORY]
        return self.random.choice(["", "", *folders])

    def path(self, device: Device) -> str:
        paths = list(device.tree())
        if paths and self.random.random() < 0.7:
            return self.random.choice(paths)
        return f"{self.folder_of(device)}/{self.random.choice(NAMES)}".lstrip("/")

    async def give_up(self, device: Device, path: str) -> None:
        node = device.node(path)
        if node is not None and node.kind is Kind.FILE:
            self.given_up.add(await device.read(path))

    async def write(self, device: Device) -> None:
        self.count += 1
        size = self.random.choice((1, 1, 100, 600, 3000))
        content = f"{self.count} by {device.name}; ".encode() * size
        path = self.path(device)
        await self.give_up(device, path)
        await device.write(path, content)
        self.written.add(content)

    async def rename(self, device: Device) -> None:
        old, new = self.path(device), self.path(device)
        mode = self.random.choice((RenameMode.REPLACE, RenameMode.REPLACE, RenameMode.EXCHANGE))
        replaced = device.node(new)
        lost = await device.read(new) if replaced is not None and replaced.kind is Kind.FILE else None
        device.rename(old, new, mode)
        if lost is not None and device.node(new) != replaced and mode is RenameMode.REPLACE:
            self.given_up.add(lost)

    async def remove(self, device: Device) -> None:
        path = self.path(device)
        await self.give_up_removed(device, path)

    async def give_up_removed(self, device: Device, path: str) -> None:
        node = device.node(path)
        content = await device.read(path) if node is not None and node.kind is Kind.FILE else None
        device.remove(path)
        if content is not None:
            self.given_up.add(content)

    async def folder(self, device: Device) -> None:
        device.make_folder(self.path(device))


def shape(device: Device) -> dict[str, tuple[Kind, int, int]]:
    """The tree with times, by which contents of one size differ."""
    return {path: (node.kind, node.size, node.mtime_ns) for path, node in device.tree().items()}


async def quiet(desk: Device, laptop: Device) -> dict[str, bytes]:
    """Until both have told and heard everything. The contents that both have."""

    def is_quiet() -> bool:
        statuses = [device.drive.status() for device in (desk, laptop)]
        assert not any(status.failures for status in statuses), statuses
        return all(status.queue.files == status.queue.changes == 0 for status in statuses) and shape(desk) == shape(laptop)

    with trio.fail_after(PATIENCE):
        while True:
            await until(is_quiet)
            contents = await desk.contents()
            if is_quiet() and contents == await laptop.contents():
                return contents
            await trio.sleep(0.01)


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_lost(service: RunningService, tmp_path: Path, seed: int) -> None:
    email = await register(service.url)
    homes = [Home(tmp_path / name, service.url, await log_in(service.url, email, name)) for name in ("desk", "laptop")]
    work = Work(seed)
    for _ in range(3):  # each time dropped without a goodbye, and started again
        async with homes[0].started() as desk, homes[1].started() as laptop:
            for device in (desk, laptop):
                device.drive.set_offline(False)
            await quiet(desk, laptop)
            for _ in range(3):
                offline = work.random.choice((None, desk, laptop, laptop))
                if offline is not None:
                    offline.drive.set_offline(True)
                for _ in range(work.random.randrange(2, 15)):
                    await work.step(work.random.choice((desk, laptop)))
                if offline is not None:
                    offline.drive.set_offline(False)
                if work.random.random() < 0.5:
                    await quiet(desk, laptop)
    async with homes[0].started() as desk, homes[1].started() as laptop:
        for device in (desk, laptop):
            device.drive.set_offline(False)
        contents = await quiet(desk, laptop)
        lost = work.written - work.given_up - set(contents.values())
        assert not lost, sorted(content[:40] for content in lost)
