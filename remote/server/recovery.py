"""Forgotten passwords: a code by e-mail, or from the administrator, that is good once and for half an hour. Blocking."""

from __future__ import annotations

from collections.abc import Callable

from remote.accountapi import NewPassword
from remote.protocol import ProblemType
from remote.server.accounts import email_key, log_out_everywhere
from remote.server.codes import code_hash, new_code
from remote.server.database import accounts as rows
from remote.server.database.engine import Database
from remote.server.mail import Mailer
from remote.server.passwords import Passwords
from remote.server.problems import Refused

CODE_MINUTES = 30
_SUBJECT = "A new password for Aloft"
_TEXT = """Somebody, perhaps you, asked for a new password for the Aloft account of
{email}.

The code is: {code}

It is good once, for {minutes} minutes:

    aloft password new{server} --code {code}

All devices and tokens of the account are logged out when it is used.
If it was not you who asked, do nothing.
"""


class Recovery:
    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        mailer: Mailer | None,
        server: str | None,
        clock: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._mailer = mailer
        # The configured address and no other: the one by which a request came is chosen by whoever sent it.
        self._server = "" if server is None else f" --server {server}"
        self._clock = clock
        self._random = random

    def require_mail(self) -> None:
        """`Refused` (unavailable) where no e-mail can be sent; about accounts, that says nothing."""
        if self._mailer is None:
            raise Refused(
                ProblemType.FORBIDDEN,
                "This service sends no e-mails: ask its administrator for a code (aloft admin reset-password).",
            )

    def send_code(self, email: str) -> None:
        """Send a code to the account of this address, if there is one. Takes as long as that takes: no request waits for it."""
        found = self._database.repeat(self._make_code, email)
        if found is not None and self._mailer is not None:
            address, code = found
            self._mailer.send(address, _SUBJECT, self._text(address, code))

    def make_code(self, email: str) -> str | None:
        """A code for the administrator to hand over; None: there is no such account."""
        found = self._make_code(email)
        return None if found is None else found[1]

    def use_code(self, request: NewPassword) -> bytes:
        """The account, which has the new password, and whose devices and tokens are logged out."""
        hash_ = code_hash(request.code)
        with self._database.read() as connection:
            account = rows.account_of_password_code(connection, hash_, self._clock())
        if account is None:
            raise _not_good()
        password_hash = self._passwords.hash(request.new_password)
        with self._database.write() as connection:
            if not rows.lock(connection, account) or rows.account_of_password_code(connection, hash_, self._clock()) is None:
                raise _not_good()
            rows.set_password_hash(connection, account, password_hash)
            rows.remove_password_codes(connection, account)
            log_out_everywhere(connection, account, self._clock())
        return account

    def _text(self, address: str, code: str) -> str:
        return _TEXT.format(email=address, code=code, server=self._server, minutes=CODE_MINUTES)

    def _make_code(self, email: str) -> tuple[str, str] | None:
        """The account's address, and a code."""
        now = self._clock()
        code = new_code(self._random)
        with self._database.write() as connection:
            row = rows.by_email(connection, email_key(email))
            if row is None:
                return None
            rows.add_password_code(connection, code_hash(code), row.id, now + CODE_MINUTES * 60 * 10**9, now)
            return row.email, code


def _not_good() -> Refused:
    return Refused(ProblemType.FORBIDDEN, "This code is not good (any more): ask for another one.", field="code")
