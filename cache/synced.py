"""What of a draft's file is known to be on the disk: the answer to a power loss. Pure, but for asking which boot this is.

A row can become durable before the bytes that it speaks of: another file's fsync, a checkpoint or the kernel's own write-back
takes it along. So a row says in which boot bytes were written that nobody has synced since, and what was synced before them.
A start in another boot believes the latter only (`cache.unsynced`); a start in the same one has the page cache, and believes all.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cache.extents import BadExtents, Extents

_SIZES = struct.Struct("<QQ")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a draft shows: its columns `size`, `floor` and `extents` at one moment."""

    size: int
    floor: int
    extents: Extents

    def cut(self, size: int) -> Shown:
        if size >= self.size:
            return self
        extents = self.extents.copy()
        extents.cut(size)
        return Shown(size, min(self.floor, size), extents)

    def pack(self) -> bytes:
        return _SIZES.pack(self.size, self.floor) + self.extents.pack()

    @classmethod
    def unpack(cls, packed: bytes) -> Shown:
        """Raises `BadExtents`."""
        if len(packed) < _SIZES.size:
            raise BadExtents("cut short")
        size, floor = _SIZES.unpack_from(packed)
        return cls(size, floor, Extents.unpack(packed[_SIZES.size :]))


@cache
def this_boot() -> str:
    """The id of the kernel's run; another one after every start of the machine."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # where no kernel tells, every start is taken for one of the same boot
        return "unknown"
