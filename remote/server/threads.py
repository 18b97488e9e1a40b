"""Where blocking work goes: worker threads, a bounded number for each kind, so that one kind cannot starve another.

A test that owns time hands the service a runner that works inline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.to_thread

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Runner(Protocol):
    async def __call__(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T: ...


class Threads:
    """A runner with at most `count` threads at work. Work that has begun is always waited for."""

    def __init__(self, count: int) -> None:
        self._limiter = anyio.CapacityLimiter(count)

    async def __call__(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        return await anyio.to_thread.run_sync(work, *arguments, limiter=self._limiter)
