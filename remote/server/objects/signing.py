"""Links to the embedded object store: what they allow stands in their query, under an HMAC. Pure."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlencode

from remote.server.keys import Key, Keys

Method = Literal["GET", "PUT"]
VERSION = "1"
_QUERY_MAX = 1000


@dataclass(frozen=True, slots=True)
class Grant:
    """What one link allows: one method on one key until `expires` (seconds since 1970); a PUT one length and SHA-256."""

    method: Method
    key: str
    expires: int
    length: int | None = None
    sha256: bytes | None = None
    address: str | None = None
    """From where alone it is good; None: from everywhere."""


class BadLink(Exception):
    """The link is forged, damaged, expired, or for something else."""


def sign(grant: Grant, by: Key) -> str:
    """The query that carries `grant`."""
    fields = _fields(grant, by.kid)
    return urlencode([*fields, ("s", _signature(grant, fields, by.secret))])


def verify(method: str, key: str, query: str, keys: Keys, now_seconds: float, address: str = "") -> Grant:
    """The grant in `query`, if it was signed for this method, key and caller's address and has not expired; else `BadLink`."""
    if len(query) > _QUERY_MAX:
        raise BadLink("the query is too long")
    try:
        given = dict(parse_qsl(query, strict_parsing=True, max_num_fields=8))
        grant = _read(method, key, given)
    except (ValueError, KeyError) as error:
        raise BadLink("the query is incomplete") from error
    by = keys.verifying(given.get("k", ""))
    if by is None:
        raise BadLink("it was signed by no key that is good now")
    fields = _fields(grant, by.kid)
    expected = _signature(grant, fields, by.secret)
    if not hmac.compare_digest(expected.encode(), given.get("s", "").encode()) or dict(fields) | {"s": expected} != given:
        raise BadLink("the signature does not fit")
    if grant.address is not None and grant.address != address:
        raise BadLink("it is for another address than the one that you come from")
    if now_seconds >= grant.expires:
        raise BadLink("the link has expired")
    return grant


def _read(method: str, key: str, given: dict[str, str]) -> Grant:
    expires, address = int(given["e"]), given.get("a")
    if method == "PUT":
        return Grant("PUT", key, expires, int(given["l"]), bytes.fromhex(given["h"]), address)
    if method == "GET":
        return Grant("GET", key, expires, address=address)
    raise ValueError(method)


def _fields(grant: Grant, kid: str) -> list[tuple[str, str]]:
    fields = [("v", VERSION), ("k", kid), ("e", str(grant.expires))]
    if grant.length is not None:
        fields.append(("l", str(grant.length)))
    if grant.sha256 is not None:
        fields.append(("h", grant.sha256.hex()))
    if grant.address is not None:
        fields.append(("a", grant.address))
    return fields


def _signature(grant: Grant, fields: list[tuple[str, str]], secret: bytes) -> str:
    said = "\n".join([grant.method, grant.key, *(f"{name}={value}" for name, value in fields)])
    return hmac.new(secret, said.encode(), hashlib.sha256).hexdigest()
