"""How versions and deleted things are called in a mount's `.aloft`. Pure.

A time stands before the name, in UTC, so that names sort, are the same on every device, and do not repeat when clocks are set
back in autumn; to the millisecond, so that what is saved again at once has another. The suffix stays last, so that applications
know what it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

from remote.names import free_name

T = TypeVar("T")


def stamped(name: str, at_ns: int) -> str:
    """`report.odt` of then: `2026-11-25 14.03.07.250Z report.odt`."""
    seconds, rest_ns = divmod(at_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H.%M.%S}.{rest_ns // 10**6:03}Z {name}"


def named(items: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Each under its name, cut where it is too long. Of those that are called the same, the first keeps it, and the others are
    ` (2)`, ` (3)` …: who gives the oldest first keeps names as they are when something is added."""
    found: dict[str, T] = {}
    for name, item in items:
        found[free_name(name, found.__contains__)] = item
    return found
