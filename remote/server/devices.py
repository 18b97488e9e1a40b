"""Devices and their tokens: log-in, refresh, log-out, and who is asking. Blocking.

Refresh tokens rotate. A device holds one *confirmed* token, and perhaps successors of it that were issued but are not known to
have arrived; using a successor, or an access token issued with it, confirms it and retires all others. So a client that lost
an answer refreshes with the old token again. A retired one comes back only from a copy: then all tokens are revoked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from remote.accountapi import Account, DeviceList, Login, LoginRequest, Scope, Tokens
from remote.crashpoints import crash_point
from remote.notificationapi import Priority, Topic
from remote.protocol import Device, ProblemType
from remote.server.codes import code_hash, new_code
from remote.server.config import ServerConfig
from remote.server.database import accounts as account_rows
from remote.server.database import devices as rows
from remote.server.database.devices import DeviceRow
from remote.server.database.engine import Database
from remote.server.news import News, post
from remote.server.problems import Refused, not_found, require_printable
from remote.server.tokens import ACCESS_SECONDS, AccessTokens, Claims, unauthenticated

REFRESH_BYTES = 32
RETIRED_KEPT = 100
SEEN_EVERY_NS = 10 * 60 * 10**9
"""How exact "last seen" is: each request that moves it is a write."""


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a device that is logged in, or a personal access token, whose id then stands for the device's."""

    account: bytes
    device: bytes
    scopes: frozenset[Scope]


