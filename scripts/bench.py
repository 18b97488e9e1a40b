"""`scripts/bench`: Aloft beside `rclone mount --vfs-cache-mode full`, on this machine, alternating, in one run."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from bench_parts import PARTS, Figure, Sizes
from bench_peers import Aloft, Peer, Rclone
from playground import Failed
from rich.console import Console
from rich.table import Table


@dataclass(slots=True)
class Row:
    """One measurement: the values of every round, for each peer."""

    part: str
    figure: Figure
    values: dict[str, list[float]] = field(default_factory=dict)

    def value(self, peer: str) -> float | None:
        return statistics.median(self.values[peer]) if peer in self.values else None

    def ratio(self) -> float | None:
        """How many times better Aloft is."""
        ours, theirs = self.value(Aloft.name), self.value(Rclone.name)
        if not ours or not theirs:
            return None
        return ours / theirs if self.figure.more_is_better else theirs / ours


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    sizes = Sizes(arguments.files, arguments.large, arguments.tree)
    rows: dict[tuple[str, str], Row] = {}
    progress = Console(stderr=True, soft_wrap=True)
    try:
        for number in range(arguments.rounds):
            for part in arguments.parts:
                # Whoever goes first may warm something up for the other.
                for peer in arguments.peers if number % 2 == 0 else reversed(arguments.peers):
                    _measure(peer, part, sizes, arguments, rows, progress)
    except Failed as failure:
        print(f"scripts/bench: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if arguments.json:
        print(json.dumps([_as_json(row) for row in rows.values()], indent=2))
    else:
        console = Console()
        console.width = max(console.width, 120)
        console.print(_table(list(rows.values()), arguments.rounds))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure, of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--peers", nargs="+", choices=["aloft", "rclone"], default=["aloft", "rclone"])
    parser.add_argument("--rounds", type=int, default=1, help="how often; the median counts (default: 1)")
    parser.add_argument("--files", type=int, default=2000, help="how many small files (default: 2000)")
    parser.add_argument("--large", type=int, default=1024, metavar="MIB", help="size of the large file in MiB (default: 1024)")
    parser.add_argument("--tree", type=int, default=100_000, help="files of the large tree (default: 100000)")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rclone", type=Path, required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    arguments.parts = arguments.parts or list(PARTS)
    return arguments


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _measure(
    name: str, part: str, sizes: Sizes, arguments: argparse.Namespace, rows: dict[tuple[str, str], Row], progress: Console
) -> None:
    """One part with one peer, on a store of its own, which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="aloft-bench-", dir=arguments.folder))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        peer: Peer = Aloft(folder) if name == Aloft.name else Rclone(folder, arguments.rclone)
        stack.callback(peer.stop)
        for figure in PARTS[part](peer, sizes):
            row = rows.setdefault((part, figure.name), Row(part, figure))
            row.values.setdefault(name, []).append(figure.value)
            progress.print(f"[dim]{name:7} {part:12} {figure.name}: {_number(figure.value)} {figure.unit}[/]")


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _table(rows: Sequence[Row], rounds: int) -> Table:
    table = Table(title=f"Aloft and rclone mount --vfs-cache-mode full, median of {rounds}", title_justify="left")
    for heading in ("", "measured", "unit"):
        table.add_column(heading)
    for heading in ("aloft", "rclone", "times better", "wanted"):
        table.add_column(heading, justify="right")
    part = ""
    for row in rows:
        if row.part != part:
            table.add_section()
        shown, part = ("" if row.part == part else row.part), row.part
        ratio = row.ratio()
        table.add_row(
            shown,
            row.figure.name,
            row.figure.unit,
            _number(row.value(Aloft.name)),
            _number(row.value(Rclone.name)),
            "–" if ratio is None else f"{ratio:.2f}",
            row.figure.wanted,
        )
    return table


def _as_json(row: Row) -> dict[str, object]:
    return {
        "part": row.part,
        "measured": row.figure.name,
        "unit": row.figure.unit,
        "more_is_better": row.figure.more_is_better,
        "wanted": row.figure.wanted,
        "values": row.values,
        "times_better": row.ratio(),
    }


if __name__ == "__main__":
    sys.exit(main())
