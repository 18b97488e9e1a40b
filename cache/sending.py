"""Sending objects: ask which are missing, PUT those, remember the memory in use. Knows nothing of files or manifests.

Resuming is asking again: only what the service misses is sent.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import trio

from cache.encoding import EncodedObject
from cache.link import LinkDecisions, Reachability
from cache.turns import Turns
from remote.api import LinkExpired, Permanent, QuotaExceeded, RemoteError, Service
from remote.crashpoints import crash_point
from remote.manifest import ChunkRef
from remote.protocol import MAX_OBJECTS_PER_PLAN, FileToUpload, Link, ObjectToUpload, UploadPlan
from remote.retry import Backoff, retried

IN_FLIGHT_MAX = 96 * 2**20
"""Plain bytes that are being cut, encoded or sent, of all files together."""
LINK_MARGIN = 30.0
TURN_SECONDS = 20.0
"""After so long no further attempt is made in one turn: one that stalled has taken more, and others wait for it."""
PUT_ATTEMPTS = 4
LONGEST_WAIT = 10.0
"""Seconds between two attempts that hold a turn and memory; who is asked for more patience waits in the queue."""


@dataclass(slots=True)
class UploadCounters:
    objects: int = 0
    stored_bytes: int = 0
    plans: int = 0
    reused_objects: int = 0
    """Objects that were needed and that the service had already."""


class Memory:
    """So many bytes at a time, in the order of asking. A single request may be larger than the whole, alone."""

    def __init__(self, limit: int = IN_FLIGHT_MAX) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[tuple[int, trio.Event]] = deque()

    async def acquire(self, size: int) -> None:
        entry = (size, trio.Event())
        self._waiting.append(entry)
        self._grant()
        try:
            await entry[1].wait()
        except BaseException:
            if entry[1].is_set():
                self.release(size)
            else:
                self._waiting.remove(entry)
            raise

    def release(self, size: int) -> None:
        self._used -= size
        self._grant()

    def _grant(self) -> None:
        while self._waiting and (not self._used or self._used + self._waiting[0][0] <= self._limit):
            size, granted = self._waiting.popleft()
            self._used += size
            granted.set()


class Sender:
    def __init__(
        self, service: Service, reachability: Reachability, decisions: LinkDecisions, random: Callable[[], float]
    ) -> None:
        self.counters = UploadCounters()
        self.turns = Turns(lambda: 0 if reachability.paused else max(1, decisions.parallel_uploads()))
        self._service = service
        self._reachability = reachability
        self._random = random
        self._md5_is_signed = False
        """Whether the service has asked for the MD5 of objects: an old kind of object store compares bodies with nothing else."""

    async def missing(self, space: bytes, refs: Iterable[ChunkRef]) -> set[bytes]:
        """Which of these objects, that were there once, the service does not hold."""
        unique = list({ref.object_id: ref for ref in refs}.values())
        missing: set[bytes] = set()
        for at in range(0, len(unique), MAX_OBJECTS_PER_PLAN):
            some = unique[at : at + MAX_OBJECTS_PER_PLAN]
            plan, _ = await self._plan(space, [ObjectToUpload(id=ref.object_id, length=ref.stored_length) for ref in some])
            missing |= {*plan.unsigned, *(link.id for link in plan.missing)}
        self.counters.reused_objects += len(unique) - len(missing)
        return missing

    async def send(self, space: bytes, objects: Iterable[EncodedObject], priority: int, file: FileToUpload | None = None) -> None:
        """Let the service hold these objects. Raises any `RemoteError`; what was sent until then is not sent again.

        `file`: what they are for, if it is one that the service may refuse as a whole.
        """
        unique = list({one.ref.object_id: one for one in objects}.values())
        for at in range(0, len(unique), MAX_OBJECTS_PER_PLAN):
            batch = unique[at : at + MAX_OBJECTS_PER_PLAN]
            missing, valid_until = await self._links(space, batch, file)
            self.counters.reused_objects += len(batch) - len(missing)
            try:
                async with trio.open_nursery() as nursery:
                    for one in batch:
                        link = missing.get(one.ref.object_id)
                        if link is not None:
                            nursery.start_soon(self._put, space, one, link, valid_until, priority)
            except BaseExceptionGroup as group:  # not `except*`: until Python 3.11.4 what it raises comes out in a group
                errors, others = group.split(RemoteError)
                if errors is None or others is not None:
                    raise
                raise first_of(errors) from group

    async def _links(
        self, space: bytes, batch: Sequence[EncodedObject], file: FileToUpload | None = None
    ) -> tuple[dict[bytes, Link], float]:
        """Links for those that are missing, and until when they are good."""
        sums = await _md5s(batch) if self._md5_is_signed else {}
        plan, valid_until = await self._plan(space, [_announced(one, sums) for one in batch], file)
        if plan.unsigned:
            self._md5_is_signed = True
            sums = await _md5s(batch)
            plan, valid_until = await self._plan(space, [_announced(one, sums) for one in batch], file)
        return {link.id: link for link in plan.missing}, valid_until

    async def _plan(
        self, space: bytes, wanted: Sequence[ObjectToUpload], file: FileToUpload | None = None
    ) -> tuple[UploadPlan, float]:
        """What is missing, and until when the links are good."""
        asked_at = trio.current_time()
        crash_point("plan.asking")
        plan = await retried(
            lambda: self._service.plan_uploads(space, wanted, file),
            policy=Backoff(base=0.2, cap=5.0, random=self._random),
            attempts=2,
            longest_wait=LONGEST_WAIT,
        )
        crash_point("plan.answered")
        self.counters.plans += 1
        self._reachability.went_well()
        return plan, asked_at + plan.expires_in - min(LINK_MARGIN, plan.expires_in / 2)

    async def _put(self, space: bytes, encoded: EncodedObject, link: Link, valid_until: float, priority: int) -> None:
        async with self.turns.turn(self.turns.place(priority)):
            await retried(
                lambda: self._attempt(space, encoded, link, valid_until),
                policy=Backoff(base=0.2, cap=5.0, random=self._random),
                attempts=PUT_ATTEMPTS,
                seconds=TURN_SECONDS,
                longest_wait=LONGEST_WAIT,
            )
        self._reachability.went_well()

    async def _attempt(self, space: bytes, encoded: EncodedObject, link: Link, valid_until: float) -> None:
        """Send one object; with a new link if the old one has become, or is found to be, too old."""
        if trio.current_time() < valid_until:
            try:
                await self._put_counted(encoded, link)
            except QuotaExceeded:
                raise
            except (Permanent, LinkExpired):
                pass
            else:
                return
        missing, _ = await self._links(space, [encoded])
        renewed = missing.get(encoded.ref.object_id)
        if renewed is not None:
            await self._put_counted(encoded, renewed)

    async def _put_counted(self, encoded: EncodedObject, link: Link) -> None:
        crash_point("put.sending")
        await self._service.put_object(link, encoded.stored)
        crash_point("put.sent")
        self.counters.objects += 1
        self.counters.stored_bytes += len(encoded.stored)


def _announced(one: EncodedObject, sums: Mapping[bytes, bytes]) -> ObjectToUpload:
    return ObjectToUpload(id=one.ref.object_id, length=one.ref.stored_length, md5=sums.get(one.ref.object_id))


async def _md5s(objects: Sequence[EncodedObject]) -> dict[bytes, bytes]:
    def compute() -> dict[bytes, bytes]:
        return {one.ref.object_id: hashlib.md5(one.stored, usedforsecurity=False).digest() for one in objects}

    return await trio.to_thread.run_sync(compute)


def first_of(errors: BaseExceptionGroup[RemoteError]) -> RemoteError:
    """One of several failures; a permanent one says more."""
    found: list[RemoteError] = []
    pending: list[BaseException] = [errors]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        elif isinstance(error, RemoteError):
            found.append(error)
    return next((error for error in found if isinstance(error, Permanent)), found[0])
