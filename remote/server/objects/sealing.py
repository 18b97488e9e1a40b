"""Encryption of stored objects: AES-256-GCM, a key for each object, wrapped by a master key. Bytes only: knows no files.

An object is cut into segments of 64 KiB, so that a part of it can be read; each is sealed under the object's own key with its
number as the nonce. The object's key is used for one object once, so no nonce comes twice. The wrapped key is bound to the
object's length and SHA-256: an object that was cut short, or put in another's place, does not open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SEGMENT = 2**16
"""Plain bytes in a segment; the last may have less."""
TAG = 16
"""Bytes by which a sealed segment is longer."""
SECRET = 32
"""Bytes of a key."""
KEY_ID = 8
WRAP_NONCE = 12
WRAPPED = SECRET + TAG

Buffer = bytes | bytearray | memoryview


class DoesNotOpen(Exception):
    """Bytes that were not sealed under this key, or are damaged."""


def sealed_length(length: int) -> int:
    return length + TAG * -(-length // SEGMENT)


class ObjectKey:
    """Seals and opens the segments of one object, which has `length` plain bytes."""

    def __init__(self, secret: bytes, length: int) -> None:
        self.secret = secret
        self._cipher = AESGCM(secret)
        self._length = length

    def seal(self, number: int, plain: Buffer) -> bytes:
        return self._cipher.encrypt(_nonce(number), plain, None)

    def segments(self, offset: int, length: int) -> range:
        """Those in which these plain bytes lie."""
        end = min(offset + length, self._length)
        return range(offset // SEGMENT, -(-end // SEGMENT)) if offset < end else range(0)

    def open(self, numbers: range, sealed: Buffer) -> Iterator[bytes]:
        """The plain bytes of successive segments. `DoesNotOpen`."""
        rest = memoryview(sealed)
        for number in numbers:
            size = min(SEGMENT, self._length - number * SEGMENT) + TAG
            try:
                yield self._cipher.decrypt(_nonce(number), rest[:size], None)
            except InvalidTag:
                raise DoesNotOpen(f"segment {number} is damaged") from None
            rest = rest[size:]


@dataclass(frozen=True, slots=True)
class MasterKey:
    """Wraps the keys of objects. Its id says nothing of it, and shows whether it is whole."""

    secret: bytes
    created_ns: int
    retired_ns: int | None = None
    """When another one took over; None: it wraps."""

    @property
    def id(self) -> bytes:
        return hashlib.sha256(b"aloft master key\0" + self.secret).digest()[:KEY_ID]

    def wrap(self, secret: bytes, nonce: bytes, about: bytes) -> bytes:
        return AESGCM(self.secret).encrypt(nonce, secret, about + self.id)

    def unwrap(self, wrapped: bytes, nonce: bytes, about: bytes) -> bytes:
        """`DoesNotOpen`."""
        try:
            return AESGCM(self.secret).decrypt(nonce, wrapped, about + self.id)
        except InvalidTag:
            raise DoesNotOpen("its wrapped key is damaged") from None


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")
