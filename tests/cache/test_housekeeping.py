"""The WAL stays small, also while somebody writes all the time."""

from __future__ import annotations

from pathlib import Path

from cache.clock import SystemClock, SystemRandomness
from cache.housekeeping import CHECKPOINT_BYTES, Housekeeping
from cache.replica import Replica
from cache.store.database import Database
from cache.store.tree import TreeStore


async def test_the_wal_is_emptied_when_it_has_grown(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "replica.db")
    replica = Replica(database, TreeStore(database), SystemClock(), SystemRandomness())
    housekeeping = Housekeeping(database, replica)
    largest = 0
    for number in range(60):
        database.set_meta(f"large {number % 5}", "x" * 500_000)
        largest = max(largest, database.wal_state()[0])
        await housekeeping.once()
    assert CHECKPOINT_BYTES < largest < 2 * CHECKPOINT_BYTES
    database.close()
