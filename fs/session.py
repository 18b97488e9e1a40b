"""Logging a home in and out, with what that means for the state that the home holds. Prints nothing.

A home belongs to the account that last logged in there, also after a logout: its replica and drafts are that account's.
Changes that only this home holds are never given up here (P2), nor shown to another account.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from cache.disk import sync_folder
from fs.home import Home
from remote.accountapi import DeviceLogin, Login, LoginRequest, RegisterRequest
from remote.accounts import Accounts
from remote.api import NotAuthenticated, RemoteError, TooManyDevices, Transient
from remote.crashpoints import crash_point
from remote.credentials import Credentials, CredentialStore, TokenPair
from remote.http import open_service
from remote.myaccount import MyAccount
from remote.tokens import StoredTokens

ID_HEX = 32


class SessionRefused(Exception):
    """This home cannot do that now; the text says what to do first."""


class UnpushedChanges(SessionRefused):
    """It would leave `count` changes behind that the service does not have."""

    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.count = count


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """`told`: the service knows. Otherwise the device keeps its slot until somebody removes it."""

    email: str
    told: bool
    kept_changes: int


def unpushed_changes(home: Home) -> int:
    """How many changes this home holds that the service does not have. `SessionRefused` if nobody can say."""
    from cache.replica import unpushed_changes as count
    from cache.store.wal import commits_are_lost

    holder = home.mount_process()
    try:
        if (holder is None or holder.pid == os.getpid()) and commits_are_lost(home.parts().database):
            raise sqlite3.DatabaseError("the latest changes cannot be read from its WAL")
        return count(home.path)
    except sqlite3.Error as error:
        raise SessionRefused(
            f"cannot tell whether changes exist only in {home.path} ({error}): run `aloft fsck`, "
            "or choose another home with ALOFT_HOME"
        ) from error


class Session:
    """Registers, logs in and logs out one home."""

    def __init__(self, home: Home, *, unpushed: Callable[[Home], int] = unpushed_changes) -> None:
        self._home = home
        self._store = CredentialStore(home.credentials)
        self._store.clear_left_overs()
        self._unpushed = unpushed

    def credentials(self) -> Credentials:
        """Who is logged in; `NotAuthenticated` if nobody is."""
        credentials = self._store.read()
        if credentials is None or credentials.tokens is None:
            raise NotAuthenticated("not logged in: run `aloft login --server URL --email E`")
        return credentials

    def last(self) -> Credentials | None:
        """Who is logged in or was last, if that can be told."""
        try:
            return self._store.read()
        except NotAuthenticated:
            return None

    async def register(self, accounts: Accounts, request: RegisterRequest, device_name: str) -> Credentials:
        """Create an account and log this home in to it. The home must not belong to another account's changes."""
        last = self._last_or_refuse()
        if last is not None and last.tokens is not None:
            raise SessionRefused(f"this home is logged in as {last.account.email}: run `aloft logout` first")
        if last is not None:
            self._refuse_another(last)
        await accounts.register(request)
        crash_point("account.registered")
        try:
            return await self.log_in(accounts, request.email, request.password, device_name)
        except Transient as error:
            raise SessionRefused(f"the account is there, but {error}: run `aloft login`") from error

    async def log_in(
        self, accounts: Accounts, email: str, password: str, device_name: str, replace: str | None = None
    ) -> Credentials:
        """Log this home in. `replace`: the id, or its beginning, of a device that makes room if all slots are taken."""
        last = self._last_or_refuse()
        if last is not None and last.account.email.casefold() != email.strip().casefold():
            self._refuse_another(last)
        device = DeviceLogin(installation=self._home.installation(), name=device_name)
        login = await _log_in(accounts, LoginRequest(email=email, password=password, device=device), replace)
        crash_point("login.answered")
        credentials = self._credentials(accounts, login)
        if last is None or last.account.id == login.account.id:
            await self._keep(credentials)
            return credentials
        try:
            with self._home.locked():
                self._refuse_another(last, mounted=False)
                await trio.to_thread.run_sync(_set_aside, self._home, last)
                await self._keep(credentials)
        except Exception:
            # Found out only now that it is another account: the session that was just begun must not keep a slot.
            await _end(accounts, login.tokens.access_token)
            raise
        return credentials

    async def log_out(self, *, keep_drafts: bool) -> LoggedOut:
        """Forget the tokens, after telling the service. With `keep_drafts` unpushed changes wait for the next login."""
        leave = "`aloft logout --keep-drafts` to leave them here until you log in again"
        return await self._leave(self._tell, None if keep_drafts else leave)

    async def close_account(self, password: str, *, keep_drafts: bool) -> LoggedOut:
        """Close the account, and forget the tokens. With `keep_drafts` unpushed changes stay in the home.

        Any `RemoteError`, and the account is as it was (or it is not known, as after an answer that was lost).
        """

        async def close(_credentials: Credentials) -> bool:
            async with open_service(self._store) as service:
                await MyAccount(service).close(password)
            return True

        leave = f"`aloft account close --keep-drafts` to leave them in {self._home.path}, where no account will take them"
        return await self._leave(close, None if keep_drafts else leave)

    async def _leave(self, end: Callable[[Credentials], Awaitable[bool]], how_to_keep: str | None) -> LoggedOut:
        """`end` tells the service, if it can be told. `how_to_keep` changes that are here only; None: that is wanted."""
        with self._home.locked():
            credentials = self.credentials()
            count = self._unpushed(self._home)
            if count and how_to_keep is not None:
                raise UnpushedChanges(
                    f"{_changes(count)} only on this device: run `aloft mount DIR` and `aloft sync` to send them, "
                    f"or {how_to_keep}",
                    count,
                )
            told = await end(credentials)
            crash_point("logout.told")
            async with self._store.locked():
                await trio.to_thread.run_sync(self._store.write, credentials.model_copy(update={"tokens": None}))
        return LoggedOut(credentials.account.email, told, count)

    async def _tell(self, credentials: Credentials) -> bool:
        try:
            accounts = Accounts(credentials.endpoint())
        except NotAuthenticated:
            return False  # the way to the service is lost, which must not keep anybody logged in
        try:
            token = await StoredTokens(self._store, accounts.refresh).current()
        except NotAuthenticated:
            return True  # it ended the session before
        except RemoteError:
            return False
        return await _end(accounts, token)

    async def _keep(self, credentials: Credentials) -> None:
        async with self._store.locked():
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._store.write, credentials)
        crash_point("login.stored")

    def _credentials(self, accounts: Accounts, login: Login) -> Credentials:
        endpoint = accounts.endpoint
        return Credentials(
            server=endpoint.url,
            ca=str(endpoint.ca) if endpoint.ca is not None else None,
            insecure=endpoint.insecure,
            installation=self._home.installation(),
            account=login.account,
            device=login.device,
            tokens=TokenPair.granted(login.tokens, time.time()),
        )

    def _last_or_refuse(self) -> Credentials | None:
        """Who was last logged in here. A file that does not tell is nobody, if nothing can be lost by that."""
        try:
            return self._store.read()
        except NotAuthenticated as error:
            count = self._unpushed(self._home)
            if count:
                raise UnpushedChanges(
                    f"{self._home.credentials} does not tell whose {_changes(count)} only on this device; "
                    "move that file away if you log in to the same account as before",
                    count,
                ) from error
            return None

    def _refuse_another(self, last: Credentials, *, mounted: bool = True) -> None:
        """Another account may have this home only if nothing here belongs to the last one alone."""
        if mounted:
            with self._home.locked():
                pass  # raises if a mount process works for the last account
        count = self._unpushed(self._home)
        if count:
            raise UnpushedChanges(
                f"{_changes(count)} of {last.account.email} only on this device: log in as {last.account.email} and send them "
                "with `aloft sync`, or choose another home with ALOFT_HOME",
                count,
            )


