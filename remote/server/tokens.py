"""Access tokens: short-lived JWTs that say which device of which account asks. Pure, apart from the clock.

A token names the device's session and the refresh token that it was issued with: by the first it dies with the log-in, by
the second the service learns that the refresh token has arrived.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jwt

from remote.protocol import ProblemType
from remote.server.folder import Key
from remote.server.problems import Refused

ACCESS_SECONDS = 15 * 60
_AUDIENCE = "aloft"
_TOKEN_MAX = 2000
_CHECKS = {"verify_exp": False, "verify_iat": False, "require": ["sub", "dev", "ses", "ser", "exp"]}


@dataclass(frozen=True, slots=True)
class Claims:
    account: bytes
    device: bytes
    session: bytes
    serial: int
    """Of the refresh token that came with this one."""


class AccessTokens:
    def __init__(self, key: Key, clock: Callable[[], int]) -> None:
        self._key = key
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
        return jwt.encode(payload, self._key.secret, algorithm="HS256", headers={"kid": self._key.kid})

    def verify(self, token: str) -> Claims:
        """Who the token speaks for; `Refused` (unauthenticated) if it is forged, damaged or expired."""
        if len(token) > _TOKEN_MAX:
            raise unauthenticated("This is not an access token of this service.")
        try:
            if jwt.get_unverified_header(token).get("kid") != self._key.kid:
                raise unauthenticated("This is not an access token of this service.")
            payload = jwt.decode(token, self._key.secret, algorithms=["HS256"], audience=_AUDIENCE, options=_CHECKS)  # type: ignore[arg-type]
            account, device, session = (bytes.fromhex(payload[name]) for name in ("sub", "dev", "ses"))
            claims = Claims(account, device, session, int(payload["ser"]))
            expires = int(payload["exp"])
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise unauthenticated("This is not an access token of this service.") from error
        if self._clock() // 10**9 >= expires:
            raise unauthenticated("The access token has expired.")
        return claims


def unauthenticated(detail: str) -> Refused:
    return Refused(ProblemType.UNAUTHENTICATED, detail)
