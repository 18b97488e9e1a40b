"""Later passings of crash points, and second deaths while what the first one left is brought in order."""

from __future__ import annotations

import pytest

from tests.crash.conftest import TIMEOUT
from tests.crash.matrix import LATER, TWICE, Bench, Case

pytestmark = [pytest.mark.long, pytest.mark.timeout(TIMEOUT)]


@pytest.mark.parametrize("case", LATER, ids=str)
def test_a_process_dies_at_a_later_passing(bench: Bench, case: Case) -> None:
    bench.run(case)


@pytest.mark.parametrize("case", TWICE, ids=str)
def test_a_process_dies_again_as_soon_as_it_was_started(bench: Bench, case: Case) -> None:
    bench.run(case)
