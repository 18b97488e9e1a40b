"""Cutting: an edit re-cut around what changed is a valid manifest of the right bytes, made mostly of old chunks."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.chunking import (
    LARGE_SPLIT,
    MEDIUM_MAX,
    MEDIUM_SPLIT,
    SMALL_SPLIT,
    ZERO_RUN,
    Changes,
    Keep,
    Look,
    Rechunking,
    Zeros,
    changes_of,
    choose_split,
    cut,
)
from cache.extents import Extents, Held
from remote.manifest import NO_OBJECT, ChunkRef, Encoding, Manifest, Split

KIB, MIB, GIB = 2**10, 2**20, 2**30
TINY = Split(2 * KIB, 8 * KIB, 32 * KIB)
POOL = random.Random(1).randbytes(4 * MIB)


class Cutter:
    """Keeps plain chunks by their hash, as a service would; counts what was looked at."""

    def __init__(self) -> None:
        self.objects: dict[bytes, bytes] = {}
        self.looked_at = 0
        self.new: list[bytes] = []

    def manifest(self, content: bytes, changes: Changes, split: Split, base: Manifest | None) -> Manifest:
        plan = Rechunking(changes, split, base)
        refs: list[ChunkRef] = []
        position, buffer = 0, bytearray()
        while position < changes.size:
            step = plan.step(position, position + len(buffer))
            if isinstance(step, Keep):
                refs.append(step.ref)
                position += step.ref.length
            elif isinstance(step, Zeros):
                refs.append(ChunkRef.zeros(step.length))
                position += step.length
            else:
                position, buffer = self._look(content, step, split, position, buffer, refs, whole=plan.is_whole)
        return Manifest.from_chunks(split, tuple(refs))

    def _look(
        self, content: bytes, step: Look, split: Split, position: int, buffer: bytearray, refs: list[ChunkRef], *, whole: bool
    ) -> tuple[int, bytearray]:
        have = position + len(buffer)
        assert step.end > have
        self.looked_at += step.end - have
        buffer += content[have : step.end]
        used = 0
        for piece in cut(memoryview(buffer + b"?"), len(buffer), split, final=step.final, whole=whole):
            assert piece.start == used
            plain = bytes(buffer[piece.start : piece.end])
            assert hashlib.sha256(plain).digest() == piece.sha256
            if piece.sha256 not in self.objects:
                self.new.append(piece.sha256)
            self.objects[piece.sha256] = plain
            refs.append(ChunkRef.whole(piece.sha256, len(plain), len(plain), Encoding.RAW))
            used = piece.end
        return position + used, buffer[used:]

    def content(self, manifest: Manifest) -> bytes:
        return b"".join(
            bytes(ref.length) if ref.object_id == NO_OBJECT else self.objects[ref.object_id] for ref in manifest.chunks
        )


def all_new(content: bytes) -> Changes:
    return Changes(len(content), (), ())


def small_window(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("cache.chunking.WINDOW", size)


edits = st.lists(
    st.tuples(st.sampled_from(["write", "zeros", "truncate"]), st.integers(0, 700 * KIB), st.integers(1, 150 * KIB)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 600 * KIB), edits)
def test_an_edited_content_has_a_right_manifest(size: int, todo: list[tuple[str, int, int]]) -> None:
    cutter = Cutter()
    old = POOL[:size]
    base = cutter.manifest(old, all_new(old), TINY, None)
    assert cutter.content(base) == old
    content, extents, floor = bytearray(old), Extents(), size
    for number, (what, offset, length) in enumerate(todo):
        if what == "truncate":
            del content[offset:]
            content += bytes(offset - len(content))
            extents.cut(offset)
            floor = min(floor, offset)
        else:
            data = random.Random(number).randbytes(length) if what == "write" else bytes(length)
            content += bytes(max(0, offset - len(content)))
            content[offset : offset + length] = data
            extents.put(offset, offset + length, Held.DATA if what == "write" else Held.ZEROS)
    changes = changes_of(len(content), floor, extents)
    manifest = cutter.manifest(bytes(content), changes, TINY, base)
    assert manifest.size == len(content)
    assert cutter.content(manifest) == content
    for ref in manifest.chunks:
        assert ref.encoding is Encoding.ZEROS or ref.length <= TINY.maximum


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3 * MIB - 1), st.integers(1, 2000))
def test_a_small_edit_of_a_large_content_looks_only_around_it(offset: int, length: int) -> None:
    cutter = Cutter()
    old = POOL[: 3 * MIB]
    base = cutter.manifest(old, all_new(old), TINY, None)
    cutter.looked_at, cutter.new = 0, []
    content = bytearray(old)
    content[offset : offset + length] = random.Random(offset).randbytes(length)
    extents = Extents()
    extents.put(offset, offset + length, Held.DATA)
    manifest = cutter.manifest(bytes(content), changes_of(len(content), len(old), extents), TINY, base)
    assert cutter.content(manifest) == content
    assert len(cutter.new) <= 6
    assert cutter.looked_at <= 8 * TINY.maximum
    fresh = cutter.manifest(bytes(content), all_new(bytes(content)), TINY, None)
    assert manifest == fresh  # what was kept is what cutting from the beginning gives


@pytest.mark.parametrize("window", [64 * KIB, 100 * KIB, MIB])
def test_the_window_does_not_change_the_chunks(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    expected = Cutter().manifest(POOL, all_new(POOL), TINY, None)
    small_window(monkeypatch, window)
    assert Cutter().manifest(POOL, all_new(POOL), TINY, None) == expected


def test_an_inserted_byte_makes_one_or_two_new_chunks() -> None:
    cutter = Cutter()
    cutter.manifest(POOL, all_new(POOL), TINY, None)
    cutter.new = []
    changed = POOL[: 2 * MIB] + b"!" + POOL[2 * MIB :]
    cutter.manifest(changed, all_new(changed), TINY, None)
    assert 1 <= len(cutter.new) <= 2


def test_a_growing_log_does_not_collect_tiny_chunks() -> None:
    cutter = Cutter()
    content = POOL[:MIB]
    manifest = cutter.manifest(content, all_new(content), TINY, None)
    for _ in range(50):
        extents = Extents()
        extents.put(len(content), len(content) + 100, Held.DATA)
        grown = POOL[: len(content) + 100]
        manifest = cutter.manifest(grown, changes_of(len(grown), len(content), extents), TINY, manifest)
        content = grown
    assert manifest == cutter.manifest(content, all_new(content), TINY, None)


def test_a_long_hole_is_one_chunk_and_is_not_looked_at() -> None:
    cutter = Cutter()
    extents = Extents()
    extents.put(0, 10, Held.DATA)
    manifest = cutter.manifest(b"0123456789", changes_of(10**15, 0, extents), TINY, None)
    assert manifest.size == 10**15
    assert [ref.encoding for ref in manifest.chunks] == [Encoding.RAW, Encoding.ZEROS]
    assert cutter.looked_at == 10
    extents = Extents()
    extents.put(5 * 10**14, 5 * 10**14 + ZERO_RUN, Held.ZEROS)
    again = cutter.manifest(b"0123456789", changes_of(10**15, 10**15, extents), TINY, manifest)
    assert again == manifest


def test_lost_objects_are_cut_again() -> None:
    cutter = Cutter()
    base = cutter.manifest(POOL, all_new(POOL), TINY, None)
    lost = base.chunks[7].object_id
    plan = Rechunking(changes_of(len(POOL), len(POOL), Extents()), TINY, base, {lost})
    assert isinstance(plan.step(base.offsets[6], 0), Keep)
    assert plan.step(base.offsets[7], 0) == Look(base.offsets[8], False)


@pytest.mark.parametrize(
    ("size", "previous", "slow", "expected"),
    [
        (100, None, False, MEDIUM_SPLIT),
        (MEDIUM_MAX, None, False, MEDIUM_SPLIT),
        (MEDIUM_MAX + 1, None, False, LARGE_SPLIT),
        (MEDIUM_MAX + 1, None, True, MEDIUM_SPLIT),
        (MIB, None, True, SMALL_SPLIT),
        (8 * GIB, MEDIUM_SPLIT, False, MEDIUM_SPLIT),
        (8 * GIB + 1, MEDIUM_SPLIT, False, LARGE_SPLIT),
        (GIB // 8, LARGE_SPLIT, False, LARGE_SPLIT),
        (GIB // 8 - 1, LARGE_SPLIT, False, MEDIUM_SPLIT),
        (100, SMALL_SPLIT, False, SMALL_SPLIT),
        (100, Split(1, 2, 3), False, MEDIUM_SPLIT),
        (100, MEDIUM_SPLIT, True, MEDIUM_SPLIT),
    ],
)
def test_the_split_stays_until_the_size_is_far_off(size: int, previous: Split | None, slow: bool, expected: Split) -> None:
    assert choose_split(size, previous, slow=slow) == expected
