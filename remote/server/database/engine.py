"""The database: how it is opened, how a transaction begins, and how it is brought to the newest schema.

Knows SQLite; everything above speaks SQLAlchemy Core, so that another engine is a matter of this file. All calls block: they
belong in a worker thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, event

from remote.crashpoints import crash_point

BUSY_TIMEOUT_SECONDS = 30
BATCH = 500
"""So many values in one IN."""


class NewerSchema(Exception):
    """The database has migrations that this program does not know."""


class Database:
    """Transactions on one database. A writer holds the only write transaction of this process; readers see a snapshot."""

    def __init__(self, file: Path) -> None:
        self._engine = create_engine(
            f"sqlite:///{file}",
            connect_args={"timeout": BUSY_TIMEOUT_SECONDS},
            pool_size=8,
            max_overflow=56,
            query_cache_size=2000,
        )
        # SQLite answers writers that meet with sleeps of up to 100 ms; a lock hands over at once.
        self._writing = threading.Lock()
        event.listen(self._engine, "connect", _prepare_connection)
        event.listen(self._engine, "begin", _begin)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot: all statements see the same state."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One durable transaction; an exception undoes it."""
        with self._writing, self._engine.connect() as plain:
            connection = plain.execution_options(aloft_write=True)
            with connection.begin():
                yield connection

    def migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", "remote.server.database:migrations")
        with self.write() as connection:
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise NewerSchema("the database was written by a newer Aloft") from error
            crash_point("service.start.migrating")
        crash_point("service.start.migrated")

    def close(self) -> None:
        self._engine.dispose()


def _prepare_connection(dbapi_connection: Any, _record: object) -> None:
    dbapi_connection.isolation_level = None  # BEGIN is ours, see `_begin`
    cursor = dbapi_connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    writing = connection.get_execution_options().get("aloft_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
