"""What the files of the matrix share: a bench, and which points are gone through in every run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pytest

from tests.crash.matrix import Bench

TIMEOUT = 1200
"""Seconds. Each case starts and ends half a dozen processes, which takes minutes where many others want the processor."""


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def parameters(points: Collection[str], always: Collection[str]) -> list[Any]:
    """`points` for `parametrize`, those of them first that are gone through in every run; the others with `--long`."""
    others = [pytest.param(point, marks=pytest.mark.long) for point in sorted({*points} - {*always})]
    return [*[point for point in always if point in points], *others]
