"""How far each device is, and what it says of itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "device_positions",
        sa.Column("account_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("noted_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "device_id"],
            ["devices.account_id", "devices.id"],
            name=op.f("fk_device_positions_account_id_device_id"),
        ),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_device_positions_space_id")),
        sa.PrimaryKeyConstraint("account_id", "device_id", "space_id", name=op.f("pk_device_positions")),
    )
    op.create_table(
        "device_reports",
        sa.Column("account_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("reported_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "device_id"],
            ["devices.account_id", "devices.id"],
            name=op.f("fk_device_reports_account_id_device_id"),
        ),
        sa.PrimaryKeyConstraint("account_id", "device_id", name=op.f("pk_device_reports")),
    )
