"""A restored service lost bytes that the device does not have either: what the person is told, and how it ends."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio

from cache.model import Connection
from remote.server.epochs import begin_epoch
from tests.support.devices import Home, log_in, register, until
from tests.support.service import start_service

PATIENCE = 60.0


@pytest.mark.parametrize("size", [3000, 300_000], ids=["its list of chunks is not here", "its bytes are not here"])
async def test_a_file_of_which_nothing_is_left_is_said_and_goes_when_the_person_removes_it(tmp_path: Path, size: int) -> None:
    """Where not even the list of its chunks had come, it was said nowhere, and `aloft sync` waited for ever."""
    service = start_service(tmp_path / "service")
    email = await register(service.url)
    homes = [Home(tmp_path / name, service.url, await log_in(service.url, email, name)) for name in ("desk", "laptop")]
    async with homes[1].started() as laptop:
        await laptop.write("kept", b"kept")
        await laptop.sync()
        service.stop()
        shutil.copytree(tmp_path / "service", tmp_path / "copy")
        with start_service(tmp_path / "service", port=service.port) as service:
            async with homes[0].started() as desk:
                await desk.write("lost", os.urandom(size))
                await desk.sync()
                await until(lambda: laptop.node("lost"))
            service.stop()
        shutil.rmtree(tmp_path / "service")
        (tmp_path / "copy").rename(tmp_path / "service")
        begin_epoch(tmp_path / "service")
        with start_service(tmp_path / "service", port=service.port):
            await until(lambda: laptop.drive.status().connection is Connection.STOPPED)
            laptop.drive.reconnect(go_on=True)
            with trio.fail_after(PATIENCE):
                report = await laptop.drive.sync()
            assert (report.complete, report.waiting) == (False, ("lost",))
            assert report.reason == "some files have errors: aloft status says which"
            status = laptop.drive.status()
            said = [*status.problems, *(f"{queued.path}: {queued.error}" for queued in status.queue.first)]
            assert any(text.startswith("lost: ") for text in said), said
            laptop.remove("lost")
            await laptop.sync()
            assert set(laptop.tree()) == {"kept"}
