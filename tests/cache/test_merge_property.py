"""Random lives of several devices with the real merge and the real groups: the invariants of sync.md hold in all of them.

`ALOFT_MERGE_SEEDS=20000` runs so many seeds of each family.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.support.scenarios import DEEP, DIRECTED, FINE, PHASED, Generator, failure, live_through, shrunk

SEEDS = int(os.environ.get("ALOFT_MERGE_SEEDS", "250"))
RULES = {
    "content conflict", "move undone", "local edit beats deletion", "service's edit beats deletion", "folder revived",
    "folders merged", "equal file dropped", "renamed",
}  # fmt: skip


@pytest.mark.timeout(24 * 3600)
@pytest.mark.parametrize("first", [PHASED, FINE, DEEP], ids=["phased", "fine", "deep"])
def test_nothing_is_lost_and_all_agree(first: int) -> None:
    for seed in range(first, first + SEEDS):
        scenario = Generator(seed).scenario()
        found = failure(scenario)
        if found:
            small = shrunk(scenario)
            pytest.fail(f"seed {seed}: {found}\nsmallest: {failure(small)}\n{small}")


@pytest.mark.parametrize("name", DIRECTED)
def test_what_seeds_hardly_find(name: str) -> None:
    assert failure(DIRECTED[name]) is None


@pytest.mark.timeout(24 * 3600)
def test_every_rule_comes_up() -> None:
    rules: Counter[str] = Counter()
    for seed in range(600):
        rules.update(live_through(Generator(seed).scenario()).rules)
        if rules.keys() >= RULES:
            return
    pytest.fail(f"never used: {sorted(RULES - rules.keys())}")
