"""READs, which may wait for the network: how many at once, and until when the kernel is there to hear the answer."""

from __future__ import annotations

import errno
from typing import Protocol

import trio
from pyfuse3 import FUSEError

from cache.errors import TimedOut
from cache.waits import Waits

_GRACE_SECONDS = 2.0
"""How long a READ beyond the limit may take before it fails."""


class Readable(Protocol):
    async def read(self, offset: int, size: int) -> bytes: ...


class Reads:
    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._left: int | None = None

    def limit(self, limit: int) -> None:
        """The kernel blocks everybody's write-back once 12 READs are outstanding, and that could not be changed: so at most
        `limit` may wait for long."""
        self._left = limit

    async def read(self, file: Readable, offset: int, size: int) -> bytes:
        with self._waits.one():
            if self._left is None:
                return await file.read(offset, size)
            return await self._read_within_limit(file, offset, size)
        raise FUSEError(errno.ENOTCONN)

    async def _read_within_limit(self, file: Readable, offset: int, size: int) -> bytes:
        assert self._left is not None
        if self._left > 0:
            self._left -= 1
            try:
                return await file.read(offset, size)
            finally:
                self._left += 1
        with trio.move_on_after(_GRACE_SECONDS):
            return await file.read(offset, size)
        raise TimedOut("too many reads wait for the network")
