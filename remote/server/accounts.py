"""Accounts: who may register, and who knows the password. Blocking; knows nothing of devices and tokens."""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from base64 import urlsafe_b64encode
from collections.abc import Callable

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from remote.crashpoints import crash_point
from remote.protocol import Account, LoginRequest, ProblemType, RegisterRequest
from remote.server.config import ServerConfig
from remote.server.database import accounts as rows
from remote.server.database.engine import Database
from remote.server.problems import Refused, require_printable
from remote.server.ratelimit import Limit

WINDOW_SECONDS = 300
PAIR_ATTEMPTS = 10
ADDRESS_ATTEMPTS = 100
EMAIL_ATTEMPTS = 100


def email_key(email: str) -> str:
    """The form by which two spellings of one address are the same account."""
    return unicodedata.normalize("NFKC", email.strip()).casefold()


def login_limits(email: str, address: str) -> list[Limit]:
    """How often a log-in may fail. The pair is what an honest person meets; the others stop who changes one of the two."""
    key = hashlib.sha256(email_key(email).encode()).hexdigest()
    return [
        Limit(f"pair {key} {address}", PAIR_ATTEMPTS, WINDOW_SECONDS),
        Limit(f"address {address}", ADDRESS_ATTEMPTS, WINDOW_SECONDS),
        Limit(f"email {key}", EMAIL_ATTEMPTS, WINDOW_SECONDS),
    ]


class Accounts:
    def __init__(
        self, config: ServerConfig, database: Database, clock: Callable[[], int], random: Callable[[int], bytes]
    ) -> None:
        self._config = config
        self._database = database
        self._clock = clock
        self._random = random
        self._hasher = PasswordHasher(memory_cost=config.password_memory_kib)
        # Verified for an unknown e-mail, so that the time does not tell which ones are known.
        self._nobody = self._hasher.hash(secrets.token_hex(16))

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
            password_hash=self._hasher.hash(request.password),
            space=self._random(16),
            quota_bytes=self._config.quota_bytes,
            created_ns=self._clock(),
        )
        invitation = None if self._config.registration == "open" else _code_hash(request.invitation or "")
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

    def check_password(self, request: LoginRequest) -> Account | None:
        """The account, or None if there is none of this e-mail and password: which of the two, nobody learns."""
        with self._database.read() as connection:
            row = rows.by_email(connection, email_key(request.email))
        try:
            self._hasher.verify(row.password_hash if row is not None else self._nobody, request.password)
        except (VerificationError, InvalidHashError):
            return None
        if row is None:
            return None
        if self._hasher.check_needs_rehash(row.password_hash):
            better = self._hasher.hash(request.password)
            with self._database.write() as connection:
                rows.set_password_hash(connection, row.id, better)
        return Account(id=row.id, email=row.email, name=row.name, space=row.personal_space)

    def get(self, account: bytes) -> Account:
        with self._database.read() as connection:
            row = rows.by_id(connection, account)
        return Account(id=row.id, email=row.email, name=row.name, space=row.personal_space)

    def invite(self) -> str:
        """A new invitation code, good for one registration."""
        code = urlsafe_b64encode(self._random(18)).decode()
        with self._database.write() as connection:
            rows.add_invitation(connection, _code_hash(code), self._clock())
        return code


def _code_hash(code: str) -> bytes:
    return hashlib.sha256(code.strip().encode()).digest()
