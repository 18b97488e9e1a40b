"""What a run has to say at its end, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.load.figures import Figures

MIB = 2**20


@dataclass
class Summary:
    seed: int
    seconds: float
    wrong: list[str]
    """Shared with the run."""
    workers: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Figures] = field(default_factory=dict)
    entries: int = 0
    """In the tree that both devices and the service had at the end."""
    confirmed: int = 0
    """How often deletions were confirmed that the breaker held back."""

    def as_json(self) -> dict[str, Any]:
        return {"passed": not self.wrong, **self.__dict__}

    def say(self, say: Callable[[str], None]) -> None:
        say(f"{'worker':14} {'operations':>11} {'compared':>9} {'excused':>8}")
        for name, counts in self.workers.items():
            say(f"{name:14} {counts['done']:11,} {counts['checked']:9,} {counts['excused']:8,}")
        total = sum(counts["done"] for counts in self.workers.values())
        say(f"{total:,} operations, {sum(self.faults.values())} faults of {len(self.faults)} kinds, seed {self.seed}")
        say("faults: " + (", ".join(f"{count} × {name}" for name, count in sorted(self.faults.items())) or "none"))
        say(f"deletions confirmed {self.confirmed} times; {self.entries:,} entries in the tree at the end")
        self._say_figures(say)
        for line in self.wrong:
            say(f"WRONG: {line}")
        say("nothing was lost, nothing hung" if not self.wrong else f"{len(self.wrong)} things were wrong")

    def _say_figures(self, say: Callable[[str], None]) -> None:
        names = dict.fromkeys(name for figures in self.figures.values() for name in figures)
        say(f"{'':24}" + "".join(f"{when:>16}" for when in self.figures))
        for name in names:
            say(f"{name:24}" + "".join(f"{_shown(name, figures.get(name)):>16}" for figures in self.figures.values()))


def _shown(name: str, value: int | None) -> str:
    if value is None:
        return "-"
    if name.endswith((" rss", " pss", " replica", " wal", " cache", " drafts", " data")):
        return f"{value / MIB:,.1f} MiB"
    return f"{value:,}"
