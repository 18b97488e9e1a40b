"""`scripts/simulate`: run seeds, replay one, shrink one.

A seed is a whole life of a few devices and their service: what people do on them, and what goes wrong. It is the same life each
time and on each machine, so a seed that fails is a bug that can be looked at for as long as it takes:

  scripts/simulate --seeds 0-199              live through 200 lives; says which failed, and what came up how often
  scripts/simulate --seeds 0-9999 --processes 2
  scripts/simulate --seed 119                 live through one, and print what happened in it, step by step
  scripts/simulate --shrink 119               leave out every step that the failure does not need, and print those that stay

Virtual time passes in no time; a life takes a second or two of one core. The exit status is 1 if anything failed, or
if in a series of at least 1,000 seeds something that has to be proved came up in less than a hundredth of them.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from tests.simulation.coverage import expected, rare
from tests.simulation.runner import Tally, faults_of, quieten, run_seeds, shrink
from tests.simulation.scenario import generate
from tests.simulation.world import live

_SERIES = 1000
"""In so many seeds everything has to come up in a hundredth of them."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seeds", metavar="A-B", type=_span, help="live through these seeds, both ends included")
    what.add_argument("--seed", metavar="N", type=int, help="live through one seed, and print its trace")
    what.add_argument("--shrink", metavar="N", type=int, help="find the smallest part of a failing seed that still fails")
    parser.add_argument("--processes", metavar="N", type=int, default=1, help="for --seeds: so many at a time")
    parser.add_argument("--keep-going", action="store_true", help="for --seeds: do not stop at the 20th failure")
    options = parser.parse_args(arguments)
    quieten()
    if options.seeds is not None:
        return _run(options.seeds, options.processes, keep_going=options.keep_going)
    return _replay(options.seed) if options.seed is not None else _shrink(options.shrink)


def _span(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _run(seeds: range, processes: int, *, keep_going: bool) -> int:
    tally = Tally()
    for result in run_seeds(seeds, processes):
        tally.add(result)
        if result.failure is not None:
            print(f"seed {result.seed}: {result.failure}", flush=True)
            if len(tally.failures) == 20 and not keep_going:
                print("stopped at the 20th failure", flush=True)
                break
        if tally.seeds % 100 == 0:
            print(f"{tally.seeds} seeds, {len(tally.failures)} failed, {tally.seconds:.0f} s of one core", flush=True)
    print(summary(tally))
    return 1 if tally.failures or (tally.seeds >= _SERIES and rare(tally.seen_in, tally.seeds)) else 0


def summary(tally: Tally) -> str:
    """Counts, time, and how often each thing came up."""
    seeds = max(tally.seeds, 1)
    lines = [
        f"{tally.seeds} seeds, {len(tally.failures)} failed",
        f"{tally.seconds:.1f} s of one core, {tally.seconds / seeds:.2f} s a seed",
        f"{tally.counts['operations'] / seeds:.0f} operations and {faults_of(tally.counts) / seeds:.0f} faults a seed; "
        f"rounds until all was quiet: {_histogram(tally.rounds)}",
        "",
        f"{'what came up':<70} {'times':>9} {'in seeds':>9}",
    ]
    too_rare = set(rare(tally.seen_in, seeds))
    for name in sorted({*tally.seen_in, *expected()}):
        mark = "  rare" if name in too_rare else ""
        lines.append(f"{name:<70} {tally.counts[name]:>9} {tally.seen_in[name] / seeds:>8.1%}{mark}")
    if tally.failures:
        lines += ["", "failed: " + " ".join(str(result.seed) for result in sorted(tally.failures, key=lambda one: one.seed))]
    return "\n".join(lines)


def _histogram(rounds: Counter[int]) -> str:
    return ", ".join(f"{count}× {number}" for number, count in sorted(rounds.items()))


def _replay(seed: int) -> int:
    outcome = live(generate(seed), keep_trace=True)
    print("\n".join(outcome.trace.lines))
    print(f"\n{outcome.scenario}\ndigest {outcome.trace.digest}, quiet after {outcome.rounds} rounds")
    print(outcome.failure or "all is well")
    return 1 if outcome.failure else 0


def _shrink(seed: int) -> int:
    scenario = generate(seed)
    try:
        smallest = shrink(scenario, lambda text: print(text, flush=True))
    except ValueError as error:
        print(f"seed {seed}: {error}")
        return 0
    outcome = live(smallest, keep_trace=True)
    print("\n".join(outcome.trace.lines))
    print(f"\n{smallest}")
    print("\n".join(f"    {step}" for step in smallest.steps))
    print(outcome.failure)
    return 1


if __name__ == "__main__":
    sys.exit(main())