class TokenReused(Refused):
    """A refresh token came back that was used before. `caller` was logged out."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(
            ProblemType.UNAUTHENTICATED,
            "This refresh token was used before: somebody may have copied it, so the device was logged out.",
        )
        self.caller = caller


class Devices:
    def __init__(
        self,
        config: ServerConfig,
        database: Database,
        tokens: AccessTokens,
        clock: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._limit = config.max_devices
        self._database = database
        self._tokens = tokens
        self._clock = clock
        self._random = random

    def login(self, account: Account, request: LoginRequest, password_hash: str | None = None) -> Login:
        """Log a device of `account` in; the caller has checked the password, whose hash was `password_hash` then."""
        require_printable(request.device.name, "device.name")
        with self._database.write() as connection:
            if not account_rows.lock(connection, account.id, password_hash):
                raise unauthenticated("The password was changed meanwhile.")
            account_rows.logged_in(connection, account.id, self._clock())
            device = self._take_slot(connection, account.id, request)
            tokens = self._issue(connection, device)
            crash_point("service.login.writing")
        crash_point("service.login.written")
        return Login(account=account, device=_public(device, device.id), tokens=tokens)

    def refresh(self, refresh_token: str) -> Tokens:
        """`Refused`: revoked if the device was removed, unauthenticated for any other token that is not good."""
        now = self._clock()
        with self._database.write() as connection:
            token = rows.find_token(connection, code_hash(refresh_token))
            device = None if token is None else rows.find(connection, token.account, token.device, lock=True)
            token = rows.find_token(connection, code_hash(refresh_token))  # whoever held the lock may have changed it
            if token is None or device is None:
                raise unauthenticated("This refresh token is not known.")
            if device.removed_ns is not None:
                raise Refused(ProblemType.REVOKED, "This device was removed from the account; log in again to use it.")
            if token.retired:
                rows.revoke_tokens(connection, device.account, device.id, self._random(16))
                tokens = None
            else:
                if token.serial > device.confirmed:
                    rows.confirm(connection, device.account, device.id, token.serial)
                rows.seen(connection, device.account, device.id, now)
                tokens = self._issue(connection, device)
            crash_point("service.tokens.rotating")
        if tokens is None:
            raise TokenReused(Caller(device.account, device.id, ALL_SCOPES))
        crash_point("service.tokens.rotated")
        return tokens

    def authenticate(self, access_token: str) -> Caller:
        """Who asks. `Refused`: unauthenticated, or revoked if the device was removed."""
        claims = self._tokens.verify(access_token)
        with self._database.read() as connection:
            device = rows.find(connection, claims.account, claims.device)
        _check(device, claims)
        if device is not None and (claims.serial > device.confirmed or self._clock() - device.last_seen_ns > SEEN_EVERY_NS):
            self._note(claims)
        return Caller(claims.account, claims.device, ALL_SCOPES)

    def listing(self, caller: Caller) -> DeviceList:
        with self._database.read() as connection:
            active = rows.active(connection, caller.account)
        return DeviceList(devices=[_public(device, caller.device) for device in active], limit=self._limit)

    def current(self, caller: Caller) -> Device | None:
        """None: no device asks, but a personal access token."""
        with self._database.read() as connection:
            device = rows.find(connection, caller.account, caller.device)
        return None if device is None else _public(device, caller.device)

    def remove(self, caller: Caller, device: bytes) -> None:
        with self._database.write() as connection:
            if not rows.remove(connection, caller.account, device, self._clock()):
                raise not_found("There is no such device.")
            crash_point("service.device.removing")
        crash_point("service.device.removed")

    def remove_all(self, caller: Caller, *, keep_current: bool) -> None:
        with self._database.write() as connection:
            rows.remove_all(connection, caller.account, self._clock(), but=caller.device if keep_current else None)

    def _take_slot(self, connection: Connection, account: bytes, request: LoginRequest) -> DeviceRow:
        """The row of the device that logs in, written. The account is locked: of two for the last slot one is second."""
        now = self._clock()
        known = rows.find_installation(connection, account, request.device.installation)
        if known is None or known.removed_ns is not None:
            self._make_room(connection, account, request.replace, now)
        fresh = known or DeviceRow(
            account, self._random(16), request.device.installation, "", created_ns=now, last_seen_ns=now,
            removed_ns=None, session=b"", confirmed=0,
        )  # fmt: skip
        device = replace(
            fresh,
            name=request.device.name.strip() or "unnamed",
            last_seen_ns=now,
            removed_ns=None,
            session=self._random(16),
            confirmed=1,
        )
        if (known is None or known.removed_ns is not None) and rows.had_any(connection, account):
            text = f"{device.name} has logged in to your account. If that was not you: remove it, and change your password."
            post(connection, account, [News(Topic.NEW_DEVICE, text, Priority.HIGH, device=device.id)], now)
        rows.put(connection, device, known=known is not None)
        rows.revoke_tokens(connection, account, device.id, device.session)
        return device

    def _make_room(self, connection: Connection, account: bytes, replaced: bytes | None, now: int) -> None:
        active = rows.active(connection, account)
        if len(active) < self._limit:
            return
        if replaced is not None and any(device.id == replaced for device in active):
            rows.remove(connection, account, replaced, now)
            return
        raise Refused(
            ProblemType.TOO_MANY_DEVICES,
            f"{len(active)} devices are logged in, which is as many as there may be. Replace one of them.",
            devices=[_public(device, None) for device in active],
        )

    def _issue(self, connection: Connection, device: DeviceRow) -> Tokens:
        refresh_token = new_code(self._random, REFRESH_BYTES)
        serial = rows.add_token(connection, device.account, device.id, code_hash(refresh_token), RETIRED_KEPT)
        access_token = self._tokens.issue(Claims(device.account, device.id, device.session, serial))
        return Tokens(access_token=access_token, expires_in=ACCESS_SECONDS, refresh_token=refresh_token)

    def _note(self, claims: Claims) -> None:
        """Write down that the device was seen, and that the refresh token of `claims` has arrived (unless it was overtaken)."""
        with self._database.write() as connection:
            device = rows.find(connection, claims.account, claims.device, lock=True)
            _check(device, claims)
            token = rows.find_serial(connection, claims.device, claims.serial)
            if device is not None and token is not None and not token.retired and token.serial > device.confirmed:
                rows.confirm(connection, claims.account, claims.device, claims.serial)
            rows.seen(connection, claims.account, claims.device, self._clock())
            crash_point("service.tokens.confirming")
        crash_point("service.tokens.confirmed")


def _check(device: DeviceRow | None, claims: Claims) -> None:
    if device is not None and device.removed_ns is not None:
        raise Refused(ProblemType.REVOKED, "This device was removed from the account; log in again to use it.")
    if device is None or device.session != claims.session:
        raise unauthenticated("The device was logged in anew, or its tokens were revoked.")


def _public(device: DeviceRow, current: bytes | None) -> Device:
    return Device(
        id=device.id,
        name=device.name,
        created_ns=device.created_ns,
        last_seen_ns=device.last_seen_ns,
        current=device.id == current,
    )
