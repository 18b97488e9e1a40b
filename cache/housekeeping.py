"""What has to be done now and then: empty the WAL, purge what nobody names, drop what no row speaks of, sync what was closed
without it. No decisions."""

from __future__ import annotations

import trio

from cache.files import Files
from cache.leftovers import Leftovers
from cache.replica import Replica
from cache.store.database import Database

PERIOD = 1.0
CHECKPOINT_BYTES = 4 * 2**20
CHECKPOINT_PERIOD = 60.0
SWEEP_PERIOD = 30.0
SETTLE_PERIOD = 5.0
SETTLE_QUIET = 10.0
"""Seconds without a write after which also an open file is synced."""


class Housekeeping:
    def __init__(self, database: Database, replica: Replica, leftovers: Leftovers, files: Files) -> None:
        self._database = database
        self._replica = replica
        self._leftovers = leftovers
        self._files = files
        self._checkpointed_at = self._swept_at = 0.0
        self._checkpointed = (0, 0)

    async def run(self) -> None:
        self._checkpointed_at = self._swept_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._settle)
            while True:
                await trio.sleep(PERIOD)
                await self.once()

    async def _settle(self) -> None:
        while True:
            await trio.sleep(SETTLE_PERIOD)
            await self._files.settle_closed(quiet_seconds=SETTLE_QUIET)

    async def once(self) -> None:
        now = trio.current_time()
        if self._replica.sweep_wanted or now - self._swept_at > SWEEP_PERIOD:
            self._swept_at = now
            await self.sweep()
        await self._leftovers.tidy()
        state = self._database.wal_state()
        if state != self._checkpointed and (state[0] > CHECKPOINT_BYTES or now - self._checkpointed_at > CHECKPOINT_PERIOD):
            self._checkpointed_at, self._checkpointed = now, state
            await trio.to_thread.run_sync(self._database.checkpoint)

    async def sweep(self) -> None:
        after: int | None = 0
        while after is not None:
            after = self._replica.sweep(after)
            await trio.lowlevel.checkpoint()
