"""Many lives: one seed after the other, in as many processes as wanted, counted; and a failing one made smaller."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tests.simulation.scenario import FAULTS_MIN, OPERATIONS_MIN, Scenario, generate
from tests.simulation.world import Outcome, live

_CHUNK_SIZES = (128, 64, 32, 16, 8, 4, 2, 1)


@dataclass(frozen=True, slots=True)
class Result:
    """What is kept of a life when it is over. `seconds` of one core."""

    seed: int
    failure: str | None
    digest: str
    rounds: int
    counts: Counter[str]
    seconds: float


@dataclass
class Tally:
    """Of many lives."""

    seeds: int = 0
    failures: list[Result] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    seen_in: Counter[str] = field(default_factory=Counter)
    """In how many seeds each thing came up."""
    rounds: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, result: Result) -> None:
        self.seeds += 1
        if result.failure is not None:
            self.failures.append(result)
        self.counts.update(result.counts)
        self.seen_in.update(result.counts.keys())
        self.rounds[result.rounds] += 1
        self.seconds += result.seconds


def run_seed(seed: int) -> Result:
    """Live through a seed, which must have had enough operations and faults."""
    began = time.process_time()
    # Looking for cycles all along takes a sixth of the time; a life leaves some MiB of them.
    gc.disable()
    try:
        outcome = live(generate(seed))
    finally:
        gc.enable()
    if seed % 8 == 0:
        gc.collect()
    failure = outcome.failure or _too_little(outcome)
    seconds = time.process_time() - began
    return Result(seed, failure, outcome.trace.digest, outcome.rounds, +outcome.counts, seconds)


def _too_little(outcome: Outcome) -> str | None:
    operations, faults = outcome.counts["operations"], faults_of(outcome.counts)
    if operations < OPERATIONS_MIN:
        return f"only {operations} operations"
    return f"only {faults} faults" if faults < FAULTS_MIN else None


def faults_of(counts: Counter[str]) -> int:
    return sum(count for what, count in counts.items() if what.startswith("fault: "))


def run_seeds(seeds: Iterable[int], processes: int = 1, run: Callable[[int], Result] = run_seed) -> Iterator[Result]:
    """The results as they come; in the order of the seeds if there is one process."""
    if processes == 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes, initializer=quieten) as pool:
        yield from pool.imap_unordered(run, seeds, chunksize=1)


def quieten() -> None:
    """What the service and the drives log on their way through faults is not for the terminal; errors end in the trace."""
    logging.getLogger().addHandler(logging.NullHandler())


def shrink(scenario: Scenario, told: Callable[[str], None], tries: int = 2000) -> Scenario:
    """The scenario without the steps that its failure does not need."""
    outcome = live(scenario)
    if outcome.failure is None:
        raise ValueError("this scenario does not fail")
    kind = kind_of(outcome.failure)
    scenario = scenario.without(outcome.steps_done, len(scenario.steps))
    told(f"{len(scenario.steps)} steps: {outcome.failure}")
    shorter = True
    while shorter and tries > 0:
        shorter = False
        for size in _CHUNK_SIZES:
            start = len(scenario.steps) - size
            while start > -size and tries > 0:
                fewer = scenario.without(max(start, 0), start + size)
                tries -= 1
                failure = live(fewer).failure
                if failure is not None and kind_of(failure) == kind:
                    scenario, shorter = fewer, True
                    told(f"{len(scenario.steps)} steps: {failure}")
                start -= size
    return scenario


def kind_of(failure: str) -> str:
    """The failure without what differs from life to life."""
    return re.sub(r"b'.*?'|'.*?'|\(.*?\)|\b[0-9a-f]{6,}\b|\d+|\b(ada|bob|cyd|dan|eve)\b", "…", failure)[:60]
