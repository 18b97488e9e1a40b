"""Fetching objects: each once however many want it, links in batches, what readers wait for before what is fetched ahead.

Owns the transfers under way and the links. A reader that goes away does not end a transfer that others wait for; a reader
waits at most its budget. What came is verified, decoded, and handed to the chunk cache. Knows nothing of files.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import count

import trio

from cache.chunks import Chunks, OpenChunk
from cache.encoding import decode
from cache.errors import CorruptData, Offline, TimedOut, Unavailable
from cache.link import LinkDecisions, Reachability
from cache.turns import Place, Turns
from cache.waits import Waits
from remote.api import Corrupt, LinkExpired, Permanent, Service, Transient
from remote.crashpoints import crash_point
from remote.manifest import ChunkRef, Encoding
from remote.protocol import MAX_OBJECTS_PER_PLAN, Link
from remote.retry import Backoff

LINKS_MAX = 4096
LINK_MARGIN = 30.0
"""Seconds before its end at which a link is not used any more: the transfer has to begin while it is valid."""
GATHER = 0.005
"""Seconds at most that a request for links waits for others to join it."""
ATTEMPTS = 6
LONGEST_WAIT = 5.0
"""Seconds between two attempts; a store that asks for more patience (`Retry-After`) is not asked again for this reader."""
DECODE_INLINE_MAX = 16 * 1024
_DECODERS = 2
_OVER = "this drive is being stopped"

log = logging.getLogger(__name__)


class Priority(IntEnum):
    READ = 0
    AHEAD = 1
    PIN = 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object, and the space in which its file lies."""

    space: bytes
    ref: ChunkRef


@dataclass(slots=True)
class DownloadCounters:
    objects: int = 0
    stored_bytes: int = 0
    corrupt: int = 0


@dataclass(eq=False, slots=True)
class _Fetch:
    wanted: Wanted
    priority: Priority
    pinned: bool
    done: trio.Event = field(default_factory=trio.Event)
    """It can be read."""
    ended: trio.Event = field(default_factory=trio.Event)
    """It is in the cache, too, if there was room."""
    waiters: int = 0
    chunk: OpenChunk | None = None
    failure: Unavailable | None = None
    place: Place | None = None
    """Where it waits for its turn; None: it does not."""


