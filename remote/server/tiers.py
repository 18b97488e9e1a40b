"""The tiers of the configuration, and which one an account chooses. Blocking."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from remote.accountapi import AccountTier, Tier, TierName
from remote.protocol import ProblemType
from remote.server.config import ServerConfig
from remote.server.database import accounts as rows
from remote.server.database.engine import Database
from remote.server.devices import Caller
from remote.server.problems import Refused
from remote.server.quota import load_budget


class Tiers:
    def __init__(self, config: ServerConfig, database: Database, clock: Callable[[], int]) -> None:
        self._config = config
        self._database = database
        self._clock = clock

    def of(self, caller: Caller) -> AccountTier:
        """The account's tier with what is used of it, and all that there are."""
        with self._database.read() as connection:
            return self._describe(connection, caller.account)

    def choose(self, caller: Caller, name: TierName) -> AccountTier:
        """The account has that tier, and its storage, when this returns. `Refused` (quota) if more is stored already."""
        quota = self._config.tier(name).quota_bytes
        with self._database.write() as connection:
            budget = load_budget(connection, self._config.tier, caller.account, self._clock())
            if budget.taken > quota:
                raise Refused(
                    ProblemType.QUOTA,
                    f"The tier {name} stores {quota} bytes, and {budget.taken} are used or reserved: "
                    f"remove {budget.taken - quota} bytes first, also from the trash.",
                    status=409,
                    field="tier",
                    quota=(quota, budget.taken, budget.taken - quota),
                )
            rows.set_tier(connection, caller.account, name)
            return self._describe(connection, caller.account)

    def _describe(self, connection: Connection, account: bytes) -> AccountTier:
        budget = load_budget(connection, self._config.tier, account, self._clock(), lock=False)
        return AccountTier(
            tier=budget.name,
            quota_bytes=budget.quota,
            used_bytes=budget.used,
            reserved_bytes=budget.reserved,
            tiers=[self._tier(each) for each in TierName],
        )

    def _tier(self, name: TierName) -> Tier:
        tier = self._config.tier(name)
        return Tier(
            name=name,
            quota_bytes=tier.quota_bytes,
            largest_file_bytes=tier.largest_file_bytes,
            content_types=list(tier.content_types),
            kept_days=tier.kept_days,
            upload_bytes_per_second=tier.upload_bytes_per_second,
        )
