"""Who wrote what into the shared folder, having seen what: so that at the end each content can be accounted for.

A writer says before it writes (`intended`) what it saw in the file through the very handle that it writes through, and after
close() (`closed`) that the content is safe. A closed content may be missing at the end only if somebody who had seen it wrote
over it, or removed it. Pure, but for the file of lines that `Ledger` appends to.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HEADER = 64
Event = Literal["intended", "closed", "removed"]


@dataclass(frozen=True)
class Line:
    """`seen`: the content that was in the file before; None: none, or one that is no content of ours."""

    event: Event
    token: str
    seen: str | None = None


class Ledger:
    """One writer's lines, durable before the writer goes on as far as processes are concerned (they outlive its mount)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def say(self, event: Event, token: str, seen: str | None = None) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([event, token, seen]) + "\n")


def read(path: Path) -> list[Line]:
    return [Line(*json.loads(line)) for line in path.read_text().splitlines()]


def content(token: str, size: int) -> bytes:
    """The content that bears this token: it can be recognised, and checked, without anything else."""
    payload = random.Random(token).randbytes(size)
    header = f"{token} {size} {hashlib.sha256(payload).hexdigest()[:24]}"
    return header.encode().ljust(HEADER) + payload


def token_of(found: bytes) -> str | None:
    """None: it is no whole content of ours."""
    try:
        token, size, checksum = found[:HEADER].decode().split()
    except ValueError:
        return None
    payload = found[HEADER:]
    is_whole = len(payload) == int(size) and hashlib.sha256(payload).hexdigest()[:24] == checksum
    return token if is_whole else None


def lost(ledgers: Iterable[Iterable[Line]], there: Iterable[str]) -> list[str]:
    """Contents that were closed, are not there, and were not written over or removed by anybody who had seen them."""
    lines = [line for ledger in ledgers for line in ledger]
    closed = {line.token for line in lines if line.event == "closed"}
    superseded = {line.seen for line in lines if line.event == "intended" and line.seen is not None}
    removed = {line.token for line in lines if line.event == "removed"}
    return sorted(closed - set(there) - superseded - removed)


def torn(ledgers: Iterable[Iterable[Line]], found: Mapping[str, str | None]) -> list[str]:
    """Files (path -> token) that hold no whole content, as far as they are more than the writings that were interrupted."""
    lines = [line for ledger in ledgers for line in ledger]
    intended = {line.token for line in lines if line.event == "intended"}
    interrupted = len(intended - {line.token for line in lines if line.event == "closed"})
    broken = sorted(path for path, token in found.items() if token is None)
    return broken if len(broken) > interrupted else []
