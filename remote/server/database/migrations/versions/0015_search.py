"""The index of names and contents. What differs between the databases is the full text itself: FTS5, or GIN with pg_trgm."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from remote.server.database.engine import Unsuitable

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_SQLITE = (
    """CREATE VIRTUAL TABLE search_name_index USING fts5(space, folded, words, tokenize="trigram case_sensitive 1")""",
    """CREATE VIRTUAL TABLE search_text_index
       USING fts5(space, body, tokenize="unicode61 remove_diacritics 2", prefix='2 3')""",
    """CREATE TRIGGER search_names_removed AFTER DELETE ON search_names
       BEGIN DELETE FROM search_name_index WHERE rowid = old.id; END""",
    """CREATE TRIGGER search_contents_removed AFTER DELETE ON search_contents
       BEGIN DELETE FROM search_text_index WHERE rowid = old.id; END""",
)
_POSTGRESQL = (
    """CREATE TABLE search_name_index (
           id bigint PRIMARY KEY REFERENCES search_names ON DELETE CASCADE, space_id bytea NOT NULL, folded text NOT NULL)""",
    """CREATE INDEX search_name_index_of_space ON search_name_index (space_id)""",
    """CREATE INDEX search_name_index_trigrams ON search_name_index USING gin (folded gin_trgm_ops)""",
    """CREATE TABLE search_text_index (
           id bigint PRIMARY KEY REFERENCES search_contents ON DELETE CASCADE, body text NOT NULL, words tsvector NOT NULL)""",
    """CREATE INDEX search_text_index_words ON search_text_index USING gin (words)""",
)


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    exact = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
    op.create_table(
        "search_state",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("indexed_rev", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_search_state_space_id")),
        sa.PrimaryKeyConstraint("space_id", name=op.f("pk_search_state")),
    )
    op.create_table(
        "search_names",
        sa.Column("id", number, nullable=False),
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("parent", sa.LargeBinary(length=16), nullable=False),
        sa.Column("name", exact, nullable=False),
        sa.Column("extension", exact, nullable=False),
        sa.ForeignKeyConstraint(
            ["space_id", "parent", "name"],
            ["entries.space_id", "entries.parent", "entries.name"],
            name=op.f("fk_search_names_space_id_parent_name"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_names")),
        sa.UniqueConstraint("space_id", "parent", "name", name=op.f("uq_search_names_space_id_parent_name")),
    )
    op.create_table(
        "search_contents",
        sa.Column("id", number, nullable=False),
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("inode", sa.LargeBinary(length=16), nullable=False),
        sa.Column("manifest_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["space_id", "inode"],
            ["inodes.space_id", "inodes.id"],
            name=op.f("fk_search_contents_space_id_inode"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_contents")),
        sa.UniqueConstraint("space_id", "inode", name=op.f("uq_search_contents_space_id_inode")),
    )
    op.create_index(op.f("ix_search_contents_state_space_id_id"), "search_contents", ["state", "space_id", "id"])
    op.create_index(op.f("ix_search_contents_manifest_id_space_id"), "search_contents", ["manifest_id", "space_id"])
    if op.get_bind().dialect.name == "postgresql":
        _create_extension()
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)


def _create_extension() -> None:
    """It comes with PostgreSQL (the package of its additions), and whoever owns the database may create it."""
    try:
        op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise Unsuitable(f"search needs the extension pg_trgm: let CREATE EXTENSION pg_trgm be run there ({reason})") from error
