"""When to try again: back-off with jitter as a policy without I/O, and one bounded loop that follows it.

Owns no clock and no randomness of its own; knows transient from permanent only by the type of the error.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from remote.api import Transient

T = TypeVar("T")

RETRY_AFTER_MAX = 600.0
"""Seconds; a service that asks for more than this is asked again earlier."""


class Backoff:
    """Delays that double from `base` to `cap` seconds, each shortened at random by up to a half.

    The jitter keeps a thousand clients from coming back in the same instant. `random` returns a float in [0, 1).
    """

    def __init__(self, *, base: float = 0.5, cap: float = 60.0, random: Callable[[], float]) -> None:
        if not 0 < base <= cap:
            raise ValueError(f"a back-off from {base} to {cap} seconds")
        self._base = base
        self._cap = cap
        self._random = random
        self._failures = 0
        # Beyond this many doublings the cap rules; counting on would overflow a float after a night offline.
        self._failures_max = math.ceil(math.log2(cap / base))

    def next(self, retry_after: float | None = None) -> float:
        """Seconds to wait before the next attempt: never less than the service asked for, within reason, and up to a half
        more, because it asked others for the same."""
        jitter = self._random() / 2
        delay = min(self._cap, self._base * 2.0**self._failures) * (1 - jitter)
        self._failures = min(self._failures + 1, self._failures_max)
        asked = min(max(retry_after or 0.0, 0.0), RETRY_AFTER_MAX)
        return max(delay, asked * (1 + jitter))

    def reset(self) -> None:
        """Begin again at `base`: something worked."""
        self._failures = 0


async def retried(
    call: Callable[[], Awaitable[T]],
    *,
    policy: Backoff,
    attempts: int | None = None,
    seconds: float | None = None,
    longest_wait: float = math.inf,
) -> T:
    """`call()`, repeated while it raises `Transient`, at most `attempts` times and for at most `seconds`.

    At least one bound is needed. The last error is raised, early if the next wait would not fit into the time, or would be
    longer than `longest_wait` because the service asked for it: whoever holds something that others need cannot wait so
    long. The time bounds the waiting between attempts; each attempt bounds itself.
    """
    if attempts is None and seconds is None:
        raise ValueError("a retry without a bound")
    give_up_at = trio.current_time() + seconds if seconds is not None else math.inf
    made = 0
    while True:
        try:
            return await call()
        except Transient as error:
            made += 1
            delay = policy.next(error.retry_after)
            is_too_long = (error.retry_after or 0.0) > longest_wait  # what was asked: jitter must not make it too long
            if (attempts is not None and made >= attempts) or is_too_long or trio.current_time() + delay > give_up_at:
                raise
        await trio.sleep(delay)
