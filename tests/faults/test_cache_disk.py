"""The chunk cache on a disk that is full: what is there stays and can be read, and nothing is tried without end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.chunks import Chunks
from tests.faults.disks import MIB, SmallDisk, small_disk

PLAIN = os.urandom(100_000)
OBJECT = hashlib.sha256(PLAIN).digest()
ANOTHER = hashlib.sha256(b"another").digest()


@pytest.fixture
def disk(folder: Path) -> Iterator[SmallDisk]:
    with small_disk(folder / "disk", 8 * MIB) as disk:
        yield disk


def cache_on(disk: SmallDisk) -> Chunks:
    return Chunks(disk.path / "cache", 4 * MIB, keep_free=0.0)


async def can_be_read(chunks: Chunks) -> bool:
    opened = await chunks.open(OBJECT, len(PLAIN))
    return opened is not None and opened.read(0, len(PLAIN)) == PLAIN


@pytest.mark.parametrize("pinned", [True, False])
async def test_what_is_there_can_be_read(disk: SmallDisk, pinned: bool) -> None:
    """Though it cannot be noted that it was read."""
    chunks = cache_on(disk)
    assert await chunks.put(OBJECT, PLAIN, pinned=pinned)
    disk.fill_up()
    assert await can_be_read(chunks)
    assert not await chunks.put(ANOTHER, bytes(200_000))
    chunks.close()


async def test_a_start_throws_nothing_away(disk: SmallDisk) -> None:
    """Not even if the cache cannot be opened then: it is there when there is room."""
    chunks = cache_on(disk)
    assert await chunks.put(OBJECT, PLAIN, pinned=True)
    chunks.close()
    disk.fill_up()
    chunks = cache_on(disk)
    await chunks.open(OBJECT, len(PLAIN))
    assert not await chunks.put(ANOTHER, bytes(200_000))
    disk.empty()
    assert await can_be_read(chunks)
    assert await chunks.put(ANOTHER, bytes(200_000))
    chunks.close()
