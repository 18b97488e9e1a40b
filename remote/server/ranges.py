"""The header `Range` (RFC 9110, section 14): one range of bytes. Pure."""

from __future__ import annotations

import re

from remote.protocol import ProblemType
from remote.server.problems import Refused

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def parse_range(asked: str | None, total: int) -> tuple[int, int] | None:
    """The part that is asked for, [start, end); None: all of it (also for several ranges, as the RFC allows). `Refused` (416)."""
    match = _RANGE.fullmatch(asked.strip()) if asked else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    start = max(0, total - int(last)) if first == "" else int(first)
    end = total if first == "" or last == "" else min(total, int(last) + 1)
    if first and last and int(last) < int(first):
        return None
    if start >= end:
        outside = {"content-range": f"bytes */{total}"}
        raise Refused(ProblemType.INVALID, f"There are {total} bytes.", status=416, field="Range", headers=outside)
    return start, end


def goes_on(asked: str | None) -> bool:
    """Whether it asks for the rest after a beginning that the client has already."""
    match = _RANGE.fullmatch(asked.strip()) if asked else None
    return match is not None and match.group(1).strip("0") != "" and match.group(2) == ""
