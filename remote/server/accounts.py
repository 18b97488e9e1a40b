"""Accounts: who may register, who knows the password, what an account says of itself, and its end. Blocking."""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, Row

from remote.accountapi import Account, AccountChange, PasswordChange, RegisterRequest, Settings, TierName
from remote.crashpoints import crash_point
from remote.protocol import ProblemType
from remote.server.codes import code_hash, new_code
from remote.server.config import ServerConfig
from remote.server.database import accounts as rows
from remote.server.database import devices as device_rows
from remote.server.database import personaltokens as token_rows
from remote.server.database.engine import Database
from remote.server.devices import Caller
from remote.server.passwords import Passwords
from remote.server.problems import Refused, require_printable
from remote.server.ratelimit import Limit

T = TypeVar("T")

WINDOW_SECONDS = 300
PAIR_ATTEMPTS = 10
ADDRESS_ATTEMPTS = 100
EMAIL_ATTEMPTS = 100
_IPV6_NETWORK = 64
"""So many bits of an address say whose it is; the others its owner changes as often as he likes."""


def email_key(email: str) -> str:
    """The form by which two spellings of one address are the same account."""
    return unicodedata.normalize("NFKC", email.strip()).casefold()


def email_limit(purpose: str, email: str, count: int, seconds: int) -> Limit:
    return Limit(f"{purpose} email {email_key(email)}", count, seconds)


def address_limit(purpose: str, address: str, count: int, seconds: int) -> Limit:
    if ":" in address:
        address = str(ipaddress.ip_network((address.partition("%")[0], _IPV6_NETWORK), strict=False))
    return Limit(f"{purpose} address {address}", count, seconds)


def login_limits(email: str, address: str) -> list[Limit]:
    """How often a password may be wrong. The pair is what an honest person meets; the others stop who changes one of the two."""
    return [
        Limit(f"login pair {email_key(email)} {address}", PAIR_ATTEMPTS, WINDOW_SECONDS),
        address_limit("login", address, ADDRESS_ATTEMPTS, WINDOW_SECONDS),
        email_limit("login", email, EMAIL_ATTEMPTS, WINDOW_SECONDS),
    ]


@dataclass(frozen=True, slots=True)
class Known:
    """An account whose password somebody knew. It may have another one, or be closed, a moment later: `password_hash` tells."""

    account: Account
    password_hash: str


@dataclass(frozen=True, slots=True)
class Profile:
    account: Account
    created_ns: int
    last_login_ns: int | None
    settings: Settings


