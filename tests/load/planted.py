"""`python -m tests.load.planted BUG mount …`: the command `aloft` with a bug that a run must find.

The bugs are put into the running program, whose code knows nothing of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import trio

import cache.chunks
import fs.cli.main
import fs.operations

HANGS_AT = 400
"""Which lookup of a name is never answered."""


def unverified_cache() -> None:
    """A chunk of the cache is believed as it is (P7)."""
    planted: Any = cache.chunks
    planted._checksum = planted._checksum_of = lambda _: b"as always"


def descriptors_leak() -> None:
    """Each file that is opened leaves a descriptor behind."""
    _with_each_open(lambda: os.open(os.devnull, os.O_RDONLY))


def memory_grows() -> None:
    """Each file that is opened leaves bytes behind."""
    kept: list[bytes] = []
    _with_each_open(lambda: kept.append(b"x" * 200_000))


def _with_each_open(leak: Callable[[], object]) -> None:
    planted: Any = fs.operations.Operations
    open_file = planted.open

    async def leaking(operations: Any, *arguments: Any) -> Any:
        leak()
        return await open_file(operations, *arguments)

    planted.open = leaking


def a_request_hangs() -> None:
    """One request is never answered (P4)."""
    planted: Any = fs.operations.Operations
    lookup, number = planted.lookup, count()

    async def never_once(operations: Any, *arguments: Any) -> Any:
        if next(number) == HANGS_AT:
            await trio.sleep_forever()
        return await lookup(operations, *arguments)

    planted.lookup = never_once


BUGS: dict[str, Callable[[], None]] = {
    "unverified-cache": unverified_cache,
    "descriptors-leak": descriptors_leak,
    "a-request-hangs": a_request_hangs,
    "memory-grows": memory_grows,
}


def main() -> None:
    BUGS[sys.argv[1]]()
    sys.exit(fs.cli.main.run(sys.argv[2:]))


if __name__ == "__main__":
    main()
