"""Whether SQLite will find all of the WAL that a killed process left. Reads files only, before any connection exists.

SQLite takes the first frame whose checksum is wrong for the end of the log, as after a power loss it is; what a damaged file
held beyond is forgotten without a word. But what was killed in this run of the machine also left the wal-index (`-shm`), which
says how many frames were committed. So in the same boot, which is noted beside the replica, both must agree.

Formats: https://www.sqlite.org/walformat.html
"""

from __future__ import annotations

import struct
from array import array
from contextlib import suppress
from pathlib import Path

from cache.synced import this_boot

_INDEX = struct.Struct("=16xI12x8s8x")
"""Of the wal-index's header, which is there twice: frames committed, and the salts of the log that holds them."""
_BACKFILLED_AT = 96
_HEADER = struct.Struct(">IIII8s8s")
_FRAME = struct.Struct(">II8s8s")
_MAGIC = 0x377F0682
_MASK = 0xFFFFFFFF


def note_boot(database: Path) -> None:
    """The database was opened in this run of the machine. Where it cannot be noted, damage goes unnoticed as before."""
    note = _note(database)
    with suppress(OSError):
        if not note.exists() or note.read_text() != this_boot():
            note.write_text(this_boot())


def commits_are_lost(database: Path) -> bool:
    """Whether transactions that were committed in this run of the machine, and are not in the database yet, cannot be read."""
    try:
        if _note(database).read_text() != this_boot():
            return False
        index = Path(f"{database}-shm").read_bytes()
        log = Path(f"{database}-wal").read_bytes()
    except (OSError, ValueError):
        return False
    return _lost(index, log)


def _lost(index: bytes, log: bytes) -> bool:
    size = _INDEX.size
    if len(index) < _BACKFILLED_AT + 4 or index[:size] != index[size : 2 * size]:
        return False  # it was being changed, or is damaged: it says nothing
    committed: int
    backfilled: int
    committed, salts = _INDEX.unpack_from(index)
    (backfilled,) = struct.unpack_from("=I", index, _BACKFILLED_AT)
    return backfilled < committed and _readable_frames(log, salts) < committed


def _readable_frames(log: bytes, salts: bytes) -> int:
    """How many SQLite will read of the log that has these salts."""
    if len(log) < _HEADER.size:
        return 0
    magic, _, page, _, found_salts, checksum = _HEADER.unpack_from(log)
    is_big = bool(magic & 1)
    sums = _summed((0, 0), log[:24], is_big)
    if magic & ~1 != _MAGIC or found_salts != salts or struct.pack(">II", *sums) != checksum:
        return 0
    count, at = 0, _HEADER.size
    while at + _FRAME.size + page <= len(log):
        _, _, found_salts, checksum = _FRAME.unpack_from(log, at)
        sums = _summed(sums, log[at : at + 8] + log[at + _FRAME.size : at + _FRAME.size + page], is_big)
        if found_salts != salts or struct.pack(">II", *sums) != checksum:
            break
        count, at = count + 1, at + _FRAME.size + page
    return count


def _summed(sums: tuple[int, int], data: bytes, is_big: bool) -> tuple[int, int]:
    words = array("I", data)
    if is_big != (struct.pack("=H", 1) == b"\x00\x01"):
        words.byteswap()
    first, second = sums
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & _MASK
        second = (second + two + first) & _MASK
    return first, second


def _note(database: Path) -> Path:
    return Path(f"{database}-boot")
