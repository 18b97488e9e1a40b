"""Which files wait to be uploaded, and when each is due: the schedule that `cache.uploads` works off.

    waiting ──due──▶ ready ──its turn──▶ active ──▶ done, or waiting again after a pause
                                           └──▶ ready, as a large file (handed over)

Owns times, turns, pauses and why an upload failed. Knows files by their numbers only: no drafts, no replica, no network.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import trio

from cache.clock import Clock
from cache.packs import PACKED_MAX
from remote.retry import Backoff

LOOK_AT_ONCE = 1000
"""Files looked at before others get their turn of the event loop."""
LARGE_AT_ONCE = 3
MEDIUM_MAX = 4 * 2**20
"""Files up to this size are uploaded more at a time, since each of them takes mostly waiting."""
MEDIUM_AT_ONCE = 16
PAUSE_MAX = 60.0


@dataclass(eq=False, slots=True)
class Entry:
    due: float
    asked: bool
    """Closed or fsynced, not only written."""
    backoff: Backoff
    failed: bool = False
    ready: bool = False
    """It was due, and waits for its turn."""
    again: bool = False
    """Asked for while it was being uploaded."""
    passed_over: int | None = None
    """The complete draft that we waited for the push to take."""
    unusable: set[bytes] = field(default_factory=set)
    """Objects that the service turned out not to hold."""


class UploadQueue:
    """`upload_delay`: the quiet time in seconds after a file was closed or fsynced."""

    def __init__(self, clock: Clock, random: Callable[[], float], upload_delay: float) -> None:
        self._clock = clock
        self._random = random
        self._delay = upload_delay
        self._entries: dict[int, Entry] = {}
        self._schedule_of: list[tuple[float, int]] = []
        """A heap of (due, ino). An entry that was moved leaves its old place behind, which is passed over."""
        self._small_ready: deque[int] = deque()
        self._large_ready: list[tuple[int, int]] = []
        """A heap of (size, ino)."""
        self._active: set[int] = set()
        self._failed: dict[int, str] = {}
        """Of the files that failed and wait to be tried again: why."""
        self._wake = trio.Event()
        self._asleep_until = 0.0

    def __contains__(self, ino: int) -> bool:
        return ino in self._entries

    def __getitem__(self, ino: int) -> Entry:
        return self._entries[ino]

    def unusable(self, ino: int) -> frozenset[bytes]:
        entry = self._entries.get(ino)
        return frozenset() if entry is None else frozenset(entry.unusable)

    # ------------------------------------------------------------------------------------------------------- what waits

    def ask(self, ino: int) -> Entry:
        """Closed or fsynced: due after the quiet time."""
        entry = self._entries.get(ino) or self.add(ino, self._delay)
        entry.asked = True
        if ino in self._active:
            entry.again = True
        elif not entry.failed:
            self.schedule(ino, entry, self._clock.monotonic() + self._delay)
        return entry

    def add(self, ino: int, delay: float) -> Entry:
        entry = self._entries[ino] = Entry(0.0, False, Backoff(base=1.0, cap=PAUSE_MAX, random=self._random))
        self.schedule(ino, entry, self._clock.monotonic() + delay)
        return entry

    def drop(self, ino: int) -> None:
        """There is nothing to upload any more."""
        self._entries.pop(ino, None)
        self._failed.pop(ino, None)

    def schedule(self, ino: int, entry: Entry, due: float) -> None:
        entry.due = due
        heapq.heappush(self._schedule_of, (due, ino))
        if due < self._asleep_until:
            self._wake.set()

    def skip_quiet(self) -> None:
        """What was closed or fsynced so far is due now."""
        now = self._clock.monotonic()
        for ino, entry in self._entries.items():
            if entry.asked and entry.due > now:
                self.schedule(ino, entry, now)

    def retry_now(self) -> None:
        """The connection is back: what failed for want of it need not wait."""
        now = self._clock.monotonic()
        for ino, entry in self._entries.items():
            if entry.failed and entry.due > now:
                entry.backoff.reset()
                self.schedule(ino, entry, now)

    def begin_anew(self) -> None:
        """Nothing is under way any more: the run that did it has ended."""
        self._active.clear()
        for ino, entry in self._entries.items():
            self.schedule(ino, entry, entry.due)

    # ---------------------------------------------------------------------------------------------------- due and turns

    def collect_due(self, now: float, size_if_ready: Callable[[int, Entry, float], int | None], idle: float) -> float:
        """Let what is due queue for its turn. When to look again: when the next is due (in `idle` seconds if none is), or at
        once if there was too much. `size_if_ready`: the size of what is to be uploaded now, None if nothing is."""
        looked_at = 0
        while self._schedule_of and self._schedule_of[0][0] <= now:
            if looked_at >= LOOK_AT_ONCE:
                return now
            due, ino = heapq.heappop(self._schedule_of)
            entry = self._entries.get(ino)
            if entry is None or entry.due != due or entry.ready or ino in self._active:
                continue
            looked_at += 1
            size = size_if_ready(ino, entry, now)
            if size is None:
                continue
            entry.ready = True
            if size <= PACKED_MAX:
                self._small_ready.append(ino)
            else:
                heapq.heappush(self._large_ready, (size, ino))
        return self._schedule_of[0][0] if self._schedule_of else now + idle

    def take_small(self, most: int) -> list[int]:
        """The next small files, which are active now."""
        batch = [self._small_ready.popleft() for _ in range(min(most, len(self._small_ready)))]
        for ino in batch:
            self._activate(ino)
        return batch

    def take_large(self, under_way: int) -> Iterator[int]:
        """Files that may go up beside so many others of their kind, each active when it is yielded; the smallest first."""
        while self._large_ready:
            size, ino = self._large_ready[0]
            if under_way >= (MEDIUM_AT_ONCE if size <= MEDIUM_MAX else LARGE_AT_ONCE):
                break
            heapq.heappop(self._large_ready)
            self._activate(ino)
            under_way += 1
            yield ino

    def _activate(self, ino: int) -> None:
        self._active.add(ino)
        self._entries[ino].ready = False

    def hand_over(self, ino: int, size: int) -> None:
        """A small file whose other bytes may have to be fetched first must not keep the others waiting."""
        self._active.discard(ino)
        self._entries[ino].ready = True
        heapq.heappush(self._large_ready, (size, ino))

    # -------------------------------------------------------------------------------------------------------- the outcome

    def done(self, ino: int) -> Entry | None:
        """It is not active any more, and waits no more: what it was."""
        self._active.discard(ino)
        self._failed.pop(ino, None)
        return self._entries.pop(ino, None)

    def not_done(self, ino: int, why: str, retry_after: float | None) -> None:
        """It waits to be tried again."""
        self._active.discard(ino)
        entry = self._entries.get(ino) or self.add(ino, 0.0)
        entry.failed, entry.asked = True, True
        self._failed.pop(ino, None)  # so that the latest failure is the last
        self._failed[ino] = why
        self.schedule(ino, entry, self._clock.monotonic() + entry.backoff.next(retry_after))

    def is_active(self, ino: int) -> bool:
        return ino in self._active

    def why_not(self, ino: int) -> str | None:
        """Why the last attempt failed, if it is tried again later."""
        return self._failed.get(ino)

    @property
    def trouble(self) -> str | None:
        """Why uploads fail, if some do and none of those is under way now."""
        if not self._failed or not self._active.isdisjoint(self._failed):
            return None
        return next(reversed(self._failed.values()))

    @property
    def idle(self) -> bool:
        """Nothing that was closed or fsynced waits or is under way."""
        return not self._active and not any(entry.asked for entry in self._entries.values())

    # ---------------------------------------------------------------------------------------------------------- the sleep

    def begin_look(self) -> None:
        """Whoever calls `wake` from now on ends the next `sleep` at once."""
        self._wake = trio.Event()

    def wake(self) -> None:
        self._wake.set()

    async def sleep(self, now: float, until: float) -> None:
        """Until then, or until something is due sooner, or somebody wakes us."""
        self._asleep_until = until
        with trio.move_on_after(until - now):
            await self._wake.wait()
        self._asleep_until = 0.0
