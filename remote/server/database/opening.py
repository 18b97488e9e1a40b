"""Which database a configuration means, and how those who wait for changes in it are woken."""

from __future__ import annotations

from pathlib import Path

from remote.server.config import ServerConfig
from remote.server.database.engine import Database, SqliteDatabase
from remote.server.wake import LocalWake, SharedWake, Wake


def open_database(config: ServerConfig) -> Database:
    """Not migrated, and not asked yet."""
    if config.database is None:
        return SqliteDatabase(sqlite_file(config.data))
    from remote.server.database.postgresql import PostgresDatabase  # its driver is not needed elsewhere

    return PostgresDatabase(config.database)


def open_wake(database: Database) -> Wake:
    if isinstance(database, SqliteDatabase):
        return LocalWake()
    from remote.server.database.channel import Channel
    from remote.server.database.postgresql import PostgresDatabase

    assert isinstance(database, PostgresDatabase)
    connect = database.connect
    return SharedWake(lambda on_news: Channel(connect, on_news))


def sqlite_file(data: Path) -> Path:
    """Where the embedded database is."""
    return data / "aloft.db"
