"""Whatever came back instead of an answer, as the exception tree of `remote.api`. The only place that does this.

Texts name the host, never a path or a query: both may hold what a log must not.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import httpx
from pydantic import ValidationError

from remote.api import (
    Behind,
    Corrupt,
    DeviceRevoked,
    Forbidden,
    LinkExpired,
    Nonsense,
    NotAuthenticated,
    NotThere,
    OtherEpoch,
    Overloaded,
    QuotaExceeded,
    Rejected,
    RemoteError,
    ResetRequired,
    StaleCommit,
    StoreUnavailable,
    TooManyDevices,
    Unreachable,
)
from remote.protocol import Problem, ProblemType


class AlreadyExists(Rejected):
    """What was to be created is there already."""


_BY_TYPE: Mapping[str, type[RemoteError]] = {
    ProblemType.INVALID: Rejected,
    ProblemType.UNAUTHENTICATED: NotAuthenticated,
    ProblemType.REVOKED: DeviceRevoked,
    ProblemType.FORBIDDEN: Forbidden,
    ProblemType.NOT_FOUND: NotThere,
    ProblemType.EXISTS: AlreadyExists,
    ProblemType.STALE_COMMIT: StaleCommit,
    ProblemType.OTHER_EPOCH: OtherEpoch,
    ProblemType.BEHIND: Behind,
    ProblemType.RESET: ResetRequired,
    ProblemType.TOO_LARGE: Rejected,
    ProblemType.CONTENT_TYPE: Rejected,
    ProblemType.QUOTA: QuotaExceeded,
}
_BY_STATUS: Mapping[int, type[RemoteError]] = {
    401: NotAuthenticated,
    403: Forbidden,
    404: NotThere,
    507: QuotaExceeded,
}
_TRANSIENT_STATUSES = (408, 425, 429)
_TRANSIENT_STORE_CODES = (
    *(b"RequestTimeout", b"SlowDown", b"InternalError", b"ServiceUnavailable", b"OperationAborted", b"IncompleteBody"),
    *(b"QuotaExceeded", b"NoSuchBucket"),  # 403 of Ceph, 404 of all: whoever runs the store mends it
)
_EXPIRED_STORE_CODES = (b"RequestTimeTooSkewed", b"ExpiredToken")
_STORE_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9]{1,64})\s*</Code>")


def error_from_answer(
    status: int, headers: Mapping[str, str], body: bytes, host: str, *, now: float | None = None
) -> RemoteError:
    """The error that the service (or something before it) answered with."""
    problem = _problem(headers, body)
    message = _one_line(problem.detail or problem.title) if problem is not None else f"{host} answered with status {status}"
    if problem is not None and problem.type == ProblemType.TOO_MANY_DEVICES:
        return TooManyDevices(message, problem.devices)
    if problem is not None and problem.type in _BY_TYPE:
        return _BY_TYPE[problem.type](message)
    if status in _BY_STATUS:
        return _BY_STATUS[status](message)
    if status in _TRANSIENT_STATUSES or status >= 500:
        return Overloaded(message, retry_after(headers, now))
    if 300 <= status < 400:
        return Nonsense(f"{host} redirects to another address; a client follows no redirect. Give the right --server")
    if 400 <= status < 500:
        return Rejected(message)
    return Nonsense(f"{host} answered with status {status}, which the protocol does not know")


def error_from_store(status: int, headers: Mapping[str, str], body: bytes, host: str, *, now: float | None = None) -> RemoteError:
    """The error that an object store answered a presigned request with. Of its body only S3's error code counts: a 400 may
    be a body that did not come in time, which is worth another attempt, or a link that is too old."""
    match = _STORE_CODE.search(body[:4096])
    code = match.group(1) if match is not None else b""
    said = f"{status} ({code.decode('ascii')})" if code else str(status)
    if status in _TRANSIENT_STATUSES or status >= 500 or code in _TRANSIENT_STORE_CODES:
        return StoreUnavailable(f"{host} answered with status {said}", retry_after(headers, now))
    if status == 404:
        return NotThere(f"{host} does not hold the object")
    if status in (401, 403) or code in _EXPIRED_STORE_CODES:
        return LinkExpired(f"{host} refuses the link to the object; perhaps it is too old, or a clock is wrong")
    if 300 <= status < 400:
        return Nonsense(f"{host} redirects a link to an object; a client follows no redirect")
    return Rejected(f"{host} refused the object with status {said}")


def error_from_transport(error: httpx.HTTPError | httpx.InvalidURL | OSError, host: str) -> RemoteError:
    """The error behind an exchange that brought no complete answer."""
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return Nonsense(f"not an address: {error}")
    if isinstance(error, httpx.DecodingError):
        return Nonsense(f"{host} sent bytes that do not decode")
    certificate = _certificate_error(error)
    if certificate is not None:
        why = certificate.verify_message
        return Unreachable(f"the certificate of {host} is not trusted ({why}); if it is yours, give its authority with --ca")
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return Unreachable(f"{host} does not answer in time")
    if isinstance(error, httpx.ConnectError):
        return Unreachable(f"cannot connect to {host}: {_reason(error)}")
    return Unreachable(f"the connection to {host} broke: {_reason(error)}")


def store_error_from_transport(error: httpx.HTTPError | httpx.InvalidURL | OSError, host: str) -> RemoteError:
    """The same of an exchange with the object store, which says nothing of the service."""
    found = error_from_transport(error, host)
    return StoreUnavailable(str(found)) if isinstance(found, Unreachable) else found


def error_from_validation(error: ValidationError, host: str) -> Nonsense:
    """The answer is not what the protocol says. Names the fields, and not what is in them."""
    fields = sorted({".".join(str(part) for part in detail["loc"]) or "(all)" for detail in error.errors(include_input=False)})
    return Nonsense(f"{host} answered what the protocol does not allow: {', '.join(fields[:5])}")


def wrong_bytes(host: str, what: str) -> Corrupt:
    return Corrupt(f"{host} sent an object {what}")


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait, from `Retry-After`: a number or an HTTP date (RFC 9110, section 10.2.3). `now`: Unix time, unless
    the answer says what time it is there: a date means the clock of who wrote it."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    moment = _moment(value)
    if moment is None:
        return None
    there = _moment(headers.get("date", ""))
    if there is None:
        there = time.time() if now is None else now
    return max(0.0, moment - there)


def _moment(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def _problem(headers: Mapping[str, str], body: bytes) -> Problem | None:
    # Anything may stand between us and the service, so a body that is not a problem document is normal here.
    if "json" not in headers.get("content-type", ""):
        return None
    try:
        return Problem.model_validate_json(body)
    except ValidationError:
        return None


def _one_line(text: str) -> str:
    """What a terminal may be shown: no control characters, whatever the service says."""
    return "".join(character if character.isprintable() else " " for character in text)


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return text or type(error).__name__
