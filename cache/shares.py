"""Shared folders as this device sees them end: what a membership, or a lowered role, leaves behind that was not sent.

The mount of a shared space says what this account may do there, and its tombstone that it is no member any more. From then on
the service takes nothing and gives nothing of that space. What was written here and never sent becomes ordinary files in the
personal space, in *Recovered files*: each in a file that gets its name, and the draft's end, in one transaction, so that whoever
is stopped in the middle begins that file again. Then the space goes back to what the service had (a viewer), or goes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from cache.errors import DiskError, NoEntry, Offline, TimedOut, Unavailable
from cache.files import Files
from cache.model import AttributesChanged, Change, ContentChanged, EntryChanged, RenameMode
from cache.openfile import File
from cache.recovery import recovered_files
from cache.replica import Replica
from cache.store.schema import PERSONAL, ROOT
from cache.store.sync import ShareState, SpaceRow, SyncStore
from cache.store.tree import TreeStore
from remote.copynames import name_of_a_part
from remote.crashpoints import crash_point
from remote.names import free_name
from remote.protocol import Kind

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""While a file is open, or the disk is full."""
ROWS_AT_ONCE = 500
PIECE = 1 << 20
_WRITE = 0o200
_UNFINISHED = ".aloft-recovering"


class Shares:
    """`told` hears what changed in the tree, after its transaction."""

    def __init__(
        self, tree: TreeStore, store: SyncStore, replica: Replica, files: Files, told: Callable[[list[Change]], None]
    ) -> None:
        self._tree = tree
        self._store = store
        self._replica = replica
        self._files = files
        self._told = told
        self._wake = trio.Event()
        self.trouble: str | None = None
        """Why what was not sent to a shared folder that takes no changes is not looked after yet."""

    def follow(self) -> None:
        """After a merge: what the mounts say now."""
        self._replica.forget_roles()
        for space in self._store.spaces():
            if space.number != PERSONAL:
                self._follow(space)

    async def run(self) -> None:
        """Look after what ended, for ever."""
        self.follow()
        while True:
            self._wake = trio.Event()
            waits = False
            for space in self._store.spaces():
                if self._store.share(space.number) in (ShareState.LOWERED, ShareState.ENDED):
                    waits |= not await self._clear(space)
            if not waits:
                self.trouble = None
            with trio.move_on_after(RETRY_SECONDS if waits else float("inf")):
                await self._wake.wait()

    # ----------------------------------------------------------------------------------------------------- what is said

    def _follow(self, space: SpaceRow) -> None:
        before = self._store.share(space.number)
        mount = self._tree.mount_of(space.root)
        if mount is not None and self._tree.base_names(mount.ino):
            now = ShareState.EDITOR if mount.mode & _WRITE else ShareState.VIEWER
            if now is ShareState.VIEWER and before in (ShareState.EDITOR, ShareState.LOWERED):
                now = ShareState.LOWERED
        elif before is None:
            return  # the feed brings the mount later
        else:
            now = ShareState.ENDED
            for name in [] if mount is None else self._tree.names(mount.ino):  # moved here, while it ended
                with self._store.database.transaction():
                    self._tree.put_entry(*name, None)
        if now is not before:
            self._store.set_share(space.number, now)
            self._tell_of_role(space, is_new=before is None)
            self._wake.set()

    def _tell_of_role(self, space: SpaceRow, *, is_new: bool) -> None:
        """Every mode in the space is shown otherwise now; the mount may have been shown before its space was known, but what
        is in it was not."""
        mount = self._tree.mount_of(space.root)
        names = [] if mount is None else self._tree.names(mount.ino)
        at = [EntryChanged(parent, name, gone=False) for parent, name in names]
        inside = [] if is_new else self._store.inodes_of(space.number)
        self._told([*at, *(AttributesChanged(ino) for ino in inside)])

    # -------------------------------------------------------------------------------------------------- what is left over

    async def _clear(self, space: SpaceRow) -> bool:
        """Whether all of it is done; else it is tried again."""
        done = True
        for ino in self._store.unsent_files(space.number):
            try:
                done &= await self._rescue(ino, ended=self._store.share(space.number) is ShareState.ENDED)
            except (DiskError, Offline, TimedOut) as error:
                log.warning("what was not sent to a shared folder cannot be recovered yet: %s", error)
                self.trouble = f"what was not sent to a shared folder cannot be recovered yet: {error}"
                done = False
        if not done or self._store.unsent_files(space.number):
            return False
        if self._store.share(space.number) is ShareState.LOWERED:
            self._revert(space)
        elif self._store.share(space.number) is ShareState.ENDED:
            return await self._forget(space)
        return True

    async def _rescue(self, ino: int, *, ended: bool) -> bool:
        """Give what was written to a file, and not sent, to a file of the personal space. False: it is open."""
        if self._files.get(ino) is not None:
            return self._wait_for(ino)
        names = self._tree.names(ino) or self._tree.base_names(ino)
        folder = recovered_files(self._tree, self._replica)
        name = names[0][1] if names else f"file {ino}"
        unfinished = f"{_UNFINISHED} {ino}"
        held = self._tree.child(folder.ino, unfinished)
        if held is None:
            held = self._replica.create(folder.ino, unfinished, Kind.FILE, mode=0o600, uid=None, gid=None).ino
        source, target = self._files.hold(ino), self._files.open(held, writable=True, truncate=True)
        try:
            whole = await self._copy(source, target, ended=ended)
            await target.fsync()
        finally:
            self._files.unhold(source)
            target.release()
        if self._files.get(ino) is not None:  # opened meanwhile
            return self._wait_for(ino)
        crash_point("share.copied")
        row = self._replica.node(ino)
        with self._store.database.transaction():
            chosen = self._free_name(folder.ino, name, whole=whole)
            self._replica.rename(folder.ino, unfinished, folder.ino, chosen, RenameMode.NO_REPLACE)
            self._tree.update_inode(held, mode=row.mode, mtime_ns=row.mtime_ns)
            self._files.drop_drafts(ino)
            gone = self._take_back(ino)
            crash_point("share.recovering")
        crash_point("share.recovered")
        self._told([*gone, ContentChanged(ino, tuple(self._tree.names(ino)))])
        log.warning("a shared folder takes no changes any more: %s is in %s now", name, self._replica.path_of(folder.ino))
        self._tell_of(folder.ino, held, unfinished, chosen)
        return True

    def _wait_for(self, ino: int) -> bool:
        name = self._replica.path_of(ino) or "a file without a name"
        self.trouble = f"a shared folder takes no changes any more: {name} is put into Recovered files when it is closed"
        return False

    def _take_back(self, ino: int) -> list[Change]:
        """The file is what the service has again: else its content, where no draft holds it, would be recovered twice."""
        if self._tree.base_inode(ino) is not None:
            self._tree.revert_inode(ino)
            return []
        names = self._tree.names(ino)
        for parent, name in names:
            self._tree.put_entry(parent, name, self._tree.base_entry(parent, name))
        return [EntryChanged(parent, name, gone=True) for parent, name in names]

    def _tell_of(self, folder: int, file: int, unfinished: str, chosen: str) -> None:
        """The kernel may have looked at any of it before, also at what was not there, and at the file while it was empty."""
        above = [EntryChanged(parent, name, gone=False) for parent, name in self._tree.names(folder)]
        here = [EntryChanged(folder, unfinished, gone=True), EntryChanged(folder, chosen, gone=False)]
        renewed = ContentChanged(file, ((folder, unfinished), (folder, chosen)))
        self._told([*above, *here, renewed, AttributesChanged(folder), AttributesChanged(ROOT)])

    async def _copy(self, source: File, target: File, *, ended: bool) -> bool:
        """Whether all of it could be read: what a shared folder that ended held before may be had no more. Of one that can
        still be read it is waited for: `Offline`, `TimedOut`."""
        whole = True
        for start in range(0, source.size, PIECE):
            end = min(start + PIECE, source.size)
            try:
                await target.write(start, await source.read(start, end - start))
            except Unavailable as error:
                if not ended and isinstance(error, Offline | TimedOut):
                    raise
                whole = False
        await target.truncate(source.size)
        return whole

    def _revert(self, space: SpaceRow) -> None:
        """What is here is what the service has: for a viewer, whose own changes were looked after."""
        changes: list[Change] = []
        with self._store.database.transaction():
            for dirty in self._tree.dirty_entries(space.number):
                self._tree.put_entry(dirty.parent, dirty.name, dirty.base)
                changes.append(EntryChanged(dirty.parent, dirty.name, gone=dirty.base is None))
                changes.append(AttributesChanged(dirty.parent))
            for ino in self._tree.revert_inodes(space.number):
                changes.append(ContentChanged(ino, tuple(self._tree.names(ino))))
                changes.append(AttributesChanged(ino))
            self._store.set_share(space.number, ShareState.VIEWER)
        self._replica.sweep_wanted = True
        self._told(changes)

    async def _forget(self, space: SpaceRow) -> bool:
        """The rows of a space that this account sees no more, a few at a time."""
        if self._files.any_open(lambda ino: self._is_in(space.number, ino)):
            self.trouble = "a shared folder that ended waits for the files that are open in it"
            return False
        while self._store.drop_rows(space.number, ROWS_AT_ONCE):
            crash_point("share.dropping")
            await trio.lowlevel.checkpoint()
            if self._store.share(space.number) is not ShareState.ENDED:
                return True  # a member again
        self._store.drop_space(space.number)
        return True

    def _is_in(self, space: int, ino: int) -> bool:
        try:
            return self._tree.space_of(ino) == space
        except NoEntry:  # a file that is open, and whose row went before
            return False

    def _free_name(self, folder: int, name: str, *, whole: bool) -> str:
        def is_taken(candidate: str) -> bool:
            return self._tree.child(folder, candidate) is not None

        return free_name(name, is_taken) if whole else name_of_a_part(name, is_taken)
