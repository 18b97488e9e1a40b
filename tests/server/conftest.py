"""A service of its own for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.wire import Device, World


@pytest.fixture
async def open_world(tmp_path: Path) -> AsyncIterator[Callable[..., World]]:
    """Opens services, with options of `ServerConfig`; by default all on one data folder, one after the other."""
    worlds: list[World] = []

    def open_(data: str = "data", **options: Any) -> World:
        worlds.append(World.open(tmp_path / data, **options))
        return worlds[-1]

    yield open_
    for world in worlds:
        await world.close()


@pytest.fixture
async def world(open_world: Callable[..., World]) -> World:
    return open_world()


@pytest.fixture
async def ada(world: World) -> Device:
    return await world.device()


@pytest.fixture
async def other(world: World, ada: Device) -> Device:
    """Another device of the same account."""
    return await world.device(ada.account["email"])


@pytest.fixture
async def eve(world: World) -> Device:
    """Another account."""
    return await world.device("eve@example.org")
