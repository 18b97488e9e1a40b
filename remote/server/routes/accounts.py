"""Accounts, log-in, tokens and devices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Request
from starlette.responses import Response

from remote.accountapi import (
    Account,
    AccountChange,
    AccountClosing,
    AccountInfo,
    DeviceList,
    Login,
    LoginRequest,
    NewPersonalToken,
    PasswordChange,
    PersonalTokenList,
    RefreshRequest,
    RegisterRequest,
    TokenLogin,
    TokenRequest,
    Tokens,
)
from remote.server.accounts import Known, login_limits
from remote.server.audit import Action
from remote.server.devices import Caller, TokenReused
from remote.server.ratelimit import Limit
from remote.server.routes.requests import (
    AccountReader,
    AccountWriter,
    Authenticated,
    address_of,
    answer,
    audited,
    describe,
    nothing,
    parse_id,
    read_model,
    service_of,
)
from remote.server.service import Service
from remote.server.tokens import unauthenticated

NEW_TOKENS_A_DAY = 50

router = APIRouter()


@router.post("/v1/accounts", **describe(Account, RegisterRequest, status=201))
async def register(request: Request) -> Response:
    """Create an account, with its personal space."""
    service = service_of(request)
    body = await read_model(request, RegisterRequest)
    async with audited(request, Action.REGISTER) as event:
        account = await service.in_password_thread(service.accounts.register, body)
        event.account = account.id
    return answer(account, 201)


# --------------------------------------------------------------------------------------------------- log in and log out


@router.post("/v1/sessions", **describe(Login, LoginRequest))
async def login(request: Request) -> Response:
    """Log a device in. The same installation is the same device; a device too many is refused with the list of the others."""
    service = service_of(request)
    body = await read_model(request, LoginRequest)
    async with audited(request, Action.LOG_IN, email=body.email) as event:
        known = await _who_knows(request, body.email, body.password)
        logged_in = await service.in_thread(service.devices.login, known.account, body, known.password_hash)
        event.caller = logged_in.device.id
    if body.replace is not None:
        service.wake.notify(body.replace)
    service.wake.notify(known.account.id)  # a new device is news
    return answer(logged_in)


@router.post("/v1/sessions/token", **describe(NewPersonalToken, TokenLogin))
async def login_for_token(request: Request) -> Response:
    """A personal access token for e-mail and password: a log-in that is no device, for what uses the API only."""
    service = service_of(request)
    body = await read_model(request, TokenLogin)
    async with audited(request, Action.MAKE_TOKEN, email=body.email) as event:
        known = await _who_knows(request, body.email, body.password)
        await service.in_thread(service.limiter.take, [_token_limit(known.account.id)])
        made = await service.in_thread(service.personal_tokens.make_by_password, known, body)
        event.subject = made.personal_token.id.hex()
    return answer(made)


@router.delete("/v1/sessions/current", **describe(None, status=204))
async def logout(request: Request, caller: Authenticated) -> Response:
    """Log this device out, which frees its slot."""
    async with audited(request, Action.LOG_OUT, caller):
        await _remove(service_of(request), caller, caller.device)
    return nothing()


@router.post("/v1/tokens", **describe(Tokens, RefreshRequest))
async def refresh(request: Request) -> Response:
    """Exchange a refresh token. The old one stays good until the new one, or its access token, is first used."""
    service = service_of(request)
    body = await read_model(request, RefreshRequest)
    try:
        return answer(await service.in_thread(service.devices.refresh, body.refresh_token))
    except TokenReused as reused:
        async with audited(request, Action.REUSE_TOKEN, reused.caller):
            raise


# ---------------------------------------------------------------------------------------------------------- the account


@router.get("/v1/account", **describe(AccountInfo))
async def account(request: Request, caller: AccountReader) -> Response:
    """The account, this device, the quota, and what the embedded object store has carried."""
    service = service_of(request)
    return answer(await service.in_thread(_account_info, service, caller))


@router.patch("/v1/account", **describe(AccountInfo, AccountChange))
async def change_account(request: Request, caller: AccountWriter) -> Response:
    """Change the name, or settings; what is not named stays."""
    service = service_of(request)
    body = await read_model(request, AccountChange)
    async with audited(request, Action.CHANGE_ACCOUNT, caller):
        await service.in_thread(service.accounts.change, caller, body)
    return answer(await service.in_thread(_account_info, service, caller))


@router.post("/v1/account/password", **describe(None, PasswordChange, status=204))
async def change_password(request: Request, caller: AccountWriter) -> Response:
    """Change the password, which has to be known; and, if wanted, log out all others."""
    service = service_of(request)
    body = await read_model(request, PasswordChange)
    email = await service.in_thread(service.accounts.email, caller)
    async with audited(request, Action.CHANGE_PASSWORD, caller), _attempt(request, email):
        await service.in_password_thread(service.accounts.change_password, caller, body)
    if body.log_out_others:
        service.wake.notify(caller.account)
    return nothing()


@router.post("/v1/account/close", **describe(None, AccountClosing, status=204))
async def close_account(request: Request, caller: AccountWriter) -> Response:
    """Close the account for good: everybody is logged out, and what it stored can be reached no more."""
    service = service_of(request)
    body = await read_model(request, AccountClosing)
    email = await service.in_thread(service.accounts.email, caller)
    async with audited(request, Action.CLOSE_ACCOUNT, caller), _attempt(request, email):
        left = await service.in_password_thread(service.accounts.close, caller, body.password, service.sharing.close_account)
    for topic in (caller.account, *left):
        service.wake.notify(topic)
    return nothing()


def _account_info(service: Service, caller: Caller) -> AccountInfo:
    usage = service.tiers.of(caller)
    profile = service.accounts.profile(caller)
    return AccountInfo(
        account=profile.account,
        device=service.devices.current(caller),
        created_ns=profile.created_ns,
        last_login_ns=profile.last_login_ns,
        settings=profile.settings,
        quota_bytes=usage.quota_bytes,
        used_bytes=usage.used_bytes,
        tier=next(tier for tier in usage.tiers if tier.name == usage.tier),
        traffic=service.objects.traffic(caller.account) if service.objects is not None else None,
    )


# -------------------------------------------------------------------------------------------------- devices and tokens


@router.get("/v1/devices", **describe(DeviceList))
async def devices(request: Request, caller: AccountReader) -> Response:
    """The active devices of the account."""
    service = service_of(request)
    return answer(await service.in_thread(service.devices.listing, caller))


@router.delete("/v1/devices", **describe(None, status=204))
async def remove_all_devices(request: Request, caller: AccountWriter, keep_current: bool = False) -> Response:
    """Log all devices of the account out, or all but this one."""
    service = service_of(request)
    async with audited(request, Action.REMOVE_DEVICES, caller):
        await service.in_thread(lambda: service.devices.remove_all(caller, keep_current=keep_current))
    service.wake.notify(caller.account)
    return nothing()


@router.delete("/v1/devices/{device}", **describe(None, status=204))
async def remove_device(request: Request, caller: AccountWriter, device: str) -> Response:
    """Log a device of the account out: its very next request is refused."""
    id_ = parse_id(device)
    async with audited(request, Action.REMOVE_DEVICE, caller, subject=device):
        await _remove(service_of(request), caller, id_)
    return nothing()


@router.get("/v1/personal-tokens", **describe(PersonalTokenList))
async def personal_tokens(request: Request, caller: AccountReader) -> Response:
    """The personal access tokens that are good."""
    service = service_of(request)
    return answer(await service.in_thread(service.personal_tokens.listing, caller))


@router.post("/v1/personal-tokens", **describe(NewPersonalToken, TokenRequest, status=201))
async def make_personal_token(request: Request, caller: AccountWriter) -> Response:
    """Make a personal access token. Its text is in this answer, and nowhere else. Only a device may ask."""
    service = service_of(request)
    body = await read_model(request, TokenRequest)
    async with audited(request, Action.MAKE_TOKEN, caller) as event:
        await service.in_thread(service.limiter.take, [_token_limit(caller.account)])
        made = await service.in_thread(service.personal_tokens.make, caller, body)
        event.subject = made.personal_token.id.hex()
    return answer(made, 201)


@router.delete("/v1/personal-tokens/{token}", **describe(None, status=204))
async def revoke_personal_token(request: Request, caller: AccountWriter, token: str) -> Response:
    """Revoke a personal access token: its very next request is refused."""
    service = service_of(request)
    id_ = parse_id(token)
    async with audited(request, Action.REVOKE_TOKEN, caller, subject=token):
        await service.in_thread(service.personal_tokens.revoke, caller, id_)
    service.wake.notify(id_)
    return nothing()


# --------------------------------------------------------------------------------------------------------------- common


@asynccontextmanager
async def _attempt(request: Request, email: str) -> AsyncIterator[None]:
    """Around a check of a password: one that fails counts against the limits of log-ins, which may refuse it beforehand."""
    service = service_of(request)
    limits = login_limits(email, address_of(request))
    await service.in_thread(service.limiter.take, limits)
    yield
    await service.in_thread(service.limiter.give_back, limits)


async def _who_knows(request: Request, email: str, password: str) -> Known:
    service = service_of(request)
    async with _attempt(request, email):
        known = await service.in_password_thread(service.accounts.check_password, email, password)
        if known is None:
            raise unauthenticated("The e-mail address or the password is wrong.")
    return known


def _token_limit(account: bytes) -> Limit:
    return Limit(f"new tokens of {account.hex()}", NEW_TOKENS_A_DAY, 24 * 3600)


async def _remove(service: Service, caller: Caller, device: bytes) -> None:
    await service.in_thread(service.devices.remove, caller, device)
    service.wake.notify(device)
