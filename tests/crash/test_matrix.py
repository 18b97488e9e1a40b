"""The crash matrix on real mounts: here the points where most can go wrong, the others with `--long`, all by
`scripts/crash-matrix`. The table that this command wrote has a line for each point."""

from __future__ import annotations

import pytest

from remote.crashpoints import CLIENT_POINTS, POINTS
from tests.crash.conftest import TIMEOUT, parameters
from tests.crash.matrix import Bench, Case
from tests.crash.table import points_in

pytestmark = pytest.mark.timeout(TIMEOUT)

ALWAYS = (
    "draft.written",
    "names.renamed",
    "put.sent",
    "upload.completed",
    "commit.answered",
    "commit.recorded",
    "page.staged",
    "merge.merging",
)


def test_the_table_is_of_these_points() -> None:
    assert points_in() == POINTS, "run scripts/crash-matrix"


@pytest.mark.parametrize("point", parameters(CLIENT_POINTS, ALWAYS))
def test_a_device_dies_at_a_point_and_nothing_is_lost(bench: Bench, point: str) -> None:
    bench.run(Case(point))
