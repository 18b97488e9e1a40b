"""Personal access tokens: for programs that use the API only. They are no devices and take no slot. Blocking."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from remote.accountapi import NewPersonalToken, PersonalToken, PersonalTokenList, Scope, TokenRequest
from remote.protocol import ProblemType
from remote.server.accounts import Known
from remote.server.codes import code_hash, new_code
from remote.server.database import accounts as account_rows
from remote.server.database import devices as device_rows
from remote.server.database import personaltokens as rows
from remote.server.database.engine import Database
from remote.server.database.personaltokens import PersonalTokenRow
from remote.server.devices import SEEN_EVERY_NS, Caller
from remote.server.problems import Refused, not_found, require_printable
from remote.server.tokens import unauthenticated

PREFIX = "aloft_pat_"
"""What every token begins with: so that it is told from an access token of a device, and found where it should not be."""
SECRET_BYTES = 32
TOKENS_MAX = 50
DAY_NS = 24 * 3600 * 10**9


class PersonalTokens:
    def __init__(self, database: Database, clock: Callable[[], int], random: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock = clock
        self._random = random

    def make(self, caller: Caller, request: TokenRequest) -> NewPersonalToken:
        """Only a device may: else one token could make others that live longer, or may do more."""
        with self._database.write() as connection:
            if not account_rows.lock(connection, caller.account):
                raise unauthenticated("The account was closed.")
            if device_rows.find(connection, caller.account, caller.device) is None:
                raise Refused(ProblemType.FORBIDDEN, "A token makes no tokens: do it from a device, or with the password.")
            return self._make(connection, caller.account, request)

    def make_by_password(self, known: Known, request: TokenRequest) -> NewPersonalToken:
        with self._database.write() as connection:
            if not account_rows.lock(connection, known.account.id, known.password_hash):
                raise unauthenticated("The password was changed meanwhile.")
            account_rows.logged_in(connection, known.account.id, self._clock())
            return self._make(connection, known.account.id, request)

    def authenticate(self, token: str) -> Caller:
        """Who asks. `Refused` (unauthenticated)."""
        now = self._clock()
        with self._database.read() as connection:
            row = rows.find(connection, code_hash(token), now)
        if row is None:
            raise unauthenticated("This token is not known, has expired, or was revoked.")
        if row.last_used_ns is None or now - row.last_used_ns > SEEN_EVERY_NS:
            with self._database.write() as connection:
                rows.used(connection, row.account_id, row.id, now)
        return Caller(row.account_id, row.id, frozenset(_scopes(row)))

    def listing(self, caller: Caller) -> PersonalTokenList:
        with self._database.read() as connection:
            found = rows.good(connection, caller.account, self._clock())
        return PersonalTokenList(tokens=[_public(row) for row in found], limit=TOKENS_MAX)

    def revoke(self, caller: Caller, token: bytes) -> None:
        with self._database.write() as connection:
            if not rows.revoke(connection, caller.account, token, self._clock()):
                raise not_found("There is no such token.")

    def _make(self, connection: Connection, account: bytes, request: TokenRequest) -> NewPersonalToken:
        """The account is locked: of two for the last place one is second."""
        require_printable(request.name, "name")
        now = self._clock()
        if len(rows.good(connection, account, now)) >= TOKENS_MAX:
            raise Refused(ProblemType.FORBIDDEN, f"There are {TOKENS_MAX} tokens already: revoke one that is not needed.")
        token = PREFIX + new_code(self._random, SECRET_BYTES)
        row = PersonalTokenRow(
            account_id=account,
            id=self._random(16),
            token_hash=code_hash(token),
            name=request.name.strip(),
            scopes=" ".join(sorted(request.scopes)),
            created_ns=now,
            expires_ns=None if request.expires_in_days is None else now + request.expires_in_days * DAY_NS,
        )
        rows.add(connection, row)
        return NewPersonalToken(personal_token=_public(row), token=token)


def _scopes(row: PersonalTokenRow) -> list[Scope]:
    return [Scope(scope) for scope in row.scopes.split()]


def _public(row: PersonalTokenRow) -> PersonalToken:
    return PersonalToken(
        id=row.id,
        name=row.name,
        scopes=_scopes(row),
        created_ns=row.created_ns,
        expires_ns=row.expires_ns,
        last_used_ns=row.last_used_ns,
    )
