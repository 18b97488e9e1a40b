"""Jobs: one process at a time does one, when it is due, and one that died does not keep it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote.server.config import ServerConfig
from remote.server.database.engine import Database
from remote.server.database.opening import open_database
from remote.server.housekeeping import HELD_NS, Housekeeping, Job, Proceed
from remote.server.objects.store import StoreUnavailable
from tests.support.wire import Clock

HOUR_NS = 3600 * 10**9


@pytest.fixture
def database(tmp_path: Path, database_of: Callable[[str], str | None]) -> Iterator[Database]:
    database = open_database(ServerConfig(tmp_path, database=database_of("data")))
    database.migrate()
    yield database
    database.close()


def test_a_job_is_done_once_when_it_is_due_whoever_asks(database: Database) -> None:
    clock, done = Clock(), list[str]()
    houses = [
        Housekeeping(database, [Job("sweep", HOUR_NS, lambda _, name=name: done.append(name) or "swept")], clock)  # type: ignore[misc]
        for name in ("one", "other")
    ]
    for house in (*houses, *houses):
        house.do_what_is_due()
    assert done == ["one"]
    clock.advance(3600)
    for house in reversed(houses):
        house.do_what_is_due()
    assert done == ["one", "other"]


def test_who_does_it_keeps_the_others_away_as_long_as_it_is_alive(database: Database) -> None:
    clock, done = Clock(), list[str]()
    other = Housekeeping(database, [Job("sweep", 0, lambda _: done.append("other") or "")], clock)  # type: ignore[func-returns-value]

    def slow(proceed: Proceed) -> str:
        for _ in range(10):
            clock.advance(HELD_NS / 2 / 10**9)
            proceed()
            other.do_what_is_due()
        assert done == []
        clock.advance(HELD_NS / 10**9 + 1)
        other.do_what_is_due()
        assert done == ["other"], "it was silent for too long"
        proceed()
        done.append("one")
        return ""

    Housekeeping(database, [Job("sweep", 0, slow)], clock).do_what_is_due()
    assert done == ["other"], "it lost the job, and stopped at the next step"


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ValueError("unforeseen")])
def test_a_job_that_failed_is_tried_again_and_does_not_hold_up_others(database: Database, error: Exception) -> None:
    clock, done, fails = Clock(), list[str](), [True]

    def failing(_: Proceed) -> str:
        if fails.pop() if fails else False:
            raise error
        done.append("failing")
        return ""

    jobs = [Job("failing", HOUR_NS, failing), Job("next", HOUR_NS, lambda _: done.append("next") or "")]  # type: ignore[func-returns-value]
    house = Housekeeping(database, jobs, clock)
    house.do_what_is_due()
    assert done == ["next"]
    house.do_what_is_due()
    assert done == ["next", "failing"]


def test_a_service_that_ends_does_not_wait_for_a_job(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote.server.housekeeping.FIRST_LOOK_SECONDS", 0.0)
    begun = threading.Event()

    def endless(proceed: Proceed) -> str:
        while True:
            begun.set()
            proceed()

    house = Housekeeping(database, [Job("endless", 0, endless)], Clock())

    async def serve() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(house.run())
            await asyncio.to_thread(begun.wait)
            house.stop()

    asyncio.run(serve())
    assert begun.is_set()
