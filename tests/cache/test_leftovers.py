"""The replica forgets what it need not know: it does not grow with every save."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cache import leftovers
from cache.leftovers import Leftovers
from remote.manifest import ChunkRef, Encoding, Manifest, manifest_id
from tests.support.contents import Contents
from tests.support.memory_service import MemoryService

EVERYTHING = (0, b"")


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return Contents(tmp_path / "home", MemoryService())


async def save(contents: Contents, ino: int, text: str) -> bytes:
    """Write, upload and acknowledge; the id of the manifest."""
    await contents.write(ino, text.encode())
    await contents.push(ino)
    row = contents.store.content(ino)
    assert row is not None
    assert row.manifest_id is not None
    return row.manifest_id


async def test_the_manifest_of_a_content_that_was_replaced_goes(contents: Contents) -> None:
    async with contents.running():
        ino, other = contents.create("file"), contents.create("other")
        kept = await save(contents, other, "stays")
        old = [await save(contents, ino, f"version {number}") for number in range(20)]
        await Leftovers(contents.store, contents.files).tidy()
        assert [id_ for id_ in old if contents.store.manifest(id_) is not None] == old[-1:]
        assert contents.store.manifest(kept) is not None
        assert await contents.read(ino) == b"version 19"


async def test_the_hand_comes_round_to_all_of_them(contents: Contents) -> None:
    async with contents.running():
        ino = contents.create("file")
        current = await save(contents, ino, "the content")
        orphans = [Manifest.from_inline(f"{number}".encode()).encode() for number in range(3 * leftovers.LOOK_AT_ONCE)]
        contents.store.put_manifests((manifest_id(data), data) for data in orphans)
        hand = Leftovers(contents.store, contents.files)
        for _ in range(3):
            await hand.tidy()
        assert not any(contents.store.manifest(manifest_id(data)) for data in orphans)
        assert contents.store.manifest(current) is not None


async def test_what_a_change_that_waits_speaks_of_stays(contents: Contents) -> None:
    async with contents.running():
        ino = contents.create("file")
        base = await save(contents, ino, "base")
        await contents.write(ino, b"not acknowledged yet")
        sent = await contents.wait_complete(ino)
        await Leftovers(contents.store, contents.files).tidy()
        assert contents.store.manifest(base) is not None
        assert contents.store.manifest(manifest_id(sent.encode())) is not None
        contents.acknowledge(ino)


async def test_a_file_that_is_open_keeps_the_manifest_of_what_it_opened(contents: Contents) -> None:
    """Another device replaced the content, and there is no connection: the handle reads on."""
    async with contents.running():
        ino = contents.create("file")
        await save(contents, ino, "opened")
        file = contents.files.open(ino, writable=False)
        with contents.database.transaction():
            new = Manifest.from_inline(b"from elsewhere").encode()
            contents.store.put_manifests([(manifest_id(new), new)])
            contents.tree.update_inode(ino, manifest_id=manifest_id(new), manifest_size=14, size=14)
        contents.files.content_replaced(ino)
        await Leftovers(contents.store, contents.files).tidy()
        contents.switch.turn(on=False)
        assert await file.read(0, 100) == b"opened"
        file.release()
        await Leftovers(contents.store, contents.files).tidy()
        assert contents.store.manifest(manifest_id(Manifest.from_inline(b"opened").encode())) is None


async def test_known_chunks_are_forgotten_beyond_their_number(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "KNOWN_CHUNKS_MAX", 500)
    ref = ChunkRef.whole(bytes(32), 10, 10, Encoding.RAW)
    chunks = [(hashlib.sha256(f"{number}".encode()).digest(), ref) for number in range(1500)]
    contents.store.remember_chunks(1, chunks)
    hand = Leftovers(contents.store, contents.files)
    for _ in range(2 * len(chunks) // leftovers.LOOK_AT_ONCE + 2):
        await hand.tidy()
    left = contents.store.known_chunks(EVERYTHING, 10_000)
    assert 400 <= len(left) <= 510
    assert all(contents.store.known_chunk(space, sha256) == ref for space, sha256 in left)
    contents.close()
