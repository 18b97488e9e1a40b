"""The file handles that were given to the kernel. Numbers are never reused within a mount."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from cache.files import File


@dataclass(slots=True)
class FileHandle:
    number: int
    """The FUSE number under which it was opened."""
    file: File
    writable: bool


@dataclass(slots=True)
class DirectoryHandle:
    ino: int
    page: int = 32
    """How many entries to read from the replica for the next answer: a little more than fitted into the last one."""


class Handles:
    def __init__(self) -> None:
        self._numbers = count(1)
        self._files: dict[int, FileHandle] = {}
        self._directories: dict[int, DirectoryHandle] = {}

    def add_file(self, handle: FileHandle) -> int:
        fh = next(self._numbers)
        self._files[fh] = handle
        return fh

    def file(self, fh: int) -> FileHandle:
        return self._files[fh]

    def remove_file(self, fh: int) -> FileHandle:
        return self._files.pop(fh)

    def add_directory(self, handle: DirectoryHandle) -> int:
        fh = next(self._numbers)
        self._directories[fh] = handle
        return fh

    def directory(self, fh: int) -> DirectoryHandle:
        return self._directories[fh]

    def remove_directory(self, fh: int) -> None:
        del self._directories[fh]

    def open_files(self) -> Iterator[int]:
        """Handles that are still open, for the end of a session, when no RELEASE comes any more."""
        return iter(tuple(self._files))
