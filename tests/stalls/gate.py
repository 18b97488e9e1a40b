"""A door between devices and the service: a TCP proxy that can fall silent.

Silent, it accepts connections, takes what it is sent, and answers nothing: the network that never answers, and never says so.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

PIECE = 64 * 1024


class Gate:
    """Listens on a free port as soon as it is made; give it `target` (a port of this machine) before somebody connects."""

    def __init__(self) -> None:
        self.target = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gate", daemon=True)
        self._thread.start()
        self._pumps: set[asyncio.Task[None]] = set()
        self._answering, self._server = self._in_loop(self._listen()).result(60)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def silence(self) -> None:
        """From now on nothing comes through, on old connections as on new ones."""
        self._loop.call_soon_threadsafe(self._answering.clear)

    def answer(self) -> None:
        """What was held up goes on."""
        self._loop.call_soon_threadsafe(self._answering.set)

    def close(self) -> None:
        self._in_loop(self._stop()).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def _in_loop(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _listen(self) -> tuple[asyncio.Event, asyncio.Server]:
        answering = asyncio.Event()
        answering.set()
        return answering, await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _stop(self) -> None:
        self._server.close()
        for pump in tuple(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        with suppress(OSError, asyncio.CancelledError):
            await self._answering.wait()
            beyond_reader, beyond_writer = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                await asyncio.gather(self._pump(reader, beyond_writer), self._pump(beyond_reader, writer))
            finally:
                beyond_writer.close()
        writer.close()
        self._pumps.discard(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await source.read(PIECE):
                await self._answering.wait()
                sink.write(piece)
                await sink.drain()
        with suppress(OSError):
            sink.write_eof()
