"""What a conflicted copy is called: `report (conflicted copy, laptop, 2026-11-20).odt`. Pure.

The name says whose copy it is and of which day, keeps the extension, so that the file opens with the same application, and
fits into a directory entry. A copy of a copy does not pile up suffixes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from remote.names import MAX_NAME_BYTES

MARK = " (conflicted copy, "
"""In the name of every one of them."""
_SUFFIX = re.compile(re.escape(MARK) + r"([^()]*), \d{4}-\d\d-\d\d(?:, \d+)?\)$")
_EXTENSION = re.compile(r"(?<=[^.])(?:\.tar)?\.[^.\s]+$")
_EXTENSION_MAX_BYTES = 32
_OWNER_MAX_BYTES = 60
_NOT_IN_OWNER = re.compile(r"[()/\x00-\x1f\x7f]+")


class CopyNames:
    """Makes names for the conflicted copies of one device on one day (`day` as YYYY-MM-DD)."""

    def __init__(self, device: str, day: str) -> None:
        self._owner = _cut(_NOT_IN_OWNER.sub(" ", device).strip(), _OWNER_MAX_BYTES).strip() or "another device"
        self._day = day

    def free_name(self, name: str, is_folder: bool, taken: Callable[[str], bool]) -> str:
        """The first name for a copy of `name` that is not `taken`. A folder has no extension to keep."""
        stem, extension = (name, "") if is_folder else split_extension(name)
        return _first_free(_SUFFIX.sub("", stem), f"conflicted copy, {self._owner}, {self._day}", extension, taken)


def name_after_power_loss(name: str, day: str, taken: Callable[[str], bool]) -> str:
    """The first name that is not `taken` for what was written to the file `name` and not synced before the power failed."""
    stem, extension = split_extension(name)
    return _first_free(stem, f"perhaps incomplete, power loss {day}", extension, taken)


def name_of_a_part(name: str, taken: Callable[[str], bool]) -> str:
    """The first name that is not `taken` for a file of which something could not be had."""
    stem, extension = split_extension(name)
    return _first_free(stem, "perhaps incomplete", extension, taken)


def _first_free(stem: str, said: str, extension: str, taken: Callable[[str], bool]) -> str:
    """`stem (said).extension`, numbered from the second on, the stem cut to what a name may be long."""
    number = 1
    while True:
        count = f", {number}" if number > 1 else ""
        tail = f" ({said}{count}){extension}"
        candidate = _cut(stem, MAX_NAME_BYTES - len(tail.encode())) + tail
        if not taken(candidate):
            return candidate
        number += 1


def split_extension(name: str) -> tuple[str, str]:
    """`name` in two: what may be cut, and the extension with its dot (`.tar.gz` is one; `.profile` has none)."""
    found = _EXTENSION.search(name)
    if found is None or len(found.group().encode()) > _EXTENSION_MAX_BYTES:
        return name, ""
    return name[: found.start()], found.group()


@dataclass(frozen=True, slots=True)
class CopyName:
    """What the name of a conflicted copy says. A name that was too long has lost the end of the original's."""

    original: str
    device: str


def read_copy_name(name: str) -> CopyName | None:
    """None: `name` is not that of a conflicted copy, of whatever device."""
    for stem, extension in (split_extension(name), (name, "")):
        found = _SUFFIX.search(stem)
        if found is not None:
            return CopyName(stem[: found.start()] + extension, found.group(1))
    return None


def _cut(text: str, size: int) -> str:
    """The longest beginning of `text` that takes at most `size` bytes and ends between two characters."""
    return text.encode()[: max(size, 0)].decode(errors="ignore")
