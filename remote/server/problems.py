"""What the service answers when it does not do what was asked: `Refused`, and the problem document made of it (RFC 9457).

Rules raise `Refused`; only the application turns it into an answer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from remote.protocol import Device, Problem, ProblemType

_STATUS = {
    ProblemType.INVALID: (400, "The request is not valid"),
    ProblemType.UNAUTHENTICATED: (401, "Log in first"),
    ProblemType.REVOKED: (401, "This device was removed from the account"),
    ProblemType.FORBIDDEN: (403, "Not allowed"),
    ProblemType.NOT_FOUND: (404, "Not found"),
    ProblemType.EXISTS: (409, "Exists already"),
    ProblemType.NOT_EMPTY: (409, "The folder is not empty"),
    ProblemType.INCOMPLETE: (409, "Not everything was uploaded"),
    ProblemType.PRECONDITION_FAILED: (412, "Changed meanwhile"),
    ProblemType.TOO_MANY_DEVICES: (409, "All device slots are taken"),
    ProblemType.STALE_COMMIT: (409, "A later commit was recorded"),
    ProblemType.OTHER_EPOCH: (409, "The service was restored"),
    ProblemType.BEHIND: (409, "The service is behind its devices"),
    ProblemType.RESET: (410, "The cursor is too old"),
    ProblemType.TOO_LARGE: (413, "Too large"),
    ProblemType.CONTENT_TYPE: (415, "Not a type of content that is taken"),
    ProblemType.QUOTA: (507, "The quota is used up"),
    ProblemType.RATE_LIMITED: (429, "Too many requests"),
    ProblemType.UNAVAILABLE: (503, "Not available at the moment"),
    ProblemType.INTERNAL: (500, "The service failed"),
}


class Refused(Exception):
    """The request gets a problem document instead of an answer; the text is fit for the person who asked."""

    def __init__(
        self,
        type_: ProblemType,
        detail: str = "",
        *,
        status: int | None = None,
        field: str | None = None,
        devices: Sequence[Device] = (),
        missing: Sequence[bytes] = (),
        quota: tuple[int, int, int] | None = None,
        retry_after_seconds: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or type_)
        self.type = type_
        self.status = status if status is not None else _STATUS[type_][0]
        self.detail = detail
        self.field = field
        self.devices = list(devices)
        self.missing = list(missing)
        self.quota = quota
        """Quota, used and needed bytes."""
        self.retry_after_seconds = retry_after_seconds
        self.headers = dict(headers or {})


def not_found(what: str = "") -> Refused:
    """For what does not exist, and for what the caller may not see: the two look the same."""
    return Refused(ProblemType.NOT_FOUND, what)


def require_printable(text: str, field: str) -> None:
    """Refuse what would play tricks on the terminal, or the database, that shows it."""
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise Refused(ProblemType.INVALID, "Control characters are not allowed.", field=field)


def problem_response(refused: Refused) -> Response:
    quota, used, needed = refused.quota or (None, None, None)
    problem = Problem(
        type=refused.type,
        title=_STATUS[refused.type][1],
        status=refused.status,
        detail=refused.detail,
        field=refused.field,
        devices=refused.devices,
        missing=refused.missing,
        quota_bytes=quota,
        used_bytes=used,
        needed_bytes=needed,
    )
    headers = {"cache-control": "no-store", **refused.headers}
    if refused.retry_after_seconds is not None:
        headers["retry-after"] = str(refused.retry_after_seconds)
    if refused.status == 408:  # the rest of the body may still come: nothing can follow it
        headers["connection"] = "close"
    if refused.status == 401:
        headers.setdefault("www-authenticate", "Bearer")
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, status_code=refused.status, headers=headers, media_type="application/problem+json")


def from_validation(error: ValidationError) -> Refused:
    """The first fault that pydantic found, without the value (which may be a password)."""
    return invalid_field(error.errors(include_url=False, include_context=False, include_input=False)[0])


def invalid_field(fault: Mapping[str, Any]) -> Refused:
    """`fault` as pydantic describes it; its place begins with a field of the request."""
    path = ".".join(str(part) for part in fault.get("loc", ()))
    return Refused(ProblemType.INVALID, str(fault.get("msg", "")), field=path or None)
