"""Statements about notifications. Numbers of an account are given with its row locked: who sees one has seen all before it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update

from remote.server.database.schema import accounts, mailboxes, notifications


@dataclass(frozen=True, slots=True)
class Mailbox:
    numbered: int
    preferences: str
    digest: bool
    digested: int


@dataclass(frozen=True, slots=True)
class NotificationRow:
    account_id: bytes
    number: int
    topic: str
    priority: str
    at_ns: int
    text: str
    path: str | None
    inode: bytes | None
    device_id: bytes | None
    read_ns: int | None = None


EMPTY = Mailbox(0, "{}", digest=False, digested=0)


def mailbox(connection: Connection, account: bytes) -> Mailbox:
    row = connection.execute(select(mailboxes).where(mailboxes.c.account_id == account)).one_or_none()
    return EMPTY if row is None else Mailbox(row.numbered, row.preferences, row.digest, row.digested)


def put_mailbox(connection: Connection, account: bytes, **values: Any) -> None:
    """Change the columns that are named. The account is locked."""
    mine = mailboxes.c.account_id == account
    if connection.execute(update(mailboxes).where(mine).values(**values)).rowcount == 0:
        fresh = {"numbered": 0, "preferences": "{}", "digest": False, "digested": 0, "digested_ns": 0}
        connection.execute(insert(mailboxes).values(account_id=account, **(fresh | values)))


def add(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    connection.execute(insert(notifications), rows)


def forget_up_to(connection: Connection, account: bytes, number: int) -> None:
    connection.execute(delete(notifications).where(notifications.c.account_id == account, notifications.c.number <= number))


def forget_before(connection: Connection, before_ns: int) -> int:
    """How many they were."""
    return connection.execute(delete(notifications).where(notifications.c.at_ns < before_ns)).rowcount


def before(connection: Connection, account: bytes, number: int | None, *, unread: bool, limit: int) -> Sequence[NotificationRow]:
    """The newest first."""
    here = _mine(account, unread=unread)
    if number is not None:
        here &= notifications.c.number < number
    query = select(notifications).where(here).order_by(notifications.c.number.desc()).limit(limit)
    return [_notification(row) for row in connection.execute(query)]


def after(connection: Connection, account: bytes, number: int, *, unread: bool, limit: int) -> Sequence[NotificationRow]:
    """The oldest first."""
    here = _mine(account, unread=unread) & (notifications.c.number > number)
    query = select(notifications).where(here).order_by(notifications.c.number).limit(limit)
    return [_notification(row) for row in connection.execute(query)]


def count_unread(connection: Connection, account: bytes) -> int:
    query = select(func.count()).select_from(notifications).where(_mine(account, unread=True))
    return int(connection.execute(query).scalar_one())


def mark_read(connection: Connection, account: bytes, numbers: Collection[int], up_to: int, now_ns: int) -> None:
    here = _mine(account, unread=True) & (notifications.c.number.in_(numbers) | (notifications.c.number <= up_to))
    connection.execute(update(notifications).where(here).values(read_ns=now_ns))


def due_for_digest(connection: Connection, before_ns: int, after: bytes, limit: int) -> Sequence[tuple[bytes, str]]:
    """(account, e-mail) of open accounts that want a digest, have had none since then, and got something since; in the
    order of their ids, after one."""
    query = (
        select(mailboxes.c.account_id, accounts.c.email)
        .join_from(mailboxes, accounts, accounts.c.id == mailboxes.c.account_id)
        .where(
            mailboxes.c.digest,
            mailboxes.c.digested_ns < before_ns,
            mailboxes.c.digested < mailboxes.c.numbered,
            accounts.c.closed_ns.is_(None),
            *((mailboxes.c.account_id > after,) if after else ()),
        )
        .order_by(mailboxes.c.account_id)
        .limit(limit)
    )
    return [(row.account_id, row.email) for row in connection.execute(query)]


def _mine(account: bytes, *, unread: bool) -> ColumnElement[bool]:
    here = notifications.c.account_id == account
    return here & notifications.c.read_ns.is_(None) if unread else here


def _notification(row: Row[Any]) -> NotificationRow:
    return NotificationRow(**row._mapping)
