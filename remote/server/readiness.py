"""Whether a service can do its work now. Blocking; asked by whoever likes, so it looks once a second at most."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from remote.protocol import ProblemType
from remote.server.database import metrics as rows
from remote.server.database.engine import Database
from remote.server.objects.store import ObjectStore, StoreUnavailable, object_key
from remote.server.problems import Refused

FRESH_NS = 10**9
RETRY_SECONDS = 5


class Readiness:
    def __init__(self, database: Database, store: ObjectStore, clock: Callable[[], int]) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_ns = -FRESH_NS
        self._missing: str | None = None

    def require(self) -> None:
        """`Refused` (unavailable): the database or the object store does not answer."""
        with self._lock:
            if not 0 <= self._clock() - self._looked_ns < FRESH_NS:
                self._missing = self._look()
                self._looked_ns = self._clock()
            missing = self._missing
        if missing is not None:
            raise Refused(ProblemType.UNAVAILABLE, f"{missing} does not answer.", retry_after_seconds=RETRY_SECONDS)

    def _look(self) -> str | None:
        try:
            with self._database.read() as connection:
                rows.answers(connection)
        except SQLAlchemyError as error:
            if not self._database.is_away(error):
                raise
            return "The database"
        try:
            self._store.stat([object_key(bytes(16), bytes(32), 0)])
        except StoreUnavailable:
            return "The object store"
        return None
