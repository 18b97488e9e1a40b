"""What a simulation owns of the world: time, the order of tasks, threads, the disk's slowness, and sizes.

Inside `owned(seed)` nothing that the code under test does depends on the machine: trio's clock is virtual and jumps to the next
deadline, its choice among tasks that could run comes from the seed, work for threads is done on the spot between a few seeded
turns of the scheduler, and nothing waits for the disk. Contents are split at a few KiB, so that small files go all the ways
that large ones go. Every patch of the simulation stands here, and nowhere else.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import anyio.to_thread
import diskcache.core
import outcome
import sqlalchemy
import trio
import trio.testing

import cache.chunking
import cache.drafts
import cache.drive
import cache.housekeeping
import cache.openfile
import cache.packs
import cache.store.database
import cache.uploadqueue
import remote.server.database.engine
from remote.manifest import Split

T = TypeVar("T")

EPOCH_SECONDS = 1_800_000_000
"""The wall clock at the beginning (2027-01-15), where no device's clock is wrong."""
_SHARED_MEMORY = Path("/dev/shm")
_ROOM_NEEDED = 512 * 2**20
_KIB = 1024

INLINE_TO = 4 * _KIB
PACKED_TO = 8 * _KIB
IN_ROW_TO = 6 * _KIB
_SPLIT = Split(1 * _KIB, 4 * _KIB, 16 * _KIB)
_FINE_SPLIT = Split(512, 2 * _KIB, 8 * _KIB)


def wall_ns() -> int:
    """Nanoseconds since 1970 by the one clock that is right. Never ahead of itself: the virtual one stands while code runs."""
    return (EPOCH_SECONDS * 10**9) + int(trio.current_time() * 10**9)


class OwnClock:
    """`cache.clock.Clock` of one device, whose wall clock may be wrong by `skew` seconds."""

    def __init__(self, skew: int = 0) -> None:
        self._skew_ns = skew * 10**9

    def wall_ns(self) -> int:
        return wall_ns() + self._skew_ns

    def monotonic(self) -> float:
        return trio.current_time()


class OwnRandomness:
    """`cache.clock.Randomness` from a seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def float(self) -> float:
        return self._random.random()


def run(seed: object, main: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """`trio.run` with everything owned."""
    with owned(seed):
        return trio.run(main, *arguments, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def owned(seed: object) -> Iterator[None]:
    """The patches, for as long as this stands."""
    with ExitStack() as stack:
        _own_order(stack, random.Random(f"order {seed}"))
        _own_threads(stack, random.Random(f"threads {seed}"))
        _own_disk(stack)
        _own_sizes(stack)
        yield


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for one life, in memory if there is room for it."""
    try:
        free = shutil.disk_usage(_SHARED_MEMORY).free
    except FileNotFoundError:
        free = 0
    place = _SHARED_MEMORY if free > _ROOM_NEEDED and os.access(_SHARED_MEMORY, os.W_OK) else None
    made = Path(tempfile.mkdtemp(prefix="aloft-simulation-", dir=place))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


# ---------------------------------------------------------------------------------------------------------- the patches


def _set(stack: ExitStack, owner: Any, **values: Any) -> None:
    for name, value in values.items():
        stack.enter_context(mock.patch.object(owner, name, value))


def _own_order(stack: ExitStack, order: random.Random) -> None:
    _set(stack, trio._core._run, _ALLOW_DETERMINISTIC_SCHEDULING=True, _r=order)  # type: ignore[attr-defined]


