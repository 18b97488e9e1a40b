"""Who reads in order, and how far ahead of them to fetch. Pure: offsets in, ranges out.

Several handles may read one file, so the readers are told apart by where they are: a read that begins about where an
earlier one ended continues it. The kernel's own read-ahead sends its requests slightly out of order, hence "about".
"""

from __future__ import annotations

from dataclasses import dataclass

STREAMS_MAX = 8
SLACK = 2 * 2**20
"""How far from the expected offset a read still counts as the next one."""
BEFORE_AHEAD = 256 * 1024
"""Bytes read in order before anything is fetched ahead, so that a random reader (and the kernel's read-ahead around a single
read) never causes a fetch that it does not need."""
FIRST_WINDOW = 1024 * 1024
WINDOW_MAX = 32 * 2**20


@dataclass(slots=True)
class _Stream:
    start: int
    position: int
    read: int = 0
    window: int = 0
    ahead: int = 0
    """Where what was asked for ahead ends."""


class ReadAhead:
    """The readers of one content."""

    def __init__(self) -> None:
        self._streams: list[_Stream] = []

    def note(self, offset: int, end: int, size: int, bytes_in_flight: int, chunk: int) -> tuple[int, int] | None:
        """A read of `[offset, end)` of `size` bytes. Returns the range to fetch ahead now, if any.

        The window doubles each time the reader has caught up with half of it, up to twice what is in flight on the link
        plus a few chunks (`chunk`: their usual size), which keeps the link busy however long its latency.
        """
        stream = self._stream_of(offset)
        stream.position = max(stream.position, end)
        stream.read += end - offset
        if stream.read < BEFORE_AHEAD or stream.position >= size:
            return None
        if stream.ahead - stream.position > stream.window // 2:
            return None
        most = min(WINDOW_MAX, 2 * bytes_in_flight + 4 * chunk)
        stream.window = min(max(stream.window * 2, FIRST_WINDOW), max(most, FIRST_WINDOW))
        start = max(stream.ahead, stream.position)
        stream.ahead = min(stream.position + stream.window, size)
        return (start, stream.ahead) if stream.ahead > start else None

    def _stream_of(self, offset: int) -> _Stream:
        for at, stream in enumerate(self._streams):
            if -SLACK <= offset - stream.position <= SLACK and offset >= stream.start:
                self._streams.insert(0, self._streams.pop(at))
                return stream
        stream = _Stream(offset, offset)
        self._streams.insert(0, stream)
        del self._streams[STREAMS_MAX:]
        return stream
