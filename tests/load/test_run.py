"""The long run, short: it works, it clears away what it started, and it finds bugs that are put into a device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 600.0
"""What a run may take beside its load, on a busy machine."""
pytestmark = pytest.mark.timeout(1200)


def run(folder: Path, *options: str, minutes: float) -> Any:
    """The summary of a run."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "tests.load.run", "--minutes", str(minutes), "--folder", str(folder), "--json", str(report)]
    output = folder / "output.txt"
    with output.open("w") as said, subprocess.Popen([*command, *options], cwd=REPOSITORY, stdout=said, stderr=said) as process:
        try:
            status = process.wait(SECONDS + minutes * 60)
        finally:
            process.terminate()  # it clears away what it started
    assert report.exists(), f"the run said nothing:\n{output.read_text()[-8000:]}"
    summary = json.loads(report.read_text())
    assert summary["passed"] == (status == 0)
    assert str(folder) not in Path("/proc/self/mountinfo").read_text(), "something is still mounted"
    assert {path.name for path in folder.iterdir()} == {"report.json", "output.txt"}, "something was left behind"
    return summary


def test_a_short_run_passes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    summary = run(
        tmp_path, "--seed", "4", "--workers", "files,tree,shared", "--faults", "two killed", "--fault-every", "3", minutes=0.1
    )
    assert summary["wrong"] == []
    assert summary["entries"] > 0
    assert all(counts["done"] > 0 for counts in summary["workers"].values())
    assert set(summary["figures"]) == {"start", "half", "end"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("bug", "workers", "faults", "said"),
    [
        ("unverified-cache", "reader", "damage", "has another content|static"),
        ("a-request-hangs", "tree", "none", "hangs"),
        ("descriptors-leak", "files,reader", "evict", "one descriptors grew"),
        ("memory-grows", "reader", "none", "one rss grew"),
    ],
)
def test_a_planted_bug_fails_the_run(bug: str, workers: str, faults: str, said: str, tmp_path: Path) -> None:
    options = ["--plant", bug, "--workers", workers, "--faults", faults, "--fault-every", "2", "--seed", "4", "--judge-growth"]
    summary = run(tmp_path, *options, minutes=2)
    assert any(part in " ".join(summary["wrong"]) for part in said.split("|")), summary["wrong"]
