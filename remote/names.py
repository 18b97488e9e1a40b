"""What a file may be called: the rule that client and service both enforce (the service on requests, the client on the feed)."""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_NAME_BYTES = 255
MAX_TARGET_BYTES = 4095
RESERVED_IN_ROOT = ".aloft"
"""In the root folder of a space nothing new may be called so: a mount shows versions and the trash there."""
_EXTENSION = re.compile(r"(?<=[^.])(?:\.tar)?\.[^.\s]{1,16}$")


class BadName(ValueError):
    """A name that no directory may hold: empty, `.`, `..`, with `/` or NUL, over 255 bytes, or not UTF-8."""


def check_name(name: str) -> str:
    """Return `name` if a directory entry may be called so, else raise `BadName`."""
    if name in ("", ".", ".."):
        raise BadName(f"{name!r} is not a file name")
    if "/" in name or "\0" in name:
        raise BadName(f"{name!r} contains a slash or a NUL")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadName(f"{name!r} is not valid Unicode") from None
    if size > MAX_NAME_BYTES:
        raise BadName(f"a name of {size} bytes; {MAX_NAME_BYTES} are allowed")
    return name


def free_name(name: str, is_taken: Callable[[str], bool]) -> str:
    """The first of `report.pdf`, `report (2).pdf`, `report (3).pdf` … that is not taken; cut if it would be too long."""
    found = _EXTENSION.search(name)
    stem, extension = (name[: found.start()], found.group()) if found else (name, "")
    number, candidate = 1, _fitting(stem, extension)
    while is_taken(candidate):
        number += 1
        candidate = _fitting(stem, f" ({number}){extension}")
    return candidate


def _fitting(stem: str, tail: str) -> str:
    return stem.encode()[: MAX_NAME_BYTES - len(tail.encode())].decode(errors="ignore") + tail
