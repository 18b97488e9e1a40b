"""The one home of clock and randomness on the client: everything else is handed these, so that a test can own them."""

from __future__ import annotations

import os
import random
import time
from typing import Protocol


class Clock(Protocol):
    def wall_ns(self) -> int:
        """Nanoseconds since 1970, never ahead of the kernel's stamps on files; some ms behind them since Linux 6.13."""

    def monotonic(self) -> float:
        """Seconds that only grow."""


class Randomness(Protocol):
    def bytes(self, count: int) -> bytes: ...

    def float(self) -> float:
        """In [0, 1), for jitter."""


class SystemClock:
    """The machine's clocks.

    CLOCK_REALTIME_COARSE, because the kernel stamps the files that it owns with it: with the finer clock, mtimes would run
    backwards by up to 4 ms against the kernel's.
    """

    _COARSE = 5

    def wall_ns(self) -> int:
        return time.clock_gettime_ns(self._COARSE)

    def monotonic(self) -> float:
        return time.monotonic()


class SystemRandomness:
    def bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def float(self) -> float:
        return random.random()
