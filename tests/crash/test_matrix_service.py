"""The crash matrix of the service, and of what is not a mount: a few points here, the others with `--long`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from remote.crashpoints import SERVICE_POINTS
from tests.crash.matrix import Bench, Case

pytestmark = pytest.mark.timeout(1200)
"""Each case starts and ends half a dozen processes, which takes minutes where many others want the processor."""

ALWAYS = (
    "service.commit.recorded",
    "service.start.migrating",
    "recovery.surfacing",
    "token.answered",
)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest.mark.parametrize("point", ALWAYS)
def test_it_dies_at_a_point_and_nothing_is_lost(bench: Bench, point: str) -> None:
    bench.run(Case(point))


@pytest.mark.long
@pytest.mark.parametrize("point", sorted(SERVICE_POINTS.keys() - {*ALWAYS}))
def test_the_service_dies_at_any_other_point(bench: Bench, point: str) -> None:
    bench.run(Case(point))
