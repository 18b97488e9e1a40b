"""Access tokens: short-lived JWTs that say which device of which account asks. Pure, apart from the clock.

A token names the device's session and the refresh token that it was issued with: by the first it dies with the log-in, by
the second the service learns that the refresh token has arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from remote.protocol import ProblemType
from remote.server.keys import Keys
from remote.server.problems import Refused

ACCESS_SECONDS = 15 * 60
_AUDIENCE = "aloft"
_TOKEN_MAX = 2000
_CLAIMS = ("sub", "dev", "ses", "ser", "exp")


@dataclass(frozen=True, slots=True)
class Claims:
    account: bytes
    device: bytes
    session: bytes
    serial: int
    """Of the refresh token that came with this one."""


class AccessTokens:
    def __init__(self, keys: Keys, clock: Callable[[], int]) -> None:
        self._keys = keys
        self._clock = clock

    def issue(self, claims: Claims) -> str:
        now = self._clock() // 10**9
        payload = {
            "aud": _AUDIENCE,
            "sub": claims.account.hex(),
            "dev": claims.device.hex(),
            "ses": claims.session.hex(),
            "ser": claims.serial,
            "iat": now,
            "exp": now + ACCESS_SECONDS,
        }
        return sign(payload, self._keys)

    def verify(self, token: str) -> Claims:
        """Who the token speaks for; `Refused` (unauthenticated) if it is forged, damaged or expired."""
        if len(token) > _TOKEN_MAX:
            raise unauthenticated("This is not an access token of this service.")
        try:
            payload = read_signed(token, self._keys, _AUDIENCE, _CLAIMS)
            account, device, session = (bytes.fromhex(payload[name]) for name in ("sub", "dev", "ses"))
            claims = Claims(account, device, session, int(payload["ser"]))
            expires = int(payload["exp"])
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise unauthenticated("This is not an access token of this service.") from error
        if self._clock() // 10**9 >= expires:
            raise unauthenticated("The access token has expired.")
        return claims


def sign(payload: dict[str, Any], keys: Keys) -> str:
    """A JWT, which names its key."""
    key = keys.signing()
    return jwt.encode(payload, key.secret, algorithm="HS256", headers={"kid": key.kid})


def read_signed(token: str, keys: Keys, audience: str, claims: Sequence[str]) -> dict[str, Any]:
    """What `sign` was given: signed by one of the keys, for this audience, with these claims. When it ends is the caller's
    business. `jwt.InvalidTokenError`."""
    kid = jwt.get_unverified_header(token).get("kid")
    key = None if kid is None else keys.verifying(kid)
    if key is None:
        raise jwt.InvalidTokenError("signed by no key of this service")
    checks = {"verify_exp": False, "verify_iat": False, "require": list(claims)}
    payload: dict[str, Any] = jwt.decode(token, key.secret, algorithms=["HS256"], audience=audience, options=checks)  # type: ignore[arg-type]
    return payload


def unauthenticated(detail: str) -> Refused:
    return Refused(ProblemType.UNAUTHENTICATED, detail)
