"""Waking those who wait for changes.

`Wake` is the interface: topics are ids (a space, an account, a device), and a lost wake-up may only delay. `LocalWake` serves
one process; several processes on one database put their own behind the same interface. All of it runs on the event loop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import anyio


class Waiter:
    """One who waits. Subscribe first, look second, wait third: then nothing is missed."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def wake(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Whether something happened within `seconds`; the waiter is then ready to wait again."""
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

    def close(self) -> None:
        self._closed = True
        self.notify(*self._waiters)

    def waiting(self) -> int:
        return self._count
