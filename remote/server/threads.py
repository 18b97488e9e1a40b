"""Where blocking work goes: worker threads, a bounded number for each kind, so that one kind cannot starve another.

Requests wait for them in turn, account by account, so that one that asks too much waits for itself; and so many wait at most:
what comes on top is refused at once, with the time after which to come again, which is not the same for all. A test that owns
time hands the service a runner that works inline.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.to_thread

from remote.protocol import ProblemType
from remote.server.database.engine import Database
from remote.server.problems import Refused

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


WAITING = 1000
"""Requests that wait for a thread; more are not let in."""
OF_ONE = 64
"""Of them, and of those at work, so many of one account."""
RETRY_SECONDS = 5

asking: ContextVar[bytes] = ContextVar("asking", default=b"")
"""For whom a request works: an account, or, before that is known, whoever has this token or this address."""


class FairThreads:
    """`Threads` that requests wait for in turn: each account after the other, and none has more than half of the threads."""

    def __init__(self, count: int, waiting: int = WAITING, of_one: int = OF_ONE) -> None:
        self._limiter = anyio.CapacityLimiter(count)
        self._free = count
        self._most = max(1, count // 2)
        self._waiting_max = waiting
        self._of_one_max = of_one
        self._here: Counter[bytes] = Counter()
        """Waiting or at work."""
        self._at_work: Counter[bytes] = Counter()
        self._queues: dict[bytes, deque[anyio.Event]] = {}
        """Whose turn is next comes first."""

    @property
    def waiting(self) -> int:
        return self._here.total() - self._at_work.total()

    async def __call__(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        """`Refused` if too much is waiting already."""
        who = asking.get()
        with self._one_more(who):
            await self._take_turn(who)
            try:
                return await anyio.to_thread.run_sync(work, *arguments, limiter=self._limiter)
            finally:
                self._leave(who)

    @contextmanager
    def _one_more(self, who: bytes) -> Iterator[None]:
        wait = random.randint(1, RETRY_SECONDS)
        if self._here[who] >= self._of_one_max:
            text = f"{self._of_one_max} of your requests are being worked on; send fewer at a time."
            raise Refused(ProblemType.RATE_LIMITED, text, retry_after_seconds=wait)
        if self.waiting >= self._waiting_max:
            raise Refused(ProblemType.UNAVAILABLE, "The service has too much to do; try again.", retry_after_seconds=wait)
        self._here[who] += 1
        try:
            yield
        finally:
            _one_less(self._here, who)

    async def _take_turn(self, who: bytes) -> None:
        if self._free and self._at_work[who] < self._most:
            self._free -= 1
            self._at_work[who] += 1
            return
        turn = anyio.Event()
        self._queues.setdefault(who, deque()).append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._leave(who)
            else:
                self._queues[who].remove(turn)
                if not self._queues[who]:
                    del self._queues[who]
            raise

    def _leave(self, who: bytes) -> None:
        _one_less(self._at_work, who)
        next_ = next((each for each in self._queues if self._at_work[each] < self._most), None)
        if next_ is None:
            self._free += 1
            return
        queue = self._queues.pop(next_)
        self._at_work[next_] += 1
        queue.popleft().set()
        if queue:
            self._queues[next_] = queue  # behind the others


def _one_less(counter: Counter[bytes], who: bytes) -> None:
    counter[who] -= 1
    if not counter[who]:
        del counter[who]


class Repeating:
    """A runner of work on the database: what was undone through no fault of its own is done again (`Database.repeat`)."""

    def __init__(self, runner: Runner, database: Database) -> None:
        self._runner = runner
        self._database = database

    async def __call__(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        return await self._runner(self._database.repeat, work, *arguments)
