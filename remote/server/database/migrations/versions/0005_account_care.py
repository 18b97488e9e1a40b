"""Profiles, personal access tokens, codes for forgotten passwords, closed accounts, and rate limits that outlive a process."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("last_login_ns", sa.BigInteger()))
    op.add_column("accounts", sa.Column("settings", sa.Text(), server_default="{}", nullable=False))
    op.add_column("accounts", sa.Column("closed_ns", sa.BigInteger()))
    op.create_table(
        "personal_tokens",
        sa.Column("account_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("expires_ns", sa.BigInteger()),
        sa.Column("last_used_ns", sa.BigInteger()),
        sa.Column("revoked_ns", sa.BigInteger()),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_personal_tokens_account_id")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_personal_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_personal_tokens_token_hash")),
    )
    op.create_table(
        "password_codes",
        sa.Column("code_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("account_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("expires_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_password_codes_account_id")),
        sa.PrimaryKeyConstraint("code_hash", name=op.f("pk_password_codes")),
    )
    op.create_index(op.f("ix_password_codes_account_id"), "password_codes", ["account_id"])
    op.create_table(
        "rate_limits",
        sa.Column("key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("empty_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rate_limits")),
    )
    op.create_index(op.f("ix_rate_limits_empty_ns"), "rate_limits", ["empty_ns"])
