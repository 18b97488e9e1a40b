"""The very first listing, for those who do not want to wait for its end.

The feed comes in the order of revisions, so only its last page completes a folder. Its rows are shown as far as they hang on
the root, and a folder that is opened before is asked for by itself, beside the feed. Rows of such a folder page are staged
and shown like the feed's. What the feed says later of the same names and inodes has the last word, because

- a folder is asked for only after the listing began, so that the feed brings a tombstone for whatever is removed after the
  folder was read (of what was removed before the listing began there is none);
- the merge at the end waits until the feed is as new as the newest folder page (`Merger`);
- a page that was asked for before a listing began anew is thrown away.

What was fetched is remembered until the process ends: a folder is asked for again after a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from cache.connection import Connection
from cache.errors import Offline
from cache.guards import Contradiction
from cache.merger import Merger
from cache.model import Change
from cache.pages import check_folder_page, riding_manifests
from cache.store.content import ContentStore
from cache.store.merging import MergeStore
from cache.store.sync import ForeignInode, SyncStore
from cache.store.tree import TreeStore
from remote.api import Nonsense, RemoteError, Service, Transient, Unreachable
from remote.crashpoints import crash_point
from remote.protocol import FolderPage
from remote.retry import Backoff

FOLDER_ROWS = 1000
APPLIED_AT_ONCE = 1000
"""Rows that are applied in one transaction: some 20 ms."""


class FirstListing:
    """`told` hears what is shown, as it comes. `random` in [0, 1) is for the back-off."""

    def __init__(
        self,
        service: Service,
        tree: TreeStore,
        contents: ContentStore,
        store: SyncStore,
        rows: MergeStore,
        merger: Merger,
        connection: Connection,
        random: Callable[[], float],
        told: Callable[[list[Change]], None],
    ) -> None:
        self._service = service
        self._tree = tree
        self._contents = contents
        self._store = store
        self._rows = rows
        self._merger = merger
        self._connection = connection
        self._random = random
        self._told = told
        self._unshown: dict[int, deque[tuple[int, str]]] = {}
        """By space: folders that are here and for which something may be staged, each with the name to go on after."""
        self._fetched: set[int] = set()
        self._fetching: set[int] = set()
        self._begun = 0

    def is_fetched(self, directory: int) -> bool:
        """Whether a folder's names came before the listing was complete."""
        return directory in self._fetched

    # ------------------------------------------------------------------------------------------------------ from the feed

    def resume(self) -> None:
        """Take up a listing that an earlier process began."""
        for space in self._store.spaces():
            if not space.listed:
                self._unshown[space.number] = deque((ino, "") for ino in self._rows.folders_here(space.number))

    def begin(self) -> None:
        """A listing from the beginning follows: what folders held before says nothing of it."""
        self._begun += 1
        self._fetched.clear()

    async def show(self, number: int, keys: list[tuple[int, str]], inodes: list[int]) -> None:
        """Of what a page of the feed brought, show what hangs on the root, a few rows at a time."""
        space = self._store.space(number)
        if space.listed or space.listing:
            return
        self._merger.merged.notify()  # that it began is something to know as well
        folders = self._unshown.setdefault(number, deque())
        folders.extend((ino, "") for ino in self._rows.known_folders(keys, inodes))
        while folders:
            self._apply(number, folders)
            await trio.lowlevel.checkpoint()

    def _apply(self, space: int, folders: deque[tuple[int, str]]) -> None:
        changes = self._rows.apply_connected(space, folders, APPLIED_AT_ONCE)
        if changes:
            crash_point("listing.shown")
            self._told(changes)
            self._merger.merged.notify()

    # ------------------------------------------------------------------------------------------------- folder by folder

    async def wait_for(self, directory: int) -> None:
        """Returns when what is in a folder is known. Raises `Offline` when there is no connection to ask over."""
        space = self._tree.space_of(directory)
        while not self._is_known(space, directory):
            if not self._may_ask():
                raise Offline("the listing of this folder is not complete, and there is no connection")
            async with trio.open_nursery() as nursery:
                for wait in (
                    partial(self._merger.merged.wait_for, partial(self._tree.is_listed, space)),
                    self._wait_forbidden,
                    partial(self._fetch_once, space, directory),
                ):
                    nursery.start_soon(self._cancel_after, nursery, wait)

    def _is_known(self, space: int, directory: int) -> bool:
        """A folder that the service does not have was made here, with all that is in it."""
        return directory in self._fetched or self._tree.is_listed(space) or self._tree.base_inode(directory) is None

    def _may_ask(self) -> bool:
        return self._connection.online and self._connection.may_sync

    async def _wait_forbidden(self) -> None:
        while self._may_ask():
            await self._connection.wait_change()

    @staticmethod
    async def _cancel_after(nursery: trio.Nursery, wait: Callable[[], Awaitable[None]]) -> None:
        await wait()
        nursery.cancel_scope.cancel()

    async def _fetch_once(self, space: int, directory: int) -> None:
        """Fetch a folder unless another task does it; if that one gives up, the next one tries."""
        await self._merger.merged.wait_for(lambda: directory not in self._fetching and self._has_begun(space))
        if self._is_known(space, directory):
            return
        self._fetching.add(directory)
        try:
            await self._fetch_stubbornly(space, directory)
        finally:
            self._fetching.discard(directory)
            self._merger.merged.notify()

    def _has_begun(self, space: int) -> bool:
        """A page of the feed is here, of a listing to which rows may be added (one that replaces base is waited for)."""
        return self._store.cursor() != "" and not self._store.space(space).listing

    async def _fetch_stubbornly(self, space: int, directory: int) -> None:
        """Until it worked, or there is no connection any more. How long that may take is the caller's to bound."""
        backoff = Backoff(base=0.5, cap=10.0, random=self._random)
        while True:
            try:
                return await self._fetch(space, directory)
            except (Contradiction, ForeignInode) as error:
                self._connection.stop(str(error))
                return None
            except Unreachable as error:
                self._connection.failed(error)
                return None
            except Transient as error:
                self._connection.failed(error)
                await trio.sleep(backoff.next(error.retry_after))
            except RemoteError as error:  # a service that cannot answer this; the feed brings the folder in the end
                self._connection.failed(error)
                await trio.sleep_forever()

    async def _fetch(self, space: int, directory: int) -> None:
        begun, after, revision = self._begun, "", 0
        id_ = self._tree.id_of(directory)
        while True:
            row = self._store.space(space)
            page = await self._service.folder(row.id, id_, after=after, limit=FOLDER_ROWS)
            self._connection.went_well()
            if self._begun != begun or self._tree.is_listed(space):
                return  # what the feed says may be newer
            if page.epoch != self._store.epoch():
                raise Nonsense("the service is in another epoch than its feed was")  # which will say what that means
            check_folder_page(row, id_, page, max(revision, row.known))
            self._keep(space, directory, after, page)
            await self._show_folder(space, directory, after)
            if page.next is None:
                self._fetched.add(directory)
                return
            after, revision = page.next, page.revision

    def _keep(self, space: int, directory: int, after: str, page: FolderPage) -> None:
        with self._store.database.transaction():
            self._store.stage_folder(space, directory, after, page)
            self._contents.put_manifests(riding_manifests(page.inodes))

    async def _show_folder(self, space: int, directory: int, after: str) -> None:
        """Show this folder; what was staged for folders below it is shown when the feed goes on, or when they are opened."""
        row = self._tree.inode(directory)
        if row is None or row.nlink == 0:  # removed here meanwhile: the merge decides
            return
        folders = deque([(directory, after)])
        while folders and folders[0][0] == directory:
            self._apply(space, folders)
            await trio.lowlevel.checkpoint()
        self._unshown.setdefault(space, deque()).extend(folders)
