"""What the processes of a run take: memory, descriptors, threads, tasks, and the size of what they keep. Bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

MIB = 2**20
Figures = dict[str, int]
"""By name, such as `one rss`."""


@dataclass(frozen=True)
class Slack:
    """How much a figure may grow between half time and the end: a part of it, and so much."""

    part: float
    more: int


SLACK: Mapping[str, Slack] = {
    "rss": Slack(0.05, 12 * MIB),
    "pss": Slack(0.05, 12 * MIB),
    "descriptors": Slack(0.0, 230),  # up to 256 chunks that were read lately stay open
    "threads": Slack(0.0, 12),
    "tasks": Slack(0.0, 8),
    "replica": Slack(0.15, 4 * MIB),
    "wal": Slack(0.0, 16 * MIB),
    "drafts": Slack(0.0, 4 * MIB),
    "draft files": Slack(0.0, 20),
    "home files": Slack(0.0, 10),
}
"""By the last word or words of a figure's name. What the service keeps for good (versions, tombstones) is shown, not judged."""


@dataclass(frozen=True)
class Process:
    rss: int
    pss: int
    descriptors: int
    threads: int


def of_process(pid: int) -> Process:
    rollup = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    threads = len(os.listdir(f"/proc/{pid}/task"))
    return Process(_kib(rollup["Rss"]), _kib(rollup["Pss"]), len(os.listdir(f"/proc/{pid}/fd")), threads)


def _kib(text: str) -> int:
    return int(text.split()[0]) * 1024


def prefixed(name: str, process: Process) -> Figures:
    return {f"{name} {key}": value for key, value in asdict(process).items()}


def of_folder(folder: Path) -> tuple[int, int]:
    """Bytes on the disk, and files."""
    size = files = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            status = path.lstat()
            size += status.st_blocks * 512
            files += not path.is_dir()
    return size, files


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def beyond(figures: Figures, limits: Mapping[str, int]) -> list[str]:
    """Which figures are above a limit that they were given, and a tenth of it."""
    above = {name: limit for name, limit in limits.items() if figures.get(name, 0) > limit * 1.1}
    return [f"{name} is {figures[name]:,}, its limit {limit:,}" for name, limit in above.items()]


def growth(half: Figures, end: Figures) -> list[str]:
    """Which figures grew by more than they may."""
    grown = []
    for name, before in half.items():
        slack = next((slack for ending, slack in SLACK.items() if name.endswith(f" {ending}")), None)
        if slack is None or name not in end:
            continue
        allowed = before + int(before * slack.part) + slack.more
        if end[name] > allowed:
            grown.append(f"{name} grew from {before:,} at half time to {end[name]:,} at the end (allowed: {allowed:,})")
    return grown
