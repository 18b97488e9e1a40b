from __future__ import annotations

import pytest
import trio
import trio.testing

from remote.api import NotThere, Overloaded, Unreachable
from remote.retry import RETRY_AFTER_MAX, Backoff, retried


def no_jitter() -> float:
    return 0.0


def test_delays_double_up_to_the_cap():
    backoff = Backoff(base=0.5, cap=60.0, random=no_jitter)
    assert [backoff.next() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_jitter_takes_away_up_to_a_half():
    assert Backoff(random=lambda: 0.999999).next() == pytest.approx(0.25, abs=1e-6)
    assert Backoff(random=lambda: 0.5).next() == pytest.approx(0.375)


def test_reset_begins_again():
    backoff = Backoff(random=no_jitter)
    assert [backoff.next(), backoff.next()] == [0.5, 1]
    backoff.reset()
    assert backoff.next() == 0.5


def test_a_night_of_failures_does_not_overflow():
    backoff = Backoff(random=no_jitter)
    assert {backoff.next() for _ in range(100_000)} >= {60.0}


@pytest.mark.parametrize(("asked", "delay"), [(None, 0.5), (0.1, 0.5), (30.0, 30.0), (-5.0, 0.5), (1e9, RETRY_AFTER_MAX)])
def test_what_the_service_asks_for(asked, delay):
    assert Backoff(random=no_jitter).next(asked) == delay


def test_impossible_policies_are_refused():
    for base, cap in [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)]:
        with pytest.raises(ValueError, match="back-off"):
            Backoff(base=base, cap=cap, random=no_jitter)


class Failing:
    """Fails with the given errors, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


async def test_transient_errors_are_repeated(autojump_clock):
    call = Failing(Unreachable("a"), Overloaded("b", 30.0), Unreachable("c"))
    assert await retried(call, policy=Backoff(random=no_jitter), attempts=4) == "answer"
    assert call.calls == 4
    assert trio.current_time() == pytest.approx(0.5 + 30.0 + 2.0)


async def test_permanent_errors_are_not(autojump_clock):
    call = Failing(NotThere("gone"))
    with pytest.raises(NotThere):
        await retried(call, policy=Backoff(random=no_jitter), attempts=4)
    assert call.calls == 1


async def test_attempts_are_bounded(autojump_clock):
    call = Failing(*[Unreachable(str(number)) for number in range(9)])
    with pytest.raises(Unreachable, match="2"):
        await retried(call, policy=Backoff(random=no_jitter), attempts=3)
    assert call.calls == 3


async def test_time_is_bounded_without_a_useless_wait(autojump_clock):
    call = Failing(*[Unreachable(str(number)) for number in range(99)])
    with pytest.raises(Unreachable):
        await retried(call, policy=Backoff(random=no_jitter), seconds=10.0)
    assert trio.current_time() == pytest.approx(0.5 + 1 + 2 + 4)  # the next wait of 8 would not fit


async def test_a_bound_is_needed():
    with pytest.raises(ValueError, match="bound"):
        await retried(Failing(), policy=Backoff(random=no_jitter))


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
async def test_what_is_asked_for_is_waited_for_up_to_the_limit_however_much_jitter_adds(autojump_clock, jitter):
    calls, began = 0, trio.current_time()

    async def call() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Overloaded("busy", 5.0)
        return "done"

    assert await retried(call, policy=Backoff(random=lambda: jitter), attempts=3, longest_wait=5.0) == "done"
    assert 5.0 <= trio.current_time() - began <= 7.5


async def test_more_than_the_limit_is_not_waited_for(autojump_clock):
    async def call() -> None:
        raise Overloaded("busy", 5.1)

    with pytest.raises(Overloaded):
        await retried(call, policy=Backoff(random=no_jitter), attempts=3, longest_wait=5.0)
