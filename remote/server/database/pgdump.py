"""Dumps of PostgreSQL, made and restored by its own programs. Blocking.

A dump and the list of objects that belongs to it are one state: `pg_dump` reads the snapshot of the transaction that reads the
list. What is restored has no version of the schema until `finish`, in whose transaction it gets that, and whatever has to be done
before a service may be started on it. No service starts on one without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, inspect, text

from remote.server.database import contents as rows
from remote.server.database.contents import StoredObject
from remote.server.database.engine import VERSIONS
from remote.server.database.postgresql import PostgresDatabase

_IS_THE_VERSION = f" TABLE DATA public {VERSIONS} "
_COPY, _END = "COPY ", "\\."


class CannotDump(Exception):
    """The text says why, and what to do."""


def dump(database: PostgresDatabase, file: Path) -> list[tuple[bytes, StoredObject]]:
    """One state of the database, whole and durable, in a file of its owner's alone; and the objects, with their owners, that this
    state names."""
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    with database.read() as connection:
        _take_your_time(connection)
        snapshot = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        named = rows.all_objects(connection)
        options = ("--format=custom", "--no-owner", "--no-privileges", "--no-comments", f"--snapshot={snapshot}")
        _run("pg_dump", *options, f"--file={file}", database=database)
    _run("pg_restore", "--list", str(file))
    return named


def restore(database: PostgresDatabase, file: Path, *, overwrite: bool = False) -> None:
    """Put what is in the dump into the database, all or nothing, but for the version: `finish` follows. `CannotDump`.

    One that was not finished is done again. `overwrite`: whatever else is there goes first.
    """
    with database.write() as connection:
        found = inspect(connection).get_table_names()
        is_unfinished = VERSIONS in found and not connection.execute(text(f"SELECT 1 FROM {VERSIONS}")).first()
        if found and not (overwrite or is_unfinished):
            raise CannotDump("there is something in the database already: restore into an empty one, or say --overwrite")
        if _others(connection):
            raise CannotDump("a service is connected to the database: stop all of its processes first")
        if found:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    entries = [line for line in _run("pg_restore", "--list", str(file)).splitlines() if _IS_THE_VERSION not in line]
    with tempfile.NamedTemporaryFile("w", prefix="aloft-restore-") as wanted:
        wanted.write("\n".join(entries))
        wanted.flush()
        options = ("--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error", f"--use-list={wanted.name}")
        _run("pg_restore", *options, str(file), database=database)


def finish(database: PostgresDatabase, file: Path, work: Callable[[Connection], None]) -> None:
    """Let services start on what was restored: with its version, the migrations since, and `work`, in one transaction."""
    version = _version_in(file)
    with database.alone() as connection:
        connection.execute(text(f"INSERT INTO {VERSIONS} (version_num) VALUES (:version)"), {"version": version})
        database.migrate_in(connection)
        work(connection)


def named_objects(database: PostgresDatabase) -> list[tuple[bytes, StoredObject]]:
    with database.read() as connection:
        _take_your_time(connection)
        return rows.all_objects(connection)


@contextmanager
def held(database: PostgresDatabase) -> Iterator[None]:
    """While the database is restored: by one at a time. `CannotDump`."""
    with database.connect() as connection:
        connection.execute("SET application_name = 'aloft restore'")
        row = connection.execute("SELECT pg_try_advisory_lock(hashtext('aloft restore'))").fetchone()
        if row is None or not row[0]:
            raise CannotDump("another restore works on the database: wait for it")
        yield


def _version_in(file: Path) -> str:
    """Of the schema: from the text of the one row of its table."""
    lines = iter(_run("pg_restore", "--data-only", f"--table={VERSIONS}", "--file=-", str(file)).splitlines())
    for line in lines:
        if line.startswith(_COPY):
            version = next(lines, _END)
            if version != _END:
                return version.strip()
    raise CannotDump(f"{file} is no dump of a service's database")


def _others(connection: Connection) -> bool:
    """Whether a service, or somebody who administers it, is connected to this database."""
    others = """SELECT 1 FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'aloft' AND pid <> pg_backend_pid()"""
    return connection.execute(text(others)).first() is not None


def _take_your_time(connection: Connection) -> None:
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(text(f"SET LOCAL {setting} = 0"))


def _run(program: str, *arguments: str, database: PostgresDatabase | None = None) -> str:
    """What it prints. `CannotDump`: it is not there, or it failed."""
    if shutil.which(program) is None:
        raise CannotDump(
            f"{program} is not there: install PostgreSQL's client programs of the server's version or a newer one "
            "(on Debian the package postgresql-client)"
        )
    environment, options = dict(os.environ), []
    if database is not None:
        parameters = database.parameters()
        password = parameters.pop("password", None)
        if password is not None:
            environment["PGPASSWORD"] = str(password)  # not on the command line, which everybody may see
        options = [f"--dbname={make_conninfo(**parameters)}", "--no-password"]
    ran = subprocess.run([program, *options, *arguments], env=environment, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise CannotDump(f"{program} failed: {' '.join(ran.stderr.split())}")
    return ran.stdout
