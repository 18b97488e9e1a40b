"""The database: how a transaction begins, what becomes of one that fails, and how the schema is brought to the newest state.

Everything above speaks SQLAlchemy Core; what the engines do not have in common stands here for SQLite, and in `postgresql` for
PostgreSQL. All calls block: they belong in a worker thread.

A write transaction on SQLite is the only one. On PostgreSQL there are others, in other processes too, so whoever decides by
what it has read locks first: `docs/design.md` says which rows, and in which order.
"""

from __future__ import annotations

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple, Unpack

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from remote.crashpoints import crash_point

VERSIONS = "alembic_version"
"""The table that says which migrations were done."""
BUSY_TIMEOUT_SECONDS = 30
BATCH = 500
"""So many values in one IN."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class NewerSchema(Exception):
    """The database has migrations that this program does not know."""


class Unsuitable(Exception):
    """The database is not such that a service can start on it; the text says what to do."""


class Database(ABC):
    """Transactions on one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @abstractmethod
    def read(self) -> AbstractContextManager[Connection]:
        """A snapshot: all statements see the same state."""

    @abstractmethod
    def write(self) -> AbstractContextManager[Connection]:
        """One durable transaction; an exception undoes it. Each statement sees what was committed before it began."""

    @abstractmethod
    def alone(self) -> AbstractContextManager[Connection]:
        """`write`, beside which no other one of this kind runs, in no process: for what is made once."""

    @abstractmethod
    def repeat(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        """Do the work, and do it again if a transaction of it was undone because it met another one, or lost its connection.

        So work must be such that its caller could ask for it again, too, after an answer that was lost.
        """

    @abstractmethod
    def is_away(self, error: SQLAlchemyError) -> bool:
        """Whether the error passes by itself, or by somebody's care for the database: it is no fault of the request."""

    def migrate(self) -> None:
        with self.alone() as connection:
            self.migrate_in(connection)
        crash_point("service.start.migrated")

    def migrate_in(self, connection: Connection) -> None:
        """In a transaction of `alone`. `NewerSchema`; `Unsuitable`: a restore was not finished (see `pgdump`)."""
        if inspect(connection).has_table(VERSIONS) and connection.execute(text(f"SELECT 1 FROM {VERSIONS}")).first() is None:
            raise Unsuitable("a backup was not restored to its end: run aloft admin restore again")
        config = Config()
        config.set_main_option("script_location", "remote.server.database:migrations")
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise NewerSchema("the database was written by a newer Aloft") from error
        crash_point("service.start.migrating")

    def close(self) -> None:
        self._engine.dispose()


class SqliteDatabase(Database):
    """A file. A writer holds the only write transaction; readers see a snapshot beside it."""

    def __init__(self, file: Path) -> None:
        super().__init__(
            create_engine(
                f"sqlite:///{file}",
                connect_args={"timeout": BUSY_TIMEOUT_SECONDS},
                pool_size=8,
                max_overflow=56,
                query_cache_size=2000,
            )
        )
        # SQLite answers writers that meet with sleeps of up to 100 ms; a lock hands over at once.
        self._writing = threading.Lock()
        event.listen(self._engine, "connect", _prepare_connection)
        event.listen(self._engine, "begin", _begin)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._writing, self._engine.connect() as plain:
            connection = plain.execution_options(aloft_write=True)
            with connection.begin():
                yield connection

    def alone(self) -> AbstractContextManager[Connection]:
        return self.write()

    def repeat(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        return work(*arguments)

    def is_away(self, error: SQLAlchemyError) -> bool:
        """A full disk, or a lock that is held for too long."""
        return isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.OperationalError)


def _prepare_connection(dbapi_connection: Any, _record: object) -> None:
    dbapi_connection.isolation_level = None  # BEGIN is ours, see `_begin`
    cursor = dbapi_connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    writing = connection.get_execution_options().get("aloft_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
