"""The link to the service: what it carries (measured), what follows from that (pure), and what it may carry (limits).

Rates are bytes per second, times are seconds. Owns no socket and no thread; clocks are injected.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

SAMPLE_MIN = 64 * 1024
"""Smaller transfers say more about latency than about the rate."""
SLOW = 1024 * 1024
CRAWLING = 256 * 1024
FASTER_THAN_ZSTD = 300_000_000
TYPICAL_CHUNK = 1024 * 1024
TRANSFERS_UNMEASURED = 4

_WEIGHT = 0.25
"""Of a new sample in the moving average: four transfers turn it around."""
_POLL = 0.2
"""A transfer that waits for its share looks this often whether the limit changed or it was abandoned."""


# ------------------------------------------------------------------------------------------------------------ decisions


def parallel_transfers(rate: float | None, latency: float | None, maximum: int) -> int:
    """How many transfers keep the link full. More than that only makes each one slower, and a cut costlier.

    One round trip is lost per chunk, so the more chunks fit into a round trip the more have to be under way.
    """
    if rate is None:
        wanted = TRANSFERS_UNMEASURED
    elif rate < CRAWLING:
        wanted = 1
    elif rate < SLOW:
        wanted = 2
    else:
        wanted = TRANSFERS_UNMEASURED + math.ceil(rate * (latency or 0.0) / TYPICAL_CHUNK)
    return max(1, min(wanted, maximum))


def is_slow(upload_rate: float | None) -> bool:
    """Whether a new file should take the next smaller split class, so that a cut costs less."""
    return upload_rate is not None and upload_rate < SLOW


def is_faster_than_zstd(upload_rate: float | None) -> bool:
    """Whether compressing takes longer than sending what it would save."""
    return upload_rate is not None and upload_rate > FASTER_THAN_ZSTD


# ---------------------------------------------------------------------------------------------------------- measurement


class Direction(Enum):
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class LinkRates:
    """What was measured; None where nothing was yet. The rates are those of the whole link, not of one transfer."""

    upload: float | None
    download: float | None
    latency: float | None


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer under way, as `LinkMeter.begin` saw it."""

    direction: Direction
    began: float
    shared: float


class _Lane:
    """One direction. `shared` is the integral of the number of transfers under way over time."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self.active = 0
        self.shared = 0.0
        self.since = 0.0

    def advance(self, now: float) -> None:
        self.shared += self.active * (now - self.since)
        self.since = now


class LinkMeter:
    """Moving averages of the link's rates and latency. For one thread: the one that awaits the transfers.

    A transfer that shared the link with others is counted with the mean number of transfers during its life, so that
    eight transfers at 1 MB/s each read as 8 MB/s, and the answer does not depend on how many are allowed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lanes = {direction: _Lane() for direction in Direction}
        self._latency: float | None = None

    def begin(self, direction: Direction) -> Transfer:
        lane, now = self._lanes[direction], self._clock()
        lane.advance(now)
        lane.active += 1
        return Transfer(direction, now, lane.shared)

    def end(self, transfer: Transfer, carried: int) -> None:
        """The transfer is over; `carried` bytes (0 if it failed) went over the link."""
        lane, now = self._lanes[transfer.direction], self._clock()
        lane.advance(now)
        lane.active -= 1
        duration = now - transfer.began
        if carried >= SAMPLE_MIN and duration > 0:
            mean_active = (lane.shared - transfer.shared) / duration
            lane.rate = _averaged(lane.rate, carried / duration * mean_active)

    def answered(self, seconds: float) -> None:
        """A small request was answered after so many seconds."""
        self._latency = _averaged(self._latency, seconds)

    def rates(self) -> LinkRates:
        return LinkRates(self._lanes[Direction.UP].rate, self._lanes[Direction.DOWN].rate, self._latency)


def _averaged(average: float | None, sample: float) -> float:
    return sample if average is None else average + _WEIGHT * (sample - average)


# --------------------------------------------------------------------------------------------------------------- limits


class RateLimit:
    """A token bucket in bytes per second, shared by all transfers of one direction, from any thread.

    Bytes are numbered in the order in which they were asked for (`reserve`); byte n may go once the bucket has granted n.
    So waiting is fair, and a change of the rate reaches those that wait already. `rate` None: no limit, at no cost.
    """

    def __init__(self, rate: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._chosen = self._rate = _checked(rate)
        self._ceiling: float | None = None
        self._granted = 0.0
        self._reserved = 0
        self._since = clock()

    @property
    def rate(self) -> float | None:
        return self._rate

    def set_rate(self, rate: float | None) -> None:
        """What the person chooses."""
        self._chosen = _checked(rate)
        self._follow()

    def set_ceiling(self, rate: float | None) -> None:
        """What the service allows: it holds if it is lower."""
        self._ceiling = _checked(rate)
        self._follow()

    def _follow(self) -> None:
        with self._lock:
            self._refill()
            self._rate = min((each for each in (self._chosen, self._ceiling) if each is not None), default=None)

    def piece(self, wanted: int) -> int:
        """How many bytes to move at once, at most `wanted`: a quarter of a second's worth, so that the flow is even."""
        rate = self._rate
        return wanted if rate is None else max(4096, min(wanted, int(rate / 4)))

    def reserve(self, count: int) -> int:
        """A ticket for `count` bytes; `delay` tells when they may go."""
        with self._lock:
            self._refill()
            self._reserved += count
            return self._reserved

    def delay(self, ticket: int) -> float:
        """Seconds until the bytes of this ticket may go; 0 when they may."""
        with self._lock:
            self._refill()
            if self._rate is None:
                return 0.0
            return max(0.0, (ticket - self._granted) / self._rate)

    def wait(self, count: int, abandoned: threading.Event) -> None:
        """Block this worker thread until `count` bytes may go, or until nobody wants them any more."""
        if self._rate is None:
            return
        ticket = self.reserve(count)
        while (delay := self.delay(ticket)) > 0 and not abandoned.wait(min(delay, _POLL)):
            pass

    def _refill(self) -> None:
        now = self._clock()
        if self._rate is None:
            self._granted = float(self._reserved)
        else:
            # An idle link saves up at most a quarter of a second, so that a pause is not followed by a flood.
            most = self._reserved + self._rate / 4
            self._granted = min(self._granted + self._rate * (now - self._since), most)
        self._since = now


def _checked(rate: float | None) -> float | None:
    if rate is not None and rate <= 0:
        raise ValueError(f"a limit of {rate} bytes per second")
    return rate
