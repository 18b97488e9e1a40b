"""The crash matrix: for each point, a process dies there, and what was promised is held against what is there afterwards."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from remote.crashpoints import POINTS
from tests.crash.laboratory import PATIENCE, Laboratory, laboratory
from tests.crash.ledger import Broken
from tests.crash.scenarios import scenario_of
from tests.support.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Case:
    """The process dies at the nth passing of a point; with `again`, also at that point, when it was started again."""

    point: str
    nth: int = 1
    again: str | None = None

    @classmethod
    def parse(cls, text: str) -> Case:
        """`POINT[:NTH][+POINT]`."""
        first, _, again = text.partition("+")
        point, _, nth = first.partition(":")
        return cls(point, int(nth or 1), again or None)

    def __str__(self) -> str:
        return f"{self.point}{f':{self.nth}' if self.nth > 1 else ''}{f'+{self.again}' if self.again else ''}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a case."""

    case: Case
    outcome: str
    seconds: float


FIRST = tuple(Case(point) for point in POINTS)
"""The matrix."""

LATER = tuple(
    Case(point, nth)
    for point in (
        *("draft.written", "draft.saving", "draft.saved", "names.created", "names.renamed", "upload.sealed", "plan.answered"),
        *("put.sent", "upload.completed", "commit.stored", "commit.answered", "commit.recorded", "draft.unlinking"),
        *("page.staged", "download.arrived", "chunk.written", "kernel.told", "durable.syncing"),
        *("service.object.renamed", "service.plan.reserved", "service.commit.recorded", "service.commit.committed"),
    )
    for nth in (2, 3)
)
"""Points that their scripts pass several times."""

TWICE = tuple(
    Case(point, 1, again)
    for point, again in (
        ("draft.spilled", "recovery.unlinked"),
        ("draft.unlinking", "recovery.unlinking"),
        ("names.created", "recovery.published"),
        ("names.renamed", "recovery.finished"),
        ("upload.sealed", "upload.completed"),
        ("put.sent", "plan.answered"),
        ("upload.completed", "commit.stored"),
        ("commit.stored", "commit.answered"),
        ("commit.answered", "commit.recorded"),
        ("commit.recording", "commit.recorded"),
        ("page.staged", "merge.merging"),
        ("merge.merging", "merge.merged"),
    )
)
"""Killed again when it has just been started."""


def run_case(lab: Laboratory, case: Case) -> Seen:
    """`Broken`, or another exception, if a promise was not kept, or nothing was killed."""
    began = time.monotonic()
    scenario = scenario_of(case.point)(lab, lab.new_case())
    scenario.prepare()
    bomb = lab.bomb(case.point, case.nth)
    scenario.run(bomb)
    if not bomb.went_off:
        raise Broken(f"{case.point} was not passed {case.nth} times")
    if case.again is not None:
        _die_again(lab, case.again)
    outcome = scenario.check()
    lab.check_service()
    return Seen(case, outcome, time.monotonic() - began)


def _die_again(lab: Laboratory, point: str) -> None:
    bomb = lab.bomb(point)
    if lab.alpha.mount(bomb):
        with suppress(OSError):
            lab.alpha.sync()
        wait_until(lambda: not lab.alpha.is_alive, f"the passing of {point}", PATIENCE)
        lab.alpha.wait_dead()
    if not bomb.went_off:
        raise Broken(f"{point} was not passed after the first death")


class Bench:
    """Runs cases one after the other in a laboratory, which is made when it is needed, and anew after a failure."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._lab: Laboratory | None = None

    def run(self, case: Case) -> Seen:
        if self._lab is None:
            self._lab = self._open.enter_context(laboratory())
        try:
            return run_case(self._lab, case)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._lab = None
        self._open.close()
