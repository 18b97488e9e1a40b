"""Two real drives against the real service in a process of its own: everything but the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.devices import Home, log_in, register, until
from tests.support.service import RunningService, start_service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    with start_service(tmp_path / "service") as service:
        yield service


@pytest.fixture
async def homes(service: RunningService, tmp_path: Path) -> tuple[Home, Home]:
    await register(service.url)
    logins = [await log_in(service.url, name) for name in ("desk", "laptop")]
    return Home(tmp_path / "desk", service.url, logins[0]), Home(tmp_path / "laptop", service.url, logins[1])


async def test_what_one_does_the_other_sees(homes: tuple[Home, Home]) -> None:
    async with homes[0].started() as desk, homes[1].started() as laptop:
        desk.make_folder("docs")
        await desk.write("docs/small", b"a few bytes")
        large = bytes(range(256)) * 20_000
        await desk.write("docs/large", large)
        await desk.sync()
        await until(lambda: laptop.node("docs/small") and laptop.node("docs/large"))
        assert await laptop.contents() == {"docs/small": b"a few bytes", "docs/large": large}

        await laptop.write("docs/small", b"edited there")
        laptop.rename("docs/large", "moved")
        await laptop.sync()
        await until(lambda: desk.node("moved") and (node := desk.node("docs/small")) and node.size == 12)
        assert await desk.contents() == {"docs/small": b"edited there", "moved": large}

        desk.remove("docs/small")
        desk.remove("docs")
        await desk.sync()
        await until(lambda: laptop.node("docs") is None)
        assert set(laptop.tree()) == {"moved"}
