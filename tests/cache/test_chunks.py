"""The chunk cache: under its limit, least recently used goes first, damage is noticed, nothing is pickled."""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.chunks import BytesDisk, ChunkCache, Chunks

KIB, MIB = 2**10, 2**20


def chunk(number: int, size: int = 100 * KIB) -> tuple[bytes, bytes]:
    plain = random.Random(number).randbytes(size)
    return hashlib.sha256(plain).digest(), plain


@pytest.fixture
def chunks(tmp_path: Path) -> Iterator[Chunks]:
    chunks = Chunks(tmp_path / "cache", 2 * MIB, keep_free=0.0)
    yield chunks
    chunks.close()


def files_of(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "chunks").rglob("*.val"))


async def reopened(tmp_path: Path, limit: int = 2 * MIB) -> Chunks:
    return Chunks(tmp_path / "cache", limit, keep_free=0.0)


@pytest.mark.parametrize("size", [1, 5000, 100 * KIB, 3 * MIB])
async def test_what_was_put_is_read(tmp_path: Path, size: int) -> None:
    chunks = Chunks(tmp_path / "cache", 20 * MIB, keep_free=0.0)
    id_, plain = chunk(1, size)
    assert await chunks.open(id_, size) is None
    assert await chunks.put(id_, plain)
    opened = await chunks.open(id_, size)
    assert opened is not None
    assert opened.read(0, size) == plain
    assert opened.read(size // 2, 10) == plain[size // 2 : size // 2 + 10]
    assert chunks.hot(id_) is opened
    chunks.close()


async def test_it_survives_a_restart_and_takes_any_buffer(tmp_path: Path, chunks: Chunks) -> None:
    id_, plain = chunk(1)
    await chunks.put(id_, memoryview(bytearray(plain)))
    again = await reopened(tmp_path)
    opened = await again.open(id_, len(plain))
    assert opened is not None
    assert opened.read(0, len(plain)) == plain
    again.close()


async def test_it_stays_under_its_limit(tmp_path: Path, chunks: Chunks) -> None:
    for number in range(60):
        await chunks.put(*chunk(number))
        assert sum(path.stat().st_size for path in files_of(tmp_path)) <= 2 * MIB
    assert (await chunks.use()).evictable <= 2 * MIB
    assert chunks.has(chunk(59)[0])
    assert not chunks.has(chunk(0)[0])


async def test_what_was_opened_lately_stays(tmp_path: Path) -> None:
    cache = ChunkCache(tmp_path / "cache", 4 * MIB, 0.0)
    first_id, first = chunk(0)
    cache.put(first_id, first)
    for number in range(1, 100):
        cache.put(*chunk(number))
        assert cache.open(first_id, len(first)) is not None
    cache.close()


async def test_a_smaller_limit_is_obeyed_at_once(chunks: Chunks) -> None:
    for number in range(15):
        await chunks.put(*chunk(number))
    await chunks.set_limit(MIB // 2)
    assert (await chunks.use()).evictable <= MIB // 2


async def test_more_than_the_limit_is_not_kept(chunks: Chunks) -> None:
    assert not await chunks.put(*chunk(1, 3 * MIB))


@pytest.mark.parametrize("damage", ["flip", "shorten", "lengthen", "remove"])
async def test_a_damaged_chunk_is_dropped(tmp_path: Path, chunks: Chunks, damage: str) -> None:
    id_, plain = chunk(1)
    await chunks.put(id_, plain)
    (path,) = files_of(tmp_path)
    if damage == "flip":
        path.write_bytes(plain[:50] + bytes([plain[50] ^ 1]) + plain[51:])
    elif damage == "shorten":
        os.truncate(path, 1000)
    elif damage == "lengthen":
        path.write_bytes(plain + b"x")
    else:
        path.unlink()
    assert await chunks.open(id_, len(plain)) is None
    assert await chunks.put(id_, plain) or damage == "remove"


async def test_verify_finds_and_drops_damage(tmp_path: Path, chunks: Chunks) -> None:
    for number in range(4):
        await chunks.put(*chunk(number))
    path = files_of(tmp_path)[0]
    path.write_bytes(b"x" * path.stat().st_size)
    assert await chunks.verify() == (4, 1)
    assert await chunks.verify() == (3, 0)


async def test_a_chunk_that_is_culled_while_it_is_open_can_still_be_read(chunks: Chunks) -> None:
    id_, plain = chunk(0)
    await chunks.put(id_, plain)
    opened = await chunks.open(id_, len(plain))
    await chunks.evict([id_])
    assert opened is not None
    assert opened.read(0, len(plain)) == plain
    assert chunks.hot(id_) is None


async def test_pinned_chunks_are_never_culled(chunks: Chunks) -> None:
    pinned = [chunk(number) for number in range(1000, 1030)]
    for id_, plain in pinned:
        assert await chunks.put(id_, plain, pinned=True)
    for number in range(60):
        await chunks.put(*chunk(number))
    assert await chunks.missing({id_: len(plain) for id_, plain in pinned}, pinned=True) == []
    await chunks.evict([id_ for id_, _ in pinned])
    assert await chunks.missing({id_: len(plain) for id_, plain in pinned}) == []


async def test_a_chunk_moves_between_pinned_and_evictable(chunks: Chunks) -> None:
    id_, plain = chunk(1)
    assert not await chunks.set_pinned(id_, len(plain))
    await chunks.put(id_, plain)
    assert await chunks.set_pinned(id_, len(plain))
    assert await chunks.pinned_ids() == [id_]
    assert await chunks.evict([id_]) == 0
    await chunks.unpin(id_)
    assert await chunks.pinned_ids() == []
    assert await chunks.evict([id_]) == 1


async def test_a_full_disk_means_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: Chunks) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    id_, plain = chunk(1)
    monkeypatch.setattr(os, "pwrite", full)
    assert not await chunks.put(id_, plain)
    await chunks.put_open(id_, plain)
    monkeypatch.undo()
    assert files_of(tmp_path) == []
    lent = chunks.hot(id_)  # who waits for it reads it from memory
    assert lent is not None
    assert lent.read(10, 10) == plain[10:20]
    assert await chunks.set_pinned(id_, len(plain)), "there is room by now, and the bytes are here"
    assert await chunks.pinned_ids() == [id_]


@pytest.mark.parametrize("name", ["chunks", "chunks/cache.db"])
async def test_what_is_of_another_kind_is_made_anew(tmp_path: Path, name: str) -> None:
    place = tmp_path / "cache" / name
    place.parent.mkdir(parents=True)
    if name == "chunks":
        place.write_bytes(b"a file where a folder has to be")
    else:
        place.mkdir()
    chunks = await reopened(tmp_path)
    id_, plain = chunk(1)
    assert await chunks.put(id_, plain)
    assert await chunks.open(id_, len(plain)) is not None
    chunks.close()


async def test_a_part_of_the_disk_is_left_free(tmp_path: Path) -> None:
    chunks = Chunks(tmp_path / "cache", 2**40, keep_free=1.0)
    assert not await chunks.put(*chunk(1))
    chunks.close()


async def test_a_database_that_is_no_database_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "chunks"
    folder.mkdir(parents=True)
    (folder / "cache.db").write_bytes(b"this is not a database, and long enough to be looked at" * 100)
    chunks = await reopened(tmp_path)
    id_, plain = chunk(1)
    assert await chunks.put(id_, plain)
    assert await chunks.open(id_, len(plain)) is not None
    chunks.close()


async def test_nothing_is_ever_unpickled(tmp_path: Path, chunks: Chunks) -> None:
    id_, plain = chunk(1, 100)
    await chunks.put(id_, plain)
    with sqlite3.connect(tmp_path / "cache" / "chunks" / "cache.db") as sql:
        sql.execute("UPDATE Cache SET mode = 4, value = ?", (b"cos\nsystem\n(S'exit 1'\ntR.",))
    sql.close()
    assert await chunks.open(id_, len(plain)) is None
    with pytest.raises(TypeError):
        BytesDisk(str(tmp_path)).put("a key that is no id")


async def test_few_descriptors_stay_open(tmp_path: Path) -> None:
    chunks = Chunks(tmp_path / "cache", 2**30, keep_free=0.0)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(400):
        id_, plain = chunk(number, 9000)
        await chunks.put(id_, plain)
        await chunks.open(id_, len(plain))
    assert len(os.listdir("/proc/self/fd")) - before < 300
    chunks.close()


async def test_what_a_killed_process_left_goes_and_what_is_being_written_stays(tmp_path: Path, chunks: Chunks) -> None:
    id_, plain = chunk(1)
    await chunks.put(id_, plain)
    left = tmp_path / "cache" / "chunks" / "ab" / "cd" / "left.val"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(1000))
    await chunks.drop_strays(0.0)
    assert not left.exists()
    assert len(files_of(tmp_path)) == 1
    assert await (await reopened(tmp_path)).open(id_, len(plain)) is not None


def test_a_file_that_gets_its_row_meanwhile_was_no_stray(tmp_path: Path) -> None:
    cache = ChunkCache(tmp_path / "cache" / "chunks", None, 0.0)
    id_, plain = chunk(1)
    cache.put(id_, plain)
    written = {str(path.relative_to(tmp_path / "cache" / "chunks")) for path in files_of(tmp_path)}
    cache.drop_strays(written)
    assert cache.open(id_, len(plain)) is not None
    cache.close()
