"""The exchange of the tree with the service, put together: push, pull, the merge between them, and the guards.

One place that knows who needs whom, for the drive and for tests. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from cache.clock import Clock, Randomness
from cache.commits import CommitBuilder
from cache.connection import Connection
from cache.deletions import Deletions
from cache.merger import Merger, OpenFiles
from cache.model import Change
from cache.pull import Pull
from cache.push import Push, UploadQueue
from cache.reconnect import Reconnect
from cache.store.content import ContentStore
from cache.store.database import Database
from cache.store.merging import MergeStore
from cache.store.sync import SyncStore
from cache.store.tree import TreeStore
from remote.api import Service
from remote.copynames import CopyNames
from remote.protocol import INODE_ID_BYTES as REPLICA_ID_BYTES


class Exchange:
    """`told` hears of every change of the tree, after its transaction. `merged` is called after each merge: rows may have
    become superfluous (`Replica.sweep`), or contents lost (`cache.onlyhere`)."""

    def __init__(
        self,
        database: Database,
        tree: TreeStore,
        contents: ContentStore,
        service: Service,
        connection: Connection,
        files: OpenFiles,
        uploads: UploadQueue,
        clock: Clock,
        randomness: Randomness,
        copy_names: Callable[[], CopyNames],
        told: Callable[[list[Change]], None],
        merged: Callable[[], None] = lambda: None,
    ) -> None:
        random = randomness.float
        self.store = store = SyncStore(database, tree)
        store.name_replica(randomness.bytes(REPLICA_ID_BYTES))
        rows = MergeStore(database, tree, contents, clock, randomness)
        builder = CommitBuilder(store, tree, contents, clock)
        self.merger = merger = Merger(store, rows, connection, files, clock, copy_names, told)
        self.pull = Pull(service, tree, contents, store, rows, merger, connection, clock, random, told)
        self.push = Push(service, tree, contents, store, builder, merger, connection, files, uploads, random)
        self.deletions = Deletions(store, tree, builder, merger, clock, copy_names, told, self.push.wake)
        self.reconnect = Reconnect(store, merger, connection, randomness, self.push.wake)
        self._on_merged = merged
        merger.on_merged = self._merged

    def _merged(self) -> None:
        self.push.merged()
        self._on_merged()
