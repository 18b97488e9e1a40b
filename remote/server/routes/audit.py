"""The audit log, as far as an account may see it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from remote.accountapi import AuditPage
from remote.server.routes.requests import AccountReader, answer, describe, service_of

LIMIT_MAX = 500

router = APIRouter()


@router.get("/v1/audit", **describe(AuditPage))
async def audit(
    request: Request,
    caller: AccountReader,
    before: Annotated[str | None, Query(max_length=60)] = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
) -> Response:
    """What was done with the account, or tried: who, what, from where, with which result. The newest first."""
    service = service_of(request)
    return answer(await service.in_thread(partial(service.audit.page, caller.account, before=before, limit=limit)))
