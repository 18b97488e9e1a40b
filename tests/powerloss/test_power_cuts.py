"""Power cuts at random moments of a recorded run: the promises hold on every disk that they could leave; and each sync is needed.

The run is recorded anew each time, with its own timing: a failure says the moment, the models and the seed of what survived.
"""

from __future__ import annotations

import fnmatch
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.powerloss import cuts
from tests.powerloss.cuts import Cut, Run
from tests.powerloss.replay import Model

DEFAULT_CUTS = 20
LONG_CUTS = 300
TRIES = 40
"""Cuts of which one has to show that a sync is missing."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory, where there is room: what is on it is written and read often."""
    in_memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="aloft-powerloss-", dir=in_memory if in_memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    (folder / "recorded").mkdir()
    return cuts.record(folder / "recorded", seed=1, steps=45)


@pytest.fixture(scope="module")
def long_run(folder: Path) -> Run:
    """In which the replica's log is emptied and begun anew several times."""
    (folder / "long").mkdir()
    return cuts.record(folder / "long", seed=2, steps=120)


async def look_at(run: Run, chosen: list[Cut], folder: Path) -> list[str]:
    outcomes = [await cuts.look(run, cut, folder / "cut") for cut in chosen]
    return [f"{outcome.cut}: {line}" for outcome in outcomes for line in outcome.wrong]


@pytest.mark.timeout(900)
async def test_promises_hold_after_power_cuts(run: Run, folder: Path) -> None:
    assert await look_at(run, cuts.choose(run, DEFAULT_CUTS, seed=1), folder) == []


FORGOTTEN = {
    "the bytes of a draft": ("fsync", "home/drafts/*"),
    "the name of a draft": ("fsyncdir", "home/drafts"),
    "the rows of the replica": ("fsync", "home/replica.db-wal"),
    "the replica's file": ("fsync", "home/replica.db"),
    "the names in the home": ("fsyncdir", "home"),
    "the home's own name": ("fsyncdir", ""),
    "the credentials": ("fsync", "home/credentials.json.new"),
    "the bytes of an object": ("fsync", "service/objects/incoming/*"),
    "the name of an object": ("fsyncdir", "service/objects/*/*"),
    "the name of a shard's folder": ("fsyncdir", "service/objects/*"),
    "the name of an owner's folder": ("fsyncdir", "service/objects"),
    "the rows of the service": ("fsync", "service/aloft.db-wal"),
    "the service's file": ("fsync", "service/aloft.db"),
    "the master key": ("fsync", "service/master.key.new"),
    "what the folder of objects says of itself": ("fsync", "service/objects/about.json.new"),
    "the names in the data folder": ("fsyncdir", "service"),
}


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("forgotten", FORGOTTEN)
async def test_a_forgotten_sync_is_noticed(long_run: Run, folder: Path, forgotten: str) -> None:
    sync, pattern = FORGOTTEN[forgotten]
    parts = pattern.split("/")

    def forgets(kind: str, path: str) -> bool:
        names = path.split("/")
        return kind == sync and len(names) == len(parts) and all(map(fnmatch.fnmatchcase, names, parts))

    for cut in cuts.choose(long_run, TRIES, seed=2):
        model = cut.service if pattern.startswith("service") else cut.home
        if model is not Model.LATEST and (await cuts.look(long_run, cut, folder / "cut", forgets)).wrong:
            return
    pytest.fail(f"{TRIES} cuts did not show that {forgotten} was not synced")


@pytest.mark.long
@pytest.mark.timeout(7200)
async def test_promises_hold_after_hundreds_of_power_cuts(long_run: Run, folder: Path) -> None:
    assert await look_at(long_run, cuts.choose(long_run, LONG_CUTS, seed=3), folder) == []
