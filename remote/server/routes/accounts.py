"""Accounts, log-in, tokens and devices."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from remote.protocol import (
    Account,
    AccountInfo,
    DeviceList,
    Login,
    LoginRequest,
    ProblemType,
    RefreshRequest,
    RegisterRequest,
    Tokens,
)
from remote.server.accounts import login_limits
from remote.server.devices import Caller
from remote.server.problems import Refused
from remote.server.quota import quota_and_used
from remote.server.routes.requests import (
    AccountReader,
    AccountWriter,
    Authenticated,
    answer,
    describe,
    nothing,
    parse_id,
    read_model,
    service_of,
)
from remote.server.service import Service
from remote.server.tokens import unauthenticated

router = APIRouter()


@router.post("/v1/accounts", **describe(Account, RegisterRequest, status=201))
async def register(request: Request) -> Response:
    """Create an account, with its personal space."""
    service = service_of(request)
    body = await read_model(request, RegisterRequest)
    return answer(await service.in_password_thread(service.accounts.register, body), 201)


@router.post("/v1/sessions", **describe(Login, LoginRequest))
async def login(request: Request) -> Response:
    """Log a device in. The same installation is the same device; a device too many is refused with the list of the others."""
    service = service_of(request)
    body = await read_model(request, LoginRequest)
    limits = login_limits(body.email, request.client.host if request.client else "")
    wait = service.logins.take(limits)
    if wait is not None:
        raise Refused(ProblemType.RATE_LIMITED, f"Too many attempts; try again in {wait} s.", retry_after_seconds=wait)
    account = await service.in_password_thread(service.accounts.check_password, body)
    if account is None:
        raise unauthenticated("The e-mail address or the password is wrong.")
    service.logins.give_back(limits)
    logged_in = await service.in_thread(service.devices.login, account, body)
    if body.replace is not None:
        service.wake.notify(body.replace)
    return answer(logged_in)


@router.delete("/v1/sessions/current", **describe(None, status=204))
async def logout(request: Request, caller: Authenticated) -> Response:
    """Log this device out, which frees its slot."""
    await _remove(service_of(request), caller, caller.device)
    return nothing()


@router.post("/v1/tokens", **describe(Tokens, RefreshRequest))
async def refresh(request: Request) -> Response:
    """Exchange a refresh token. The old one stays good until the new one, or its access token, is first used."""
    service = service_of(request)
    body = await read_model(request, RefreshRequest)
    return answer(await service.in_thread(service.devices.refresh, body.refresh_token))


@router.get("/v1/account", **describe(AccountInfo))
async def account(request: Request, caller: AccountReader) -> Response:
    """The account, this device, the quota, and what the embedded object store has carried."""
    service = service_of(request)
    return answer(await service.in_thread(_account_info, service, caller))


@router.get("/v1/devices", **describe(DeviceList))
async def devices(request: Request, caller: AccountReader) -> Response:
    """The active devices of the account."""
    service = service_of(request)
    return answer(await service.in_thread(service.devices.listing, caller))


@router.delete("/v1/devices/{device}", **describe(None, status=204))
async def remove_device(request: Request, caller: AccountWriter, device: str) -> Response:
    """Log a device of the account out: its very next request is refused."""
    await _remove(service_of(request), caller, parse_id(device))
    return nothing()


def _account_info(service: Service, caller: Caller) -> AccountInfo:
    with service.database.read() as connection:
        quota, used = quota_and_used(connection, caller.account)
    return AccountInfo(
        account=service.accounts.get(caller.account),
        device=service.devices.current(caller),
        quota_bytes=quota,
        used_bytes=used,
        traffic=service.objects.traffic(caller.account) if service.objects is not None else None,
    )


async def _remove(service: Service, caller: Caller, device: bytes) -> None:
    await service.in_thread(service.devices.remove, caller, device)
    service.wake.notify(device)
