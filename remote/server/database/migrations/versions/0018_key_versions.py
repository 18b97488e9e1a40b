"""Keys have versions: a new one signs, and the ones before it are good until what they signed has ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("keys") as keys:
        keys.add_column(sa.Column("created_ns", sa.BigInteger(), nullable=False, server_default="0"))
        keys.add_column(sa.Column("retired_ns", sa.BigInteger(), nullable=True))
        keys.drop_constraint("pk_keys", type_="primary")
        keys.create_primary_key("pk_keys", ["name", "kid"])
