"""What people see in an open file of a device: its bytes after each write, whether or not the drive could read them now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tests.simulation.history import EMPTY

Contents = frozenset[bytes]
"""What a file may hold, by id: one content, or several where a crash left it open which."""


class OpenFile(Protocol):
    """The drive's file (`cache.openfile.File`). `ino` None: the service's content took its place in the tree."""

    ino: int | None


class Book(Protocol):
    """What a handle tells the ledger."""

    def wrote(self, handle: Handle) -> bytes: ...

    def promised(self, handle: Handle) -> None: ...

    def released(self, handle: Handle) -> None: ...


@dataclass(slots=True, eq=False)
class Handle:
    """One open file, through however many of the drive's handles."""

    book: Book
    device: str
    file: OpenFile
    inode: bytes
    data: bytearray
    content: Contents
    saw: Contents
    """What the next write will have seen: the content, or what was there before it was emptied."""
    states: list[bytes] = field(default_factory=list)
    """The contents since the last promise, that one first."""
    handles: int = 1
    deleted: bool = False
    """Somebody on its device removed the last name while it was open."""
    gone: bool = False
    """Its process is: what is still done to it, nobody sees."""

    @property
    def uncertain(self) -> bool:
        """After a crash the file may hold one of several contents: read it (`Ledger.check_read`) before writing to it."""
        return len(self.content) > 1

    def write(self, offset: int, data: bytes) -> None:
        """About to be written."""
        if data and not self.gone:
            self.data.extend(bytes(max(offset - len(self.data), 0)))
            self.data[offset : offset + len(data)] = data
            self._changed()

    def truncate(self, size: int) -> None:
        """About to be cut, or to grow."""
        if not self.gone:
            self.data = self.data[:size].ljust(size, b"\0")
            self._changed()

    def kept(self) -> None:
        """The drive promised what is there now: `close` or `fsync` returned."""
        if not self.gone and not self.uncertain:
            self.book.promised(self)
            self.states = list(self.content)

    def released(self) -> None:
        self.handles -= 1
        self.book.released(self)

    def holds(self, id_: bytes, data: bytes) -> None:
        """It turned out what it holds."""
        self.data, self.content, self.saw, self.states = bytearray(data), frozenset({id_}), frozenset({id_}), [id_]

    def _changed(self) -> None:
        id_ = self.book.wrote(self)
        self.content = frozenset({id_})
        self.states.append(id_)
        if id_ != EMPTY:
            self.saw = self.content
