"""Which inode each FUSE number stands for, and how often the kernel counts on it.

A FUSE number is the replica's `ino`, until the content of a file is replaced by the service while the kernel holds the
number. The kernel then believes its own size, times and pages of that number whatever it is told, so the new content gets
a number of its own, and the old one stays with the files that are open under it. `remember` is the one place that decides
this; every reply that carries an entry (LOOKUP, READDIRPLUS, CREATE, MKNOD, MKDIR, SYMLINK, LINK) goes through it.

Knows nothing of names, handles or the kernel's caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from cache.model import Node
from cache.store.schema import ROOT
from fs.errors import Superseded

_FIRST_OWN_NUMBER = 2**48
"""Numbers that are not an `ino` begin here: no replica hands out so many."""

FIRST_OF_HISTORY = 2**62
"""From here on numbers (of inodes, and of handles) are those of `.aloft`: see `fs.history`."""


class OpenFile(Protocol):
    """What is asked here of `cache.files.File`."""

    @property
    def ino(self) -> int | None:
        """None: detached, it keeps a content that no name leads to any more."""


@dataclass(slots=True)
class Held:
    """One number that the kernel knows."""

    ino: int | None
    lookups: int
    mtime_ns: int
    """The mtime that the kernel believes; see `attributes.requested_update`."""
    superseded: bool = False
    """The content was replaced since the kernel learned this number."""
    file: OpenFile | None = None
    handles: int = 0


class Inodes:
    def __init__(self) -> None:
        self._held: dict[int, Held] = {ROOT: Held(ino=ROOT, lookups=1, mtime_ns=0)}
        self._numbers: dict[int, int] = {}  # ino -> number, where they differ
        self._next = _FIRST_OWN_NUMBER

    def held(self, number: int) -> Held:
        """`Superseded` for a number that the kernel should not know."""
        held = self._held.get(number)
        if held is None:
            raise Superseded(f"number {number} is not held")
        return held

    def ino(self, number: int) -> int:
        """The inode that this number stands for; `Superseded` if it lives on only in open files."""
        held = self._held.get(number)
        if held is None or held.ino is None:
            raise Superseded(f"number {number} stands for no inode")
        return held.ino

    def held_number(self, ino: int) -> int | None:
        """The number under which the kernel holds this inode now, if it does."""
        number = self._numbers.get(ino, ino)
        held = self._held.get(number)
        return number if held is not None and held.ino == ino else None

    def is_held(self, ino: int) -> bool:
        return self.held_number(ino) is not None

    def remember(self, node: Node) -> int:
        """The number to put into a reply that names `node`; counts one more lookup of it."""
        number = self._numbers.get(node.ino, node.ino)
        held = self._held.get(number)
        if held is not None and self._stands_for_something_else(number, held, node.ino):
            number, held = self._next, None
            self._next += 1
            self._numbers[node.ino] = number
        if held is None:
            self._held[number] = Held(ino=node.ino, lookups=1, mtime_ns=node.mtime_ns)
        else:
            held.lookups += 1
        return number

    def forget(self, number: int, lookups: int) -> int | None:
        """The kernel drops so many lookups. Returns the inode if it is not held any more."""
        held = self._held.get(number)
        if held is None or number == ROOT:
            return None
        held.lookups -= lookups
        if held.lookups > 0:
            return None
        del self._held[number]
        if held.ino is not None and self._numbers.get(held.ino) == number:
            del self._numbers[held.ino]
        return held.ino

    def content_replaced(self, ino: int) -> None:
        """The service's content took the place of the one that the kernel may know. Call it before any further reply."""
        number = self.held_number(ino)
        if number is not None:
            self._held[number].superseded = True
            self.follow_file(number)

    def opened(self, number: int, file: OpenFile) -> None:
        held = self.held(number)
        held.file = file
        held.handles += 1

    def closed(self, number: int) -> None:
        held = self._held.get(number)
        if held is not None:
            held.handles -= 1
            if held.handles == 0:
                held.file = None

    def follow_file(self, number: int) -> None:
        """The number of an open file goes where its content goes: nowhere when detached, then to a conflicted copy."""
        held = self._held.get(number)
        if held is None or held.file is None or held.file.ino == held.ino:
            return
        if held.ino is not None and self._numbers.get(held.ino) == number:
            del self._numbers[held.ino]
        held.ino = held.file.ino
        held.superseded = False
        if held.ino is not None:
            self._numbers[held.ino] = number

    def all_held(self) -> Iterator[int]:
        """Inodes that the kernel holds, for the end of a session, when no FORGET comes any more."""
        return (held.ino for held in self._held.values() if held.ino is not None)

    def _stands_for_something_else(self, number: int, held: Held, ino: int) -> bool:
        self.follow_file(number)
        if held.ino != ino:
            return True
        return held.superseded and held.file is None
