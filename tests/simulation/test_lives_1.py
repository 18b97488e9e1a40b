"""A share of the lives of simulated devices, see `tests.simulation.lives`."""

from __future__ import annotations

import pytest

from tests.simulation.lives import check, share


@pytest.mark.parametrize("seed", share(0))
def test_life(seed: int) -> None:
    check(seed)
