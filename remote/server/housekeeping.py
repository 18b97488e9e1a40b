"""Keeping house: jobs that a service does by itself, one process at a time, in a thread of their own.

A job is a row of the database: who does it, and when it was last done, so any number of processes share one schedule. Its holder
says again and again that it is alive; one that died, or stood still, loses the job to another. Each step of each job is safe
beside itself, so a holder that comes back late does no harm.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import urandom
from random import uniform

from sqlalchemy.exc import SQLAlchemyError

from remote.server.collection import collect
from remote.server.database import jobs as rows
from remote.server.database.engine import Database
from remote.server.expiries import Expiries
from remote.server.expiry import expire
from remote.server.garbage import DAY_NS, Garbage
from remote.server.indexing import Indexing
from remote.server.mail import Mailer
from remote.server.notifications import Notifications
from remote.server.objects.store import ObjectStore, StoreUnavailable
from remote.server.quota import TierOf
from remote.server.scrub import Scrubber
from remote.server.sharednews import tell_members
from remote.server.threads import Threads

log = logging.getLogger(__name__)

HOUR_NS = DAY_NS // 24
MINUTE_NS = HOUR_NS // 60
STEP_PAUSE_MAX_SECONDS = 1.0
SCRUB_BYTES, SCRUB_RATE = 2 * 2**30, 16 * 2**20
"""What is read again in an hour at most, and how much of it in a second: more than a terabyte a month."""
HELD_NS = 15 * 60 * 10**9
"""A holder that says nothing for so long is taken for dead."""
FIRST_LOOK_SECONDS = 60.0
"""After the start: it has more urgent things to do then."""
LOOK_SECONDS = 300.0

Proceed = Callable[[], None]
"""Called between the steps of a job; raises `Stopped` if it is not to go on."""


class Stopped(Exception):
    """The service ends, or another process has the job."""


@dataclass(frozen=True, slots=True)
class Job:
    """`work` does it to its end, and says in words what it did; nothing, if that was nothing."""

    name: str
    every_ns: int
    work: Callable[[Proceed], str]
    is_wanted: Callable[[], bool] = lambda: True
    """Whether there is something to do: asked before the job is taken, so that one that is looked at often costs a look."""


class Housekeeping:
    def __init__(
        self, database: Database, jobs: Sequence[Job], clock: Callable[[], int], *, look_seconds: float | None = None
    ) -> None:
        """`look_seconds`: of jobs that are wanted soon after there is something to do."""
        self._database = database
        self._jobs = jobs
        self._clock = clock
        self._look_seconds = look_seconds
        self._me = urandom(16)
        self._stopping = threading.Event()
        self._wake: Callable[[], object] = lambda: None

    async def run(self) -> None:
        """Look for what is due until `stop` is called."""
        loop, ended, in_thread = asyncio.get_running_loop(), asyncio.Event(), Threads(1)
        self._wake = lambda: loop.call_soon_threadsafe(ended.set)
        seconds = FIRST_LOOK_SECONDS if self._look_seconds is None else self._look_seconds
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(uniform(seconds, 2 * seconds)):  # so that processes do not all look at once
                    await ended.wait()
            if not self._stopping.is_set():
                await in_thread(self.do_what_is_due)
            seconds = LOOK_SECONDS if self._look_seconds is None else self._look_seconds

    def stop(self) -> None:
        """A job that is being done ends with its present step."""
        self._stopping.set()
        self._wake()

    def do_what_is_due(self) -> None:
        for job in self._jobs:
            try:
                if job.is_wanted() and self._database.repeat(self._take, job):
                    self._do(job)
            except Stopped:
                return
            except (StoreUnavailable, SQLAlchemyError) as error:
                log.warning("the job %s could not be done, and is tried again later: %s", job.name, error)
            except Exception:  # a fault of this job: the others have their turn, and it has its next one
                log.exception("the job %s failed", job.name)

    def _take(self, job: Job) -> bool:
        now = self._clock()
        with self._database.alone() as connection:
            return rows.take(connection, job.name, self._me, now, job.every_ns, now + HELD_NS)

    def _do(self, job: Job) -> None:
        kept, done = self._clock(), None

        def proceed() -> None:
            nonlocal kept
            if self._stopping.is_set():
                raise Stopped
            now = self._clock()
            if now - kept > HELD_NS // 5:
                kept = now
                with self._database.write() as connection:
                    if not rows.keep(connection, job.name, self._me, now + HELD_NS):
                        raise Stopped

        try:
            said = job.work(proceed)
            done = self._clock()
            if said:
                log.info("%s: %s", job.name, said)
        finally:
            with self._database.write() as connection:
                rows.leave(connection, job.name, self._me, done)


def usual_jobs(
    database: Database,
    store: ObjectStore,
    tier_of: TierOf,
    expiries: Expiries,
    notifications: Notifications,
    mailer: Mailer | None,
    clock: Callable[[], int],
) -> list[Job]:
    """What every service does."""

    def tombstones(proceed: Proceed) -> str:
        count = collect(database, clock, proceed=proceed)
        return f"forgot {count} tombstones" if count else ""

    def expiry(proceed: Proceed) -> str:
        expired = expire(database, tier_of, clock, proceed=proceed)
        if not (expired.versions or expired.trash):
            return ""
        return f"removed {expired.versions} former versions and {expired.trash} entries of the trash"

    def garbage(proceed: Proceed) -> str:
        report = Garbage(database, store, clock, proceed=proceed).collect()
        if not (report.sessions or report.manifests or report.dead or report.deleted):
            return ""
        return (
            f"ended {report.sessions} uploads, removed {report.manifests} manifests, found {report.dead} objects without a name "
            f"({report.dead_bytes} bytes), deleted {report.deleted} from the store ({report.deleted_bytes} bytes)"
        )

    def expiring(proceed: Proceed) -> str:
        expiries.warn(proceed)
        count = expiries.remove_due(proceed)
        return f"moved {count} files and folders to the trash, whose time had come" if count else ""

    def shared_news(proceed: Proceed) -> str:
        count = tell_members(database, clock, proceed)
        return f"told {count} members of changes in shared folders" if count else ""

    def old_notifications(_proceed: Proceed) -> str:
        count = notifications.forget_old()
        return f"forgot {count} notifications" if count else ""

    def digests(proceed: Proceed) -> str:
        count = 0 if mailer is None else notifications.send_digests(mailer, proceed)
        return f"sent {count} digests" if count else ""

    return [
        Job("tombstones", HOUR_NS, tombstones),
        Job("expiry", 6 * HOUR_NS, expiry),
        Job("garbage", 6 * HOUR_NS, garbage),
        Job("expiries", 5 * MINUTE_NS, expiring),
        Job("shared files", 5 * MINUTE_NS, shared_news),
        Job("notifications", DAY_NS, old_notifications),
        Job("digests", HOUR_NS, digests),
    ]


def scrub_job(database: Database, store: ObjectStore, clock: Callable[[], int]) -> Job:
    """For a store whose disks nobody else reads again: what a service that sells storage does by itself."""

    def scrub(proceed: Proceed) -> str:
        report = Scrubber(database, store, clock, rate=SCRUB_RATE, proceed=proceed).go_on(SCRUB_BYTES)
        for each in report.damaged:
            log.error("the object %s is damaged: %s", each.key, each.why)
        return f"found {report.left} damaged objects among {report.objects}" if report.left else ""

    return Job("scrub", HOUR_NS, scrub)


def keys_job(forget_ended: Callable[[], int]) -> Job:
    def forget(_proceed: Proceed) -> str:
        count = forget_ended()
        return f"forgot {count} keys that signed nothing that is good any more" if count else ""

    return Job("keys", HOUR_NS, forget)


def index_job(indexing: Indexing) -> Job:
    """It is wanted soon after each change, and so is not one of the usual ones. Half of the time it lets others go first: its
    thread takes the interpreter from those that answer requests."""

    def run(proceed: Proceed) -> str:
        began = time.monotonic()

        def proceed_gently() -> None:
            nonlocal began
            proceed()
            time.sleep(min(time.monotonic() - began, STEP_PAUSE_MAX_SECONDS))
            began = time.monotonic()

        indexing.run(proceed_gently)
        return ""

    return Job("search", 0, run, indexing.is_wanted)