class Downloads:
    """Call `run` in a nursery first. Methods raise `Unavailable` and its kinds."""

    def __init__(
        self,
        service: Service,
        chunks: Chunks,
        reachability: Reachability,
        decisions: LinkDecisions,
        random: Callable[[], float],
        *,
        io_timeout: float = 30.0,
        waits: Waits | None = None,
    ) -> None:
        self.counters = DownloadCounters()
        self.io_timeout = io_timeout
        self._waits = waits or Waits()
        self.trouble: str | None = None
        """Why the last object that was wanted could not be had; None once one can."""
        self._service = service
        self._chunks = chunks
        self._reachability = reachability
        self._random = random
        self._nursery: trio.Nursery | None = None
        self._fetches: dict[bytes, _Fetch] = {}
        self._links = _Links(service)
        self._turns = Turns(decisions.parallel_downloads)
        self._decoders = trio.CapacityLimiter(_DECODERS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def get(self, wanted: Wanted, until: float | None = None) -> OpenChunk:
        """The verified plain bytes of the object, from here or from the service. `until` (trio's time): when to give up
        waiting for the service; the I/O budget if it is not said. The transfer goes on without its reader."""
        with trio.move_on_after(self.io_timeout):
            chunk = await self._chunks.open(wanted.ref.object_id, wanted.ref.plain_length)
            if chunk is not None:
                return chunk
            if self._reachability.online:  # asked here, too: a transfer that began before may hang until its own end
                fetch = self._fetch(wanted, Priority.READ)
                with trio.move_on_at(math.inf if until is None else until), self._waits.one():
                    return await self._wait(fetch)
        if self._reachability.online:
            raise TimedOut("the service did not send the data in time")
        raise Offline("this part of the file is not on this device, and there is no connection")

    def fetch_ahead(self, wanted: Iterable[Wanted]) -> None:
        """Somebody will probably read these soon: fetch them, or open them if they are here. Never fails, never waits."""
        for one in wanted:
            if (
                self._chunks.hot(one.ref.object_id) is None
                and one.ref.object_id not in self._fetches
                and self._nursery is not None
            ):
                self._fetch(one, Priority.AHEAD)

    async def pin(self, wanted: Wanted) -> None:
        """Let the object be among the pinned ones. Raises also when the disk is full."""
        if await self._chunks.set_pinned(wanted.ref.object_id, wanted.ref.plain_length):
            return
        fetch = self._fetch(wanted, Priority.PIN)
        fetch.pinned = True
        await self._wait(fetch)
        await fetch.ended.wait()
        if not await self._chunks.set_pinned(wanted.ref.object_id, wanted.ref.plain_length):
            raise Unavailable("there is no room on this disk for what is pinned")

    # ---------------------------------------------------------------------------------------------------------- inside

    def _fetch(self, wanted: Wanted, priority: Priority) -> _Fetch:
        fetch = self._fetches.get(wanted.ref.object_id)
        if fetch is None:
            if self._nursery is None:  # an upload that was in a thread meanwhile may ask so late
                raise Offline(_OVER)
            fetch = self._fetches[wanted.ref.object_id] = _Fetch(wanted, priority, False)
            self._nursery.start_soon(self._work, fetch)
        elif priority < fetch.priority:
            fetch.priority = priority
            if fetch.place is not None:
                self._turns.hurry(fetch.place, priority)
        return fetch

    async def _wait(self, fetch: _Fetch) -> OpenChunk:
        fetch.waiters += 1
        try:
            await fetch.done.wait()
        finally:
            fetch.waiters -= 1
        if fetch.failure is not None:
            raise type(fetch.failure)(*fetch.failure.args) from fetch.failure
        if fetch.chunk is None:
            raise Offline(_OVER)
        return fetch.chunk

    async def _work(self, fetch: _Fetch) -> None:
        """One object from the service (or the disk) to whoever waits for it. Ends without an exception."""
        ref = fetch.wanted.ref
        try:
            if fetch.priority is not Priority.READ:  # a reader has looked already
                with self._links.others_coming():
                    fetch.chunk = await self._chunks.open(ref.object_id, ref.plain_length)
            if fetch.chunk is None:
                plain = await self._download(fetch)
                crash_point("download.arrived")
                fetch.chunk = self._chunks.lend(ref.object_id, plain)
                fetch.done.set()
                await self._chunks.put_open(ref.object_id, plain, pinned=fetch.pinned)
        except Unavailable as failure:
            self.trouble = str(failure)
            fetch.failure = failure
        except Exception as error:  # whatever it is, it is this object's: the other readers and the drive go on
            log.exception("an object could not be fetched")
            fetch.failure = Unavailable(f"{type(error).__name__}: {error}")
        finally:
            del self._fetches[ref.object_id]
            fetch.done.set()
            fetch.ended.set()

    async def _download(self, fetch: _Fetch) -> bytes | bytearray:
        """Verified plain bytes. Retries what is transient for as long as somebody waits, and what is wrong once."""
        backoff = Backoff(base=0.2, cap=5.0, random=self._random)
        refused = 0
        for attempt in count(1):
            if not self._reachability.online:
                raise Offline("this part of the file is not on this device, and there is no connection")
            try:
                plain = await self._attempt(fetch)
            except Corrupt as error:
                self.counters.corrupt += 1
                refused += 1
                if refused > 1:
                    raise CorruptData(str(error)) from error
            except (Permanent, LinkExpired) as error:  # perhaps the link is too old, or was drawn before a right was given
                self._links.forget(fetch.wanted.ref.object_id)
                refused += 1
                if refused > 1:
                    raise Unavailable(str(error)) from error
            except Transient as error:
                self._reachability.failed(error)
                if not self._reachability.online:
                    raise Offline(str(error)) from error
                delay = backoff.next(error.retry_after)
                # Whoever reads meanwhile would wait for this too: better an error now, and another attempt at the next read.
                if (error.retry_after or 0.0) > LONGEST_WAIT or attempt >= ATTEMPTS or (fetch.waiters == 0 and attempt > 1):
                    raise Unavailable(str(error)) from error
                await trio.sleep(delay)
            else:
                self._reachability.went_well()
                self.trouble = None
                return plain
        raise AssertionError("unreachable")

    async def _attempt(self, fetch: _Fetch) -> bytes | bytearray:
        ref = fetch.wanted.ref
        await self._links.get(fetch.wanted)  # before its turn, so that all that wait for theirs share a request
        fetch.place = self._turns.place(fetch.priority)
        async with self._turns.turn(fetch.place):
            link = await self._links.get(fetch.wanted)
            stored = await self._service.get_object(link, ref.stored_length)
        self.counters.objects += 1
        self.counters.stored_bytes += len(stored)
        if ref.encoding is Encoding.RAW or len(stored) <= DECODE_INLINE_MAX:
            return decode(stored, ref)
        return await trio.to_thread.run_sync(decode, stored, ref, limiter=self._decoders)


class _Links:
    """Presigned links, asked for together: a request waits for those that are about to want one, too, and whatever is wanted
    while one is under way goes into the next."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._links: OrderedDict[bytes, tuple[Link, float]] = OrderedDict()
        self._wanted: OrderedDict[bytes, Wanted] = OrderedDict()
        self._asking = trio.Lock()
        self._coming = 0
        self._all_here = trio.Event()

    @contextmanager
    def others_coming(self) -> Iterator[None]:
        """Within, somebody looks whether a link is needed."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            if self._coming == 0:
                self._all_here.set()
                self._all_here = trio.Event()

    async def get(self, wanted: Wanted) -> Link:
        object_id = wanted.ref.object_id
        link = self._valid(object_id)
        if link is not None:
            return link
        self._wanted[object_id] = wanted
        try:
            await trio.lowlevel.checkpoint()  # who asks at the same moment shares the request
            if self._coming:
                with trio.move_on_after(GATHER):
                    await self._all_here.wait()
            async with self._asking:
                link = self._valid(object_id)
                if link is not None:
                    return link
                await self._ask(wanted)
        finally:
            self._wanted.pop(object_id, None)
        link = self._valid(object_id)
        if link is None:
            raise Corrupt("the service answered with links for other objects")
        return link

    def forget(self, object_id: bytes) -> None:
        self._links.pop(object_id, None)

    def _valid(self, object_id: bytes) -> Link | None:
        link, until = self._links.get(object_id, (None, 0.0))
        return link if link is not None and trio.current_time() < until else None

    async def _ask(self, first: Wanted) -> None:
        ids = [first.ref.object_id]
        ids += [id_ for id_, one in self._wanted.items() if one.space == first.space and id_ != first.ref.object_id]
        asked_at = trio.current_time()
        plan = await self._service.plan_downloads(first.space, ids[:MAX_OBJECTS_PER_PLAN])
        until = asked_at + max(plan.expires_in - LINK_MARGIN, plan.expires_in / 2)
        for link in plan.links:
            self._links[link.id] = (link, until)
            self._links.move_to_end(link.id)
        while len(self._links) > LINKS_MAX:
            self._links.popitem(last=False)
