"""What the scrubber found, and how far it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scrub_position",
        sa.Column("owner", sa.LargeBinary(length=16), nullable=False),
        sa.Column("object_id", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_scrub_position")),
    )
    op.create_table(
        "damaged_objects",
        sa.Column("owner", sa.LargeBinary(length=16), nullable=False),
        sa.Column("object_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("found_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["owner"], ["accounts.id"], name=op.f("fk_damaged_objects_owner")),
        sa.PrimaryKeyConstraint("owner", "object_id", name=op.f("pk_damaged_objects")),
        sqlite_with_rowid=False,
    )
