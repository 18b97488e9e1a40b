"""What the run and its workers tell each other: a small shared file, each field with one writer.

The run says when to be quiet or to stop, which mounts are there, and when the network was disturbed; each worker says which
operation it is in, since when, and how many it has done. Times are nanoseconds of CLOCK_MONOTONIC, which all processes share.
"""

from __future__ import annotations

import mmap
import struct
import time
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICES = 3
_WISH = struct.Struct("<B")
_DEVICE = struct.Struct("<BQQQ")  # up, generation, disturbances, nanoseconds at which the last of them ended (0: it goes on)
_SLOT = struct.Struct("<B31sQQQQ")  # state, operation, since, done, checked, excused
_DEVICES_AT = 16
_SLOTS_AT = _DEVICES_AT + DEVICES * 64
_SLOT_SIZE = 128
SLOTS = 32
SIZE = _SLOTS_AT + SLOTS * _SLOT_SIZE


class Wish(IntEnum):
    WORK = 0
    BE_QUIET = 1
    STOP = 2


class State(IntEnum):
    STARTING = 0
    WORKING = 1
    QUIET = 2
    ENDED = 3


@dataclass(frozen=True)
class Device:
    """`generation`: how many mounts there were. `disturbances`: how many network or disk faults began; `calm_since`: when the
    last one ended, 0 while one goes on."""

    up: bool
    generation: int
    disturbances: int
    calm_since: int


@dataclass(frozen=True)
class Slot:
    state: State
    operation: str
    since: int
    """0: between two operations."""
    done: int
    checked: int
    excused: int


class Board:
    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)

    @classmethod
    def create(cls, path: Path) -> Board:
        path.write_bytes(bytes(SIZE))
        return cls(path)

    @property
    def wish(self) -> Wish:
        return Wish(_WISH.unpack_from(self._map)[0])

    @wish.setter
    def wish(self, wish: Wish) -> None:
        _WISH.pack_into(self._map, 0, wish)

    def device(self, number: int) -> Device:
        up, *rest = _DEVICE.unpack_from(self._map, _DEVICES_AT + 64 * number)
        return Device(bool(up), *rest)

    def set_device(self, number: int, device: Device) -> None:
        values = (device.up, device.generation, device.disturbances, device.calm_since)
        _DEVICE.pack_into(self._map, _DEVICES_AT + 64 * number, *values)

    def slot(self, number: int) -> Slot:
        state, operation, since, done, checked, excused = _SLOT.unpack_from(self._map, _SLOTS_AT + _SLOT_SIZE * number)
        return Slot(State(state), operation.rstrip(b"\0").decode(), since, done, checked, excused)

    def set_slot(self, number: int, slot: Slot) -> None:
        values = (slot.state, slot.operation.encode()[:31], slot.since, slot.done, slot.checked, slot.excused)
        _SLOT.pack_into(self._map, _SLOTS_AT + _SLOT_SIZE * number, *values)


class Progress:
    """A worker's own slot."""

    def __init__(self, board: Board, number: int) -> None:
        self._board = board
        self._number = number
        self._state = State.STARTING
        self._operation = ""
        self._since = self._done = self._checked = self._excused = 0

    @contextmanager
    def operation(self, name: str) -> Iterator[None]:
        """What happens within is one operation; it counts if it does not raise."""
        self._operation, self._since = name, time.monotonic_ns()
        self._write()
        try:
            yield
            self._done += 1
        finally:
            self._since = 0
            self._write()

    def alive(self) -> None:
        """A long operation (a program) is seen to go on."""
        self._since = time.monotonic_ns()
        self._write()

    def checked(self, count: int = 1) -> None:
        """So many results were compared with what they must be, and were."""
        self._checked += count

    def excused(self) -> None:
        """An operation failed because of a fault."""
        self._excused += 1

    def become(self, state: State) -> None:
        self._state = state
        self._write()

    def _write(self) -> None:
        slot = Slot(self._state, self._operation, self._since, self._done, self._checked, self._excused)
        self._board.set_slot(self._number, slot)
