"""Calls to the service that need no logged-in device: register, log in, log out, forgotten passwords, new tokens for old ones.

`transport` takes the place of the network in tests.
"""

from __future__ import annotations

import httpx

from remote.accountapi import (
    Account,
    ForgottenPassword,
    Login,
    LoginRequest,
    NewPassword,
    NewPersonalToken,
    RefreshRequest,
    RegisterRequest,
    TokenLogin,
    Tokens,
)
from remote.calls import Api, Timeouts
from remote.endpoint import Endpoint


class Accounts:
    """The account calls of one endpoint. Each one opens and closes its own connection: they are rare."""

    def __init__(
        self, endpoint: Endpoint, *, timeouts: Timeouts | None = None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.endpoint = endpoint
        self._timeouts = timeouts
        self._transport = transport

    async def register(self, request: RegisterRequest) -> Account:
        """Create an account. `AlreadyExists` if the address has one; `Forbidden` if the service takes no newcomers."""
        async with self._api() as api:
            return await api.call(Account, "POST", "/v1/accounts", body=request)

    async def login(self, request: LoginRequest) -> Login:
        """Log a device in. `NotAuthenticated`: wrong address or password; `TooManyDevices`: all slots are taken."""
        async with self._api() as api:
            return await api.call(Login, "POST", "/v1/sessions", body=request)

    async def login_for_token(self, request: TokenLogin) -> NewPersonalToken:
        """A personal access token instead of a device. `NotAuthenticated`: wrong address or password."""
        async with self._api() as api:
            return await api.call(NewPersonalToken, "POST", "/v1/sessions/token", body=request)

    async def forgotten_password(self, request: ForgottenPassword) -> None:
        """Have a code sent, if there is such an account. `Forbidden`: this service sends no e-mails."""
        async with self._api() as api:
            await api.send("POST", "/v1/password/forgotten", body=request)

    async def new_password(self, request: NewPassword) -> None:
        """`Forbidden`: the code is not good (any more)."""
        async with self._api() as api:
            await api.send("POST", "/v1/password/new", body=request)

    async def refresh(self, refresh_token: str) -> Tokens:
        """New tokens. The old refresh token stays valid until the new one is first used."""
        async with self._api() as api:
            return await api.call(Tokens, "POST", "/v1/tokens", body=RefreshRequest(refresh_token=refresh_token))

    async def logout(self, access_token: str) -> None:
        """End this device's session and free its slot."""
        async with self._api() as api:
            await api.send("DELETE", "/v1/sessions/current", token=access_token)

    def _api(self) -> Api:
        return Api(self.endpoint, timeouts=self._timeouts, connections=1, repeat=False, transport=self._transport)
