"""The trash. What lost its name before this is in no trash: nobody knows what it was called."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from remote.server.database.schema import EXACT_TEXT

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "trash",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("inode", sa.LargeBinary(length=16), nullable=False),
        sa.Column("parent", sa.LargeBinary(length=16), nullable=False),
        sa.Column("name", EXACT_TEXT, nullable=False),
        sa.Column("deleted_ns", sa.BigInteger(), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_trash_space_id")),
        sa.PrimaryKeyConstraint("space_id", "inode", name=op.f("pk_trash")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_trash_space_id_parent"), "trash", ["space_id", "parent"])
    op.create_index(op.f("ix_trash_space_id_deleted_ns"), "trash", ["space_id", "deleted_ns"])
