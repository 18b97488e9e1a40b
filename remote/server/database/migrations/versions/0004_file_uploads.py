"""Uploads of plain clients, which name all chunks of a file before they send any, and contents found by SHA-256."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "file_uploads",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("account_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("type", sa.Text()),
        sa.Column("mtime_ns", sa.BigInteger()),
        sa.Column("on_conflict", sa.Text(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("inode", sa.LargeBinary(length=16)),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("last_used_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_file_uploads_space_id")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_file_uploads_account_id")),
        sa.PrimaryKeyConstraint("space_id", "id", name=op.f("pk_file_uploads")),
    )
    op.create_index(op.f("ix_file_uploads_account_id_last_used_ns"), "file_uploads", ["account_id", "last_used_ns"])
    op.create_index(op.f("ix_versions_space_id_sha256"), "versions", ["space_id", "sha256"])
