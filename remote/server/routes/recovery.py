"""Forgotten passwords."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from remote.accountapi import ForgottenPassword, NewPassword
from remote.server.accounts import address_limit, email_limit
from remote.server.audit import Action
from remote.server.routes.requests import address_of, audited, describe, nothing, read_model, service_of

HOUR_SECONDS = 3600
CODES_FOR_EMAIL = 3
CODES_FOR_ADDRESS = 20
GUESSES = 20

router = APIRouter()


@router.post("/v1/password/forgotten", **describe(None, ForgottenPassword, status=204))
async def forgotten_password(request: Request) -> Response:
    """Send a code by e-mail. The answer says, and its time tells, nothing of whether there is such an account."""
    service = service_of(request)
    body = await read_model(request, ForgottenPassword)
    service.recovery.require_mail()
    limits = [
        address_limit("forgotten", address_of(request), CODES_FOR_ADDRESS, HOUR_SECONDS),
        email_limit("forgotten", body.email, CODES_FOR_EMAIL, HOUR_SECONDS),
    ]
    async with audited(request, Action.FORGET_PASSWORD, email=body.email):
        await service.in_thread(service.limiter.take, limits)
        service.outbox.put(service.recovery.send_code, body.email)
    return nothing()


@router.post("/v1/password/new", **describe(None, NewPassword, status=204))
async def new_password(request: Request) -> Response:
    """Replace a forgotten password by a code. All devices and personal access tokens are logged out."""
    service = service_of(request)
    body = await read_model(request, NewPassword)
    limits = [address_limit("codes", address_of(request), GUESSES, HOUR_SECONDS)]
    async with audited(request, Action.RENEW_PASSWORD) as event:
        await service.in_thread(service.limiter.take, limits)
        account = event.account = await service.in_password_thread(service.recovery.use_code, body)
    await service.in_thread(service.limiter.give_back, limits)
    service.wake.notify(account)
    return nothing()
