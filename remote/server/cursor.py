"""Cursors: how far a device has followed each of its spaces, as text that only the service reads. Pure.

A space's position is (revision, table, key) of the last row that was sent; in a full listing it also holds the revision at
which the listing began. A cursor grants nothing (membership is checked at every page), so it is checked, not signed.

    u8 version   16 bytes epoch   u16 count   per space: 16 bytes id, u8 full, u64 start, u32 total, u64 revision, u8 table,
    u16 length and bytes of the key   at the end 4 bytes of the SHA-256 of all before
"""

from __future__ import annotations

import hashlib
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

CURSOR_MAX = 48 * 1024
_HEAD = struct.Struct("<B16sH")
_SPACE = struct.Struct("<16sBQIQBH")
_SUM = 4
_REVISION_MAX = 2**63 - 1


class BadCursor(ValueError):
    """Not a cursor that this service made."""


class Table(IntEnum):
    INODES = 0
    ENTRIES = 1
    END = 2
    """All rows of the revision were sent."""


@dataclass(frozen=True, slots=True)
class Position:
    rev: int
    table: Table = Table.END
    key: tuple[bytes, str] = (b"", "")
    """The inode's id and "", or the entry's folder and name."""
    full: bool = False
    start: int = 0
    total: int = 0

    @property
    def told_until(self) -> int:
        """Of all that was removed after this revision, the holder has yet to hear. (A listing brings what was removed after
        it began; a page may have ended in the middle of a revision.)"""
        if self.full:
            return self.start
        return self.rev if self.table is Table.END else self.rev - 1


@dataclass(frozen=True, slots=True)
class Cursor:
    epoch: bytes
    positions: Mapping[bytes, Position]


def encode(cursor: Cursor) -> str:
    parts = [_HEAD.pack(1, cursor.epoch, len(cursor.positions))]
    for space, at in sorted(cursor.positions.items()):
        key = at.key[0] + at.key[1].encode()
        parts += [_SPACE.pack(space, at.full, at.start, at.total, at.rev, at.table, len(key)), key]
    body = b"".join(parts)
    return urlsafe_b64encode(body + hashlib.sha256(body).digest()[:_SUM]).decode()


def decode(text: str) -> Cursor:
    """`BadCursor` for anything that `encode` would not have written."""
    try:
        raw = urlsafe_b64decode(text.encode("ascii"))
        cursor = _decode(raw)
    except (UnicodeError, BadBase64, struct.error, ValueError) as error:
        raise BadCursor("this is not a cursor") from error
    if encode(cursor) != text:
        raise BadCursor("this is not a cursor")
    return cursor


def _decode(raw: bytes) -> Cursor:
    version, epoch, count = _HEAD.unpack_from(raw)
    if version != 1:
        raise BadCursor("a cursor of another version")
    offset, positions = _HEAD.size, {}
    for _ in range(count):
        space, full, start, total, rev, table, length = _SPACE.unpack_from(raw, offset)
        offset += _SPACE.size
        key = raw[offset : offset + length]
        offset += length
        if max(start, rev) > _REVISION_MAX:
            raise BadCursor("a revision that cannot be")
        if b"\0" in key[16:]:
            raise BadCursor("a name that cannot be")
        positions[space] = Position(rev, Table(table), (key[:16], key[16:].decode()), bool(full), start, total)
    return Cursor(epoch, positions)
