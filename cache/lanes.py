"""Transfers of a command that works without a mount: how far they are, and how often each request is tried.

`Lanes`, which all files of a command share, are how many chunks move at a time, each of up to 16 MiB in memory.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from remote.retry import Backoff, retried

ATTEMPTS = 6
LONGEST_WAIT_SECONDS = 60.0

Lanes = trio.Semaphore
T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """`call`, tried again while what fails may pass."""
    policy = Backoff(base=0.3, cap=10.0, random=random.random)
    return await retried(call, policy=policy, attempts=ATTEMPTS, longest_wait=LONGEST_WAIT_SECONDS)


@dataclass(slots=True)
class Progress:
    """How far a file is, in bytes."""

    total: int = 0
    looked_at: int = 0
    """Read here, to find out what has to be sent."""
    done: int = 0
    """Where they belong."""
    moved: int = 0
    """Sent or fetched now, as stored: what went over the network."""
