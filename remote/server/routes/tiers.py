"""Tiers: which there are, and which one the account has."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from remote.accountapi import AccountTier, ChooseTier
from remote.server.audit import Action
from remote.server.routes.requests import AccountReader, AccountWriter, answer, audited, describe, read_model, service_of

router = APIRouter()


@router.get("/v1/users/tier", **describe(AccountTier))
async def tier(request: Request, caller: AccountReader) -> Response:
    """The account's tier with what is used of it, and all that there are."""
    service = service_of(request)
    return answer(await service.in_thread(service.tiers.of, caller))


@router.post("/v1/users/tier", **describe(AccountTier, ChooseTier))
async def choose(request: Request, caller: AccountWriter) -> Response:
    """Give the account this tier, and its storage, at once; refused, with the numbers, if more than that is stored."""
    service = service_of(request)
    body = await read_model(request, ChooseTier)
    async with audited(request, Action.CHOOSE_TIER, caller, subject=body.tier):
        return answer(await service.in_thread(service.tiers.choose, caller, body.tier))
