"""Chunks as objects: how plain bytes are stored, and back. Pure.

The decision to compress depends on the bytes alone, so that equal chunks give equal objects on every device; only a link
that is faster than zstd (the caller knows) overrides it. Everything here takes CPU and is meant for worker threads; zstd and
SHA-256 release the interpreter.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import zstandard

from remote import encoding
from remote.api import Corrupt
from remote.manifest import ChunkRef, Encoding

LEVEL = 3
TRY_MIN = 4096
"""Smaller chunks are not tried: a frame's header and a system call cost more than they save."""
SAMPLE = 64 * 1024
WORTH = 0.95
"""Compressed to at most this share of the plain size, or stored raw."""

_COMPRESSED_MAGIC = (
    (0, b"\xff\xd8\xff"),  # JPEG
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"GIF8"),
    (8, b"WEBP"),
    (4, b"ftyp"),  # MP4, MOV, HEIC, AVIF
    (0, b"\x1aE\xdf\xa3"),  # Matroska, WebM
    (0, b"OggS"),
    (0, b"fLaC"),
    (0, b"ID3"),
    (0, b"PK\x03\x04"),  # ZIP and what is made of it: office documents, JAR, APK
    (0, b"\x1f\x8b"),  # gzip
    (0, b"BZh"),
    (0, b"\xfd7zXZ\x00"),
    (0, b"7z\xbc\xaf\x27\x1c"),
    (0, b"\x28\xb5\x2f\xfd"),  # zstd
    (0, b"\x04\x22\x4d\x18"),  # lz4
    (0, b"Rar!\x1a\x07"),
)


@dataclass(frozen=True, slots=True)
class EncodedObject:
    """An object ready to be sent; `ref` is the whole of it."""

    ref: ChunkRef
    stored: bytes


def is_known_compressed(plain: bytes | bytearray | memoryview) -> bool:
    """Whether the first bytes are those of a format that is compressed already."""
    head = bytes(plain[:16])
    return any(head.startswith(magic, at) for at, magic in _COMPRESSED_MAGIC)


def encode(plain: bytes | bytearray | memoryview, sha256: bytes | None = None, *, raw: bool = False) -> EncodedObject:
    """`plain` (whose SHA-256 may be known) as an object. `raw`: do not try to compress."""
    stored = None if raw else _compressed(plain)
    if stored is None:
        id_ = sha256 or hashlib.sha256(plain).digest()
        return EncodedObject(ChunkRef.whole(id_, len(plain), len(plain), Encoding.RAW), bytes(plain))
    return EncodedObject(ChunkRef.whole(hashlib.sha256(stored).digest(), len(plain), len(stored), Encoding.ZSTD), stored)


def decode(stored: bytes | bytearray, ref: ChunkRef) -> bytes | bytearray:
    """The plain bytes of the object of `ref`. Its stored bytes were verified; `Corrupt` if they are not what `ref` says."""
    try:
        return encoding.decode(stored, ref)
    except encoding.BadObject as error:
        raise Corrupt(str(error)) from error


def _compressed(plain: bytes | bytearray | memoryview) -> bytes | None:
    size = len(plain)
    if size < TRY_MIN or is_known_compressed(plain):
        return None
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    if size > 2 * SAMPLE:
        middle = (size - SAMPLE) // 2  # headers at the beginning compress well whatever comes after them
        if len(compressor.compress(plain[middle : middle + SAMPLE])) > SAMPLE * WORTH:
            return None
    stored = compressor.compress(plain)
    return stored if len(stored) <= size * WORTH else None
