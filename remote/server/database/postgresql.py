"""PostgreSQL: connections, isolation, and which failures pass by themselves.

Readers take a snapshot (REPEATABLE READ, read only: nothing can make that fail). Writers are READ COMMITTED: each statement sees
what was committed when it began, so what is read after a row was locked is what the one who held the lock before left. Nobody
asks for durability to be lowered here, and a server that lowers it (`synchronous_commit = off`) is overruled.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple, Unpack

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure, UniqueViolation
from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, TimeoutError

from remote.server.database.engine import Database

ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.01
STATEMENT_SECONDS = 30
"""A statement, with its wait for locks, takes no longer."""
IDLE_SECONDS = 60
"""Whoever stands still within a transaction for so long loses it, so that nobody holds a space for ever."""
ALONE_KEY = 0x616C6F6674  # "aloft"
_POOL = 8
_OVERFLOW = 16
_DEFAULTS = {
    "fallback_application_name": "aloft",
    "target_session_attrs": "read-write",  # of several hosts the primary; a standby is as good as none
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
"""Parameters of libpq that the URL may overrule."""
_SETTINGS = (
    f"SET statement_timeout = '{STATEMENT_SECONDS}s'",
    f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'",
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
)
_READ_ONLY, _IDLE = "25006", "25P03"

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class PostgresDatabase(Database):
    """A database that any number of processes share. The URL is one of SQLAlchemy's, with libpq's parameters as its query."""

    def __init__(self, url: str) -> None:
        self._url = complete_url(url)
        super().__init__(
            create_engine(
                self._url,
                isolation_level="READ COMMITTED",
                pool_size=_POOL,
                max_overflow=_OVERFLOW,
                pool_timeout=STATEMENT_SECONDS,
                pool_use_lifo=True,
                query_cache_size=2000,
            )
        )
        self._reading = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        event.listen(self._engine, "connect", _prepare_connection)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._reading.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        with self.write() as connection:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ALONE_KEY})")
            yield connection

    def repeat(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        pause = FIRST_PAUSE_SECONDS
        for _ in range(ATTEMPTS - 1):
            try:
                return work(*arguments)
            except DBAPIError as error:
                if not _is_worth_repeating(error):
                    raise
            time.sleep(random.uniform(pause / 2, pause))
            pause *= 2
        return work(*arguments)

    def is_away(self, error: SQLAlchemyError) -> bool:
        """No connection, none in time, a server that stops or has no room, a standby, a statement that took too long."""
        if isinstance(error, TimeoutError):
            return True
        if not isinstance(error, DBAPIError):
            return False
        if error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError | psycopg.InterfaceError):
            return True
        return isinstance(error.orig, psycopg.Error) and error.orig.sqlstate in (_READ_ONLY, _IDLE)

    def connect(self) -> psycopg.Connection[Any]:
        """A connection beside the pool, in no transaction. `psycopg.Error`."""
        arguments, parameters = self._engine.dialect.create_connect_args(self._url)
        return psycopg.connect(*arguments, autocommit=True, **parameters)

    def parameters(self) -> dict[str, Any]:
        """Those of libpq by which the database is reached, the password among them."""
        _, parameters = self._engine.dialect.create_connect_args(self._url)
        return {name: value for name, value in parameters.items() if name != "context"}  # psycopg's own


def complete_url(url: str) -> URL:
    """With this program's driver, and the parameters that it wants where the URL says nothing. `ArgumentError`, `ValueError`."""
    given = make_url(url).set(drivername="postgresql+psycopg")
    return given.update_query_dict({key: value for key, value in _DEFAULTS.items() if key not in given.query})


def _prepare_connection(dbapi_connection: Any, _record: object) -> None:
    with dbapi_connection.cursor() as cursor:
        for statement in _SETTINGS:
            cursor.execute(statement)
    dbapi_connection.commit()


def _is_worth_repeating(error: DBAPIError) -> bool:
    """It was undone to break a circle, or somebody else was first with a row that both found missing; or the connection went:
    then another one may do, and whether a commit was applied is seen by who does it again."""
    return error.connection_invalidated or isinstance(error.orig, SerializationFailure | DeadlockDetected | UniqueViolation)
