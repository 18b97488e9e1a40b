"""Every planted bug is found by a seed: whatever no seed finds, the simulation does not prove.

Takes long, so it runs on demand: `scripts/test --long tests/simulation/test_planted.py -n 2 --dist load -rP` prints at which
seed each was found.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from tests.simulation.planted import PLANTED
from tests.simulation.runner import quieten
from tests.simulation.scenario import generate
from tests.simulation.world import live

SEEDS = 1000
HANGS_AFTER = 60.0
"""Seconds of one core after which a life that takes some two counts as one that does not end."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(24 * 3600)]


class Hangs(BaseException):
    """Not an `Exception`, so that nothing in the code under test catches it."""


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quieten()
    PLANTED[bug](monkeypatch)
    began = time.process_time()
    for seed in range(SEEDS):
        failure = failure_of(seed)
        if failure is not None:
            cost = time.process_time() - began
            sys.stdout.write(f"| {bug} | {seed} | {cost:.0f} s | {failure.splitlines()[0][:120]} |\n")
            monkeypatch.undo()
            assert failure_of(seed) is None, "it fails without the bug, too"
            return
    pytest.fail(f"no seed of {SEEDS} notices: {bug}")


def failure_of(seed: int) -> str | None:
    try:
        with limited():
            return live(generate(seed)).failure
    except Hangs:
        return "it does not end"


@contextmanager
def limited() -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, HANGS_AFTER)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
