"""What a tier refuses, as a device sees it: the file's own error, and everything else goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.model import FileState
from tests.support.devices import Device, Home, log_in, register, until
from tests.support.service import RunningService, start_service

CONFIG = """
[tiers.free]
largest_file_bytes = 200000
content_types = ["text/plain"]
upload_bytes_per_second = 50000000
[tiers.plus]
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    file = tmp_path / "aloft.toml"
    file.write_text(CONFIG)
    with start_service(tmp_path / "service", config=file) as service:
        yield service


def errors(device: Device) -> dict[str, str]:
    return {queued.path: queued.error for queued in device.drive.status().queue.first if queued.error}


async def test_a_file_that_the_tier_does_not_take_is_that_file_s_error(service: RunningService, tmp_path: Path) -> None:
    email = await register(service.url)
    desk_home, laptop_home = [Home(tmp_path / name, service.url, await log_in(service.url, email, name)) for name in ("a", "b")]
    small, packed, large = b"<p>", os.urandom(20_000), os.urandom(300_000)
    async with desk_home.started() as desk, laptop_home.started() as laptop:
        await desk.write("small.html", small)
        await desk.write("packed.html", packed)
        await desk.write("middle.html", large[:150_000])
        await desk.write("large.txt", large)
        await desk.write("sparse.txt", b"end", 2**40)
        await until(lambda: errors(desk).keys() == {"small.html", "packed.html", "middle.html", "large.txt", "sparse.txt"})
        assert all("text/html is not among" in error for path, error in errors(desk).items() if path.endswith("html"))
        assert "300000 bytes are more" in errors(desk)["large.txt"]
        assert await desk.drive.file_status(desk.drive.replica.resolve("large.txt").ino) is FileState.ERROR
        assert not (await desk.drive.sync()).complete

        await desk.write("fits.txt", b"others go up")
        await until(lambda: laptop.node("fits.txt"))
        sent = desk.drive.status().counters.objects_sent
        assert sent <= 1, "nothing but the pack, which is planned for no file, was sent"

        for name in ("small", "packed", "middle"):
            desk.rename(f"{name}.html", f"{name}.txt")
        await desk.write("large.txt", large[:200_000])
        desk.remove("sparse.txt")
        desk.drive.account_changed()
        await desk.sync()
        wanted = {"fits.txt", "small.txt", "packed.txt", "middle.txt", "large.txt"}
        await until(lambda: laptop.tree().keys() == wanted)
        assert await laptop.read("large.txt") == large[:200_000]
