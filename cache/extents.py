"""Which ranges of a content a draft holds, as bytes or as zeros. Pure: knows no file, no draft and no clock.

An extent is a half-open range of byte offsets. Extents are sorted, disjoint, never empty, and neighbours of one kind are one
extent, so that a file written from front to back has a single one however many writes there were.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

_PACKED = struct.Struct("<QQB")


class Held(IntEnum):
    NOTHING = 0
    """The layer below shows through (or zeros, where there is none)."""
    DATA = 1
    ZEROS = 2
    """Zeros that take no space."""


@dataclass(frozen=True, slots=True)
class Extent:
    start: int
    end: int
    held: Held


class BadExtents(ValueError):
    """Bytes that `Extents.pack` would not have written."""


class Extents:
    """A mutable set of extents."""

    __slots__ = ("_ends", "_held", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._held: list[Held] = []

    def put(self, start: int, end: int, held: Held) -> None:
        """`[start, end)` is held so from now on, whatever it was."""
        starts, ends, kinds = self._starts, self._ends, self._held
        if start >= end:
            return
        if not ends or start > ends[-1]:
            if held is not Held.NOTHING:
                starts.append(start)
                ends.append(end)
                kinds.append(held)
            return
        if start == ends[-1] and kinds[-1] is held:  # the next write of a file that is written in order
            ends[-1] = end
            return
        at = bisect_right(starts, start) - 1
        if at >= 0 and ends[at] >= end and kinds[at] is held:
            return
        self._splice(start, end, held)

    def cut(self, size: int) -> None:
        """Hold nothing at `size` and beyond."""
        if self._ends and self._ends[-1] > size:
            self._splice(size, self._ends[-1], Held.NOTHING)

    def pieces(self, start: int, end: int) -> Iterator[Extent]:
        """`[start, end)` from left to right without gaps: what is not held comes as `NOTHING`."""
        starts, ends, kinds = self._starts, self._ends, self._held
        at = bisect_right(ends, start)
        while start < end:
            if at == len(starts) or starts[at] >= end:
                yield Extent(start, end, Held.NOTHING)
                return
            if starts[at] > start:
                yield Extent(start, starts[at], Held.NOTHING)
                start = starts[at]
            stop = min(ends[at], end)
            yield Extent(start, stop, kinds[at])
            start = stop
            at += 1

    def holds_data(self, start: int, end: int) -> bool:
        at = bisect_right(self._ends, start)
        while start < end and at < len(self._starts) and self._starts[at] < end:
            if self._held[at] is Held.DATA:
                return True
            at += 1
        return False

    @property
    def data_end(self) -> int:
        """Where the last byte that is held as data ends; 0 if there is none."""
        return next((end for end, held in zip(reversed(self._ends), reversed(self._held), strict=True) if held is Held.DATA), 0)

    @property
    def data_bytes(self) -> int:
        return sum(extent.end - extent.start for extent in self if extent.held is Held.DATA)

    def copy(self) -> Extents:
        twin = Extents()
        twin._starts, twin._ends, twin._held = list(self._starts), list(self._ends), list(self._held)
        return twin

    def pack(self) -> bytes:
        return b"".join(_PACKED.pack(extent.start, extent.end, extent.held) for extent in self)

    @classmethod
    def unpack(cls, packed: bytes) -> Extents:
        if len(packed) % _PACKED.size:
            raise BadExtents("cut short")
        extents = cls()
        last = 0
        for start, end, held in _PACKED.iter_unpack(packed):
            if not (last <= start < end) or held not in (Held.DATA, Held.ZEROS):
                raise BadExtents("not sorted, or of an unknown kind")
            extents.put(start, end, Held(held))
            last = end
        return extents

    def __iter__(self) -> Iterator[Extent]:
        return map(Extent, self._starts, self._ends, self._held)

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Extents) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Extents({', '.join(f'{e.start}-{e.end} {e.held.name.lower()}' for e in self)})"

    def _splice(self, start: int, end: int, held: Held) -> None:
        starts, ends, kinds = self._starts, self._ends, self._held
        first = bisect_left(ends, start)  # the first that reaches or touches `start`
        last = bisect_right(starts, end)  # the first that begins beyond `end`
        new: list[tuple[int, int, Held]] = [(start, end, held)] if held is not Held.NOTHING else []
        if first < last:
            if starts[first] < start:
                _add(new, (starts[first], min(ends[first], start), kinds[first]), front=True)
            if ends[last - 1] > end:
                _add(new, (max(starts[last - 1], end), ends[last - 1], kinds[last - 1]), front=False)
        starts[first:last] = [piece[0] for piece in new]
        ends[first:last] = [piece[1] for piece in new]
        kinds[first:last] = [piece[2] for piece in new]


def _add(pieces: list[tuple[int, int, Held]], piece: tuple[int, int, Held], *, front: bool) -> None:
    """Put `piece` at one end of `pieces`, as one with its neighbour if they touch and are of one kind."""
    if not pieces:
        pieces.append(piece)
    elif front:
        start, end, held = pieces[0]
        if piece[1] == start and piece[2] is held:
            pieces[0] = (piece[0], end, held)
        else:
            pieces.insert(0, piece)
    else:
        start, end, held = pieces[-1]
        if piece[0] == end and piece[2] is held:
            pieces[-1] = (start, piece[1], held)
        else:
            pieces.append(piece)
