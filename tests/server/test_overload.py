"""More than the service can do: who asks too much waits for itself, the rest is refused at once with the time to come again."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import trio
import trio.lowlevel

from remote.protocol import ProblemType
from remote.server.problems import Refused
from remote.server.streams import POLLS_OF_ACCOUNT
from remote.server.threads import RETRY_SECONDS, FairThreads, asking
from tests.support.contents import until
from tests.support.wire import Device, World, problem


class Crowd:
    """Requests of several accounts, of which the work ends when it is told to."""

    def __init__(self, threads: FairThreads, nursery: trio.Nursery) -> None:
        self.threads = threads
        self.nursery = nursery
        self.began: list[str] = []
        self.refused: list[tuple[str, Refused]] = []
        self._gates: dict[str, threading.Semaphore] = {}

    def ask(self, who: str, times: int = 1) -> None:
        gate = self._gates.setdefault(who, threading.Semaphore(0))
        for _ in range(times):
            self.nursery.start_soon(self._ask, who, gate)

    async def _ask(self, who: str, gate: threading.Semaphore) -> None:
        asking.set(who.encode())

        def work() -> None:
            self.began.append(who)
            gate.acquire()

        try:
            await self.threads(work)
        except Refused as refused:
            self.refused.append((who, refused))

    def end(self, who: str, times: int = 1) -> None:
        for _ in range(times):
            self._gates[who].release()

    async def are(self, *, at_work: int, waiting: int) -> None:
        await until(lambda: len(self.began) == at_work and self.threads.waiting == waiting)


async def test_accounts_take_turns_whoever_asked_first() -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(FairThreads(2), nursery)
        crowd.ask("greedy", 20)
        await crowd.are(at_work=1, waiting=19)
        crowd.ask("other")
        await crowd.are(at_work=2, waiting=19)
        assert crowd.began == ["greedy", "other"], "none has more than half of the threads"
        crowd.ask("third", 2)
        crowd.end("other")
        await crowd.are(at_work=3, waiting=20)
        crowd.end("third")
        await crowd.are(at_work=4, waiting=19)
        assert crowd.began == ["greedy", "other", "third", "third"]
        crowd.end("third")
        crowd.end("greedy", 20)
        await crowd.are(at_work=23, waiting=0)


async def test_an_account_with_too_many_requests_is_told_so_and_the_others_are_served() -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(FairThreads(4, of_one=5), nursery)
        crowd.ask("greedy", 8)
        await until(lambda: len(crowd.refused) == 3)
        assert {(who, error.type) for who, error in crowd.refused} == {("greedy", ProblemType.RATE_LIMITED)}
        assert all(1 <= (error.retry_after_seconds or 0) <= RETRY_SECONDS for _, error in crowd.refused)
        crowd.ask("other", 2)
        await crowd.are(at_work=4, waiting=3)
        crowd.end("greedy", 5)
        crowd.end("other", 2)
        await crowd.are(at_work=7, waiting=0)
        crowd.ask("greedy")
        crowd.end("greedy")
        await crowd.are(at_work=8, waiting=0)


async def test_when_too_much_waits_the_rest_is_refused_at_once() -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(FairThreads(2, waiting=3), nursery)
        for number in range(8):
            crowd.ask(f"account {number}")
        await until(lambda: len(crowd.refused) == 3)
        assert {error.type for _, error in crowd.refused} == {ProblemType.UNAVAILABLE}
        for number in range(8):
            crowd.end(f"account {number}")
        await crowd.are(at_work=5, waiting=0)


async def test_who_goes_away_while_it_waits_holds_nobody_up() -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(FairThreads(1), nursery)
        crowd.ask("first")
        await crowd.are(at_work=1, waiting=0)
        async with trio.open_nursery() as impatient:
            gone = Crowd(crowd.threads, impatient)
            gone.ask("gone", 3)
            await until(lambda: crowd.threads.waiting == 3)
            crowd.ask("last")
            await until(lambda: crowd.threads.waiting == 4)
            impatient.cancel_scope.cancel()
        await crowd.are(at_work=1, waiting=1)
        crowd.end("first")
        await until(lambda: crowd.began == ["first", "last"])
        crowd.end("last")


@pytest.fixture
def held(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lists of files do not come, until this is called."""
    gate, listing = threading.Event(), world.service.files.listing

    def late(*arguments: object) -> object:
        gate.wait()
        return listing(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(world.service.files, "listing", late)
    return gate.set


async def test_a_flood_is_answered_429_and_others_do_not_notice(
    world: World, ada: Device, eve: Device, held: Callable[[], None]
) -> None:
    answers: list[int] = []

    async def ask() -> None:
        response = await ada.send("GET", "/v1/files", params={"path": "/"})
        answers.append(response.status_code)
        if response.status_code == 429:
            problem(response, 429, "rate-limited")
            assert 1 <= int(response.headers["retry-after"]) <= RETRY_SECONDS

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
        try:
            await until(lambda: len(answers) == 36)
            assert (await eve.send("GET", "/v1/account")).status_code == 200
            assert (await world.http.get("/healthz")).status_code == 200
        finally:
            held()
    assert sorted(answers) == [200] * 64 + [429] * 36
    assert (await ada.send("GET", "/v1/account")).status_code == 200


async def test_devices_that_wait_for_changes_take_no_thread_and_have_a_bound_of_their_own(
    world: World, ada: Device, eve: Device
) -> None:
    cursor = (await ada.changes())["cursor"]

    def are_waiting(number: int) -> Callable[[], bool]:
        return lambda: world.service.wake.waiting() == number

    async def wait() -> None:
        await ada.send("GET", "/v1/changes", params={"cursor": cursor, "wait": 30})

    async with trio.open_nursery() as nursery:
        for number in range(POLLS_OF_ACCOUNT):
            nursery.start_soon(wait)
            await until(are_waiting(number + 1))
        assert (await ada.send("GET", "/v1/account")).status_code == 200
        problem(await ada.send("GET", "/v1/changes", params={"cursor": cursor, "wait": 30}), 429, "rate-limited")
        assert (await ada.send("GET", "/v1/changes", params={"cursor": cursor})).status_code == 200
        assert (await eve.send("GET", "/v1/changes", params={"wait": 1})).status_code == 200
        nursery.cancel_scope.cancel()
