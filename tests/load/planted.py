"""`python -m tests.load.planted BUG mount …`: the command `aloft` with a bug that a run must find.

The bugs are put into the running program, whose code knows nothing of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import trio

import cache.chunks
import fs.cli.main
import fs.operations
from cache.chunks import OpenChunk
from cache.openfile import File

HANGS_AT = 400
"""Which lookup of a name is never answered."""


def unverified_cache() -> None:
    """A chunk of the cache is believed as it is (P7)."""
    planted: Any = cache.chunks
    planted._checksum = planted._checksum_of = lambda _: b"as always"


def close_saves_nothing() -> None:
    """What was written is not durable when close() returns (P1)."""

    async def flush(file: File) -> None:
        file.ask_upload()

    planted: Any = File
    planted.flush = flush


def descriptors_leak() -> None:
    """A chunk that is not needed any more stays open."""
    planted: Any = OpenChunk
    planted.__del__ = lambda chunk: None


def a_request_hangs() -> None:
    """One request is never answered (P4)."""
    planted: Any = fs.operations.Operations
    lookup, number = planted.lookup, count()

    async def never_once(operations: Any, *arguments: Any) -> Any:
        if next(number) == HANGS_AT:
            await trio.sleep_forever()
        return await lookup(operations, *arguments)

    planted.lookup = never_once


def memory_grows() -> None:
    """Each read leaves something behind."""
    planted: Any = File
    read, kept = planted.read, []

    async def keep(file: Any, offset: int, size: int) -> bytes:
        data: bytes = await read(file, offset, size)
        kept.append(bytes(100_000))
        return data

    planted.read = keep


BUGS: dict[str, Callable[[], None]] = {
    "unverified-cache": unverified_cache,
    "close-saves-nothing": close_saves_nothing,
    "descriptors-leak": descriptors_leak,
    "a-request-hangs": a_request_hangs,
    "memory-grows": memory_grows,
}


def main() -> None:
    BUGS[sys.argv[1]]()
    sys.exit(fs.cli.main.run(sys.argv[2:]))


if __name__ == "__main__":
    main()
