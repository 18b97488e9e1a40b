"""A broadcast for tasks: something changed, look again."""

from __future__ import annotations

from collections.abc import Callable

import trio


class Signal:
    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def notify(self) -> None:
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Until the next `notify`."""
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()

    async def wait_for(self, holds: Callable[[], bool]) -> None:
        """Until `holds()`; it is asked now and after each `notify`."""
        while not holds():
            await self.wait()
