"""What every route does: read a bounded body, find out who asks, and answer in the protocol's JSON.

Answers are serialized by pydantic straight into bytes; what the OpenAPI description says about them is attached by `describe`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPBearer, SecurityScopes
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from remote.accountapi import Scope
from remote.protocol import Problem, ProblemType
from remote.server.audit import Action, Event
from remote.server.callers import address_in
from remote.server.devices import Caller
from remote.server.logs import request_id
from remote.server.objects.store import LinkBase
from remote.server.personaltokens import PREFIX
from remote.server.problems import Refused, from_validation, not_found
from remote.server.service import Service
from remote.server.threads import asking
from remote.server.tokens import unauthenticated

BODY_MAX = 64 * 1024
PLAN_MAX = 256 * 1024
_HOST = re.compile(r"[A-Za-z0-9.\-_]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_ID = re.compile(r"[0-9a-f]{32}")

_BEARER = HTTPBearer(scheme_name="access token", bearerFormat="JWT", auto_error=False)
"""For the description: it says which routes want a token, and with which scope."""

M = TypeVar("M", bound=BaseModel)


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def read_body(request: Request, limit: int) -> bytes:
    """The body; `Refused` (too large) as soon as it is more than `limit` bytes."""
    too_large = Refused(ProblemType.TOO_LARGE, f"At most {limit} bytes are taken here.")
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > limit:
        raise too_large
    body = bytearray()
    try:
        async with aclosing(request.stream()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > limit:
                    raise too_large
    except ClientDisconnect as error:
        raise Refused(ProblemType.INVALID, "The body was cut short.") from error
    return bytes(body)


async def read_model(request: Request, model: type[M], limit: int = BODY_MAX) -> M:
    body = await read_body(request, limit)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from error


async def authenticate(request: Request) -> Caller:
    """Who asks; `Refused` (unauthenticated, revoked)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise unauthenticated("Send the access token: Authorization: Bearer …")
    service = service_of(request)
    asking.set(hashlib.sha256(token.encode()).digest())
    known = service.personal_tokens if token.strip().startswith(PREFIX) else service.devices
    caller = await service.in_thread(known.authenticate, token.strip())
    asking.set(caller.account)
    return caller


def address_of(request: Request) -> str:
    """From where the request came; empty if that cannot be told."""
    return address_in(request.scope)


async def _authorize(request: Request, scopes: SecurityScopes, _described: Annotated[object, Depends(_BEARER)]) -> Caller:
    caller = await authenticate(request)
    for scope in scopes.scopes:
        if scope not in caller.scopes:
            raise Refused(ProblemType.FORBIDDEN, f"This token does not have the scope {scope}: make one that has it.")
    return caller


# What a route takes to know who asks, and with which scope: nothing else of it is read before.
Authenticated = Annotated[Caller, Security(_authorize)]
FilesReader = Annotated[Caller, Security(_authorize, scopes=[Scope.FILES_READ])]
FilesWriter = Annotated[Caller, Security(_authorize, scopes=[Scope.FILES_WRITE])]
AccountReader = Annotated[Caller, Security(_authorize, scopes=[Scope.ACCOUNT_READ])]
AccountWriter = Annotated[Caller, Security(_authorize, scopes=[Scope.ACCOUNT_WRITE])]

AnId = Annotated[str | None, Query(pattern="^[0-9a-f]{32}$")]
"""In a query."""


@asynccontextmanager
async def audited(
    request: Request, action: Action, caller: Caller | None = None, *, email: str | None = None, subject: str = ""
) -> AsyncIterator[Event]:
    """Around what belongs in the audit log: who, from where, and how it ended is noted before the answer leaves.

    `email`: of whoever is not logged in yet.
    """
    event = Event(action, address_of(request), request_id.get(), email=email, subject=subject)
    if caller is not None:
        event.account, event.caller = caller.account, caller.device
    try:
        yield event
    except BaseException as error:
        event.result = error.type if isinstance(error, Refused) else ProblemType.INTERNAL
        raise
    finally:
        service = service_of(request)
        with anyio.CancelScope(shield=True):
            await service.in_thread(service.audit.note, event)


def parse_id(text: str) -> bytes:
    """An id in a path; what is none does not exist."""
    if _ID.fullmatch(text) is None:
        raise not_found()
    return bytes.fromhex(text)


def base_url(request: Request) -> str:
    """The address by which the caller reaches the service: links begin with it."""
    chosen = service_of(request).config.public_url
    if chosen is not None:
        return chosen.rstrip("/")
    host = request.headers.get("host", "")
    if _HOST.fullmatch(host) is None:
        raise Refused(ProblemType.INVALID, "The Host header is no address.", field="Host")
    return f"{request.url.scheme}://{host}"


def link_base(request: Request) -> LinkBase:
    """What links to objects are signed for."""
    bound = service_of(request).config.objects.bind_address
    return LinkBase(base_url(request), address_of(request) if bound else None)


def answer(model: BaseModel, status: int = 200) -> Response:
    return json_answer(model.model_dump_json().encode(), status)


def json_answer(body: bytes, status: int = 200) -> Response:
    return Response(body, status_code=status, media_type="application/json", headers={"cache-control": "no-store"})


def nothing() -> Response:
    return Response(status_code=204, headers={"cache-control": "no-store"})


def describe(
    answer_model: type[BaseModel] | None, request_model: type[BaseModel] | None = None, *, status: int = 200
) -> dict[str, Any]:
    """The arguments of a route that put its models into the OpenAPI description."""
    extra: dict[str, Any] = {}
    if request_model is not None:
        schema = {"$ref": f"#/components/schemas/{request_model.__name__}"}
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    problem = {"description": "A problem document (RFC 9457)", "content": {"application/problem+json": {"schema": _ref(Problem)}}}
    done: dict[str, Any] = {"description": "Done"}
    if answer_model is not None:
        done["content"] = {"application/json": {"schema": _ref(answer_model)}}
    return {
        "response_class": Response,
        "status_code": status,
        "openapi_extra": extra,
        "responses": {status: done, "4XX": problem, "5XX": problem},
    }


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
