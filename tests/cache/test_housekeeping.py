"""The WAL stays small, also while somebody writes all the time."""

from __future__ import annotations

from pathlib import Path

from cache.clock import SystemClock, SystemRandomness
from cache.housekeeping import CHECKPOINT_BYTES, Housekeeping
from cache.leftovers import Leftovers
from cache.replica import Replica
from tests.support.contents import Contents
from tests.support.memory_service import MemoryService


async def test_the_wal_is_emptied_when_it_has_grown(tmp_path: Path) -> None:
    contents = Contents(tmp_path / "home", MemoryService())
    database = contents.database
    replica = Replica(database, contents.tree, SystemClock(), SystemRandomness())
    housekeeping = Housekeeping(database, replica, Leftovers(contents.store, contents.files), contents.files)
    largest = 0
    for number in range(60):
        database.set_meta(f"large {number % 5}", "x" * 500_000)
        largest = max(largest, database.wal_state()[0])
        await housekeeping.once()
    assert CHECKPOINT_BYTES < largest < 2 * CHECKPOINT_BYTES
    contents.close()
