"""A person's word to go on after a guard stopped the exchange. Until then nothing is pushed or pulled; see `cache.guards`.

What it does about a service that contradicts itself, went back or was restored: everything is listed anew, and what this device
has and the service lost is pushed again (`cache.store.lost`). About a home that is an old copy, or in use twice: its commits are
counted anew, and what it missed comes with the feed as ever. Nothing is deleted on either side but by an explicit tombstone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cache.clock import Randomness
from cache.connection import Connection, Stop
from cache.merger import Merger
from cache.store.sync import SyncStore
from remote.crashpoints import crash_point
from remote.protocol import INODE_ID_BYTES as REPLICA_ID_BYTES


class CannotReconnect(Exception):
    """The text is fit to show to a person."""


@dataclass(frozen=True, slots=True)
class Reconnection:
    """What there is to decide. `files`: how many this device knows of."""

    reason: str
    by: Stop
    files: int


class Reconnect:
    """`wake` that there may be something to push."""

    def __init__(
        self, store: SyncStore, merger: Merger, connection: Connection, randomness: Randomness, wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._merger = merger
        self._connection = connection
        self._randomness = randomness
        self._wake = wake

    @property
    def under_way(self) -> bool:
        """A person said to go on, and what the service lost is not known yet."""
        found = (self._store.replacing(space.number) for space in self._store.spaces())
        return any(replacing is not None and replacing.reconnecting for replacing in found)

    def look(self) -> Reconnection | None:
        """What stopped the exchange; None: nothing did. `CannotReconnect`."""
        reason, by = self._connection.stopped_because, self._connection.stopped_by
        if reason is None or by is None:
            return None
        if by is Stop.REPLICA:
            raise CannotReconnect(reason)
        return Reconnection(reason, by, sum(self._store.count_files(space.number) for space in self._store.spaces()))

    def go_on(self) -> Reconnection | None:
        """Go on as the module says. `CannotReconnect`."""
        found = self.look()
        if found is None:
            return None
        with self._store.database.transaction():
            self._store.name_replica(self._randomness.bytes(REPLICA_ID_BYTES), anew=True)
            for space in self._store.spaces():
                self._store.close_commit(space.number, 0)
            if found.by is Stop.SERVICE:
                for space in self._store.spaces():
                    self._merger.breaker(space.number).reset()
                self._store.doubt_service()
            crash_point("reconnect.deciding")
        crash_point("reconnect.decided")
        self._connection.go_on()
        self._wake()
        return found
