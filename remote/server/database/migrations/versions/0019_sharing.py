"""Shared folders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from remote.server.database.schema import EXACT_TEXT

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("members", sa.Column("mount", sa.LargeBinary(length=16), nullable=True))
    op.add_column("members", sa.Column("since_ns", sa.BigInteger(), nullable=True))
    op.add_column("members", sa.Column("told", sa.BigInteger(), nullable=True))
    op.create_table(
        "share_invitations",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("email_key", EXACT_TEXT, nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("account_id", sa.LargeBinary(length=16), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_share_invitations_space_id")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_share_invitations_account_id")),
        sa.PrimaryKeyConstraint("space_id", "email_key", name=op.f("pk_share_invitations")),
    )
    op.create_index(op.f("ix_share_invitations_account_id"), "share_invitations", ["account_id"])
