"""Statements about the keys that sign."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from remote.server.database.schema import keys
from remote.server.keys import Key


@dataclass(frozen=True, slots=True)
class KeyRow:
    name: str
    key: Key
    created_ns: int
    retired_ns: int | None
    """From when on it signs no more; may be in the future. None: it is the newest."""


def load(connection: Connection, name: str) -> list[KeyRow]:
    found = connection.execute(select(keys).where(keys.c.name == name).order_by(keys.c.created_ns, keys.c.kid))
    return [KeyRow(row.name, Key(row.kid, bytes(row.secret)), row.created_ns, row.retired_ns) for row in found]


def names(connection: Connection) -> list[str]:
    return list(connection.execute(select(keys.c.name).distinct().order_by(keys.c.name)).scalars())


def add(connection: Connection, name: str, key: Key, created_ns: int) -> None:
    connection.execute(insert(keys).values(name=name, kid=key.kid, secret=key.secret, created_ns=created_ns))


def retire(connection: Connection, name: str, retired_ns: int) -> None:
    """Let the newest sign no more from then on."""
    connection.execute(update(keys).where(keys.c.name == name, keys.c.retired_ns.is_(None)).values(retired_ns=retired_ns))


def remove(connection: Connection, name: str, kids: list[str]) -> None:
    connection.execute(delete(keys).where(keys.c.name == name, keys.c.kid.in_(kids)))