async def _log_in(accounts: Accounts, request: LoginRequest, replace: str | None) -> Login:
    if replace is not None and len(replace) == ID_HEX:
        request = request.model_copy(update={"replace": bytes.fromhex(replace)})
    try:
        return await accounts.login(request)
    except TooManyDevices as error:
        if replace is None or len(replace) == ID_HEX:
            raise
        matching = [device.id for device in error.devices if device.id.hex().startswith(replace.lower())]
        if len(matching) != 1:
            raise
    return await accounts.login(request.model_copy(update={"replace": matching[0]}))


async def _end(accounts: Accounts, access_token: str) -> bool:
    """End a session on the service; False if it could not be told."""
    try:
        await accounts.logout(access_token)
    except NotAuthenticated:
        return True
    except RemoteError:
        return False
    return True


def _set_aside(home: Home, last: Credentials) -> None:
    """Take the last account's metadata and chunks away; the service has all of it. Files of drafts are never deleted.

    Durable when it returns: another account's credentials must not meet a replica that came back with a power cut.
    """
    parts = home.parts()
    if any(parts.drafts.iterdir()):  # before the replica that says that nothing in them is wanted any more
        parts.drafts.rename(home.path / f"drafts-of-{last.account.id.hex()}-{time.time_ns()}")
        parts.drafts.mkdir(mode=0o700)
    crash_point("set-aside.drafts")
    for suffix in ("", "-wal", "-shm", "-boot"):
        Path(f"{parts.database}{suffix}").unlink(missing_ok=True)
    crash_point("set-aside.replica")
    shutil.rmtree(parts.cache)
    parts.cache.mkdir(mode=0o700)
    sync_folder(home.path)
    crash_point("set-aside.finished")


def _changes(count: int) -> str:
    return "1 change is" if count == 1 else f"{count} changes are"
