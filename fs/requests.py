"""What the mount process answers to the commands: one short method per request of the control socket.

Arguments and results are JSON; paths in arguments are absolute paths of this machine, below the mount point. Decides
nothing about the drive; knows no socket.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from cache.errors import CacheError
from cache.model import FileState, Node
from cache.reconnect import CannotReconnect
from fs.control import ControlError, Handler, Json, Progress
from fs.mount import Mount
from fs.options import MountOptions
from remote.protocol import Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cache.drive import Drive
    from cache.status import SyncReport

PROGRESS_SECONDS = 0.2
STATES_MAX = 1000
_PAGE = 500
BUSY_SECONDS = 3.0
"""How long after the unmounting programs may take to let go before the person is told of them."""


class Requests:
    def __init__(self, drive: Drive, mount: Mount, options: MountOptions) -> None:
        self._drive = drive
        self._mount = mount
        self._options = options
        self._point = options.mount_point
        self._hurried = False
        self._syncing: set[trio.CancelScope] = set()
        self._unmounting = 0
        self._unmounted = trio.Condition()

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "status": self.status,
            "sync": self.sync,
            "umount": self.umount,
            "pin": self.pin,
            "unpin": self.unpin,
            "evict": self.evict,
            "offline": self.offline,
            "online": self.online,
            "logged-in": self.logged_in,
            "account-changed": self.account_changed,
            "pause": self.pause,
            "resume": self.resume,
            "fsck": self.fsck,
            "confirm-deletes": self.confirm_deletes,
            "undo-deletes": self.undo_deletes,
            "reconnect": self.reconnect,
        }

    async def status(self, arguments: Json, progress: Progress) -> Json:
        """`paths`: files whose state to add; a folder stands for the files in it. `more`: there were too many to say all."""
        named = [(path, self._node(path)) for path in _paths(arguments)]
        files = list(islice(chain.from_iterable(self._files(*one) for one in named), STATES_MAX + 1))
        states = [{"path": path, "state": (await self._state(node)).value} for path, node in files[:STATES_MAX]]
        return {
            "mount": self._describe(),
            "drive": asdict(self._drive.status()),
            "files": states,
            "more": len(files) > STATES_MAX,
        }

    async def sync(self, arguments: Json, progress: Progress) -> Json:
        """`timeout` (seconds): wait so long also when it cannot go on now."""
        return asdict(await self._sync(_timeout(arguments), progress))

    async def umount(self, arguments: Json, progress: Progress) -> Json:
        """`wait`: bring everything to the server first. Afterwards: what exists only here, and whether programs still hold it."""
        wait, timeout = bool(arguments.get("wait", True)), _timeout(arguments)
        async with self._unmount_request():
            complete = wait and await self._sync_unless_hurried(timeout, progress)
            await self._mount.unmount()
            with trio.move_on_after(BUSY_SECONDS) as patience:
                await self._mount.wait_ended()
            busy = patience.cancelled_caught
            if complete and not busy:  # the kernel may have brought dirty pages only while it unmounted
                complete = await self._sync_unless_hurried(timeout, progress)
            return {"busy": busy, "complete": complete and not busy, "queue": asdict(self._drive.status().queue)}

    async def pin(self, arguments: Json, progress: Progress) -> Json:
        return await self._for_each(arguments, self._drive.pin)

    async def unpin(self, arguments: Json, progress: Progress) -> Json:
        return await self._for_each(arguments, self._drive.unpin)

    async def evict(self, arguments: Json, progress: Progress) -> Json:
        return await self._for_each(arguments, self._drive.evict)

    async def offline(self, arguments: Json, progress: Progress) -> Json:
        self._drive.set_offline(True)
        return {}

    async def online(self, arguments: Json, progress: Progress) -> Json:
        self._drive.set_offline(False)
        return {}

    async def logged_in(self, arguments: Json, progress: Progress) -> Json:
        self._drive.logged_in()
        return {}

    async def account_changed(self, arguments: Json, progress: Progress) -> Json:
        self._drive.account_changed()
        return {}

    async def pause(self, arguments: Json, progress: Progress) -> Json:
        self._drive.pause()
        return {}

    async def resume(self, arguments: Json, progress: Progress) -> Json:
        self._drive.resume()
        return {}

    async def fsck(self, arguments: Json, progress: Progress) -> Json:
        report = await self._drive.fsck(repair=bool(arguments.get("repair", False)))
        return {**asdict(report), "clean": report.clean}

    async def confirm_deletes(self, arguments: Json, progress: Progress) -> Json:
        return {"files": self._drive.confirm_deletes()}

    async def undo_deletes(self, arguments: Json, progress: Progress) -> Json:
        return {"files": self._drive.undo_deletes()}

    async def reconnect(self, arguments: Json, progress: Progress) -> Json:
        """`go_on`: do it; else only say what stopped the exchange (`reason` null: nothing)."""
        try:
            found = self._drive.reconnect(go_on=bool(arguments.get("go_on", False)))
        except CannotReconnect as error:
            raise ControlError(str(error)) from error
        return {"reason": None, "by": None, "files": 0} if found is None else asdict(found)

    # ------------------------------------------------------------------------------------------------ at the end

    def hurry(self) -> None:
        """The process was told to end: nobody waits for uploads any more."""
        self._hurried = True
        for scope in self._syncing:
            scope.cancel()

    async def wait_unmounted(self) -> None:
        """Until no `umount` is being answered."""
        async with self._unmounted:
            while self._unmounting:
                await self._unmounted.wait()

    # ----------------------------------------------------------------------------------------------------- parts

    @asynccontextmanager
    async def _unmount_request(self) -> AsyncIterator[None]:
        self._unmounting += 1
        try:
            yield
        finally:
            self._unmounting -= 1
            with trio.CancelScope(shield=True):
                async with self._unmounted:
                    self._unmounted.notify_all()

    async def _sync_unless_hurried(self, timeout_seconds: float | None, progress: Progress) -> bool:
        """Whether everything is on the server."""
        with trio.CancelScope() as scope:
            self._syncing.add(scope)
            if self._hurried:
                scope.cancel()
            try:
                return (await self._sync(timeout_seconds, progress)).complete
            finally:
                self._syncing.discard(scope)
        return False

    async def _sync(self, timeout_seconds: float | None, progress: Progress) -> SyncReport:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_progress, progress)
            report = await self._drive.sync(timeout_seconds)
            nursery.cancel_scope.cancel()
        return report

    async def _tell_progress(self, progress: Progress) -> None:
        while True:
            status = self._drive.status()
            await progress(
                {"files": status.queue.files, "bytes": status.queue.bytes, "changes": status.queue.changes}
                | {"sent": status.counters.bytes_sent, "connection": status.connection.value}
            )
            await trio.sleep(PROGRESS_SECONDS)

    async def _for_each(self, arguments: Json, action: Callable[[int], Awaitable[object]]) -> Json:
        nodes = [self._node(path) for path in _paths(arguments)]  # all names are right before anything is done
        for node in nodes:
            try:
                await action(node.ino)
            except CacheError as error:
                raise ControlError(str(error)) from error
        return {"paths": len(nodes)}

    def _files(self, path: str, node: Node) -> Iterator[tuple[str, Node]]:
        if node.kind is not Kind.DIRECTORY:
            yield path, node
            return
        cookie = 0
        while page := self._drive.replica.list_entries(node.ino, cookie, _PAGE):
            for listed in page:
                yield from self._files(f"{path}/{listed.name}", listed.node)
            cookie = page[-1].cookie

    async def _state(self, node: Node) -> FileState:
        """Links, pipes and nodes have no content that could be elsewhere."""
        return await self._drive.file_status(node.ino) if node.kind is Kind.FILE else FileState.CACHED

    def _node(self, path: str) -> Node:
        """The replica is asked, never the folder itself: that would be a request to this very process."""
        try:
            inside = Path(path).relative_to(self._point)
        except ValueError:
            raise ControlError(f"{path} is not in {self._point}", "invalid") from None
        try:
            return self._drive.replica.resolve("" if inside == Path() else inside.as_posix())
        except CacheError:
            raise ControlError(f"there is no {path}", "invalid") from None

    def _describe(self) -> Json:
        return {
            "point": os.fspath(self._point),
            "pid": os.getpid(),
            "read_only": self._options.read_only,
            "tasks": trio.lowlevel.current_statistics().tasks_living,
        }


def _paths(arguments: Json) -> list[str]:
    paths = arguments.get("paths", [])
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError("`paths` is a list of strings")
    return [os.path.normpath(path) for path in paths]


def _timeout(arguments: Json) -> float | None:
    timeout = arguments.get("timeout")
    return None if timeout is None else float(timeout)
