"""`docs/crash-matrix.md`: made from what a run of the matrix saw, and read back by the test that wants it complete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from remote.crashpoints import CLIENT_POINTS, SERVICE_POINTS
from tests.crash.matrix import FIRST, Seen
from tests.support.service import REPOSITORY

TABLE = REPOSITORY / "docs" / "crash-matrix.md"

_HEAD = """\
# Crash matrix

Written by `scripts/crash-matrix`; not to be edited by hand. Each line is a run on real mounts with the real service as processes:
the process that passes the point was killed there by SIGKILL and started again, and everything was held against what is
promised; [reliability](reliability.md) says how. Of {count} points, {done} were passed, and all was as promised.
"""
_NOT_SEEN = "not as promised, or not run"


def write_table(seen: Iterable[Seen], path: Path = TABLE) -> None:
    """`seen`: what was as promised. Points that are not among it have lines that say so."""
    by_case = {one.case: one for one in seen}
    first = {case.point: by_case.pop(case) for case in FIRST if case in by_case}
    parts = [_HEAD.format(count=len(FIRST), done=len(first))]
    parts.append(_section("The client", CLIENT_POINTS, first))
    parts.append(_section("The service", SERVICE_POINTS, first))
    if by_case:
        parts.append(_others(list(by_case.values())))
    path.write_text("\n".join(parts))


def _section(title: str, points: Mapping[str, str], seen: Mapping[str, Seen]) -> str:
    lines = [f"## {title}\n", "| point | when it dies | what was seen | seconds |", "| --- | --- | --- | ---: |"]
    for name, said in points.items():
        outcome = f"{seen[name].outcome} | {seen[name].seconds:.1f}" if name in seen else f"{_NOT_SEEN} | –"
        lines.append(f"| `{name}` | {said} | {outcome} |")
    return "\n".join(lines) + "\n"


def _others(seen: Sequence[Seen]) -> str:
    """Second and third passings (`:2`), and a second death when the process was started again (`+`)."""
    lines = ["## Later passings, and killed twice\n", "| case | what was seen | seconds |", "| --- | --- | ---: |"]
    lines += [f"| `{one.case}` | {one.outcome} | {one.seconds:.1f} |" for one in seen]
    return "\n".join(lines) + "\n"


def points_in(path: Path = TABLE) -> dict[str, str]:
    """The points that a table has lines for, and what it says of them."""
    found = {}
    for line in path.read_text().splitlines():
        cells = line.strip("| ").split(" | ")
        if line.startswith("| `") and len(cells) == 4:
            found[cells[0].strip("`")] = cells[1]
    return found
