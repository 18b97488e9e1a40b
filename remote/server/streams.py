"""Answers that are the bytes of files: so many at one time, each with one chunk in memory, at the pace of whoever reads it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from remote.protocol import ProblemType
from remote.server.patience import NotRead
from remote.server.problems import Refused

log = logging.getLogger("aloft.server")

PIECE = 256 * 1024
STREAMS = 32
STREAMS_OF_ACCOUNT = 8
RETRY_AFTER_SECONDS = 5
LISTENERS = 2000
LISTENERS_OF_ACCOUNT = 10
"""Who is told of notifications as they come."""
POLLS = 5000
POLLS_OF_ACCOUNT = 50
"""Who waits for changes."""


class Streams:
    """Counts the answers under way. On the event loop."""

    def __init__(self, total: int = STREAMS, of_account: int = STREAMS_OF_ACCOUNT, what: str = "contents are being read") -> None:
        self._total = total
        self._of_account = of_account
        self._what = what
        self._of: Counter[bytes] = Counter()

    @property
    def under_way(self) -> int:
        return self._of.total()

    @contextmanager
    def one(self, account: bytes) -> Iterator[None]:
        """`Refused` if there are too many."""
        if self._of[account] >= self._of_account:
            text = f"{self._of_account} {self._what} at this time; try again."
            raise Refused(ProblemType.RATE_LIMITED, text, retry_after_seconds=RETRY_AFTER_SECONDS)
        if self.under_way >= self._total:
            text = f"Too many {self._what} at this time; try again."
            raise Refused(ProblemType.UNAVAILABLE, text, retry_after_seconds=RETRY_AFTER_SECONDS)
        self._of[account] += 1
        try:
            yield
        finally:
            self._of[account] -= 1
            if not self._of[account]:
                del self._of[account]


class ContentResponse(Response):
    """Bytes that `read` gets piece by piece (None: no more; `Refused`), each when those before it were taken.

    `headers` say how many there are, if that is known. The first piece is read before the answer begins, so that most failures
    have a status of their own; a later one cuts the answer short.
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        read: Callable[[], Awaitable[bytes | None]],
        slot: AbstractContextManager[None],
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        if "content-length" not in headers:
            del self.headers["content-length"]  # the body that it does not have yet would have none
        self._read = read
        self._slot = slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._slot:
            first = await self._read()
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with anyio.create_task_group() as group:
                group.start_soon(_until_gone, receive, group.cancel_scope)
                await self._send_all(first, send)
                group.cancel_scope.cancel()

    async def _send_all(self, piece: bytes | None, send: Send) -> None:
        try:
            while piece is not None:
                for at in range(0, len(piece), PIECE):
                    await send({"type": "http.response.body", "body": piece[at : at + PIECE], "more_body": True})
                piece = await self._read()
            await send({"type": "http.response.body", "body": b""})
        except Refused as error:
            log.error("an answer was cut short: %s", error.detail)
        except NotRead:
            return


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    """Stop when the caller has gone: bytes that nobody takes are not to be read."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
