"""What every worker is: a process that works below one folder of one device, compares, and lives with faults.

A worker is never surprised by a fault that the board tells of: a mount that was killed (ENOTCONN, a folder that is not there),
or bytes that could not be had or written while the network or the disk was disturbed. It waits until the drive is back, and then
what was closed must be there (`recover`). Whatever else goes wrong, and any content that is not as it must be, fails the run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.load.board import Board, Device, Progress, State, Wish

T = TypeVar("T")

GONE = frozenset(
    {errno.ENOTCONN, errno.ENOENT, errno.ECONNABORTED, errno.EIO, errno.EBADF, errno.ESTALE, errno.ENODEV, errno.EBUSY}
)
"""What a program may see of a mount whose process was killed, or that was unmounted below it."""
UNAVAILABLE = frozenset({errno.EIO, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENOSPC})
"""What a program may see of a drive without its network, or without room."""
CALM_SECONDS = 75.0
"""How long after a disturbance the drive may still not have noticed that all is well: it looks again after a minute at most."""
BACK_SECONDS = 240.0
LOOK = 0.05
PIECE = 2**17


class Wrong(Exception):
    """Something is not as it must be; the text says what."""


class Disturbed(Exception):
    """An operation failed because of a fault. What it did is not known."""


@dataclass(frozen=True)
class Task:
    """Everything that a worker is told. `folder`: where it works, inside the drive; `scratch`: outside of it."""

    name: str
    kind: str
    slot: int
    device: int
    folder: Path
    scratch: Path
    board: Path
    seed: int
    other: Path | None = None
    """The same folder on the other device, for those that use both."""

    def to_json(self) -> str:
        return json.dumps(self.__dict__, default=os.fspath)

    @classmethod
    def from_json(cls, text: str) -> Task:
        fields = json.loads(text)
        for name in ("folder", "scratch", "board", "other"):
            fields[name] = Path(fields[name]) if fields[name] is not None else None
        return cls(**fields)


class Worker(ABC):
    """`step` does one thing and compares; `settle` brings everything to where it is closed, and compares all of it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.folder = task.folder
        self.random = random.Random(f"{task.seed} {task.name}")
        self.board = Board(task.board)
        self.progress = Progress(self.board, task.slot)

    @abstractmethod
    def prepare(self) -> None: ...

    @abstractmethod
    def step(self) -> None: ...

    @abstractmethod
    def settle(self) -> None: ...

    @abstractmethod
    def recover(self) -> None:
        """The drive is there again: what was closed before must be too."""

    def let_go(self) -> None:  # noqa: B027 (most hold nothing open)
        """Before waiting for the drive: a mount that was told to end does so when nothing in it is open any more."""

    # ------------------------------------------------------------------------------------------------------------- life

    def run(self) -> None:
        self._insist(self.prepare)
        self.progress.become(State.WORKING)
        while self.board.wish is not Wish.STOP:
            if self.board.wish is Wish.BE_QUIET:
                self._be_quiet()
                continue
            try:
                self.step()
            except Disturbed:
                self._insist(self.recover)
        self._finish()
        self.progress.become(State.ENDED)

    def _be_quiet(self) -> None:
        self._finish()
        self.progress.become(State.QUIET)
        while self.board.wish is Wish.BE_QUIET:
            time.sleep(LOOK)
        self.progress.become(State.WORKING)

    def _finish(self) -> None:
        while True:
            try:
                self.settle()
                return
            except Disturbed:
                self._insist(self.recover)

    def _insist(self, work: Callable[[], None]) -> None:
        """Until no fault comes in between, or for so long that something else is the matter."""
        end = time.monotonic() + BACK_SECONDS
        while True:
            self.let_go()
            try:
                self.wait_until_there()
                work()
                return
            except Disturbed as fault:
                if time.monotonic() > end:
                    raise Wrong(f"{self.task.name}: {fault}, again and again for {BACK_SECONDS:.0f} s") from fault
                time.sleep(0.5)

    # -------------------------------------------------------------------------------------------------------- operations

    def do(self, name: str, work: Callable[[], T]) -> T:
        """One operation; `Disturbed` if it failed and a fault explains that."""
        before = self.device()
        try:
            with self.progress.operation(name):
                return work()
        except OSError as error:
            if not self.is_excused(before, error.errno or 0):
                raise Wrong(f"{name} in {self.folder}: {error}") from error
            self.progress.excused()
            raise Disturbed(f"{name}: {error}") from error

    def is_excused(self, before: Device, number: int) -> bool:
        """Whether a fault since `before` explains this errno."""
        now = self.device()
        mount_went = not before.up or not now.up or now.generation != before.generation
        if mount_went and number in GONE:
            return True
        return number in UNAVAILABLE and self.is_disturbed(before)

    def is_disturbed(self, before: Device) -> bool:
        now = self.device()
        if now.disturbances == 0:
            return False
        recently = now.calm_since == 0 or time.monotonic_ns() - now.calm_since < CALM_SECONDS * 1e9
        return recently or now.disturbances != before.disturbances

    def has_gone(self, before: Device) -> bool:
        """Whether the mount went away since `before`."""
        now = self.device()
        return not before.up or not now.up or now.generation != before.generation

    def wait_until_there(self) -> None:
        """The mount is there, and the folder in it."""
        end = time.monotonic() + BACK_SECONDS
        while not (self.device().up and self._is_there()):
            if time.monotonic() > end:
                raise Wrong(f"{self.folder} was not there for {BACK_SECONDS:.0f} s")
            time.sleep(LOOK)

    def _is_there(self) -> bool:
        try:
            with self.progress.operation("look"):
                return self.folder.is_dir()
        except OSError:
            return False

    def device(self) -> Device:
        return self.board.device(self.task.device)

    # ------------------------------------------------------------------------------------------------------------- tools

    def clear(self, folder: Path) -> None:
        """Remove a folder of the drive with all that is in it."""

        def remove() -> None:
            if folder.exists():
                shutil.rmtree(folder)

        self.do("remove a tree", remove)

    def read_whole(self, path: Path) -> bytes:
        """Each piece of it has its own time."""

        def read() -> bytes:
            parts = []
            with path.open("rb", buffering=0) as file:
                while part := file.read(PIECE):
                    parts.append(part)
                    self.progress.alive()
            return b"".join(parts)

        return self.do("read whole", read)

    def must(self, holds: bool, what: str) -> None:
        if not holds:
            raise Wrong(f"{self.task.name}: {what}")
        self.progress.checked()


def read_at(descriptor: int, length: int, offset: int) -> bytes:
    """All there is: a read whose later pages cannot be had returns the earlier ones, and only the next one says why."""
    parts = b""
    while len(parts) < length:
        part = os.pread(descriptor, length - len(parts), offset + len(parts))
        if not part:
            break
        parts += part
    return parts


def difference(found: bytes, wanted: bytes) -> str:
    """Where two contents differ, for a message."""
    if len(found) != len(wanted):
        return f"{len(found)} bytes instead of {len(wanted)}"
    at = next(number for number, (one, other) in enumerate(zip(found, wanted, strict=True)) if one != other)
    end = next((n for n in range(len(found), at, -1) if found[n - 1] != wanted[n - 1]), at)
    return (
        f"bytes {at} to {end} of {len(found)}: {found[at : at + 16].hex()}… instead of {wanted[at : at + 16].hex()}…; "
        f"{hashlib.sha256(found).hexdigest()[:12]}"
    )
