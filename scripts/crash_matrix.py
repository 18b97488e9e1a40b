"""The crash matrix as a command: all points, several laboratories side by side, progress, and the table in `docs/`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.queues import Queue
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from remote.crashpoints import POINTS
from tests.crash.matrix import FIRST, LATER, TWICE, Bench, Case, Seen
from tests.crash.table import TABLE, write_table

Result = tuple[Case, Seen | str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/crash-matrix", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="POINT[:NTH][+POINT]", help="only these; the table is not written then")
    parser.add_argument("--later", action="store_true", help="also second and third passings, and second deaths, of some points")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="laboratories side by side (2)")
    parser.add_argument("--results", type=Path, metavar="F", help="go on with the run that wrote this file, or begin it")
    options = parser.parse_args()
    cases = [_known(Case.parse(text)) for text in options.cases] or [*FIRST, *((*LATER, *TWICE) if options.later else ())]
    began = time.monotonic()
    seen = _read(options.results)
    todo = [case for case in cases if case not in seen]
    for number, (case, result) in enumerate(_run(todo, options.processes), len(cases) - len(todo) + 1):
        if isinstance(result, Seen):
            seen[case] = result
            _note(options.results, result)
            print(f"{number:4}/{len(cases)} {case}: {result.outcome} ({result.seconds:.1f} s)", flush=True)
        else:
            print(f"{number:4}/{len(cases)} {case}: FAILED\n{result}", flush=True)
    print(f"{len(seen.keys() & {*cases})} of {len(cases)} as promised, in {time.monotonic() - began:.0f} s")
    if not options.cases:
        write_table(seen[case] for case in cases if case in seen)
        print(f"wrote {TABLE}")
    failed = [str(case) for case in cases if case not in seen]
    if failed:
        print("failed: " + " ".join(failed))
    return 1 if failed else 0


def _read(results: Path | None) -> dict[Case, Seen]:
    if results is None or not results.exists():
        return {}
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return {Case.parse(name): Seen(Case.parse(name), outcome, seconds) for name, outcome, seconds in lines}


def _note(results: Path | None, seen: Seen) -> None:
    if results is not None:
        with results.open("a") as file:
            file.write(json.dumps([str(seen.case), seen.outcome, seen.seconds]) + "\n")


def _known(case: Case) -> Case:
    for point in (case.point, case.again or case.point):
        if point not in POINTS:
            raise SystemExit(f"there is no crash point {point!r}")
    return case


def _run(cases: Sequence[Case], processes: int) -> Iterator[Result]:
    """In the order in which they end."""
    context = multiprocessing.get_context("spawn")
    todo: Queue[Case | None] = context.Queue()
    done: Queue[Result] = context.Queue()
    for case in (*cases, *[None] * processes):
        todo.put(case)
    workers = [context.Process(target=_work, args=(todo, done)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for _ in cases:
        yield done.get()
    for worker in workers:
        worker.join()


def _work(todo: Queue[Case | None], done: Queue[Result]) -> None:
    bench = Bench()
    try:
        while (case := todo.get()) is not None:
            try:
                done.put((case, bench.run(case)))
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001 - pytest's failures are no Exception
                done.put((case, traceback.format_exc()))
    finally:
        bench.close()


if __name__ == "__main__":
    sys.exit(main())
