"""A drive without a service: the real replica and the real files of one folder, for the adapter's tests. Never online."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import trio

from cache.chunks import Chunks
from cache.clock import Clock, SystemClock, SystemRandomness
from cache.downloads import Downloads
from cache.drafts import DraftFolder
from cache.files import Files
from cache.forks import Forks
from cache.link import LinkDecisions
from cache.manifests import Manifests
from cache.model import Change
from cache.replica import Replica
from cache.store.content import ContentStore
from cache.store.database import Database
from cache.store.tree import TreeStore
from remote.api import RemoteError, Service
from remote.copynames import CopyNames

SPACE = bytes(range(16))


class NeverOnline:
    online = False

    async def wait_online(self) -> None:
        await trio.sleep_forever()

    def went_well(self) -> None:
        raise AssertionError("nothing can have gone well")

    def failed(self, error: RemoteError) -> None:
        raise AssertionError("nothing can have been tried")


class LocalDrive:
    """What `fs` asks of `cache.drive.Drive`, as far as it needs no service."""

    def __init__(self, home: Path, clock: Clock | None = None) -> None:
        clock, randomness, decisions = clock or SystemClock(), SystemRandomness(), LinkDecisions()
        self.told: list[list[Change]] = []
        self.is_held_by_kernel: Callable[[int], bool] = lambda ino: False
        self.listed_first: list[int] = []
        self.database = Database.open(home / "replica.db")
        self.tree = TreeStore(self.database)
        if self.tree.space_number(SPACE) is None:
            space = self.tree.add_space(SPACE, now_ns=clock.wall_ns())
            self.database.sql.execute("UPDATE space SET listed = 1 WHERE number = ?", (space,))
        self.contents = ContentStore(self.database)
        self.replica = Replica(self.database, self.tree, clock, randomness)
        self.chunks = Chunks(home / "cache", 2**26)
        service = cast(Service, None)
        downloads = Downloads(service, self.chunks, NeverOnline(), decisions, randomness.float)
        manifests = Manifests(self.contents, service, NeverOnline())
        forks = Forks(
            self.tree,
            clock,
            randomness,
            lambda: CopyNames("laptop", "2026-11-20"),
            lambda changes: self.told.append(changes),
            lambda space: None,
        )
        folder = DraftFolder(home / "drafts")
        self.files = Files(self.contents, self.tree, folder, self.chunks, manifests, downloads, decisions, clock, forks.fork)
        self.replica.drop_drafts = self.files.drop_drafts

    def subscribe(self, told: Callable[[list[Change]], None]) -> None:
        self.told.clear()

    async def list_first(self, ino: int) -> None:
        self.listed_first.append(ino)

    async def make_durable(self) -> None:
        await trio.to_thread.run_sync(self.database.make_durable)

    def close(self) -> None:
        self.chunks.close()
        self.database.close()
