"""A channel by which the processes on one PostgreSQL database tell each other that something changed: LISTEN and NOTIFY.

It has one connection, in a thread of its own. What is sent is not part of any transaction, since all transactions that notify
commit one after the other; so what is said may be lost, with a process or a connection. Who listens again after the connection
was lost is told that anything may have happened.
"""

from __future__ import annotations

import logging
import os
import selectors
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import psycopg

log = logging.getLogger("aloft.server")

CHANNEL = "aloft"
HEARTBEAT_SECONDS = 20.0
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.1, 5.0
_TOPICS_MAX = 200
"""Of 16 bytes each, in hexadecimal: a message has at most 8,000 bytes."""


class Channel:
    """`on_news` is called in the channel's thread: with topics that another process sent, or None: with any of them."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], on_news: Callable[[Sequence[bytes] | None], None]) -> None:
        self._connect = connect
        self._on_news = on_news
        self._lock = threading.Lock()
        self._unsent: dict[bytes, None] = {}
        self._closed = False
        self._poke = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        threading.Thread(target=self._run, name="aloft-channel", daemon=True).start()

    def send(self, topics: Iterable[bytes]) -> None:
        """Tell the other processes, soon. Does not wait."""
        with self._lock:
            if not self._closed:
                self._unsent.update(dict.fromkeys(topics))
                os.eventfd_write(self._poke, 1)

    def close(self) -> None:
        """The connection ends soon."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.eventfd_write(self._poke, 1)

    # ---------------------------------------------------------------------------------------------------- its thread

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._poke, selectors.EVENT_READ)
            while not self._closed:
                try:
                    with self._connect() as connection:
                        connection.execute("SET synchronous_commit = off")
                        connection.execute(f"LISTEN {CHANNEL}")
                        pause = FIRST_PAUSE_SECONDS
                        self._on_news(None)
                        self._follow(connection, selector)
                except psycopg.Error as error:
                    log.warning("not listening to the database for now: %s", str(error).strip())
                    self._rest(selector, pause)
                    pause = min(2 * pause, LAST_PAUSE_SECONDS)
        with self._lock:
            os.close(self._poke)

    def _follow(self, connection: psycopg.Connection[Any], selector: selectors.BaseSelector) -> None:
        me = connection.info.backend_pid
        descriptor = connection.fileno()
        selector.register(descriptor, selectors.EVENT_READ)
        try:
            while not self._closed:
                self._send(connection)
                heard = [notice.payload for notice in connection.notifies(timeout=0) if notice.pid != me]
                if heard:
                    self._on_news(_topics(heard))
                if not selector.select(HEARTBEAT_SECONDS):
                    connection.execute("SELECT 1")  # a connection may be dead without saying so
                self._calm()
        finally:
            selector.unregister(descriptor)

    def _send(self, connection: psycopg.Connection[Any]) -> None:
        with self._lock:
            unsent, self._unsent = self._unsent, {}
        topics = list(unsent)
        try:
            for start in range(0, len(topics), _TOPICS_MAX):
                message = " ".join(topic.hex() for topic in topics[start : start + _TOPICS_MAX])
                connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, message))
        except psycopg.Error:
            with self._lock:
                self._unsent = unsent | self._unsent
            raise

    def _rest(self, selector: selectors.BaseSelector, seconds: float) -> None:
        """Shorter if the channel is closed meanwhile."""
        self._calm()
        selector.select(seconds)

    def _calm(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._poke)


def _topics(messages: Sequence[str]) -> list[bytes] | None:
    """None, so that everybody looks: somebody else speaks on our channel."""
    try:
        return [bytes.fromhex(topic) for message in messages for topic in message.split()]
    except ValueError:
        log.warning("a message on the database's channel %r is not ours", CHANNEL)
        return None
