"""Name look-ups in threads of their own: the system's resolver has no timeout, and threads that hang in it are not those that
the rest of the client shares (`fsync` waits for one of them)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

LOOKUPS_MAX = 16
"""At one time, those included that nobody waits for any more."""


class OwnThreads(trio.abc.HostnameResolver):
    """For `trio.socket.set_custom_hostname_resolver`."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(LOOKUPS_MAX)

    async def getaddrinfo(
        self, host: bytes | None, port: bytes | str | int | None, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        return await self._in_thread(partial(socket.getaddrinfo, host, port, family, type, proto, flags))

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        return await self._in_thread(partial(socket.getnameinfo, sockaddr, flags))

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
