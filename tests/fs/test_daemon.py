"""The mount process's parts, and who outlives whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from fs import daemon


class FakeDrive:
    def __init__(self) -> None:
        self.runs = False
        self._stopping = trio.Event()
        self._ended = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        self.runs = True
        try:
            task_status.started()
            await self._stopping.wait()
        finally:
            self.runs = False
            self._ended.set()

    async def stop(self) -> None:
        self._stopping.set()
        await self._ended.wait()


class FakeMount:
    """Somebody uses it for a while after it was told to go."""

    def __init__(self, drive: FakeDrive) -> None:
        self._drive = drive
        self._unmounting = trio.Event()
        self.drive_ran_until_the_end = False

    async def run(self, ready: Callable[[], None]) -> None:
        ready()
        await self._unmounting.wait()
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        self.drive_ran_until_the_end = self._drive.runs

    async def unmount(self) -> None:
        self._unmounting.set()


class FakeRequests:
    async def wait_unmounted(self) -> None:
        pass


class FakeReporting:
    async def run(self) -> None:
        pass

    async def tell_the_end(self) -> None:
        pass


class FakeControl:
    def listen(self) -> None:
        pass

    async def drain(self, seconds: float) -> None:
        pass

    async def run(self) -> None:
        raise RuntimeError("unforeseen")


async def test_the_drive_serves_the_mount_to_its_end_whatever_fails_beside_it() -> None:
    drive: Any = FakeDrive()
    mount: Any = FakeMount(drive)
    requests: Any = FakeRequests()
    control: Any = FakeControl()
    reporting: Any = FakeReporting()
    desktop: Any = FakeReporting()
    with pytest.raises(ExceptionGroup):
        await daemon._serve_from(drive, mount, requests, control, reporting, desktop, lambda: None)
    assert mount.drive_ran_until_the_end
    assert not drive.runs


async def test_what_fails_beside_the_mount_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("unforeseen")

    await daemon._beside(fail)
    assert "the mount goes on without it" in caplog.text
