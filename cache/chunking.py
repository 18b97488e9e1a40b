"""Where a content is cut into chunks. Pure: ranges and bytes in, boundaries out; what reads and sends is `cache.uploading`.

FastCDC decides each boundary from the bytes since the boundary before. So an edit changes chunks only until a new boundary
meets an old one with nothing changed after it, and the chunks that follow can be kept without being looked at. Two kinds of
boundary are not FastCDC's: those of long runs of zeros, which need no object, and the end of the content. A chunk that ended
at one of these is kept only if it still ends at one: otherwise a log would grow by a tiny chunk at every upload.

The algorithm: W. Xia et al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach", USENIX ATC 2016; its code is
the `fastcdc` package, which holds the interpreter while it looks at a buffer.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from fastcdc import fastcdc_cy

from cache.extents import Extents, Held
from remote.manifest import ChunkRef, Encoding, Manifest, Split

KIB, MIB, GIB = 2**10, 2**20, 2**30
SMALL_SPLIT = Split(64 * KIB, 256 * KIB, 1 * MIB)
MEDIUM_SPLIT = Split(256 * KIB, 1 * MIB, 4 * MIB)
LARGE_SPLIT = Split(1 * MIB, 4 * MIB, 16 * MIB)
MEDIUM_MAX = 1 * GIB
"""Content up to this size takes `MEDIUM_SPLIT`, larger content `LARGE_SPLIT`."""
KEPT_FACTOR = 8
ZERO_RUN = 64 * KIB
"""Known runs of zeros of at least this length become chunks without an object."""
WINDOW = 16 * MIB

_RANGES = {SMALL_SPLIT: (0, MEDIUM_MAX // 4), MEDIUM_SPLIT: (0, MEDIUM_MAX), LARGE_SPLIT: (MEDIUM_MAX, 2**64)}


def choose_split(size: int, previous: Split | None, *, slow: bool = False) -> Split:
    """The split for a content of `size` bytes. `previous`: that of the content before it, which stays while it is not far off.

    `slow`: a new file goes over a link on which smaller chunks are better, because a cut costs less.
    """
    if previous in _RANGES:
        low, high = _RANGES[previous]
        if low // KEPT_FACTOR <= size <= high * KEPT_FACTOR:
            return previous
    if size > MEDIUM_MAX:
        return MEDIUM_SPLIT if slow else LARGE_SPLIT
    return SMALL_SPLIT if slow else MEDIUM_SPLIT


@dataclass(frozen=True, slots=True)
class Range:
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Changes:
    """How a content differs from its base: what is the same, and what is known to be zeros. The rest is new bytes."""

    size: int
    same: tuple[Range, ...]
    zeros: tuple[Range, ...]


def changes_of(size: int, floor: int, extents: Extents) -> Changes:
    """The changes of a draft over its base."""
    same: list[Range] = []
    zeros: list[Range] = []
    for piece in extents.pieces(0, size):
        if piece.held is Held.ZEROS:
            _join(zeros, piece.start, piece.end)
        elif piece.held is Held.NOTHING:
            shows = min(max(floor, piece.start), piece.end)
            _join(same, piece.start, shows)
            _join(zeros, shows, piece.end)
    return Changes(size, tuple(same), tuple(zeros))


# ------------------------------------------------------------------------------------------------------------- the steps


@dataclass(frozen=True, slots=True)
class Keep:
    """The next chunk is this one of the base."""

    ref: ChunkRef


@dataclass(frozen=True, slots=True)
class Zeros:
    length: int


@dataclass(frozen=True, slots=True)
class Look:
    """Bytes up to `end` are needed, to be cut by `cut`. `final`: a chunk ends at `end` whatever the bytes are."""

    end: int
    final: bool


class Rechunking:
    """Walks through a content from its beginning: `step` says what is next."""

    def __init__(self, changes: Changes, split: Split, base: Manifest | None, unusable: Collection[bytes] = ()) -> None:
        """`unusable`: objects that the service has lost, so their chunks are sent again."""
        self._size = changes.size
        self._split = split
        kept_base = base if base is not None and base.inline is None else None
        zeros = list(changes.zeros)
        if kept_base is not None:
            zeros += _zeros_of_base(kept_base, changes.same)
        self._zeros = [run for run in _joined(zeros) if run.end - run.start >= ZERO_RUN]
        self._zero_starts = [run.start for run in self._zeros]
        self._kept: dict[int, ChunkRef] = {}
        if kept_base is not None and kept_base.split == split:
            self._kept = self._keepable(kept_base, changes.same, unusable)
        self._kept_starts = sorted(self._kept)

    @property
    def is_whole(self) -> bool:
        """Whether the content is so small that it is not cut."""
        return self._size <= self._split.average

    def step(self, position: int, have: int) -> Keep | Zeros | Look:
        """What comes at `position` (below the size). Bytes up to `have` were looked at already, in vain."""
        if have <= position:
            kept = self._kept.get(position)
            if kept is not None:
                return Keep(kept)
            run = bisect_right(self._zero_starts, position) - 1
            if run >= 0 and self._zeros[run].start == position:
                return Zeros(self._zeros[run].end - position)
        forced = self._forced_end(position)
        if self.is_whole:
            return Look(forced, True)
        have = max(have, position)
        window = max(WINDOW, 2 * self._split.maximum)
        end = min(forced, have + window)
        at = bisect_right(self._kept_starts, have)
        if at < len(self._kept_starts):
            end = min(end, self._kept_starts[at])
        return Look(end, end == forced)

    def _forced_end(self, position: int) -> int:
        at = bisect_right(self._zero_starts, position)
        return self._zero_starts[at] if at < len(self._zero_starts) else self._size

    def _keepable(self, base: Manifest, same: tuple[Range, ...], unusable: Collection[bytes]) -> dict[int, ChunkRef]:
        kept: dict[int, ChunkRef] = {}
        same_starts = [run.start for run in same]
        forced = {self._size, *self._zero_starts}
        for index, (start, ref) in enumerate(zip(base.offsets, base.chunks, strict=True)):
            if ref.encoding is Encoding.ZEROS or ref.object_id in unusable:
                continue
            end = start + ref.length
            run = bisect_right(same_starts, start) - 1
            if run < 0 or same[run].end < end:
                continue
            was_cut = index + 1 < len(base.chunks) and base.chunks[index + 1].encoding is not Encoding.ZEROS
            if was_cut or end in forced:
                kept[start] = ref
        return kept


@dataclass(frozen=True, slots=True)
class Piece:
    """A new chunk: plain bytes `[start, end)` of the buffer that was cut, and their SHA-256."""

    start: int
    end: int
    sha256: bytes


def cut(buffer: memoryview, size: int, split: Split, *, final: bool, whole: bool) -> list[Piece]:
    """Cut and hash the first `size` bytes. What is after the last piece is not decided yet: it needs more bytes.

    `final`: the content, or what is before a run of zeros, ends there, so all is decided; else the buffer has one byte more.
    `whole`: the content is small enough to be one chunk. For a worker thread.
    """
    ends = [size] if whole else _cut_points(buffer, size, split, final=final)
    pieces = []
    start = 0
    for end in ends:
        pieces.append(Piece(start, end, hashlib.sha256(buffer[start:end]).digest()))
        start = end
    return pieces


def _cut_points(buffer: memoryview, size: int, split: Split, *, final: bool) -> list[int]:
    ends = []
    # One byte more, whatever it is, tells a boundary that the bytes make exactly at the end from the mere end of the buffer.
    # A loop in Python, not `list`: between two chunks other threads get the interpreter.
    for chunk in fastcdc_cy.fastcdc_cy(buffer[: size if final else size + 1], split.minimum, split.average, split.maximum):
        end = chunk.offset + chunk.length
        if end <= size:
            ends.append(end)
    return ends


# ------------------------------------------------------------------------------------------------------------- ranges


def _zeros_of_base(base: Manifest, same: tuple[Range, ...]) -> list[Range]:
    """Where runs of zeros of the base show unchanged."""
    same_ends = [run.end for run in same]
    found = []
    for start, ref in zip(base.offsets, base.chunks, strict=True):
        if ref.encoding is not Encoding.ZEROS:
            continue
        end = start + ref.length
        at = bisect_right(same_ends, start)
        while at < len(same) and same[at].start < end:
            found.append(Range(max(start, same[at].start), min(end, same[at].end)))
            at += 1
    return found


def _joined(ranges: Iterable[Range]) -> list[Range]:
    joined: list[Range] = []
    for run in sorted(ranges, key=lambda run: run.start):
        _join(joined, run.start, run.end)
    return joined


def _join(ranges: list[Range], start: int, end: int) -> None:
    if start >= end:
        return
    if ranges and ranges[-1].end == start:
        ranges[-1] = Range(ranges[-1].start, end)
    else:
        ranges.append(Range(start, end))
