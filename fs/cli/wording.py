"""Sizes, counts and states as people read them. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fs.control import Json

_STEP = 1024.0
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)(?:i?[bB])?")
_DURATION = re.compile(r"(\d{1,5})\s?([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_size(text: str) -> int:
    """Bytes: a number with K, M, G or T after it (powers of 1024). `ValueError` for anything else, and for nothing."""
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2].lower()]) if match is not None else 0
    if size <= 0:
        raise ValueError(f"{text!r} is not a size such as 500M or 20G")
    return size


def parse_time(text: str) -> int:
    """Nanoseconds since 1970: 2026-11-20 or 2026-11-20T15:30, by the local clock unless it names a time zone. `ValueError`."""
    try:
        return int(datetime.fromisoformat(text.strip()).astimezone().timestamp() * 1e9)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is not a time such as 2026-11-20 or 2026-11-20T15:30") from error


def parse_duration(text: str) -> int | None:
    """Nanoseconds: 30m, 12h, 3d or 2w; None: it is none."""
    match = _DURATION.fullmatch(text.strip())
    return None if match is None else int(match[1]) * _SECONDS[match[2]] * 10**9


def human_size(size: float) -> str:
    """Bytes as people read them: 512 B, 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _STEP:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _STEP
    return f"{size:.1f} TiB"


def human_rate(bytes_per_second: float | None) -> str:
    return "not measured yet" if bytes_per_second is None else f"{human_size(bytes_per_second)}/s"


def moment(at_ns: int | None) -> str:
    """The local time, to the minute; None: never."""
    return "never" if at_ns is None else datetime.fromtimestamp(at_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M")


def counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def describe_queue(queue: Json) -> str:
    """One line: how much waits to go up."""
    parts = []
    if queue["files"]:
        parts.append(f"{counted(queue['files'], 'file')} ({human_size(queue['bytes'])})")
    if queue["changes"]:
        parts.append(counted(queue["changes"], "change") + " of names or attributes")
    return " and ".join(parts) or "nothing"
