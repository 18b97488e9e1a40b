"""Nobody holds a request for ever by sending nothing, or by reading nothing: an ASGI layer around the application.

Only the body of a request and the answer are under a limit. A long poll, which waits because it was asked to, is not.
"""

from __future__ import annotations

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from remote.protocol import ProblemType
from remote.server.problems import Refused


class NotRead(ConnectionError):
    """The caller does not take its answer."""


class Patience:
    """`seconds`: between two pieces."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        complete = False

        async def receive_in_time() -> Message:
            nonlocal complete
            if complete:  # what comes now is the end of the connection
                return await receive()
            with anyio.move_on_after(self._seconds):
                message = await receive()
                complete = not message.get("more_body", False)
                return message
            raise Refused(ProblemType.INVALID, "The body did not come in time.", status=408)

        async def send_in_time(message: Message) -> None:
            with anyio.move_on_after(self._seconds):
                await send(message)
                return
            raise NotRead("the answer was not read in time")

        await self._app(scope, receive_in_time, send_in_time)
