"""Objects: small where it is worth it, and never trusted further than their manifest says."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cache.encoding import decode, encode
from remote.api import Corrupt
from remote.manifest import ChunkRef, Encoding

TEXT = b"".join(b"line %d\n" % n for n in range(50_000))
NOISE = random.Random(0).randbytes(500_000)


@given(st.binary(min_size=1, max_size=20_000))
def test_what_was_encoded_is_decoded(plain: bytes) -> None:
    one = encode(plain)
    assert hashlib.sha256(one.stored).digest() == one.ref.object_id
    assert one.ref.stored_length == len(one.stored)
    assert decode(one.stored, one.ref) == plain


@pytest.mark.parametrize(
    ("plain", "encoding"),
    [
        (TEXT, Encoding.ZSTD),
        (NOISE, Encoding.RAW),
        (b"a" * 4095, Encoding.RAW),
        (b"a" * 4096, Encoding.ZSTD),
        (b"\xff\xd8\xff" + TEXT, Encoding.RAW),
        (b"PK\x03\x04" + TEXT, Encoding.RAW),
        (TEXT[:1000] + NOISE, Encoding.RAW),
    ],
)
def test_the_content_decides(plain: bytes, encoding: Encoding) -> None:
    assert encode(plain).ref.encoding is encoding
    assert encode(memoryview(plain)).ref == encode(plain).ref


def test_a_fast_link_gets_raw_objects() -> None:
    assert encode(TEXT, raw=True).ref.encoding is Encoding.RAW


def stored(plain: bytes, **changed: int) -> tuple[bytes, ChunkRef]:
    body = zstandard.ZstdCompressor().compress(plain)
    ref = ChunkRef.whole(hashlib.sha256(body).digest(), len(plain), len(body), Encoding.ZSTD)
    return body, replace(ref, **changed)


@pytest.mark.parametrize("claimed", [1, len(TEXT) - 1, len(TEXT) + 1])
def test_another_length_than_claimed_is_corrupt(claimed: int) -> None:
    with pytest.raises(Corrupt):
        decode(*stored(TEXT, plain_length=claimed))


def test_a_frame_that_hides_its_size_is_corrupt() -> None:
    body = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
    with pytest.raises(Corrupt):
        decode(body, ChunkRef.whole(bytes(32), len(TEXT), len(body), Encoding.ZSTD))


@pytest.mark.parametrize("body", [b"", b"nonsense that is no frame", zstandard.ZstdCompressor().compress(TEXT)[:-5]])
def test_nonsense_is_corrupt(body: bytes) -> None:
    with pytest.raises(Corrupt):
        decode(body, ChunkRef.whole(bytes(32), len(TEXT), len(body), Encoding.ZSTD))


def test_a_frame_with_something_after_it_is_corrupt() -> None:
    body, ref = stored(TEXT)
    with pytest.raises(Corrupt):
        decode(body + b"more", replace(ref, stored_length=len(body) + 4))
