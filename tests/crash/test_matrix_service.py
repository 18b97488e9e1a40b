"""The crash matrix of the service, and two points of clients that are no matter of a drive at work."""

from __future__ import annotations

import pytest

from remote.crashpoints import SERVICE_POINTS
from tests.crash.conftest import TIMEOUT, parameters
from tests.crash.matrix import Bench, Case

pytestmark = pytest.mark.timeout(TIMEOUT)


@pytest.mark.parametrize("point", parameters(SERVICE_POINTS, ("service.commit.recorded", "service.start.migrating")))
def test_the_service_dies_at_a_point_and_nothing_is_lost(bench: Bench, point: str) -> None:
    bench.run(Case(point))


@pytest.mark.parametrize("point", ["recovery.surfacing", "token.answered"])
def test_it_dies_while_it_starts_or_refreshes_and_nothing_is_lost(bench: Bench, point: str) -> None:
    bench.run(Case(point))
