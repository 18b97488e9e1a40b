"""A seed is the same life in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOW = "from tests.simulation.runner import run_seed; result = run_seed(int('{}')); print(result.digest, result.failure)"


def digest_of(seed: int, hashing: str) -> str:
    """What a new process says of a seed. `hashing` decides the order of its sets."""
    environment = {**os.environ, "PYTHONHASHSEED": hashing, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SHOW.format(seed)]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("seed", [0, 7])
def test_a_seed_replays_byte_for_byte(seed: int) -> None:
    assert digest_of(seed, "1") == digest_of(seed, "2")
