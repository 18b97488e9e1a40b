"""Whether the service's database can be used, without changing it, also while a service runs on it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from remote.server.database.postgresql import complete_url
from remote.server.findings import Finding, failed, warning, well

SUBJECT = "database"
ROOM = 2**30


def examine_sqlite(folder: Path) -> Iterator[Finding]:
    """The embedded database, in the data folder."""
    file = folder / "aloft.db"
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < ROOM:
        yield warning(SUBJECT, f"only {free // 2**20} MiB are free in {place}", "make room: a full disk stops all uploads")
    if not file.exists():
        yield well(SUBJECT, f"there is none in {folder} yet; the first start makes it")
        return
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            faults = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)") if row[0] != "ok"]
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.Error as error:
        yield failed(SUBJECT, f"{file} cannot be read: {error}", "restore it from a backup, and keep the damaged file")
        return
    if faults:
        yield failed(SUBJECT, f"{file} is damaged: {faults[0]}", "restore it from a backup, and keep the damaged file")
    else:
        yield _schema([row[0] for row in rows], f"{file} is sound")


def examine_postgresql(url: str) -> Iterator[Finding]:
    try:
        wanted = make_url(url).query.get("target_session_attrs", "any")  # a standby is told from one that is not there
        engine = create_engine(complete_url(url).update_query_dict({"target_session_attrs": wanted}))
    except (ArgumentError, ValueError) as error:
        yield failed(SUBJECT, f"its URL cannot be used: {error}", "write it as postgresql+psycopg://USER@HOST/NAME")
        return
    try:
        with engine.connect() as connection:
            yield _ask_postgresql(connection)
    except DBAPIError as error:
        mend = "see that it runs, and that its URL, user and password are right"
        yield failed(SUBJECT, f"it cannot be used: {error.orig}", mend)
    finally:
        engine.dispose()


def _ask_postgresql(connection: Connection) -> Finding:
    version, encoding, may_create, is_standby = connection.execute(_ASK).one()
    if encoding != "UTF8":
        return failed(SUBJECT, f"its encoding is {encoding}", "create the database with the encoding UTF8")
    if is_standby:
        mend = "name the primary, or target_session_attrs=read-write"
        return failed(SUBJECT, "it is a standby, which cannot be written to", mend)
    if not may_create:
        return failed(SUBJECT, "its user may create no tables", "GRANT CREATE ON SCHEMA public to the user, or make it the owner")
    known = connection.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar_one()
    rows = connection.execute(text("SELECT version_num FROM alembic_version")).all() if known else []
    return _schema([row[0] for row in rows], f"PostgreSQL {version} answers")


def _schema(found: list[str], says: str) -> Finding:
    config = Config()
    config.set_main_option("script_location", "remote.server.database:migrations")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    newer = [revision for revision in found if revision not in known]
    if newer:
        return failed(SUBJECT, f"{says}, but was written by a newer Aloft ({newer[0]})", "upgrade this one first")
    return well(SUBJECT, says)


_ASK = text(
    "SELECT current_setting('server_version'), current_setting('server_encoding'), "
    "has_schema_privilege(current_schema(), 'CREATE'), pg_is_in_recovery()"
)
