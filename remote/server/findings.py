"""What `aloft serve --check` finds: each with whether it is well, and with what to mend if it is not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """The service works, but not for everybody, or not for ever."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    subject: str
    state: State
    says: str
    mend: str | None = None


def well(subject: str, says: str) -> Finding:
    return Finding(subject, State.OK, says)


def warning(subject: str, says: str, mend: str) -> Finding:
    return Finding(subject, State.WARNING, says, mend)


def failed(subject: str, says: str, mend: str) -> Finding:
    return Finding(subject, State.FAILED, says, mend)
