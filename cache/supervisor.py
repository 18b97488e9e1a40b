"""Keeps the parts of the drive running: one that fails is logged, shown in the status, and started again after a pause, while
the others go on. Knows nothing of what the parts do."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from cache.disk import as_disk_error
from cache.errors import DiskError, first_cause
from cache.status import TaskFailure

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
PAUSE_ON_DISK = 5.0
"""What fails for want of room, or of a disk, is tried often: it costs little, and nobody tells when it is there again."""
FORGIVEN_AFTER = 300.0
"""Seconds without a failure after which the pauses begin anew."""


@dataclass(slots=True)
class _Trouble:
    error: str
    again_at: float
    running: bool


class Supervisor:
    """`random` in [0, 1) spreads the restarts."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._troubles: dict[str, _Trouble] = {}

    async def keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` until it returns; again after each failure."""
        pause = FIRST_PAUSE
        while True:
            began = trio.current_time()
            try:
                await work()
            except Exception as error:  # whatever a part raises, the others go on
                first = first_cause(error)
                refused = as_disk_error(first)
                if refused is not None:
                    first = refused
                    log.warning("%s cannot go on: %s", name, first)
                    pause = min(pause, PAUSE_ON_DISK)
                else:
                    log.exception("%s failed", name)
                if trio.current_time() - began > FORGIVEN_AFTER:
                    pause = FIRST_PAUSE
                wait = pause * (0.5 + self._random())
                self._troubles[name] = _Trouble(_text(first), trio.current_time() + wait, running=False)
            else:
                self._troubles.pop(name, None)
                return
            await trio.sleep(wait)
            self._troubles[name].running = True
            pause = min(pause * 2, LONGEST_PAUSE)

    def failures(self) -> tuple[TaskFailure, ...]:
        """Parts that wait for their next start, or failed not long ago."""
        now = trio.current_time()
        return tuple(
            TaskFailure(name, trouble.error, 0.0 if trouble.running else max(0.0, trouble.again_at - now))
            for name, trouble in self._troubles.items()
            if not trouble.running or now - trouble.again_at < LONGEST_PAUSE
        )


def _text(error: BaseException) -> str:
    if isinstance(error, DiskError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
