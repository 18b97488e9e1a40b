"""A real SMTP server on a free port, whose e-mails a test reads."""

from __future__ import annotations

import asyncio
import email
import queue
import ssl
import threading
from contextlib import suppress
from email import policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

SECONDS = 30
USER, PASSWORD = "aloft", "mail secret"


class Mailbox:
    """Takes e-mails for everybody. With `tls` it offers STARTTLS, and takes them only over it from who logs in."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._tls = tls
        self._arrived: queue.Queue[tuple[list[str], EmailMessage]] = queue.Queue()
        self._connections: list[SMTP] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def next(self) -> tuple[list[str], EmailMessage]:
        """The next e-mail, waited for, with those whom it is for."""
        return self._arrived.get(timeout=SECONDS)

    @property
    def is_empty(self) -> bool:
        return self._arrived.empty()

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self._arrived.put((envelope.rcpt_tos, email.message_from_bytes(envelope.content, policy=policy.default)))
        return "250 taken"

    def __enter__(self) -> Mailbox:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(SECONDS)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *details: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()

    async def _open(self) -> asyncio.Server:
        return await self._loop.create_server(self._serve, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._server.close()
        sessions = asyncio.all_tasks() - {asyncio.current_task()}
        for session in sessions:
            session.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)
        for connection in self._connections:
            if connection.transport is not None:
                with suppress(AttributeError):  # asyncio's, for a TLS transport that is closed for the second time
                    connection.transport.abort()
        await asyncio.sleep(0)  # what was aborted is closed in the next turn

    def _serve(self) -> SMTP:
        options: dict[str, Any] = {}
        if self._tls is not None:
            options = {
                "tls_context": self._tls,
                "require_starttls": True,
                "auth_required": True,
                "authenticator": _authenticate,
            }
        self._connections.append(SMTP(self, hostname="mail.test", loop=self._loop, **options))
        return self._connections[-1]


def _authenticate(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: Any) -> AuthResult:
    return AuthResult(success=given == LoginPassword(USER.encode(), PASSWORD.encode()), handled=False)
