"""How often something may fail before it has to wait: a sliding window per key, in memory."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

KEYS_MAX = 100_000
SECOND_NS = 10**9


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` attempts in `seconds`."""

    key: str
    count: int
    seconds: int


class RateLimiter:
    """Counts attempts. `take` counts one and tells how long to wait instead, `give_back` forgets one that went well."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._attempts: OrderedDict[str, deque[int]] = OrderedDict()

    def take(self, limits: Sequence[Limit]) -> int | None:
        """None, and the attempt is counted under every limit; or the whole seconds to wait, and nothing is counted."""
        now = self._clock()
        waits = [wait for limit in limits if (wait := self._wait(limit, now))]
        if waits:
            return max(waits)
        for limit in limits:
            self._attempts.setdefault(limit.key, deque()).append(now)
            self._attempts.move_to_end(limit.key)
        while len(self._attempts) > KEYS_MAX:
            self._attempts.popitem(last=False)
        return None

    def give_back(self, limits: Sequence[Limit]) -> None:
        for limit in limits:
            attempts = self._attempts.get(limit.key)
            if attempts:
                attempts.pop()
            if not attempts:
                self._attempts.pop(limit.key, None)

    def _wait(self, limit: Limit, now: int) -> int:
        attempts = self._attempts.get(limit.key)
        if not attempts:
            return 0
        window = limit.seconds * SECOND_NS
        while attempts and attempts[0] <= now - window:
            attempts.popleft()
        if len(attempts) < limit.count:
            return 0
        return max(1, math.ceil((attempts[0] + window - now) / SECOND_NS))
