"""What an account may store: its tier, its quota, what it uses, and what open uploads have reserved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from remote.accountapi import TierName
from remote.protocol import ProblemType
from remote.server.config import TierConfig
from remote.server.database import accounts as account_rows
from remote.server.database import uploads as upload_rows
from remote.server.problems import Refused

SESSION_NS = 24 * 3600 * 10**9
"""How long after its last use an upload session counts."""

TierOf = Callable[[TierName], TierConfig]
"""What the configuration says of a tier."""


@dataclass(slots=True)
class Budget:
    """An owner's bytes in one transaction; `used` and `reserved` are moved by whoever spends."""

    name: TierName
    tier: TierConfig
    quota: int
    used: int
    reserved: int

    @property
    def taken(self) -> int:
        return self.used + self.reserved

    def fits(self, added: int, released: int = 0) -> bool:
        """Whether `added` bytes fit, when `released` of the reserved ones are for them. Adding nothing always does."""
        return added <= 0 or self.taken - released + added <= self.quota

    def spend(self, added: int, released: int) -> None:
        self.used += added
        self.reserved -= released

    def require(self, added: int) -> None:
        if not self.fits(added):
            raise Refused(
                ProblemType.QUOTA,
                f"{added} more bytes do not fit: {self.taken} of {self.quota} are used or reserved.",
                quota=(self.quota, self.taken, added),
            )


def load_budget(connection: Connection, tier_of: TierOf, owner: bytes, now_ns: int, *, lock: bool = True) -> Budget:
    """The owner's budget; with `lock`, nobody else spends of it until the transaction ends."""
    usage = upload_rows.usage(connection, owner, now_ns - SESSION_NS, lock=lock)
    name = TierName(usage.tier)
    tier = tier_of(name)
    return Budget(name, tier, tier.quota_bytes if usage.own_quota is None else usage.own_quota, usage.used, usage.reserved)


def save_used(connection: Connection, owner: bytes, added: int) -> None:
    if added:
        account_rows.add_used(connection, owner, added)
