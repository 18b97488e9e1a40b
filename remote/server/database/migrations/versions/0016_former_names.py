"""What names held before: from now on a rewind knows what the tree was at a time."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    exact = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
    op.create_table(
        "former_names",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("parent", sa.LargeBinary(length=16), nullable=False),
        sa.Column("name", exact, nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("changed_ns", sa.BigInteger(), nullable=False),
        sa.Column("inode", sa.LargeBinary(length=16), nullable=True),
        sa.Column("inode_created_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_former_names_space_id")),
        sa.PrimaryKeyConstraint("space_id", "parent", "name", "rev", name=op.f("pk_former_names")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_former_names_space_id_changed_ns_parent_name_rev"),
        "former_names",
        ["space_id", "changed_ns", "parent", "name", "rev"],
    )
    op.create_index(
        op.f("ix_former_names_space_id_inode_inode_created_ns_changed_ns"),
        "former_names",
        ["space_id", "inode", "inode_created_ns", "changed_ns"],
    )
    op.add_column("spaces", sa.Column("changed_ns", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("spaces", sa.Column("names_since_ns", sa.BigInteger(), server_default="0", nullable=False))
    op.execute(sa.text("UPDATE spaces SET names_since_ns = :now").bindparams(now=time.time_ns()))
