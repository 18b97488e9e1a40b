"""Epochs that know where they began, commits that are counted for each replica, and tombstones that can be collected.

The recorded outcomes of commits are dropped: they do not say of what they are the outcome.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "epochs",
        sa.Column("serial", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("began_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_epochs")),
        sa.UniqueConstraint("epoch", name=op.f("uq_epochs_epoch")),
    )
    op.execute("INSERT INTO epochs (serial, epoch, began_ns) SELECT 0, epoch, 0 FROM service")
    op.drop_table("service")
    op.create_table(
        "epoch_starts",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_epoch_starts_space_id")),
        sa.ForeignKeyConstraint(["serial"], ["epochs.serial"], name=op.f("fk_epoch_starts_serial")),
        sa.PrimaryKeyConstraint("space_id", "serial", name=op.f("pk_epoch_starts")),
    )
    op.add_column("spaces", sa.Column("collected", sa.BigInteger(), server_default="0", nullable=False))
    op.create_table(
        "revision_marks",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("noted_ns", sa.BigInteger(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_revision_marks_space_id")),
        sa.PrimaryKeyConstraint("space_id", "noted_ns", name=op.f("pk_revision_marks")),
    )
    op.drop_table("commits")
    op.create_table(
        "commits",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("replica_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_commits_space_id")),
        sa.PrimaryKeyConstraint("space_id", "device_id", "replica_id", name=op.f("pk_commits")),
    )
