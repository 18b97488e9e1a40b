"""The seeds that every run of the tests lives through: in several files, because files are what test processes share out."""

from __future__ import annotations

from tests.simulation.runner import run_seed

SEEDS = 200
FILES = 6


def share(number: int) -> range:
    """The seeds of one of the files."""
    return range(number, SEEDS, FILES)


def check(seed: int) -> None:
    result = run_seed(seed)
    assert result.failure is None, f"{result.failure} (scripts/simulate --seed {seed} shows it step by step)"
