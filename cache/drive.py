"""The drive: everything of one home but the kernel. Wires the parts together, runs them, and answers for them.

What is where: `replica` has names and attributes, `files` contents, `past` what both were; `uploads` brings contents up, `push`
and `pull` exchange the tree with the service, `pins` keeps what is to stay here. This module owns none of their decisions.

Order at the start: the replica is opened (and refused if it is damaged), the space of the account is there, recovery brings
rows and files together, then the parts run, each restarted by itself if it fails. At the end nothing has to be waited for:
what matters was made durable when it was promised.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trio

from cache import fsck
from cache.chunks import CacheUse, Chunks
from cache.clock import Clock, Randomness, SystemClock, SystemRandomness
from cache.connection import Connection, Stop
from cache.downloads import Downloads
from cache.drafts import DraftFolder
from cache.errors import CacheError, TimedOut
from cache.exchange import Exchange
from cache.files import Files
from cache.forks import Forks
from cache.fsck import FsckReport
from cache.home import HomePaths
from cache.housekeeping import Housekeeping
from cache.leftovers import Leftovers
from cache.link import LinkDecisions
from cache.manifests import Manifests
from cache.model import Change, FileState
from cache.model import Connection as State
from cache.past import Past
from cache.pins import Pins
from cache.reconnect import Reconnection
from cache.recovery import Recovered, Recovery
from cache.replica import Replica
from cache.sending import Sender
from cache.shares import Shares
from cache.status import Breaker, CacheStatus, Counters, DriveStatus, ListingProgress, Queue, Queued, Speeds, SyncReport
from cache.store.content import ContentStore
from cache.store.database import DamagedDatabase, Database, DatabaseUnusable
from cache.store.pending import Pending, PendingStore, count_beside
from cache.store.restart import RestartStore
from cache.store.tree import TreeStore
from cache.supervisor import Supervisor
from cache.synced import this_boot
from cache.syncpoint import SHOWN, SyncPoint
from cache.uploading import ContentUploader
from cache.uploads import Uploads
from cache.waits import Waits
from remote.api import RemoteError, Service
from remote.copynames import CopyNames, read_copy_name
from remote.crashpoints import crash_point
from remote.link import LinkRates, is_faster_than_zstd, is_slow, parallel_transfers

log = logging.getLogger(__name__)

GIB = 2**30
ACCOUNT_PERIOD = 300.0
ACCOUNT_RETRY = 15.0
CACHE_PERIOD = 2.0
SYNC_PERIOD = 0.05
SYNC_PATIENCE = 10.0
"""Seconds for which `sync` waits for the next attempt of what fails again and again."""
COUNT_PERIOD = 1.0
COUNTED = 2000
"""Rows that the status counts itself, in about two milliseconds."""


SENDING = ("uploads", "push")
"""The parts that bring to the service what is written here."""


class WrongAccount(DatabaseUnusable):
    """The replica in this home belongs to another account."""


@dataclass(frozen=True, slots=True)
class DriveOptions:
    """Sizes in bytes, times in seconds, rates in bytes per second (None: as fast as it goes)."""

    cache_size: int = 20 * GIB
    cache_folder: Path | None = None
    io_timeout: float = 30.0
    upload_delay: float = 0.5
    max_uploads: int = 8
    max_downloads: int = 8
    upload_limit: float | None = None
    download_limit: float | None = None
    read_only: bool = False
    offline: bool = False


class Drive:
    """See the module. Make it inside trio, `run` it once; `stop` it, or cancel `run`.

    `space`: the account's personal space; `device`: this device's name, for conflicted copies; `rates`: the measured link;
    `boot`: the id of this run of the machine.
    Raises `DatabaseUnusable` if the home cannot be used. `is_held_by_kernel` may be set by who mounts it.
    """

    def __init__(
        self,
        paths: HomePaths,
        service: Service,
        options: DriveOptions,
        clock: Clock | None = None,
        randomness: Randomness | None = None,
        *,
        space: bytes,
        device: str,
        rates: Callable[[], LinkRates] = lambda: LinkRates(None, None, None),
        boot: str | None = None,
    ) -> None:
        self.options = options
        self._boot = boot or this_boot()
        self.is_held_by_kernel: Callable[[int], bool] = lambda ino: False
        self._service = service
        self._clock = clock or SystemClock()
        self._randomness = randomness or SystemRandomness()
        self._device = device
        self._rates = rates
        self._paths = paths
        self._subscribers: list[Callable[[list[Change]], None]] = []
        self._stopping = trio.Event()
        self._ended = trio.Event()
        self._account_changed = trio.Event()
        self._recovered: Recovered | None = None
        self._cache_use = CacheUse(0, options.cache_size, 0)
        self._counted: Pending | None = None
        self._database = Database.open(paths.database)
        try:
            self._build(space)
        except BaseException:
            self._database.close()
            raise

    def _build(self, space: bytes) -> None:
        """Everything that hangs on the replica. The order is that of who needs whom."""
        options, service, clock, database = self.options, self._service, self._clock, self._database
        random = self._randomness.float
        self._tree = tree = TreeStore(database)
        self._contents = contents = ContentStore(database)
        self._pending = PendingStore(database)
        self._ensure_space(space)
        self.replica = Replica(database, tree, clock, self._randomness)
        self.connection = connection = Connection(database, clock)
        if options.offline:
            connection.set_offline(True)
        self._decisions = decisions = _decisions(self._rates, options)
        self._chunks = chunks = Chunks(self._paths.cache, options.cache_size)
        folder = DraftFolder(self._paths.drafts, self._boot)
        self._waits = waits = Waits()
        manifests = Manifests(contents, service, connection, waits)
        self._downloads = Downloads(service, chunks, connection, decisions, random, io_timeout=options.io_timeout, waits=waits)
        self.past = Past(service, connection, contents, manifests, self._chunks, self._downloads, decisions, waits, space)
        forks = Forks(tree, clock, self._randomness, self._copy_names, self._tell, self._changed)
        self.files = files = Files(contents, tree, folder, chunks, manifests, self._downloads, decisions, clock, forks.fork)
        self._sender = sender = Sender(service, connection, decisions, random)
        uploader = ContentUploader(contents, chunks, sender, decisions)
        delay = options.upload_delay
        self._uploads = Uploads(files, contents, uploader, sender, connection, clock, random, upload_delay=delay)
        files.queue = self._uploads
        self._pins = Pins(contents, tree, files, chunks, manifests, self._downloads, connection, self._uploads)
        self._exchange = Exchange(
            *(database, tree, contents, service, connection, files, self._uploads, clock, self._randomness),
            *(self._copy_names, self._tell, self._merged),
        )
        self._exchange.merger.before_merge = files.save_open
        self._shares = Shares(tree, self._exchange.store, self.replica, files, self._tell)
        self._uploads.on_complete = self._exchange.push.wake
        self.replica.on_local_change = self._changed
        self.replica.is_held = self._is_held
        self.replica.is_fetched = self._exchange.pull.first.is_fetched
        self.replica.drop_drafts = files.drop_drafts
        self._housekeeping = Housekeeping(database, self.replica, Leftovers(contents, files), files)
        self._supervisor = Supervisor(random)
        self._uploads.set_paused(connection.paused)

    def _ensure_space(self, id_: bytes) -> None:
        """The account's personal space is there from the first start on."""
        if self._tree.space_number(id_) is not None:
            return
        if self._pending.spaces():
            raise WrongAccount(
                f"the replica {self._paths.database} belongs to another account: log in to that one, or use another home"
            )
        with self._database.transaction():
            self._tree.add_space(id_, now_ns=self._clock.wall_ns())
        crash_point("replica.space-added")

    # ------------------------------------------------------------------------------------------------------- its life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Recover, then run until `stop`. Started when everything can be used."""
        try:
            self._recovered = self._recover()
            async with trio.open_nursery() as nursery:
                await nursery.start(self._downloads.run)
                for name, work in self._parts().items():
                    nursery.start_soon(self._supervisor.keep, name, work)
                task_status.started()
                await self._stopping.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._chunks.close()
            self._database.close()
            self._ended.set()

    async def stop(self) -> None:
        """End `run`, after what open files hold was saved. Does not wait for the network."""
        if self._ended.is_set():
            return
        try:
            self.files.save_open()
        except CacheError as error:
            log.error("what was written to open files could not be saved: %s", error)
        await self.files.settle_closed()  # so that the next boot has no doubts
        self._stopping.set()
        await self._ended.wait()

    def _parts(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "pull": self._exchange.pull.run,
            "push": self._exchange.push.run,
            "uploads": self._uploads.run,
            "pins": self._pins.run,
            "shares": self._shares.run,
            "housekeeping": self._housekeeping.run,
            "account": self._follow_account,
            "cache": self._follow_cache,
            "cache strays": self._chunks.drop_strays,
            "queue": self._follow_queue,
            "check": self._check_replica,
        }

    def _recover(self) -> Recovered:
        recovery = Recovery(
            *(RestartStore(self._database), self._contents, self._tree, self.replica),
            *(self._paths.drafts, self._clock, self._boot),
        )
        recovered = recovery.run()
        if recovered.surfaced or recovered.damaged or recovered.doubtful:
            log.warning("recovered after a crash: %s", recovered)
        return recovered

    async def _follow_account(self) -> None:
        """What `statfs` and the status say of the account."""
        while True:
            await self.connection.wait_online()
            self._account_changed = trio.Event()
            try:
                account = await self._service.account()
            except RemoteError as error:
                self.connection.failed(error)
                await trio.sleep(ACCOUNT_RETRY)
            else:
                self.connection.went_well()
                self._database.set_meta("usage", {"quota": account.quota_bytes, "used": account.used_bytes})
                with trio.move_on_after(ACCOUNT_PERIOD):
                    await self._account_changed.wait()

    async def _follow_cache(self) -> None:
        """How much the chunk cache holds: asked in a thread, because the status must not wait."""
        while True:
            self._cache_use = await self._chunks.use()
            await trio.sleep(CACHE_PERIOD)

    async def _follow_queue(self) -> None:
        """Count what waits, in a thread, while there is so much of it that the status cannot count it itself."""
        while True:
            is_long = self._pending.is_long(COUNTED)
            self._counted = await trio.to_thread.run_sync(count_beside, self._paths.database) if is_long else None
            await trio.sleep(COUNT_PERIOD)

    async def _check_replica(self) -> None:
        """Read the whole of a replica that was too large for it when it was opened. A damaged one says nothing to the service."""
        if self._database.was_checked:
            return
        try:
            await trio.to_thread.run_sync(self._database.check_integrity)
        except DamagedDatabase as error:
            log.error("%s", error)
            self.connection.stop(str(error), Stop.REPLICA)

    # --------------------------------------------------------------------------------------------- what changed, to whom

    def subscribe(self, callback: Callable[[list[Change]], None]) -> None:
        """Hear of every change of the tree that did not come through `replica` and `files`, after its transaction."""
        self._subscribers.append(callback)

    def _tell(self, changes: list[Change]) -> None:
        if changes:
            self._pins.wake()
            for callback in self._subscribers:
                callback(changes)

    def _changed(self, space: int) -> None:
        self._exchange.push.wake()

    def _merged(self) -> None:
        self._shares.follow()
        self.replica.sweep_wanted = True
        if self._contents.losses():  # what only this device has must not be evicted; else pins look after themselves
            self._pins.wake()

    def _is_held(self, ino: int) -> bool:
        return self.files.get(ino) is not None or self.is_held_by_kernel(ino)

    def _copy_names(self) -> CopyNames:
        day = datetime.fromtimestamp(self._clock.wall_ns() / 1e9).date()
        return CopyNames(self._device, day.isoformat())

    # ------------------------------------------------------------------------------------------------- for file systems

    async def list_first(self, directory: int) -> None:
        """While the very first listing loads: until this folder's names are here. Raises `Unavailable`."""
        with trio.move_on_after(self.options.io_timeout):
            await self._exchange.pull.list_first(directory)
            return
        raise TimedOut("the folder's names did not come in time")

    async def make_durable(self) -> None:
        """Names and attributes as they are now survive power loss."""
        await trio.to_thread.run_sync(self._database.make_durable)

    # ------------------------------------------------------------------------------------------------- for the person

    async def sync(self, timeout_seconds: float | None = None) -> SyncReport:
        """Until everything that was closed or fsynced is on the service, without the quiet time.

        If it cannot go on (offline, paused, stopped, errors), returns at once with what waits, unless there is a timeout.
        """
        point = await self._sync_point()
        deadline = trio.current_time() + (math.inf if timeout_seconds is None else timeout_seconds)
        self._uploads.skip_quiet()
        self._exchange.push.wake()
        self.connection.try_now()
        patience = _Patience(trio.current_time())
        while point is None or not await point.reached():
            reason = self._why_not()
            trouble = self._trying_again()
            if patience.is_over(trio.current_time(), self._progress(), failing=bool(trouble)):
                reason = reason or trouble[0]
            if reason is not None and timeout_seconds is None:
                return await self._not_synced(point, reason)
            if trio.current_time() >= deadline:
                return await self._not_synced(point, reason or "it takes longer")
            await trio.sleep(SYNC_PERIOD)
            point = point or await self._sync_point()
        return SyncReport(True, None, (), 0, 0)

    async def _sync_point(self) -> SyncPoint | None:
        """None while it is not known yet what a service lost: all of that has to reach it again."""
        if self._exchange.reconnect.under_way:
            return None
        point = SyncPoint(self._tree, self._pending, self.replica.path_of)
        await point.draw(self._is_finished)
        return point

    def _why_not(self) -> str | None:
        """Why nothing goes to the service now; None: it does, or may at any moment."""
        connection = self.connection
        if connection.state is State.STOPPED:
            return connection.stopped_because
        if connection.state is State.OFFLINE:
            return "offline (aloft online ends that)"
        if connection.state is State.LOGGED_OUT:
            return "logged out (log in again)"
        if connection.state is State.UNREACHABLE:
            return connection.last_error or "the service cannot be reached"
        if connection.paused:
            return "paused (aloft resume ends that)"
        if self._exchange.deletions.tripped():
            return "many files would be deleted (aloft confirm-deletes, or aloft undo-deletes)"
        if self._pending.has_errors() or self._exchange.push.status.problems:
            return "some files have errors: aloft status says which"
        return None

    def _trying_again(self) -> tuple[str, ...]:
        """What fails, and waits for its next attempt: contents, commits, what others changed, or a part of the drive."""
        found = [self._uploads.trouble, self._exchange.push.status.error, self._shares.trouble]
        if self.connection.state is State.ONLINE:
            found.append(self._exchange.pull.status.error)
        found += [f"{one.task}: {one.error}" for one in self._supervisor.failures() if one.task in SENDING and one.in_seconds > 0]
        return tuple(text for text in found if text is not None)

    def _progress(self) -> tuple[int, int]:
        return self._sender.counters.objects, self._exchange.push.status.commits

    async def _not_synced(self, point: SyncPoint | None, reason: str) -> SyncReport:
        if point is None:
            return SyncReport(False, reason, (), 0, 0)
        waiting = await point.waiting()
        return SyncReport(False, reason, waiting.paths, waiting.files, waiting.bytes)

    def _is_finished(self, ino: int) -> bool:
        """Whether what was written to a file was closed or fsynced."""
        file = self.files.get(ino)
        return file is None or (file.was_closed and (file.writing is None or file.writing.asked))

    async def file_status(self, ino: int) -> FileState:
        """What `aloft status PATH` says of a file or folder."""
        state = await self._pins.state_of(ino)
        if state in (FileState.ERROR, FileState.UPLOADING, FileState.DRAFT):
            return state
        return FileState.CONFLICT if any(read_copy_name(name) for _, name in self._tree.names(ino)) else state

    async def pin(self, ino: int) -> None:
        """Keep a file, or a folder and what appears below it, on this machine."""
        self._pins.pin(ino)

    async def unpin(self, ino: int) -> None:
        self._pins.unpin(ino)

    async def evict(self, ino: int) -> int:
        """Free what the service has of a file or of the files below a folder; how many chunks."""
        return await self._pins.evict(ino)

    def set_offline(self, offline: bool) -> None:
        self.connection.set_offline(offline)
        if offline:
            self._waits.end()

    def logged_in(self) -> None:
        """There are new tokens: what waited for them goes on."""
        self.connection.logged_in()

    def account_changed(self) -> None:
        """Another tier: perhaps there is room now."""
        self._account_changed.set()
        self._uploads.retry_now()

    def pause(self) -> None:
        """Nothing goes to the service or comes from it but what somebody reads, until `resume`."""
        self.connection.set_paused(True)
        self._uploads.set_paused(True)

    def resume(self) -> None:
        self.connection.set_paused(False)
        self._uploads.set_paused(False)

    def confirm_deletes(self) -> int:
        """Let the deletions pass that wait at this moment because the breaker stopped them; how many files they are."""
        self._exchange.deletions.show_all()
        return self._exchange.deletions.confirm()

    def undo_deletes(self) -> int:
        """Bring the files back whose deletion the breaker stopped; how many they are."""
        self._exchange.deletions.show_all()
        return self._exchange.deletions.undo()

    def reconnect(self, *, go_on: bool) -> Reconnection | None:
        """What stopped the exchange (None: nothing did), and, with `go_on`, go on by the person's word. `CannotReconnect`."""
        return self._exchange.reconnect.go_on() if go_on else self._exchange.reconnect.look()

    async def fsck(self, *, repair: bool) -> FsckReport:
        return await fsck.run(self._database, self._paths.drafts, self._chunks, repair=repair)

    # --------------------------------------------------------------------------------------------------------- status

    def status(self) -> DriveStatus:
        """Some milliseconds at most; waits for nothing."""
        connection, usage = self.connection, self.replica.usage()
        return DriveStatus(
            connection=connection.state,
            stopped_because=connection.stopped_because,
            last_error=connection.last_error,
            paused=connection.paused,
            queue=self.queue(),
            speeds=self._speeds(),
            cache=CacheStatus(self._cache_use.evictable, self._cache_use.limit, self._cache_use.pinned),
            counters=self._counters(),
            listing=ListingProgress(*self._pending.listed_entries()),
            pins=self._pins.progress,
            breakers=self._breakers(),
            problems=self._exchange.push.status.problems,
            trying_again=self._trying_again(),
            fetch_error=self._downloads.trouble,
            failures=self._supervisor.failures(),
            quota=usage.quota,
            used=usage.used,
            recovered=self._recovered.paths if self._recovered is not None else (),
        )

    def _breakers(self) -> tuple[Breaker, ...]:
        return tuple(Breaker(one.direction.value, one.files, one.of) for one in self._exchange.deletions.tripped())

    def queue(self, shown_max: int = SHOWN) -> Queue:
        """What waits to go up. Some milliseconds at most."""
        pending = self._counted if self._counted is not None and self._pending.is_long(COUNTED) else self._pending.counts()
        shown = [
            Queued(self.replica.path_of(file.ino) or "", file.size, file.error or self._uploads.why_not(file.ino))
            for file in self._pending.files(shown_max)
        ]
        return Queue(pending.files, pending.bytes, pending.changes, tuple(shown))

    def _speeds(self) -> Speeds:
        rates, decisions = self._rates(), self._decisions
        return Speeds(rates.upload, rates.download, rates.latency, decisions.parallel_uploads(), decisions.parallel_downloads())

    def _counters(self) -> Counters:
        down, up = self._downloads.counters, self._sender.counters
        return Counters(
            objects_fetched=down.objects,
            bytes_fetched=down.stored_bytes,
            objects_sent=up.objects,
            bytes_sent=up.stored_bytes,
            objects_reused=up.reused_objects,
            corrupt=down.corrupt,
            commits=self._exchange.push.status.commits,
            conflicts=self._exchange.merger.conflicts,
        )


class _Patience:
    """Of `sync` with what fails again and again: it waits for some more attempts, but not for ever."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._progress = (0, 0)

    def is_over(self, now: float, progress: tuple[int, int], *, failing: bool) -> bool:
        if progress != self._progress:
            self._progress, self._since = progress, now
        return failing and now - self._since > SYNC_PATIENCE


def _decisions(rates: Callable[[], LinkRates], options: DriveOptions) -> LinkDecisions:
    """What follows from the link as it is measured at each moment."""

    def bytes_in_flight() -> int:
        measured = rates()
        return int((measured.download or 0.0) * (measured.latency or 0.0))

    return LinkDecisions(
        parallel_uploads=lambda: parallel_transfers(rates().upload, rates().latency, options.max_uploads),
        parallel_downloads=lambda: parallel_transfers(rates().download, rates().latency, options.max_downloads),
        is_slow=lambda: is_slow(rates().upload),
        is_faster_than_zstd=lambda: is_faster_than_zstd(rates().upload),
        bytes_in_flight=bytes_in_flight,
    )
