"""Which tests run: those marked `long` only with `--long`. They are left out, not skipped: a skip would be a hole.

Also PostgreSQL: a cluster for all tests of this process that want one, and a database for each.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgresql import Cluster, running_cluster


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also the tests that take many minutes")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes many minutes; runs with --long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    left_out = [item for item in items if item.get_closest_marker("long") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("long") is None]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """PostgreSQL, running. Whoever stops it starts it again."""
    with running_cluster() as cluster:
        yield cluster
