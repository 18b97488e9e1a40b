"""Where blocking work goes: worker threads, a bounded number for each kind, so that one kind cannot starve another.

A test that owns time hands the service a runner that works inline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.to_thread

from remote.server.database.engine import Database

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


class Repeating:
    """A runner of work on the database: what was undone through no fault of its own is done again (`Database.repeat`)."""

    def __init__(self, runner: Runner, database: Database) -> None:
        self._runner = runner
        self._database = database

    async def __call__(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        return await self._runner(self._database.repeat, work, *arguments)
