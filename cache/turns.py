"""So many transfers at a time, the urgent first. Pure waiting: knows nothing of what is transferred."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import trio

URGENT = 0
"""The priority that may use the last turn; what is less urgent leaves one free."""


@dataclass(eq=False, slots=True)
class Place:
    """A place in the queue; smaller priorities go first."""

    priority: int
    number: int
    granted: trio.Event = field(default_factory=trio.Event)
    gone: bool = False

    def __lt__(self, other: Place) -> bool:
        return (self.priority, self.number) < (other.priority, other.number)


class Turns:
    """`parallel` is asked at each decision; 0 stops everything that has not begun, until `changed` is called."""

    def __init__(self, parallel: Callable[[], int]) -> None:
        self._parallel = parallel
        self._active = 0
        self._waiting: list[Place] = []
        self._numbers = count()

    @property
    def active(self) -> int:
        return self._active

    def place(self, priority: int) -> Place:
        """Queue up. The place must be given to `turn`."""
        place = Place(priority, next(self._numbers))
        heapq.heappush(self._waiting, place)
        return place

    @asynccontextmanager
    async def turn(self, place: Place) -> AsyncIterator[None]:
        """Wait until it is this place's turn, and hold it."""
        self.changed()
        try:
            await place.granted.wait()
        except BaseException:
            if place.granted.is_set():
                self._leave()
            else:
                place.gone = True
            raise
        try:
            yield
        finally:
            self._leave()

    def hurry(self, place: Place, priority: int) -> None:
        """Somebody is waiting for this now."""
        place.priority = min(priority, place.priority)
        heapq.heapify(self._waiting)
        self.changed()

    def changed(self) -> None:
        """The number of turns may have grown."""
        while self._waiting:
            place = self._waiting[0]
            if not place.gone:
                parallel = self._parallel()
                if self._active >= (parallel if place.priority == URGENT or parallel < 2 else parallel - 1):
                    return
                self._active += 1
                place.granted.set()
            heapq.heappop(self._waiting)

    def _leave(self) -> None:
        self._active -= 1
        self.changed()
