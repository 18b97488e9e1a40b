"""The audit log: who did what, from where, and how it ended. Blocking.

What is noted is what somebody may have to explain later: who got in or did not, who may do what, and what an administrator did.
Contents have their own history. An attempt that met a rate limit is not noted: there may be any number of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from remote.accountapi import AuditEvent, AuditPage
from remote.protocol import ProblemType
from remote.server.accounts import email_key
from remote.server.database import accounts as account_rows
from remote.server.database import audit as rows
from remote.server.database.audit import AuditRow, Named
from remote.server.database.engine import Database
from remote.server.problems import Refused

DONE = "done"
ADMINISTRATOR = "administrator"
"""The address of who works on the service's machine."""
_POINT = re.compile(r"([0-9]{1,19})-([0-9a-f]{32})")


class Action(StrEnum):
    REGISTER = "account.register"
    CHANGE_ACCOUNT = "account.change"
    CHOOSE_TIER = "account.tier"
    CLOSE_ACCOUNT = "account.close"
    LOG_IN = "device.login"
    LOG_OUT = "device.logout"
    REMOVE_DEVICE = "device.remove"
    REMOVE_DEVICES = "device.remove-all"
    REUSE_TOKEN = "device.token-reused"
    CHANGE_PASSWORD = "password.change"
    FORGET_PASSWORD = "password.forgotten"
    RENEW_PASSWORD = "password.new"
    MAKE_TOKEN = "token.create"
    REVOKE_TOKEN = "token.revoke"
    MAKE_LINK = "link.create"
    REVOKE_LINK = "link.revoke"
    OPEN_LINK = "link.open"
    SHARE = "share.invite"
    CHANGE_ROLE = "share.role"
    REMOVE_MEMBER = "share.remove"
    LEAVE_SHARE = "share.leave"
    UNSHARE = "share.end"
    ACCEPT_SHARE = "share.accept"
    DECLINE_SHARE = "share.decline"
    INVITE = "admin.invite"
    MAKE_PASSWORD_CODE = "admin.reset-password"
    ROTATE_KEYS = "admin.rotate-keys"


@dataclass(slots=True)
class Event:
    """What happens; filled in while it does."""

    action: Action
    address: str
    request_id: str = ""
    account: bytes | None = None
    email: str | None = None
    """As somebody typed it: finds the account, and is not kept."""
    caller: bytes | None = None
    subject: str = ""
    result: str = DONE


class Audit:
    def __init__(self, database: Database, clock: Callable[[], int], random: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock = clock
        self._random = random

    def note(self, event: Event) -> None:
        if event.result == ProblemType.RATE_LIMITED:
            return
        self._database.repeat(self._note, event, self._clock(), self._random(16))

    def page(
        self, account: bytes | None = None, *, action: str | None = None, before: str | None = None, limit: int = 100
    ) -> AuditPage:
        """The last events before a point of an earlier page, the newest first; of one account, or of all."""
        with self._database.read() as connection:
            found = rows.page(connection, account, action, _point(before), limit)
        last = found[-1].row if len(found) == limit else None
        return AuditPage(events=[_public(each) for each in found], next=None if last is None else f"{last.at_ns}-{last.id.hex()}")

    def account_of(self, email: str) -> bytes | None:
        with self._database.read() as connection:
            row = account_rows.by_email(connection, email_key(email))
        return None if row is None else bytes(row.id)

    def _note(self, event: Event, at_ns: int, id_: bytes) -> None:
        account = event.account
        if account is None and event.email is not None:
            account = self.account_of(event.email)
        row = AuditRow(
            at_ns, id_, account, event.caller, event.address, event.action, event.subject, event.result, event.request_id
        )
        with self._database.write() as connection:
            if not rows.is_there(connection, row):  # else the answer to the COMMIT was lost
                rows.add(connection, row)


def _point(text: str | None) -> tuple[int, bytes] | None:
    if text is None:
        return None
    match = _POINT.fullmatch(text)
    if match is None:
        raise Refused(ProblemType.INVALID, "This is no point of the audit log.", field="before")
    return int(match[1]), bytes.fromhex(match[2])


def _public(named: Named) -> AuditEvent:
    row = named.row
    return AuditEvent(
        at_ns=row.at_ns,
        action=row.action,
        result=row.result,
        account=row.account_id,
        email=named.email,
        caller=row.caller_id,
        caller_name=named.caller_name,
        address=row.address,
        subject=row.subject,
        request_id=row.request_id,
    )
