"""Notifications: listed, marked as read, chosen, and sent as a digest. What they say is written down by `news`. Blocking.

Whoever is told keeps the number of the last one: after a restart it asks for those after it, and may be told one again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from remote.notificationapi import (
    KEPT,
    KEPT_DAYS,
    ChosenPreferences,
    MarkRead,
    Notification,
    NotificationList,
    Preferences,
    Priority,
    Topic,
    Unread,
)
from remote.server.database import accounts as account_rows
from remote.server.database import notifications as rows
from remote.server.database.engine import Database
from remote.server.database.notifications import NotificationRow
from remote.server.devices import Caller
from remote.server.mail import Mailer, MailFailed
from remote.server.news import chosen_preferences, merge_preferences
from remote.server.tokens import unauthenticated

log = logging.getLogger("aloft.server")

DAY_NS = 24 * 3600 * 10**9
DIGESTS = 100
"""That are looked up at one time."""
_SUBJECT = "What happened in your Aloft"
_INTRODUCTION = "Hello,\n\nwhat you have not seen yet:\n\n"
_END = "\n\n`aloft notifications` lists them; `aloft notifications digest off` ends these e-mails.\n"


class Notifications:
    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def listing(self, caller: Caller, *, unread: bool, before: int | None, limit: int) -> NotificationList:
        """The newest first."""
        with self._database.read() as connection:
            found = rows.before(connection, caller.account, before, unread=unread, limit=limit + 1)
            return _page(connection, caller.account, found, limit)

    def following(self, caller: Caller, after: int, *, unread: bool, limit: int) -> NotificationList:
        """The oldest first, of those after one."""
        with self._database.read() as connection:
            found = rows.after(connection, caller.account, after, unread=unread, limit=limit + 1)
            return _page(connection, caller.account, found, limit)

    def known(self, caller: Caller, number: int) -> int:
        """`number`, or the last one that there was, if a service that was restored never came to that."""
        with self._database.read() as connection:
            return min(number, rows.mailbox(connection, caller.account).numbered)

    def topics(self, caller: Caller) -> tuple[bytes, ...]:
        """Whose news come with a wake-up: the account's and its spaces'."""
        with self._database.read() as connection:
            spaces = [membership.space for membership in account_rows.memberships(connection, caller.account)]
        return (caller.account, *spaces)

    def mark_read(self, caller: Caller, request: MarkRead) -> Unread:
        with self._database.write() as connection:
            rows.mark_read(connection, caller.account, request.ids, request.up_to, self._clock())
            return Unread(unread=rows.count_unread(connection, caller.account))

    def preferences(self, caller: Caller) -> ChosenPreferences:
        """Of all topics."""
        with self._database.read() as connection:
            box = rows.mailbox(connection, caller.account)
        return ChosenPreferences(topics=chosen_preferences(box.preferences), digest=box.digest)

    def choose(self, caller: Caller, request: Preferences) -> ChosenPreferences:
        with self._database.write() as connection:
            if not account_rows.lock(connection, caller.account):
                raise unauthenticated("The account was closed.")
            box = rows.mailbox(connection, caller.account)
            chosen = merge_preferences(chosen_preferences(box.preferences), request)
            digest = box.digest if request.digest is None else request.digest
            body = Preferences(topics=chosen).model_dump_json(exclude={"digest"})
            rows.put_mailbox(connection, caller.account, preferences=body, digest=digest)
            if digest and not box.digest:
                rows.put_mailbox(connection, caller.account, digested=box.numbered)
        return ChosenPreferences(topics=chosen, digest=digest)

    def forget_old(self) -> int:
        with self._database.write() as connection:
            return rows.forget_before(connection, self._clock() - KEPT_DAYS * DAY_NS)

    def send_digests(self, mailer: Mailer, proceed: Callable[[], None] = lambda: None) -> int:
        """E-mails to those who want one a day; how many were sent. One that is not taken is tried again at the next run."""
        sent, last = 0, b""
        while True:
            with self._database.read() as connection:
                due = rows.due_for_digest(connection, self._clock() - DAY_NS, last, DIGESTS)
            for account, email in due:
                proceed()
                last = account
                try:
                    sent += self._send_digest(mailer, account, email)
                except MailFailed as error:
                    log.error("a digest was not sent: %s", error)
            if len(due) < DIGESTS:
                return sent

    def _send_digest(self, mailer: Mailer, account: bytes, email: str) -> int:
        """Sent first, noted second: who crashes between sends it again, with the same numbers."""
        with self._database.read() as connection:
            box = rows.mailbox(connection, account)
            found = rows.after(connection, account, box.digested, unread=True, limit=KEPT)
        chosen = chosen_preferences(box.preferences)
        lines = [f"  {each.number}. {each.text}" for each in found if chosen[Topic(each.topic)].email]
        if lines:
            mailer.send(email, _SUBJECT, _INTRODUCTION + "\n".join(lines) + _END)
        with self._database.write() as connection:
            if account_rows.lock(connection, account):
                rows.put_mailbox(connection, account, digested=box.numbered, digested_ns=self._clock())
        return 1 if lines else 0


def _page(connection: Connection, account: bytes, found: Sequence[NotificationRow], limit: int) -> NotificationList:
    box = rows.mailbox(connection, account)
    chosen = chosen_preferences(box.preferences)
    return NotificationList(
        notifications=[_public(row, desktop=bool(chosen[Topic(row.topic)].desktop)) for row in found[:limit]],
        latest=box.numbered,
        unread=rows.count_unread(connection, account),
        has_more=len(found) > limit,
    )


def _public(row: NotificationRow, *, desktop: bool) -> Notification:
    return Notification(
        id=row.number,
        topic=Topic(row.topic),
        priority=Priority(row.priority),
        at_ns=row.at_ns,
        text=row.text,
        path=row.path,
        inode=row.inode,
        device=row.device_id,
        read_ns=row.read_ns,
        desktop=desktop,
    )
