"""Telling the kernel what changed behind its back: one worker thread per mount, after the transaction, no lock held.

The only module that sends notifications. A notification may wait for a request that the event loop has yet to answer, so
one that is sent from the loop deadlocks the mount beyond `kill -9`: everything goes through the queue. What it never
does: invalidate data (that waits for every READ and dirty WRITE of the file), or claim a deletion that it is not sure of.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

import pyfuse3
import trio

from cache.model import AttributesChanged, Change, ContentChanged, EntryChanged
from fs.inodes import Inodes
from remote.crashpoints import crash_point

log = logging.getLogger(__name__)

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENOTCONN, errno.ENODEV})
"""The kernel does not know what we speak of (any more), or is gone itself."""


@dataclass(frozen=True, slots=True)
class InvalidEntry:
    parent: int
    name: bytes


@dataclass(frozen=True, slots=True)
class InvalidAttributes:
    number: int


Notice = InvalidEntry | InvalidAttributes


class Kernel(Protocol):
    def invalidate_entry(self, parent: int, name: bytes) -> None: ...

    def invalidate_attributes(self, number: int) -> None: ...


class RealKernel:
    def invalidate_entry(self, parent: int, name: bytes) -> None:
        pyfuse3.invalidate_entry(parent, name)

    def invalidate_attributes(self, number: int) -> None:
        pyfuse3.invalidate_inode(number, attr_only=True)


def notices(changes: Iterable[Change], inodes: Inodes) -> list[Notice]:
    """What to tell the kernel of these changes, entries first. Says `inodes` which contents were replaced, too.

    What the kernel does not hold it cannot have cached: an entry of a folder that it never looked up, an attribute of an
    inode that it forgot.
    """
    entries: dict[InvalidEntry, None] = {}
    attributes: dict[InvalidAttributes, None] = {}

    def changed_inode(ino: int) -> None:
        number = inodes.held_number(ino)
        if number is not None:
            attributes[InvalidAttributes(number)] = None

    def changed_entry(parent: int, name: str) -> None:
        number = inodes.held_number(parent)
        if number is not None:
            entries[InvalidEntry(number, name.encode())] = None

    for change in changes:
        match change:
            case EntryChanged(parent, name, _):
                changed_entry(parent, name)
                changed_inode(parent)
            case AttributesChanged(ino):
                changed_inode(ino)
            case ContentChanged(ino, names):
                changed_inode(ino)
                inodes.content_replaced(ino)
                for parent, name in names:
                    changed_entry(parent, name)
    return [*entries, *attributes]


class Invalidator:
    """The queue and its thread. `tell` is called on the event loop; `stop` once the kernel has ended the session."""

    def __init__(self, inodes: Inodes, kernel: Kernel) -> None:
        self._inodes = inodes
        self._kernel = kernel
        self._queue: SimpleQueue[Notice | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="kernel-notices", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def tell(self, changes: Iterable[Change]) -> None:
        for notice in notices(changes, self._inodes):
            self._queue.put(notice)

    async def tell_of_attributes(self, number: int) -> None:
        """Like a change of mode, but heard before this returns: for a handler that changes what its reply does not carry.

        This kind of notification waits for no lock and no request, so a handler may wait for it, in a thread.
        """
        with suppress(OSError):
            await trio.to_thread.run_sync(self._kernel.invalidate_attributes, number)

    def stop(self, timeout_seconds: float) -> None:
        self._queue.put(None)
        self._thread.join(timeout_seconds)

    def _work(self) -> None:
        while (notice := self._queue.get()) is not None:
            crash_point("kernel.telling")
            try:
                self._send(notice)
            except OSError as error:
                if error.errno not in _GONE:
                    log.warning("the kernel refused %s: %s", notice, error)
            crash_point("kernel.told")

    def _send(self, notice: Notice) -> None:
        match notice:
            case InvalidEntry(parent, name):
                self._kernel.invalidate_entry(parent, name)
            case InvalidAttributes(number):
                self._kernel.invalidate_attributes(number)
