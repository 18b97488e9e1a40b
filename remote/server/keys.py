"""Keys that sign, and what a signer asks of those who keep them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

KEY_BYTES = 32


class Keys(Protocol):
    """The keys of one purpose: one signs now, and one or several are good for what was signed before."""

    def signing(self) -> Key: ...

    def verifying(self, kid: str) -> Key | None:
        """The key of this id; None: there is none, or its time is over."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key. By itself it is `Keys`, too: for whoever has no others."""

    kid: str
    secret: bytes

    def signing(self) -> Key:
        return self

    def verifying(self, kid: str) -> Key | None:
        return self if kid == self.kid else None


def new_key(random: Callable[[int], bytes]) -> Key:
    return Key(random(8).hex(), random(KEY_BYTES))
