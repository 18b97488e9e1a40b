"""Decoded manifests are kept in memory only as far as they fit, inline contents included."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from cache import manifests
from cache.manifests import Manifests
from cache.store.content import ContentStore
from cache.store.database import Database
from remote.manifest import INLINE_MAX, Manifest, manifest_id
from tests.support.memory_service import MemoryService, Switch

MIB = 2**20


def test_small_files_that_are_read_do_not_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "IN_MEMORY_MAX", MIB)
    database = Database.open(tmp_path / "replica.db")
    store = ContentStore(database)
    encoded = [Manifest.from_inline(number.to_bytes(4) * (INLINE_MAX // 4)).encode() for number in range(2000)]
    ids = [manifest_id(data) for data in encoded]
    store.put_manifests(zip(ids, encoded, strict=True))
    del encoded
    kept = Manifests(store, MemoryService(), Switch())
    tracemalloc.start()
    try:
        for id_ in ids:
            assert kept.here(id_) is not None
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 2 * MIB
    database.close()
