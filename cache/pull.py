"""Following the service: the long poll, and staging of its pages. What the very first listing shows is `listing`'s.

A page's rows and the cursor after it are kept in one transaction; what they mean for the tree is decided when the last page
is there (`cache.merger`). An answer that contradicts what the service said before stops the exchange (P6); one that makes no
sense is refused as a whole, and asked for again later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from cache.clock import Clock
from cache.connection import Connection
from cache.guards import Contradiction
from cache.listing import FirstListing
from cache.merger import Merger
from cache.model import Change
from cache.model import Connection as State
from cache.pages import PageOrder, check_epoch, check_page, riding_manifests, shared_revisions
from cache.store.content import ContentStore
from cache.store.merging import MergeStore
from cache.store.sync import ForeignInode, ShareState, SpaceRow, SyncStore
from cache.store.tree import TreeStore
from remote.api import RemoteError, ResetRequired, Service
from remote.crashpoints import crash_point
from remote.protocol import ChangesPage, SpaceChanges
from remote.retry import Backoff

WAIT_SECONDS = 55
PACE_SECONDS = 0.15
"""Between answers, while changes come one after the other: most are this device's own, coming back."""
PAGE_ROWS = 1000
PAGES_AT_ONCE = 5000
"""Full pages that are followed one after the other without a pause: some millions of rows."""


@dataclass(frozen=True, slots=True)
class PullStatus:
    """`caught_up_ns`: when this device last knew everything that the service had (wall clock; None: never)."""

    caught_up: bool
    caught_up_ns: int | None
    error: str | None


