"""Folders as zip archives that are made while they are read: no more of one than a few pieces is ever in memory."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from stream_zip import ZIP_64, MemberFile, stream_zip

MEDIA_TYPE = "application/zip"
PIECE = 256 * 1024
_FIRST_SECOND, _LAST_SECOND = 315_532_800, 2**31 - 1
"""1980, before which the format knows no time, to 2038."""


@dataclass(frozen=True, slots=True)
class Member:
    path: str
    """Relative, with slashes between its names."""
    is_folder: bool
    mode: int
    mtime_ns: int
    content: Iterable[bytes]


def write_zip(members: Iterable[Member]) -> Iterator[bytes]:
    """Pieces of some size each. Compressed a little: more would cost the service more than the network."""
    return iter(stream_zip(map(_member, members), chunk_size=PIECE, get_compressobj=_compressor))


def _member(member: Member) -> MemberFile:
    second = min(max(member.mtime_ns // 10**9, _FIRST_SECOND), _LAST_SECOND)
    kind = stat.S_IFDIR if member.is_folder else stat.S_IFREG
    path = f"{member.path}/" if member.is_folder else member.path
    return path, datetime.fromtimestamp(second, UTC), kind | stat.S_IMODE(member.mode) & 0o777, ZIP_64, member.content


def _compressor() -> zlib._Compress:
    return zlib.compressobj(level=1, wbits=-zlib.MAX_WBITS)
