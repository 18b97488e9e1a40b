"""Tiers. Every account begins in the free one, and keeps the quota that it has as its own until it chooses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("tier", sa.Text(), server_default="free", nullable=False))
    op.add_column("accounts", sa.Column("own_quota_bytes", sa.BigInteger()))
    op.execute("UPDATE accounts SET own_quota_bytes = quota_bytes")
    op.drop_column("accounts", "quota_bytes")
