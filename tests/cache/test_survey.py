"""A local file as it will be stored: the same chunks however it is read, and the name of each comes out again."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.chunking import MEDIUM_SPLIT, cut
from cache.encoding import decode
from cache.errors import NotTransferred
from cache.survey import encode_again, survey
from remote.manifest import Encoding

MIB = 2**20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.fixture
def descriptor(path: Path) -> Iterator[int]:
    opened = os.open(path, os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def nothing(_count: int) -> None:
    """Hears how far it is."""


def test_the_chunks_are_those_of_fastcdc_over_the_whole(descriptor: int) -> None:
    content = random.Random(7).randbytes(20 * MIB) + b"text " * MIB
    os.write(descriptor, content)
    heard: list[int] = []
    found = survey(descriptor, heard.append)
    expected = cut(memoryview(content), len(content), MEDIUM_SPLIT, final=True, whole=False)
    assert [(chunk.offset, chunk.ref.length) for chunk in found.chunks] == [(p.start, p.end - p.start) for p in expected]
    assert (found.size, found.sha256, found.split) == (len(content), hashlib.sha256(content).digest(), MEDIUM_SPLIT)
    assert {chunk.ref.encoding for chunk in found.chunks} == {Encoding.RAW, Encoding.ZSTD}
    assert sum(heard) == len(content)
    for chunk in found.chunks:
        encoded = encode_again(descriptor, chunk)
        assert hashlib.sha256(encoded.stored).digest() == chunk.ref.object_id
        assert decode(encoded.stored, encoded.ref) == content[chunk.offset : chunk.offset + chunk.ref.length]


def test_a_small_file_is_its_content(descriptor: int) -> None:
    os.write(descriptor, b"hello")
    found = survey(descriptor, nothing)
    assert (found.content, found.chunks, found.sha256) == (b"hello", (), hashlib.sha256(b"hello").digest())


def test_holes_are_zeros(descriptor: int) -> None:
    os.pwrite(descriptor, b"x" * 100_000, 8 * MIB)
    os.ftruncate(descriptor, 16 * MIB)
    found = survey(descriptor, nothing)
    zeros = [chunk for chunk in found.chunks if chunk.ref.encoding is Encoding.ZEROS]
    assert sum(chunk.ref.length for chunk in zeros) > 15 * MIB
    assert sum(chunk.ref.length for chunk in found.chunks) == 16 * MIB
    whole = bytes(8 * MIB) + b"x" * 100_000 + bytes(8 * MIB - 100_000)
    assert found.sha256 == hashlib.sha256(whole).digest()


def test_a_file_that_changes_is_not_taken(descriptor: int, path: Path) -> None:
    os.write(descriptor, os.urandom(3 * MIB))
    with pytest.raises(NotTransferred, match="changed"):
        survey(descriptor, lambda _: os.utime(path, ns=(1, 1)))
    with pytest.raises(NotTransferred, match="changed"):
        survey(descriptor, lambda _: os.truncate(path, 10))
    os.ftruncate(descriptor, 3 * MIB)
    chunk = survey(descriptor, nothing).chunks[0]
    os.pwrite(descriptor, b"other", chunk.offset)
    found = survey(descriptor, nothing)
    os.pwrite(descriptor, b"again", found.chunks[0].offset)
    with pytest.raises(NotTransferred, match="changed"):
        encode_again(descriptor, found.chunks[0])
