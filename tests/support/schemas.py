"""What a database's schema is, and one as an older Aloft left it, filled by this one: what was added since is taken away."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from remote.server.database.schema import metadata

_SINCE_0015 = (
    "DROP TABLE share_invitations",
    "ALTER TABLE members DROP COLUMN mount",
    "ALTER TABLE members DROP COLUMN since_ns",
    "ALTER TABLE members DROP COLUMN told",
    "DROP TABLE former_names",
    "ALTER TABLE spaces DROP COLUMN changed_ns",
    "ALTER TABLE spaces DROP COLUMN names_since_ns",
    "CREATE TABLE kept_keys AS SELECT name, kid, secret FROM keys WHERE retired_ns IS NULL",
    "DROP TABLE keys",
    "CREATE TABLE keys (name text NOT NULL, kid text NOT NULL, secret {bytes} NOT NULL, CONSTRAINT pk_keys PRIMARY KEY (name))",
    "INSERT INTO keys SELECT name, kid, secret FROM kept_keys",
    "DROP TABLE kept_keys",
    "UPDATE alembic_version SET version_num = '0015'",
)


def go_back_to_0015(connection: Connection) -> None:
    """Before rewind, sharing with accounts, and keys that are replaced."""
    kind = "bytea" if connection.dialect.name == "postgresql" else "blob"
    for statement in _SINCE_0015:
        connection.execute(text(statement.format(bytes=kind)))


def differences(connection: Connection) -> Any:
    """Between what migrations made and what the statements expect."""
    options = {"compare_server_default": True, "include_name": _is_the_same_on_both}
    return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


def _is_the_same_on_both(name: str | None, kind: str, _parents: object) -> bool:
    """What is not is made by migrations only."""
    return kind != "table" or name is None or not name.startswith(("search_name_index", "search_text_index"))
