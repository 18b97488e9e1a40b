"""One mount from its start to its end: the kernel's session, the loop that serves it, and how it is stopped.

Starting: `pyfuse3.init`, the loop, limits raised through sysfs, and `ready` when the folder is usable. Stopping, whoever asks
(a signal, `aloft umount`, `fusermount3 -u`): unmount, lazily if somebody still uses it, while the loop serves on until the
kernel ends the session; ending the loop first would lose the dirty pages of open files.

Wires the adapter together; owns nothing of the drive and nothing of the commands.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pyfuse3
import trio

from fs.attributes import Owners
from fs.history import History
from fs.inodes import Inodes
from fs.invalidation import Invalidator, RealKernel
from fs.mountpoints import MountPointError, fuse_descriptor, fusermount, mounted_at, raise_limits, unmount_command
from fs.operations import Operations, OperationsWithXattrs
from fs.options import MountOptions
from fs.routing import Routes

if TYPE_CHECKING:
    from cache.drive import Drive

log = logging.getLogger(__name__)

MAX_TASKS = 2000
"""Requests that are handled at once. With pyfuse3's own limit, 99 readers that wait for the network would block `ls`."""
READS_WITH_KERNEL_LIMIT = 6
"""How many READs may wait for the network where the kernel's limit of 12 background requests could not be raised."""
_SWITCH_SECONDS = 0.0005
"""How long a worker thread may keep the interpreter from the loop."""
_NOTICES_SECONDS = 5.0


class Mount:
    """Call `run` once. `unmount` may be called from any task, any number of times."""

    def __init__(self, drive: Drive, options: MountOptions) -> None:
        self._options = options
        self._drive = drive
        self._inodes = Inodes()
        self._invalidator = Invalidator(self._inodes, RealKernel())
        handlers = OperationsWithXattrs if options.enable_xattr else Operations
        owners = _owners(options)
        self._operations = handlers(drive, self._inodes, owners, self._invalidator.tell_of_attributes)
        self._history = History(drive, owners, self._operations.reads, self._operations.waits, time.time_ns())
        self._fusermount = fusermount()
        self._device = 0
        self._detached = False
        self._usable = trio.Event()
        self._ended = trio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        """Mount, serve until the kernel ends the session, and release what it still held. Calls `ready` when usable."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        gc.freeze()  # what was imported stays: to look through it for garbage would hold the loop
        routes = Routes(self._operations, self._history)
        try:
            pyfuse3.init(routes, os.fspath(self._options.mount_point), _fuse_options(self._options))
        except RuntimeError as error:
            self._usable.set()
            self._ended.set()
            raise MountPointError(f"the kernel refused to mount on {self._options.mount_point}: {error}") from error
        try:
            self._invalidator.start()
            self._drive.subscribe(self._invalidator.tell)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._become_usable, ready)
                nursery.start_soon(self._end_waits)
                await pyfuse3.main(max_tasks=MAX_TASKS)
                nursery.cancel_scope.cancel()
        finally:
            self._usable.set()
            self._ended.set()
            await self._operations.end_of_session()
            self._invalidator.stop(_NOTICES_SECONDS)
            pyfuse3.close(unmount=not self._detached)  # harmless if the kernel ended the session

    async def unmount(self) -> None:
        """Take the mount point away, lazily if somebody uses it; the session ends when the last of them is gone."""
        await self._usable.wait()
        if self._detached or self._ended.is_set():
            return
        on_top = await trio.to_thread.run_sync(mounted_at, self._options.mount_point)
        if not any(self._is_ours(mounted.major, mounted.minor) for mounted in on_top):
            return  # somebody unmounted it already
        if not self._is_ours(on_top[-1].major, on_top[-1].minor):
            log.error("something else is mounted over %s: unmount that first", self._options.mount_point)
            return
        self._detached = await self._fusermount_u(lazily=False) or await self._fusermount_u(lazily=True)

    async def wait_ended(self) -> None:
        """Until the kernel has ended the session."""
        await self._ended.wait()

    def terminate(self) -> None:
        """End the session now. Dirty pages of files that are still open are lost: only for a person who insists."""
        if self._usable.is_set() and not self._ended.is_set():
            pyfuse3.terminate()

    async def _become_usable(self, ready: Callable[[], None]) -> None:
        status = await trio.to_thread.run_sync(os.stat, self._options.mount_point)
        self._device = status.st_dev
        if not await trio.to_thread.run_sync(raise_limits, self._device):
            self._operations.reads.limit(READS_WITH_KERNEL_LIMIT)
        self._usable.set()
        ready()

    async def _end_waits(self) -> None:
        """The loop serves until every handler has ended: those that wait for the network must not keep it from ending."""
        with select.epoll() as poll:
            poll.register(fuse_descriptor(), 0)  # no event but the one that cannot be left out: an error
            await trio.lowlevel.wait_readable(poll)
        self._operations.kernel_is_gone()

    def _is_ours(self, major: int, minor: int) -> bool:
        return os.makedev(major, minor) == self._device

    async def _fusermount_u(self, *, lazily: bool) -> bool:
        command = unmount_command(self._options.mount_point, lazily=lazily, tool=self._fusermount)
        done = await trio.run_process(command, check=False, capture_stderr=True)
        if done.returncode != 0:
            log.info("%s: %s", " ".join(command), done.stderr.decode(errors="replace").strip())
        return done.returncode == 0


def _fuse_options(options: MountOptions) -> set[str]:
    """`auto_unmount` is not among them: after a crash, programs must hear errors and not write into the folder beneath."""
    chosen = {"default_permissions", "nosuid", "nodev", "fsname=aloft", "subtype=aloft"}
    if options.read_only:
        chosen.add("ro")
    if options.allow_other:
        chosen.add("allow_other")
    return chosen


def _owners(options: MountOptions) -> Owners:
    return Owners(os.geteuid(), os.getegid(), numeric=options.allow_other and os.geteuid() == 0)
