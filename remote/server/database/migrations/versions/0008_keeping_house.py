"""Keeping house: stored copies that nothing names are written down as dead before they are deleted; jobs have one holder."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("next_generation", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("spaces", sa.Column("unswept", sa.BigInteger(), server_default="0", nullable=False))
    op.create_table(
        "dead_objects",
        sa.Column("owner", sa.LargeBinary(length=16), nullable=False),
        sa.Column("object_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("since_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["owner"], ["accounts.id"], name=op.f("fk_dead_objects_owner")),
        sa.PrimaryKeyConstraint("owner", "object_id", "generation", name=op.f("pk_dead_objects")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_dead_objects_since_ns"), "dead_objects", ["since_ns"])
    op.create_table(
        "jobs",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.LargeBinary(length=16)),
        sa.Column("until_ns", sa.BigInteger(), nullable=False),
        sa.Column("done_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_jobs")),
    )