def _own_threads(stack: ExitStack, chance: random.Random) -> None:
    async def turns() -> None:
        for _ in range(chance.choice((0, 0, 0, 1, 2))):
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def in_trio(work: Callable[..., T], *arguments: Any, limiter: trio.CapacityLimiter | None = None, **_: Any) -> T:
        await trio.lowlevel.checkpoint()
        borrower = object()
        if limiter is not None:
            await limiter.acquire_on_behalf_of(borrower)
        try:
            await turns()
            return work(*arguments)
        finally:
            if limiter is not None:
                limiter.release_on_behalf_of(borrower)
            await turns()

    async def in_anyio(work: Callable[..., T], *arguments: Any, **_: Any) -> T:
        return await in_trio(work, *arguments)

    def soon(work: Callable[[], T], deliver: Callable[[outcome.Outcome[T]], object], *_: Any) -> None:
        async def later() -> None:
            await turns()
            deliver(outcome.capture(work))

        trio.lowlevel.spawn_system_task(later)

    _set(stack, trio.to_thread, run_sync=in_trio)
    _set(stack, anyio.to_thread, run_sync=in_anyio)
    _set(stack, trio.lowlevel, start_thread_soon=soon)


def _own_disk(stack: ExitStack) -> None:
    configure = cache.store.database._configure
    prepare = remote.server.database.engine._prepare_connection

    def configure_unsynced(sql: sqlite3.Connection) -> None:
        configure(sql)
        sql.execute("PRAGMA synchronous=OFF")

    def prepare_unsynced(connection: sqlite3.Connection, record: object) -> None:
        prepare(connection, record)
        connection.execute("PRAGMA synchronous=OFF")

    def create_engine(*arguments: Any, **options: Any) -> sqlalchemy.Engine:
        engine = sqlalchemy.create_engine(*arguments, **options)
        # What was compiled is kept by dialect, so all engines of this process have the first one's.
        engine.dialect = _DIALECTS.setdefault(str(engine.dialect.driver), engine.dialect)
        engine.update_execution_options(compiled_cache=_COMPILED)
        return engine

    _set(stack, os, fsync=lambda descriptor: None, fdatasync=lambda descriptor: None, statvfs=lambda path: _ROOMY)
    _set(stack, cache.store.database, _configure=configure_unsynced)
    # Not by the time of the file, which is the machine's.
    _set(stack, cache.store.database.Database, wal_state=lambda self: (_size(f"{self.path}-wal"), 0))
    _set(stack, remote.server.database.engine, _prepare_connection=prepare_unsynced, create_engine=create_engine)
    _set(stack, diskcache.core, time=_VirtualTime)


_COMPILED: dict[Any, Any] = {}
_DIALECTS: dict[str, sqlalchemy.Dialect] = {}
"""The service's SQL as SQLAlchemy compiled it, for every service of this process."""
_ROOMY = os.statvfs_result((4096, 4096, 2**26, 2**26, 2**26, 2**22, 2**22, 2**22, 0, 255))


class _VirtualTime:
    """What diskcache asks of `time`."""

    sleep = staticmethod(time.sleep)

    @staticmethod
    def time() -> float:
        return EPOCH_SECONDS + trio.current_time()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return 0


def _own_sizes(stack: ExitStack) -> None:
    chunking = cache.chunking
    ranges = {_FINE_SPLIT: (0, chunking.MEDIUM_MAX // 4), _SPLIT: (0, chunking.MEDIUM_MAX)}
    _set(stack, chunking, SMALL_SPLIT=_FINE_SPLIT, MEDIUM_SPLIT=_SPLIT, ZERO_RUN=4 * _KIB, _RANGES=ranges)
    _set(stack, cache.packs, MEDIUM_SPLIT=_SPLIT, PACKED_MAX=PACKED_TO, PACK_SIZE=16 * _KIB)
    _set(stack, cache.uploadqueue, PACKED_MAX=PACKED_TO)
    _set(stack, cache.drafts, SMALL=IN_ROW_TO, ZERO_RUN=4 * _KIB)
    _set(stack, cache.openfile, SMALL=IN_ROW_TO)
    # Looks that find nothing cost a turn of the machine each, and hours of virtual time have many of them.
    _set(stack, cache.housekeeping, PERIOD=5.0)
    _set(stack, cache.drive, CACHE_PERIOD=3600.0, COUNT_PERIOD=3600.0)