class Accounts:
    def __init__(
        self,
        config: ServerConfig,
        database: Database,
        passwords: Passwords,
        clock: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._config = config
        self._database = database
        self._passwords = passwords
        self._clock = clock
        self._random = random

    def register(self, request: RegisterRequest) -> Account:
        if self._config.registration == "closed":
            raise Refused(ProblemType.FORBIDDEN, "This service takes no new accounts.")
        if self._config.registration == "invite" and not request.invitation:
            raise Refused(ProblemType.FORBIDDEN, "This service takes new accounts by invitation only.", field="invitation")
        require_printable(request.email, "email")
        require_printable(request.name, "name")
        account = rows.NewAccount(
            id=self._random(16),
            email=request.email.strip(),
            email_key=email_key(request.email),
            name=request.name.strip(),
            password_hash=self._passwords.hash(request.password),
            space=self._random(16),
            tier=TierName.FREE,
            created_ns=self._clock(),
        )
        invitation = None if self._config.registration == "open" else code_hash(request.invitation or "")
        with self._database.write() as connection:
            if invitation is not None and not rows.invitation_is_free(connection, invitation):
                raise Refused(ProblemType.FORBIDDEN, "This invitation is not good (any more).", field="invitation")
            if rows.by_email(connection, account.email_key) is not None:
                raise Refused(ProblemType.EXISTS, "There is an account with this e-mail address already.", field="email")
            rows.add(connection, account)
            if invitation is not None:
                rows.use_invitation(connection, invitation, account.id)
            crash_point("service.account.adding")
        crash_point("service.account.added")
        return Account(id=account.id, email=account.email, name=account.name, space=account.space)

    def check_password(self, email: str, password: str) -> Known | None:
        """None if there is no account of this e-mail and password: which of the two it is, nobody learns."""
        with self._database.read() as connection:
            row = rows.by_email(connection, email_key(email))
        if not self._passwords.fits(password, None if row is None else row.password_hash) or row is None:
            return None
        if not self._passwords.is_outdated(row.password_hash):
            return Known(_account(row), row.password_hash)
        better = self._passwords.hash(password)
        with self._database.write() as connection:
            if not rows.lock(connection, row.id, row.password_hash):
                return None
            rows.set_password_hash(connection, row.id, better)
        return Known(_account(row), better)

    def email(self, caller: Caller) -> str:
        return self.profile(caller).account.email

    def profile(self, caller: Caller) -> Profile:
        with self._database.read() as connection:
            row = rows.by_id(connection, caller.account)
        return Profile(_account(row), row.created_ns, row.last_login_ns, Settings.model_validate_json(row.settings))

    def change(self, caller: Caller, request: AccountChange) -> None:
        if request.name is not None:
            require_printable(request.name, "name")
        with self._database.write() as connection:
            settings = None
            if request.settings is not None:
                kept = Settings.model_validate_json(rows.by_id(connection, caller.account, lock=True).settings)
                chosen = kept.model_dump(exclude_unset=True) | request.settings.model_dump(exclude_unset=True)
                chosen = {key: value for key, value in chosen.items() if value is not None}
                settings = Settings(**chosen).model_dump_json(exclude_unset=True)
            rows.change(connection, caller.account, name=request.name and request.name.strip(), settings=settings)

    def change_password(self, caller: Caller, request: PasswordChange) -> None:
        """`Refused` (forbidden) if the present one is wrong. Codes for a forgotten one are good no more."""
        known = self._prove(caller, request.password)
        better = self._passwords.hash(request.new_password)
        with self._database.write() as connection:
            self._require_still(connection, known)
            rows.set_password_hash(connection, caller.account, better)
            rows.remove_password_codes(connection, caller.account)
            if request.log_out_others:
                log_out_everywhere(connection, caller.account, self._clock(), but=caller.device)

    def close(self, caller: Caller, password: str, leave: Callable[[Connection, Caller], T]) -> T:
        """`Refused` (forbidden) if the password is wrong. `leave` comes first in the transaction: it locks spaces."""
        known = self._prove(caller, password)
        with self._database.write() as connection:
            left = leave(connection, caller)
            self._require_still(connection, known)
            log_out_everywhere(connection, caller.account, self._clock())
            rows.close(connection, caller.account, self._clock())
            return left

    def invite(self) -> str:
        """A new invitation code, good for one registration."""
        code = new_code(self._random)
        with self._database.write() as connection:
            rows.add_invitation(connection, code_hash(code), self._clock())
        return code

    def _prove(self, caller: Caller, password: str) -> Known:
        with self._database.read() as connection:
            row = rows.by_id(connection, caller.account)
        if not self._passwords.fits(password, row.password_hash):
            raise Refused(ProblemType.FORBIDDEN, "The password is wrong.", field="password")
        return Known(_account(row), row.password_hash)

    def _require_still(self, connection: Connection, known: Known) -> None:
        if not rows.lock(connection, known.account.id, known.password_hash):
            raise Refused(ProblemType.FORBIDDEN, "The password was changed meanwhile.", field="password")


def log_out_everywhere(connection: Connection, account: bytes, now_ns: int, *, but: bytes | None = None) -> None:
    """All devices and personal access tokens, but perhaps the one that asks."""
    device_rows.remove_all(connection, account, now_ns, but=but)
    token_rows.revoke_all(connection, account, now_ns, but=but)


def _account(row: Row[tuple[object, ...]]) -> Account:
    return Account(id=row.id, email=row.email, name=row.name, space=row.personal_space)
