"""Files and folders that expire."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "expiries",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("inode", sa.LargeBinary(length=16), nullable=False),
        sa.Column("expires_ns", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("warned_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_expiries_space_id")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_expiries_account_id")),
        sa.PrimaryKeyConstraint("space_id", "inode", name=op.f("pk_expiries")),
    )
    op.create_index(op.f("ix_expiries_expires_ns"), "expiries", ["expires_ns"])
