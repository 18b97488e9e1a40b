"""The first schema: everything that accounts, devices, spaces, uploads and objects need."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _exact_text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("email_key", _exact_text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("personal_space", sa.LargeBinary(length=16), nullable=False),
        sa.Column("quota_bytes", sa.BigInteger(), nullable=False),
        sa.Column("used_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("email_key", name=op.f("uq_accounts_email_key")),
    )
    op.create_table(
        "service",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service")),
    )
    op.create_table(
        "devices",
        sa.Column("account_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("installation", sa.LargeBinary(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_ns", sa.BigInteger(), nullable=False),
        sa.Column("removed_ns", sa.BigInteger(), nullable=True),
        sa.Column("session", sa.LargeBinary(length=16), nullable=False),
        sa.Column("confirmed", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_devices_account_id")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_devices")),
        sa.UniqueConstraint("account_id", "installation", name=op.f("uq_devices_account_id_installation")),
    )
    op.create_table(
        "invitations",
        sa.Column("code_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("used_by", sa.LargeBinary(length=16), nullable=True),
        sa.ForeignKeyConstraint(["used_by"], ["accounts.id"], name=op.f("fk_invitations_used_by")),
        sa.PrimaryKeyConstraint("code_hash", name=op.f("pk_invitations")),
    )
    op.create_table(
        "objects",
        sa.Column("owner", sa.LargeBinary(length=16), nullable=False),
        sa.Column("object_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["owner"], ["accounts.id"], name=op.f("fk_objects_owner")),
        sa.PrimaryKeyConstraint("owner", "object_id", name=op.f("pk_objects")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "spaces",
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("owner", sa.LargeBinary(length=16), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["owner"], ["accounts.id"], name=op.f("fk_spaces_owner")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spaces")),
    )
    op.create_index(op.f("ix_spaces_owner"), "spaces", ["owner"], unique=False)
    op.create_table(
        "commits",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_commits_space_id")),
        sa.PrimaryKeyConstraint("space_id", "device_id", name=op.f("pk_commits")),
    )
    op.create_table(
        "entries",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("parent", sa.LargeBinary(length=16), nullable=False),
        sa.Column("name", _exact_text(), nullable=False),
        sa.Column("inode", sa.LargeBinary(length=16), nullable=True),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_entries_space_id")),
        sa.PrimaryKeyConstraint("space_id", "parent", "name", name=op.f("pk_entries")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_entries_space_id_inode"), "entries", ["space_id", "inode"], unique=False)
    op.create_index(op.f("ix_entries_space_id_rev_parent_name"), "entries", ["space_id", "rev", "parent", "name"], unique=False)
    op.create_table(
        "inodes",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("mode", sa.Integer(), nullable=False),
        sa.Column("uid", sa.BigInteger(), nullable=True),
        sa.Column("gid", sa.BigInteger(), nullable=True),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("xattrs", sa.LargeBinary(), nullable=True),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("device_number", sa.BigInteger(), nullable=True),
        sa.Column("manifest_id", sa.LargeBinary(length=32), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=True),
        sa.Column("content_rev", sa.BigInteger(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_inodes_space_id")),
        sa.PrimaryKeyConstraint("space_id", "id", name=op.f("pk_inodes")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_inodes_space_id_rev_id"), "inodes", ["space_id", "rev", "id"], unique=False)
    op.create_table(
        "manifests",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_manifests_space_id")),
        sa.PrimaryKeyConstraint("space_id", "id", name=op.f("pk_manifests")),
    )
    op.create_table(
        "members",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("account_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_members_account_id")),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_members_space_id")),
        sa.PrimaryKeyConstraint("space_id", "account_id", name=op.f("pk_members")),
    )
    op.create_index(op.f("ix_members_account_id"), "members", ["account_id"], unique=False)
    op.create_table(
        "refresh_tokens",
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("retired", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id", "device_id"], ["devices.account_id", "devices.id"], name=op.f("fk_refresh_tokens_account_id_device_id")
        ),
        sa.PrimaryKeyConstraint("device_id", "serial", name=op.f("pk_refresh_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_refresh_tokens_token_hash")),
    )
    op.create_table(
        "space_objects",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("object_id", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_space_objects_space_id")),
        sa.PrimaryKeyConstraint("space_id", "object_id", name=op.f("pk_space_objects")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "upload_sessions",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("account_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("owner", sa.LargeBinary(length=16), nullable=False),
        sa.Column("last_used_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_upload_sessions_account_id")),
        sa.ForeignKeyConstraint(["owner"], ["accounts.id"], name=op.f("fk_upload_sessions_owner")),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_upload_sessions_space_id")),
        sa.PrimaryKeyConstraint("space_id", "id", name=op.f("pk_upload_sessions")),
    )
    op.create_index(op.f("ix_upload_sessions_owner_last_used_ns"), "upload_sessions", ["owner", "last_used_ns"], unique=False)
    op.create_table(
        "versions",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("inode", sa.LargeBinary(length=16), nullable=False),
        sa.Column("content_rev", sa.BigInteger(), nullable=False),
        sa.Column("manifest_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=True),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("device_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_versions_space_id")),
        sa.PrimaryKeyConstraint("space_id", "inode", "content_rev", "manifest_id", name=op.f("pk_versions")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_versions_space_id_inode_manifest_id"), "versions", ["space_id", "inode", "manifest_id"], unique=False
    )
    op.create_table(
        "upload_objects",
        sa.Column("space_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("session_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("object_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("owner", sa.LargeBinary(length=16), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["space_id", "session_id"],
            ["upload_sessions.space_id", "upload_sessions.id"],
            name=op.f("fk_upload_objects_space_id_session_id"),
        ),
        sa.PrimaryKeyConstraint("space_id", "session_id", "object_id", name=op.f("pk_upload_objects")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_upload_objects_owner_object_id"), "upload_objects", ["owner", "object_id"], unique=False)
