"""Calls about the account that is logged in: profile, password, tier, tokens, its end. The drive needs none of them."""

from __future__ import annotations

from remote.accountapi import (
    AccountChange,
    AccountClosing,
    AccountInfo,
    AccountTier,
    AuditPage,
    ChooseTier,
    NewPersonalToken,
    PasswordChange,
    PersonalTokenList,
    TierName,
    TokenRequest,
)
from remote.http import HttpService


class MyAccount:
    """May raise any `RemoteError`."""

    def __init__(self, service: HttpService) -> None:
        self._service = service

    async def info(self) -> AccountInfo:
        return await self._service.account()

    async def change(self, request: AccountChange) -> AccountInfo:
        return await self._service.call(AccountInfo, "PATCH", "/v1/account", request)

    async def change_password(self, request: PasswordChange) -> None:
        """`Forbidden` if the present one is wrong."""
        await self._service.send("POST", "/v1/account/password", request)

    async def close(self, password: str) -> None:
        """`Forbidden` if the password is wrong."""
        await self._service.send("POST", "/v1/account/close", AccountClosing(password=password))

    async def audit(self, before: str | None, limit: int) -> AuditPage:
        """What was done with the account, before a point of an earlier page (None: until now), the newest first."""
        point = "" if before is None else f"&before={before}"
        return await self._service.call(AuditPage, "GET", f"/v1/audit?limit={limit}{point}")

    async def tier(self) -> AccountTier:
        return await self._service.call(AccountTier, "GET", "/v1/users/tier")

    async def choose_tier(self, tier: TierName) -> AccountTier:
        """`QuotaExceeded` if more is stored than it allows."""
        return await self._service.call(AccountTier, "POST", "/v1/users/tier", ChooseTier(tier=tier))

    async def remove_other_devices(self) -> None:
        await self._service.send("DELETE", "/v1/devices?keep_current=true")

    async def personal_tokens(self) -> PersonalTokenList:
        return await self._service.call(PersonalTokenList, "GET", "/v1/personal-tokens")

    async def make_personal_token(self, request: TokenRequest) -> NewPersonalToken:
        return await self._service.call(NewPersonalToken, "POST", "/v1/personal-tokens", request)

    async def revoke_personal_token(self, token: bytes) -> None:
        await self._service.send("DELETE", f"/v1/personal-tokens/{token.hex()}")
