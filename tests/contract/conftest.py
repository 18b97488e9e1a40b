"""Real object stores for tests that ask for them: each is started once, when the first test wants it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ceph import start_ceph
from tests.support.stores import RunningStore
from tests.support.swift import start_swift

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def store_folder() -> Iterator[Path]:
    """In memory where that can be: monitors and databases sync a lot."""
    folder = Path(tempfile.mkdtemp(prefix="aloft-stores-", dir=MEMORY if MEMORY.is_dir() else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ceph(store_folder: Path) -> Iterator[RunningStore]:
    store = start_ceph(store_folder / "ceph")
    store.make_bucket()
    yield store
    store.servers.stop()


@pytest.fixture(scope="session")
def swift(store_folder: Path) -> Iterator[RunningStore]:
    store = start_swift(store_folder / "swift")
    store.make_bucket()
    yield store
    store.servers.stop()


@pytest.fixture(scope="session", params=["swift", "ceph"])
def real(request: pytest.FixtureRequest) -> RunningStore:
    """Each of the real stores."""
    store: RunningStore = request.getfixturevalue(request.param)
    return store
