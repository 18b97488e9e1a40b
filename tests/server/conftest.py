"""A service of its own for every test, on each of the databases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgresql import Cluster
from tests.support.wire import Device, World

ALWAYS_ON_BOTH = {
    "test_file_downloads.py",
    "test_file_uploads.py",
    "test_files.py",
    "test_garbage.py",
    "test_sharing.py",
    "test_trash.py",
    "test_history.py",
    "test_rewind.py",
    "test_rewind_at_random.py",
    "test_public_links.py",
    "test_sync_status.py",
    "test_conflicts.py",
    "test_notifications.py",
    "test_scrub.py",
    "test_every_route.py",
    "test_expiries.py",
    "test_file_changes.py",
    "test_search.py",
    "test_search_contents.py",
    "test_housekeeping.py",
    "test_collection.py",
    "test_devices.py",
    "test_epochs.py",
    "test_parts.py",
    "test_postgresql.py",
    "test_accounts.py",
    "test_audit.py",
    "test_keys.py",
    "test_content_origin.py",
    "test_personal_tokens.py",
    "test_recovery.py",
    "test_tiers.py",
    "test_upgrades.py",
}
"""The tests that run on PostgreSQL without `--long`, too; those of the other files ask it for little that these do not."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        on = item.callspec.params.get("database_of") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
        if on == "postgresql" and item.path.parent == Path(__file__).parent and item.path.name not in ALWAYS_ON_BOTH:
            item.add_marker(pytest.mark.long)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str | None]]:
    """The database (as in `ServerConfig`) that belongs to a data folder of this name."""
    if request.param == "sqlite":
        yield lambda data: None
        return
    postgresql: Cluster = request.getfixturevalue("postgresql")
    known: dict[str, str] = {}

    def find(data: str) -> str:
        if data not in known:
            known[data] = postgresql.new_database()
        return known[data]

    yield find
    for url in known.values():
        postgresql.drop_database(url)


@pytest.fixture
async def open_world(tmp_path: Path, database_of: Callable[[str], str | None]) -> AsyncIterator[Callable[..., World]]:
    """Opens services, with options of `ServerConfig`; by default all on one data folder, one after the other."""
    worlds: list[World] = []

    def open_(data: str = "data", **options: Any) -> World:
        worlds.append(World.open(tmp_path / data, **{"database": database_of(data), **options}))
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
