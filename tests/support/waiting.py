"""Waiting for a condition in synchronous tests."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

PATIENCE = 60.0
"""Seconds after which what has not happened will not."""


def wait_until(condition: Callable[[], object], what: str = "the condition", seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not come true within {seconds:.0f} s")
        time.sleep(0.01)
