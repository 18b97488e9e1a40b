"""Parts that fail are started again, and the others go on."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
import trio.testing

from cache.errors import DiskFull
from cache.supervisor import FIRST_PAUSE, PAUSE_ON_DISK, Supervisor


async def test_a_part_that_fails_is_started_again(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = Supervisor(lambda: 0.5)
    began: list[float] = []

    async def fails_three_times() -> None:
        began.append(trio.current_time())
        if len(began) <= 3:
            raise ExceptionGroup("a nursery's", [ValueError("the third chunk is odd")])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.keep, "uploads", fails_three_times)
        await trio.sleep(FIRST_PAUSE / 2)
        (failure,) = supervisor.failures()
        assert (failure.task, failure.error) == ("uploads", "ValueError: the third chunk is odd")
        assert 0 < failure.in_seconds <= FIRST_PAUSE
    pauses = [after - before for before, after in pairwise(began)]
    assert pauses == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert supervisor.failures() == ()
    assert [record.message for record in caplog.records] == ["uploads failed"] * 3


async def test_one_that_fails_does_not_end_another(autojump_clock: trio.testing.MockClock) -> None:
    supervisor = Supervisor(lambda: 0.5)
    done = trio.Event()

    async def fails() -> None:
        raise OSError("no space left")

    async def works() -> None:
        await trio.sleep(1000)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.keep, "a", fails)
        nursery.start_soon(supervisor.keep, "b", works)
        await done.wait()
        nursery.cancel_scope.cancel()


async def test_on_a_full_disk_the_pauses_stay_short(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody tells when there is room again; and a traceback for each attempt would fill the log, which is on that disk."""
    supervisor = Supervisor(lambda: 0.999)
    began: list[float] = []

    async def has_no_room() -> None:
        began.append(trio.current_time())
        if len(began) < 20:
            raise ExceptionGroup("a nursery's", [DiskFull("the disk is full")])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.keep, "uploads", has_no_room)
        await trio.sleep(FIRST_PAUSE / 2)
        assert [failure.error for failure in supervisor.failures()] == ["the disk is full"]
    assert max(after - before for before, after in pairwise(began)) <= 1.5 * PAUSE_ON_DISK
    assert not any(record.exc_info for record in caplog.records)
