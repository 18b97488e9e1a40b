"""Waking those who wait for changes.

`Wake` is the interface: topics are ids (a space, an account, a device), and a lost wake-up may only delay: until the one who
waits asks again, a minute at most. `LocalWake` serves one process, `SharedWake` one of several on a database. All of it runs
on the event loop.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol

import anyio
import anyio.from_thread
from anyio.lowlevel import EventLoopToken, current_token


class Waiter:
    """One who waits. Subscribe first, look second, wait third: then nothing is missed."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self.woken: float | None = None
        """When it was woken since it waited last, or while it did (`time.perf_counter`); None: it was not."""

    def wake(self) -> None:
        if not self._event.is_set():
            self.woken = time.perf_counter()
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Whether something happened within `seconds`; the waiter is then ready to wait again."""
        if not self._event.is_set():
            self.woken = None
        with anyio.move_on_after(seconds):
            await self._event.wait()
        happened = self._event.is_set()
        if happened:
            self._event = anyio.Event()
        return happened


class Wake(Protocol):
    @property
    def closed(self) -> bool:
        """The service is stopping: nobody should wait any more."""

    def subscribe(self, topics: Iterable[bytes]) -> AbstractContextManager[Waiter]: ...

    def notify(self, *topics: bytes) -> None:
        """Wake all who wait for one of the topics."""

    def close(self) -> None:
        """Wake everybody, for good."""

    def waiting(self) -> int:
        """How many are subscribed."""


class LocalWake:
    """`Wake` within one process."""

    def __init__(self) -> None:
        self._waiters: defaultdict[bytes, set[Waiter]] = defaultdict(set)
        self._count = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    @contextmanager
    def subscribe(self, topics: Iterable[bytes]) -> Iterator[Waiter]:
        waiter = Waiter()
        mine = tuple(topics)
        for topic in mine:
            self._waiters[topic].add(waiter)
        self._count += 1
        if self._closed:
            waiter.wake()
        try:
            yield waiter
        finally:
            self._count -= 1
            for topic in mine:
                self._waiters[topic].discard(waiter)
                if not self._waiters[topic]:
                    del self._waiters[topic]

    def notify(self, *topics: bytes) -> None:
        for topic in topics:
            for waiter in self._waiters.get(topic, ()):
                waiter.wake()

    def notify_all(self) -> None:
        self.notify(*self._waiters)

    def close(self) -> None:
        self._closed = True
        self.notify_all()

    def waiting(self) -> int:
        return self._count


class Others(Protocol):
    """How other processes are told."""

    def send(self, topics: Iterable[bytes]) -> None: ...

    def close(self) -> None: ...


News = Callable[[Sequence[bytes] | None], None]
"""To be called, in a thread, with topics that another process notified; None: any may have been."""


class SharedWake(LocalWake):
    """`Wake` within one process, and to and from the others."""

    def __init__(self, open_others: Callable[[News], Others]) -> None:
        super().__init__()
        self._loop: EventLoopToken | None = None
        self._others = open_others(self._on_news)

    @contextmanager
    def subscribe(self, topics: Iterable[bytes]) -> Iterator[Waiter]:
        self._loop = current_token()
        with super().subscribe(topics) as waiter:
            yield waiter

    def notify(self, *topics: bytes) -> None:
        super().notify(*topics)
        self._others.send(topics)

    def notify_all(self) -> None:
        super().notify(*self._waiters)  # the others have their own reasons

    def close(self) -> None:
        super().close()
        self._others.close()

    def _on_news(self, topics: Sequence[bytes] | None) -> None:
        if self._loop is not None:  # else nobody has waited yet
            with suppress(anyio.RunFinishedError):
                anyio.from_thread.run_sync(self._hear, topics, token=self._loop)

    def _hear(self, topics: Sequence[bytes] | None) -> None:
        if topics is None:
            self.notify_all()
        else:
            super().notify(*topics)
