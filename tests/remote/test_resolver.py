"""A resolver that hangs takes no thread that others need."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
import trio

from remote.api import StoreUnavailable, Unreachable
from remote.calls import Timeouts
from remote.endpoint import Endpoint
from remote.http import HttpService
from remote.protocol import Link


class FixedToken:
    async def current(self) -> str:
        return "token"

    async def after_rejection(self, rejected: str) -> str:
        return "token"


async def test_a_hung_resolver_takes_no_shared_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    real = socket.getaddrinfo

    def hangs(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        if flags & socket.AI_NUMERICHOST:  # trio asks for these on its own thread
            return real(host, port, family, type, proto, flags)
        answers.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    endpoint = Endpoint.parse("http://drive.example.org", insecure=True)
    link = Link(id=bytes(32), method="GET", url="http://store.example.org/o")
    shared = trio.to_thread.current_default_thread_limiter()
    try:
        async with HttpService(endpoint, FixedToken(), timeouts=Timeouts(connect=0.2, progress=0.2, total=0.5)) as service:

            async def ask() -> None:
                with pytest.raises(Unreachable):
                    await service.devices()

            async def fetch() -> None:
                with pytest.raises(StoreUnavailable):
                    await service.get_object(link, 10)

            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(ask)
                    nursery.start_soon(fetch)
            assert shared.borrowed_tokens == 0
            await trio.to_thread.run_sync(lambda: None)
    finally:
        answers.set()
