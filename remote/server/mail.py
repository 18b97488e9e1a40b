"""E-mails: handed to an SMTP server, by threads of their own, so that no request waits for it."""

from __future__ import annotations

import logging
import smtplib
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from functools import partial
from threading import BoundedSemaphore
from typing import TypeVarTuple, Unpack

from remote.server.config import SmtpConfig

THREADS = 2
WAITING_MAX = 200
_PORTS = {"tls": smtplib.SMTP_SSL_PORT, "starttls": 587, "none": 587}

Ts = TypeVarTuple("Ts")

log = logging.getLogger("aloft.mail")


class MailFailed(Exception):
    """The server did not take the e-mail; the text says why, and names nobody."""


class Mailer:
    def __init__(self, config: SmtpConfig) -> None:
        self._config = config

    def send(self, to: str, subject: str, text: str) -> None:
        """Blocking. `MailFailed`."""
        try:
            with self._connect() as server:
                server.send_message(self._message(to, subject, text), from_addr=None, to_addrs=[to])
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise MailFailed(f"{self._config.host} did not take an e-mail: {_reason(error)}") from error

    def _message(self, to: str, subject: str, text: str) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._config.sender
        message["To"] = to
        message["Subject"] = subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self._config.sender.rpartition("@")[2].rstrip("> "))
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        return message

    def _connect(self) -> smtplib.SMTP:
        config = self._config
        port = config.port or _PORTS[config.tls]
        if config.tls == "tls":
            context = ssl.create_default_context(cafile=config.ca)
            server: smtplib.SMTP = smtplib.SMTP_SSL(config.host, port, timeout=config.timeout_seconds, context=context)
        else:
            server = smtplib.SMTP(config.host, port, timeout=config.timeout_seconds)
        try:
            if config.tls == "starttls":
                server.starttls(context=ssl.create_default_context(cafile=config.ca))
            if config.user is not None and config.password_file is not None:
                server.login(config.user, config.password_file.read_text().partition("\n")[0].strip())
        except BaseException:
            server.close()
            raise
        return server


class Outbox:
    """Work that ends in an e-mail, done after the request that asked for it was answered."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="mail")
        self._room = BoundedSemaphore(WAITING_MAX)

    def put(self, work: Callable[[Unpack[Ts]], object], *arguments: *Ts) -> None:
        """What fails, or finds no room, is in the log only: whoever asked learns nothing by it."""
        if self._room.acquire(blocking=False):
            self._threads.submit(self._do, partial(work, *arguments))
        else:
            log.error("an e-mail was dropped: %d are waiting", WAITING_MAX)

    def close(self) -> None:
        """Send what is being sent, and drop what waits."""
        self._threads.shutdown(cancel_futures=True)

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except MailFailed as error:
            log.error("%s", error)
        except Exception:
            log.exception("an e-mail was not sent")
        finally:
            self._room.release()


def _reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "it refused the recipient"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"it answered {error.smtp_code}"
    return str(error) or type(error).__name__
