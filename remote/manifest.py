"""Manifests: the ordered list of a content's chunks, and its binary form. Pure; shared by client and service.

A chunk is a slice of an object's plain bytes. A chunk of a large file is a whole object; the contents of several small
files share one object (a *pack*), each file being a slice of it; a run of zeros needs no object at all.

Binary form, version 1, little endian:

    u8 version (1)   u8 form   u64 size of the content in bytes
    form 0, inline:  the content itself (at most `INLINE_MAX` bytes)
    form 1, chunked: u32 minimum, u32 average, u32 maximum of the split (bytes); u32 count; then per chunk
                     32 bytes object id, u32 plain length of the object, u32 stored length of the object, u8 encoding,
                     u32 start of the slice in the plain object, u64 length of the slice

The manifest's id is the SHA-256 of this form.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate

INLINE_MAX = 4096
OBJECT_PLAIN_MAX = 16 * 2**20
"""No object has more plain bytes than this, so that a decoder knows when to stop."""
OBJECT_STORED_MAX = OBJECT_PLAIN_MAX + 64 * 1024
SIZE_MAX = 2**63 - 1

NO_OBJECT = bytes(32)

_HEAD = struct.Struct("<BBQ")
_SPLIT = struct.Struct("<IIII")
_CHUNK = struct.Struct("<32sIIBIQ")


class BadManifest(ValueError):
    """Bytes that are not a manifest, or a manifest that contradicts itself."""


class Encoding(IntEnum):
    RAW = 0
    ZSTD = 1
    ZEROS = 2
    """No object: the slice is that many zero bytes."""


@dataclass(frozen=True, slots=True)
class Split:
    """FastCDC's parameters, in bytes."""

    minimum: int
    average: int
    maximum: int


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """`length` plain bytes, beginning at `start` of the plain bytes of an object."""

    object_id: bytes
    plain_length: int
    stored_length: int
    encoding: Encoding
    start: int
    length: int

    @classmethod
    def zeros(cls, length: int) -> ChunkRef:
        return cls(NO_OBJECT, 0, 0, Encoding.ZEROS, 0, length)

    @classmethod
    def whole(cls, object_id: bytes, plain_length: int, stored_length: int, encoding: Encoding) -> ChunkRef:
        return cls(object_id, plain_length, stored_length, encoding, 0, plain_length)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One content: either `inline` bytes or `chunks`, never both. `offsets[i]` is where chunk i begins in the content."""

    size: int
    inline: bytes | None
    split: Split
    chunks: tuple[ChunkRef, ...]
    offsets: tuple[int, ...] = field(compare=False)

    @classmethod
    def from_inline(cls, content: bytes) -> Manifest:
        if len(content) > INLINE_MAX:
            raise BadManifest(f"{len(content)} bytes are too many to be inline")
        return cls(len(content), bytes(content), Split(0, 0, 0), (), ())

    @classmethod
    def from_chunks(cls, split: Split, chunks: tuple[ChunkRef, ...]) -> Manifest:
        offsets = tuple(accumulate((c.length for c in chunks), initial=0))
        return cls(offsets[-1], None, split, chunks, offsets[:-1])

    def encode(self) -> bytes:
        if self.inline is not None:
            return _HEAD.pack(1, 0, self.size) + self.inline
        split = self.split
        parts = [_HEAD.pack(1, 1, self.size), _SPLIT.pack(split.minimum, split.average, split.maximum, len(self.chunks))]
        parts += [_CHUNK.pack(c.object_id, c.plain_length, c.stored_length, c.encoding, c.start, c.length) for c in self.chunks]
        return b"".join(parts)

    def chunk_at(self, offset: int) -> int:
        """The index of the chunk that holds the byte at `offset` (0 <= offset < size)."""
        return bisect_right(self.offsets, offset) - 1

    def object_ids(self) -> frozenset[bytes]:
        return frozenset(c.object_id for c in self.chunks if c.encoding is not Encoding.ZEROS)

    def plain_lengths(self) -> dict[bytes, int]:
        """Of the objects, by their ids."""
        return {c.object_id: c.plain_length for c in self.chunks if c.encoding is not Encoding.ZEROS}


def manifest_id(encoded: bytes) -> bytes:
    return hashlib.sha256(encoded).digest()


def decode_manifest(encoded: bytes) -> Manifest:
    """The manifest in `encoded`; `BadManifest` for anything that `Manifest.encode` would not have written."""
    try:
        version, form, size = _HEAD.unpack_from(encoded)
        if version != 1:
            raise BadManifest(f"manifest version {version} is unknown: a newer Aloft wrote it")
        if form == 0:
            content = bytes(encoded[_HEAD.size :])
            if len(content) != size:
                raise BadManifest("the inline content is not as long as the manifest says")
            return Manifest.from_inline(content)
        if form != 1:
            raise BadManifest(f"manifest form {form} is unknown")
        minimum, average, maximum, count = _SPLIT.unpack_from(encoded, _HEAD.size)
        body = memoryview(encoded)[_HEAD.size + _SPLIT.size :]
        if len(body) != count * _CHUNK.size:
            raise BadManifest("the manifest is cut short or has bytes left over")
        chunks = tuple(_decode_chunk(*fields) for fields in _CHUNK.iter_unpack(body))
    except struct.error as error:
        raise BadManifest("the manifest is cut short") from error
    manifest = Manifest.from_chunks(Split(minimum, average, maximum), chunks)
    if manifest.size != size or size > SIZE_MAX:
        raise BadManifest("the chunks do not add up to the size")
    return manifest


def _decode_chunk(object_id: bytes, plain: int, stored: int, encoding: int, start: int, length: int) -> ChunkRef:
    if encoding not in (0, 1, 2):
        raise BadManifest(f"encoding {encoding} is unknown: a newer Aloft wrote it")
    ref = ChunkRef(object_id, plain, stored, Encoding(encoding), start, length)
    if length == 0:
        raise BadManifest("a chunk is empty")
    if ref.encoding is Encoding.ZEROS:
        if ref != ChunkRef.zeros(length):
            raise BadManifest("a run of zeros names an object")
    elif not (0 < plain <= OBJECT_PLAIN_MAX and 0 < stored <= OBJECT_STORED_MAX and start + length <= plain):
        raise BadManifest("a chunk reaches outside its object")
    elif ref.encoding is Encoding.RAW and plain != stored:
        raise BadManifest("a raw object has two lengths")
    return ref
