"""Statements about the service's keys, where its processes share them through the database."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from remote.server.database.schema import keys
from remote.server.folder import Key


def find(connection: Connection, name: str) -> Key | None:
    row = connection.execute(select(keys.c.kid, keys.c.secret).where(keys.c.name == name)).one_or_none()
    return None if row is None else Key(row.kid, row.secret)


def add(connection: Connection, name: str, key: Key) -> None:
    connection.execute(insert(keys).values(name=name, kid=key.kid, secret=key.secret))