class Pull:
    """`told` hears what a first listing brings, as it comes. `random` in [0, 1) is for the back-off."""

    def __init__(
        self,
        service: Service,
        tree: TreeStore,
        contents: ContentStore,
        store: SyncStore,
        rows: MergeStore,
        merger: Merger,
        connection: Connection,
        clock: Clock,
        random: Callable[[], float],
        told: Callable[[list[Change]], None],
    ) -> None:
        self._service = service
        self._contents = contents
        self._store = store
        self._merger = merger
        self._connection = connection
        self._clock = clock
        self.first = FirstListing(service, tree, contents, store, rows, merger, connection, random, told)
        self._backoff = Backoff(base=0.5, cap=60.0, random=random)
        self._resets = Backoff(base=0.25, cap=60.0, random=random)
        self._empty = Backoff(base=PACE_SECONDS, cap=10.0, random=random)
        self._order = PageOrder()
        self._pages = 0
        self._asked_at = 0.0
        self._acknowledged: dict[int, int] = {}
        """By space: the newest revision that was acknowledged when the page was asked for that comes next."""
        self._caught_up = False
        self._caught_up_ns: int | None = None
        self._error: str | None = None

    async def run(self) -> None:
        """Follow the service for ever."""
        self.first.resume()
        self._merger.try_merge()
        while True:
            await self._connection.wait_may_sync()
            try:
                page = await self._ask()
                if page is None:
                    continue
                await self._receive(page)
                await trio.sleep(self._pause_after(page))
            except ResetRequired as error:
                self._error = str(error)
                self._store.forget_cursor()
                await trio.sleep(self._resets.next())
            except (Contradiction, ForeignInode) as error:
                self._error = str(error)
                self._connection.stop(str(error))
            except RemoteError as error:
                self._error = str(error)
                self._connection.failed(error)
                delay = self._backoff.next(getattr(error, "retry_after", None))
                with trio.move_on_after(delay):
                    await self._connection.wait_change()

    async def list_first(self, directory: int) -> None:
        """Returns when what is in a folder is known: at once, except while the very first listing loads. Raises `Offline`
        when there is no connection to load it over; how long to wait is the caller's to bound."""
        await self.first.wait_for(directory)

    @property
    def status(self) -> PullStatus:
        return PullStatus(self._caught_up, self._caught_up_ns, self._error)

    # ----------------------------------------------------------------------------------------------------------- asking

    async def _ask(self) -> ChangesPage | None:
        """The next page; None if something happened that makes waiting for it pointless."""
        online = self._connection.state is State.ONLINE and not self._connection.is_doubted
        cursor = self._store.cursor()
        self._asked_at = trio.current_time()
        spaces = self._store.spaces()
        self._acknowledged = {space.number: space.acknowledged for space in spaces}
        again = cursor == "" and any(space.snapshot or self._store.replacing(space.number) for space in spaces)
        page: ChangesPage | None = None
        failure: RemoteError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_after, nursery, self._connection.wait_doubted if online else self._wait_forbidden)
            try:
                page = await self._service.changes(
                    cursor, wait_seconds=WAIT_SECONDS if online else 0, limit=PAGE_ROWS, removed=again
                )
            except RemoteError as error:  # raised below: a nursery would wrap it
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if page is not None:
            self._connection.went_well()
        return page

    async def _wait_forbidden(self) -> None:
        while self._connection.may_sync:
            await self._connection.wait_change()

    @staticmethod
    async def _cancel_after(nursery: trio.Nursery, wait: Callable[[], Awaitable[None]]) -> None:
        await wait()
        nursery.cancel_scope.cancel()

    def _pause_after(self, page: ChangesPage) -> float:
        """Seconds until the next page is asked for. A service that answers without end is not to keep this device busy."""
        if any(changes.inodes or changes.entries for changes in page.spaces):
            self._empty.reset()
            self._pages = self._pages + 1 if page.has_more else 0
            return 0.0 if page.has_more and self._pages < PAGES_AT_ONCE else PACE_SECONDS
        at_once = trio.current_time() < self._asked_at + PACE_SECONDS
        return self._empty.next() if at_once else PACE_SECONDS

    # --------------------------------------------------------------------------------------------------------- receiving

    async def _receive(self, page: ChangesPage) -> None:
        staged = self._stage(page)
        self._backoff.reset()
        self._error = None
        for space, (keys, inodes) in staged.items():
            await self.first.show(space, keys, inodes)
        self._merger.try_merge()
        self._caught_up = not page.has_more
        if self._caught_up:
            self._caught_up_ns = self._clock.wall_ns()

    def _stage(self, page: ChangesPage) -> dict[int, tuple[list[tuple[int, str]], list[int]]]:
        """Check a page, and keep it with its cursor. Returns what it named, by space."""
        database = self._store.database
        cursor = self._store.cursor()
        known_before = {space.id for space in self._store.spaces()}
        check_epoch(self._store.epoch(), self._store.spaces(), page)
        self._order.check(cursor, page)
        staged = {}
        with database.transaction():
            for changes in page.spaces:
                space = self._space_of(changes)
                check_page(space, changes, self._acknowledged.get(space.number, 0))
                if changes.space not in known_before:
                    self._store.begin_listing(space.number)
                elif changes.full and (cursor == "" or (space.listed and not space.listing)):
                    self._store.begin_listing(space.number)
                    self._store.note_shared(space.number, self._shared(space, page))
                    self.first.begin()
                staged[space.number] = self._store.stage(space.number, changes)
                self._contents.put_manifests(riding_manifests(changes.inodes))
            self._store.set_cursor(page.cursor, page.epoch)
            crash_point("page.staging")
        crash_point("page.staged")
        self._order.note(page)
        if not any(changes.full for changes in page.spaces):
            self._resets.reset()
        return staged

    def _space_of(self, changes: SpaceChanges) -> SpaceRow:
        """A space that is new here was shared with this account."""
        number = self._store.space_number(changes.space)
        if number is None:
            number = self._store.add_space(changes.space, self._clock.wall_ns())
        elif self._store.share(number) is ShareState.ENDED:  # a member again: nothing of what comes now is to be forgotten
            self._store.set_share(number, None)
        return self._store.space(number)

    def _shared(self, space: SpaceRow, page: ChangesPage) -> int:
        """Up to which revision the history of a service that lost something is the one known here."""
        shared = shared_revisions(page.history, self._store.lost_epoch())
        return 0 if shared is None else shared.get(space.id, 0)
