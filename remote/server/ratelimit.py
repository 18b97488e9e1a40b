"""How often something may be tried before it has to wait: leaky buckets in the database, so that neither a restart nor another
process forgets them. Blocking."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from remote.protocol import ProblemType
from remote.server.database import ratelimits as rows
from remote.server.database.engine import Database
from remote.server.problems import Refused

SECOND_NS = 10**9


@dataclass(frozen=True, slots=True)
class Limit:
    """`count` attempts at once, and one more each `seconds / count`."""

    key: str
    count: int
    seconds: int

    @property
    def bucket(self) -> bytes:
        """What the database knows it by: neither an address nor an e-mail can be read there."""
        return hashlib.sha256(self.key.encode()).digest()

    @property
    def size_ns(self) -> int:
        return self.count * self.attempt_ns

    @property
    def attempt_ns(self) -> int:
        return self.seconds * SECOND_NS // self.count


class RateLimiter:
    """Counts attempts. Limits that are given together name the same kinds of keys in the same order (a lock is held on each)."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def take(self, limits: Sequence[Limit]) -> None:
        """Count an attempt under every limit; `Refused` (rate-limited), and it is counted under none, if one is reached."""
        now = self._clock()
        with self._database.write() as connection:
            for limit in limits:
                wait_ns = rows.pour(connection, limit.bucket, limit.attempt_ns, limit.size_ns, now)
                if wait_ns > 0:
                    wait = math.ceil(wait_ns / SECOND_NS)
                    raise Refused(
                        ProblemType.RATE_LIMITED, f"Too many attempts; try again in {wait} s.", retry_after_seconds=wait
                    )
            rows.remove_empty(connection, now)

    def give_back(self, limits: Sequence[Limit]) -> None:
        """Forget an attempt that went well."""
        with self._database.write() as connection:
            for limit in limits:
                rows.take_out(connection, limit.bucket, limit.attempt_ns)
