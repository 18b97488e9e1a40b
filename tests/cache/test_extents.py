"""Extents against the plainest model: one mark per byte."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.extents import BadExtents, Extent, Extents, Held

SIZE = 40
kinds = st.sampled_from([Held.DATA, Held.ZEROS, Held.NOTHING, "cut"])
marks = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE), kinds), max_size=25)


def built(steps: list[tuple[int, int, Held | str]]) -> tuple[Extents, list[Held]]:
    extents, model = Extents(), [Held.NOTHING] * SIZE
    for a, b, what in steps:
        start, end = min(a, b), max(a, b)
        if isinstance(what, Held):
            extents.put(start, end, what)
            model[start:end] = [what] * (end - start)
        else:
            extents.cut(start)
            model[start:] = [Held.NOTHING] * (SIZE - start)
    return extents, model


@given(marks)
def test_equals_a_mark_per_byte(steps: list[tuple[int, int, Held | str]]) -> None:
    extents, model = built(steps)
    seen: list[Held] = []
    for piece in extents.pieces(0, SIZE):
        assert piece.start == len(seen)
        seen += [piece.held] * (piece.end - piece.start)
    assert seen == model
    listed = list(extents)
    for left, right in pairwise(listed):
        assert left.end < right.start or (left.end == right.start and left.held is not right.held)
    assert extents.data_bytes == model.count(Held.DATA)
    assert extents.data_end == max((i + 1 for i, held in enumerate(model) if held is Held.DATA), default=0)


@given(marks, st.integers(0, SIZE), st.integers(0, SIZE))
def test_a_window_sees_the_same(steps: list[tuple[int, int, Held | str]], a: int, b: int) -> None:
    extents, model = built(steps)
    start, end = min(a, b), max(a, b)
    seen = [piece.held for piece in extents.pieces(start, end) for _ in range(piece.end - piece.start)]
    assert seen == model[start:end]
    assert extents.holds_data(start, end) == (Held.DATA in model[start:end])


@given(marks)
def test_packed_and_unpacked_are_equal(steps: list[tuple[int, int, Held | str]]) -> None:
    extents, _ = built(steps)
    assert Extents.unpack(extents.pack()) == extents
    assert extents.copy() == extents


def test_writes_in_order_are_one_extent() -> None:
    extents = Extents()
    for start in range(0, 1000, 10):
        extents.put(start, start + 10, Held.DATA)
    assert list(extents) == [Extent(0, 1000, Held.DATA)]


@pytest.mark.parametrize("packed", [b"x", bytes(17), Extents.unpack(b"").pack() + b"\0" * 16 + b"\1"])
def test_nonsense_is_refused(packed: bytes) -> None:
    with pytest.raises(BadExtents):
        Extents.unpack(packed)
