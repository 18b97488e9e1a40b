"""What an account may store: its quota, what it uses, and what open uploads have reserved."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from remote.protocol import ProblemType
from remote.server.database import accounts as account_rows
from remote.server.database import uploads as upload_rows
from remote.server.problems import Refused

SESSION_NS = 24 * 3600 * 10**9
"""How long after its last use an upload session counts."""


@dataclass(slots=True)
class Budget:
    """An owner's bytes in one transaction; `used` and `reserved` are moved by whoever spends."""

    quota: int
    used: int
    reserved: int

    def fits(self, added: int, released: int = 0) -> bool:
        """Whether `added` bytes fit, when `released` of the reserved ones are for them. Adding nothing always does."""
        return added <= 0 or self.used + self.reserved - released + added <= self.quota

    def spend(self, added: int, released: int) -> None:
        self.used += added
        self.reserved -= released

    def require(self, added: int) -> None:
        if not self.fits(added):
            taken = self.used + self.reserved
            raise Refused(
                ProblemType.QUOTA,
                f"{added} more bytes do not fit: {taken} of {self.quota} are used or reserved.",
                quota=(self.quota, taken, added),
            )


def load_budget(connection: Connection, owner: bytes, now_ns: int) -> Budget:
    """The owner's budget, locked until the transaction ends."""
    return Budget(*upload_rows.usage(connection, owner, now_ns - SESSION_NS, lock=True))


def save_used(connection: Connection, owner: bytes, added: int) -> None:
    if added:
        account_rows.add_used(connection, owner, added)


def quota_and_used(connection: Connection, account: bytes) -> tuple[int, int]:
    row = account_rows.by_id(connection, account)
    return row.quota_bytes, row.used_bytes
