"""Access tokens for the calls of a logged-in device: kept fresh, stored before they are used, never logged.

A rotated refresh token stays valid until its successor is first used. So new tokens are stored durably first and used
then, and a process that is killed in between logs in with the old one again. One process of a home refreshes at a time,
and looks first whether another one did it already.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from remote.accountapi import Tokens
from remote.api import NotAuthenticated, Transient
from remote.crashpoints import crash_point
from remote.credentials import Credentials, CredentialStore, TokenPair


class TokenSource(Protocol):
    async def current(self) -> str:
        """An access token that is good as far as one can tell from here."""

    async def after_rejection(self, rejected: str) -> str:
        """Another access token, as the service no longer accepts `rejected`. `NotAuthenticated` if there is none."""


class FixedToken:
    """A personal access token that somebody made for this program."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def current(self) -> str:
        return self._token

    async def after_rejection(self, rejected: str) -> str:
        raise NotAuthenticated(
            "the service does not take this token: make another one (aloft token create), or use a device (aloft login)"
        )


class StoredTokens:
    """The tokens of a home's credentials. `refresh` asks the service; `clock` is Unix time in seconds."""

    def __init__(
        self, store: CredentialStore, refresh: Callable[[str], Awaitable[Tokens]], clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._refresh = refresh
        self._clock = clock
        self._known: TokenPair | None = None
        self._account: bytes | None = None

    async def current(self) -> str:
        tokens = self._known or self._stored()[1]
        if self._is_fresh(tokens):
            return tokens.access_token
        try:
            return await self._renewed(tokens.access_token)
        except Transient:
            # It has some seconds left; whether those are enough, the service says.
            if self._clock() < tokens.expires_at:
                return tokens.access_token
            raise

    async def after_rejection(self, rejected: str) -> str:
        return await self._renewed(rejected)

    async def _renewed(self, old: str) -> str:
        async with self._store.locked():
            credentials, tokens = self._stored()
            if tokens.access_token == old or not self._is_fresh(tokens):
                answer = await self._refresh(tokens.refresh_token)
                crash_point("token.answered")
                tokens = TokenPair.granted(answer, self._clock())
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._store.write, credentials.model_copy(update={"tokens": tokens}))
                crash_point("token.stored")
            self._known = tokens
            return tokens.access_token

    def _stored(self) -> tuple[Credentials, TokenPair]:
        credentials = self._store.read()
        if credentials is None or credentials.tokens is None:
            raise NotAuthenticated("this device is not logged in: run aloft login")
        if self._account is None:
            self._account = credentials.account.id
        elif self._account != credentials.account.id:
            raise NotAuthenticated("another account logged in on this device meanwhile: start again")
        self._known = credentials.tokens
        return credentials, credentials.tokens

    def _is_fresh(self, tokens: TokenPair) -> bool:
        return self._clock() < tokens.renew_at
