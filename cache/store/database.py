"""The replica's SQLite file: opening, transactions, durability, single values. Knows no table but `meta`.

One connection, used by one thread only (the event loop's). Nothing here waits for the disk on that thread: a commit appends
to the WAL without fsync, `make_durable` and `checkpoint` do the syncing and are called in worker threads.

Never open or close the database file itself by other means while a connection exists: POSIX drops all the process's
locks on a file whenever any descriptor of it is closed. (The `-wal` file carries no locks.)

    DatabaseUnusable
    ├── DamagedDatabase       truncated, overwritten, or not a database; the file was left as it is
    └── UnknownSchema         another version of Aloft wrote it
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from cache.disk import as_disk_error
from cache.errors import DiskFailed
from cache.store import schema
from cache.store.wal import commits_are_lost, note_boot
from remote.crashpoints import crash_point

_CACHED_STATEMENTS = 1024
_PAGE_BYTES = 2048
"""A transaction writes each page that it changed to the WAL, whole: smaller pages make a create or a rename cheaper, larger
ones the drafts of small files."""
_PAGE_CACHE_KIB = 24 * 1024
_QUICK_CHECK_MAX = 32 * 2**20
"""Files up to this size are checked whole when opened; larger ones by `check_integrity` in a thread, after the start."""
_WAL_MAX = 64 * 2**20
_WAL_KEPT = 2**20
"""To so much the WAL's file is cut when it begins anew."""
_BUSY_SECONDS = 20.0
"""How long a transaction waits for the rare checkpoint that stops the writer."""


class DatabaseUnusable(Exception):
    """The replica cannot be opened; the text is fit to show to a person, and says what to do."""


class DamagedDatabase(DatabaseUnusable):
    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(
            f"the replica {path} is damaged ({detail}). Nothing was changed or deleted. To go on, move {path.name} and "
            f"{path.name}-wal out of {path.parent} and mount again: the tree is then listed anew from the service, and "
            f"files over 64 KiB that were not uploaded yet come back in the folder 'Recovered files'. Keep {path.name}: smaller "
            f"ones are in it."
        )


class UnknownSchema(DatabaseUnusable):
    pass


class Transaction:
    """`with database.transaction():` commits at the end and rolls back on an exception. A nested one joins the outer one.

    There is one object per connection, because at every operation of the file system a new one would cost more than SQLite.
    """

    __slots__ = ("_afterwards", "_depth", "_sql", "_undo")

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql
        self._depth = 0
        self._undo: list[Callable[[], None]] = []
        self._afterwards: list[Callable[[], None]] = []

    @property
    def active(self) -> bool:
        return self._depth > 0

    def if_rolled_back(self, undo: Callable[[], None]) -> None:
        """Call `undo` if the transaction under way, of whomever it is, does not happen: what is in memory must not say that it
        did. The latest first."""
        self._undo.append(undo)

    def afterwards(self, work: Callable[[], None]) -> None:
        """Do `work` once the transaction under way is committed, and not if it does not happen; without one, at once."""
        if self._depth:
            self._afterwards.append(work)
        else:
            work()

    def __enter__(self) -> None:
        if self._depth == 0:
            try:
                self._sql.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as refused:
                _raise_disk_error(refused)
                raise
        self._depth += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._depth -= 1
        if self._depth:
            return
        if error is None:
            try:
                self._sql.execute("COMMIT")
            except sqlite3.Error as refused:
                self._roll_back()
                _raise_disk_error(refused)
                raise
            self._undo.clear()
            while self._afterwards:
                self._afterwards.pop(0)()
            return
        self._roll_back()
        if isinstance(error, sqlite3.Error):
            _raise_disk_error(error)

    def _roll_back(self) -> None:
        if self._sql.in_transaction:  # SQLite itself rolls back after some errors
            self._sql.execute("ROLLBACK")
        self._afterwards.clear()
        while self._undo:
            self._undo.pop()()


def _raise_disk_error(error: sqlite3.Error) -> None:
    """If it is one."""
    refused = as_disk_error(error, "replica")
    if refused is not None:
        raise refused from error


class Database:
    """See the module. `sql` is for the modules of this package only."""

    def __init__(self, path: Path, sql: sqlite3.Connection, was_checked: bool) -> None:
        self.path = path
        self.sql = sql
        self.was_checked = was_checked
        """The whole file was read when it was opened; otherwise it is time for `check_integrity`."""
        self._transaction = Transaction(sql)
        self._sync_failed = False

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open the replica at `path`, or make an empty one if there is no file. Raises `DatabaseUnusable`."""
        if not path.exists():
            _create(path)
        elif not path.is_file():
            raise DamagedDatabase(path, "it is not a file")
        elif path.stat().st_size == 0:
            raise DamagedDatabase(path, "it is empty")
        elif commits_are_lost(path):
            raise DamagedDatabase(path, f"the latest changes cannot be read from {path.name}-wal")
        sql = sqlite3.connect(path, isolation_level=None, cached_statements=_CACHED_STATEMENTS, timeout=_BUSY_SECONDS)
        try:
            _configure(sql)
            small = path.stat().st_size <= _QUICK_CHECK_MAX
            _check_tables(path, sql)
            if small:
                _quick_check(path, sql)
            _upgrade(path, sql)
        except sqlite3.DatabaseError as error:
            sql.close()
            _raise_disk_error(error)
            if isinstance(error, sqlite3.OperationalError) and "lock" in str(error):
                raise DatabaseUnusable(f"the replica {path} is in use by another process") from error
            raise DamagedDatabase(path, str(error)) from error
        except DatabaseUnusable:
            sql.close()
            raise
        _sync_folder(path.parent)
        note_boot(path)
        return cls(path, sql, small)

    def transaction(self) -> Transaction:
        return self._transaction

    def make_durable(self) -> None:
        """Every transaction committed so far survives power loss after this. For a worker thread: it waits for the disk.

        `OSError`. The kernel tells of bytes that it could not write once, and takes them for written then: so after a failure
        the next call moves all of the WAL, which writes everything anew.
        """
        if self._sync_failed:
            self._move_all()
        try:
            descriptor = os.open(f"{self.path}-wal", os.O_RDONLY)
        except FileNotFoundError:
            return  # all of it is in the database file, which SQLite syncs when it empties the WAL
        crash_point("durable.syncing")
        try:
            os.fsync(descriptor)
        except OSError:
            self._sync_failed = True
            raise
        finally:
            os.close(descriptor)

    def _move_all(self) -> None:
        sql = sqlite3.connect(self.path, isolation_level=None, timeout=_BUSY_SECONDS)
        try:
            sql.execute("PRAGMA synchronous=NORMAL")
            busy, *_ = sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise DiskFailed("the disk that holds the replica failed, and it is in use")
            self._sync_failed = False
        except sqlite3.OperationalError as error:
            _raise_disk_error(error)
            raise
        finally:
            sql.close()

    def checkpoint(self) -> None:
        """Move the WAL's content into the database file. For a worker thread.

        The writer is not disturbed, unless it wrote so steadily that the WAL has outgrown its bound: then it is made to
        wait for the little that was added since.
        """
        sql = sqlite3.connect(self.path, isolation_level=None, timeout=1.0)
        try:
            sql.execute("PRAGMA synchronous=NORMAL")
            crash_point("checkpoint.moving")
            sql.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            crash_point("checkpoint.moved")
            wal = Path(f"{self.path}-wal")
            if wal.exists() and wal.stat().st_size > _WAL_MAX:
                sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            sql.close()

    def wal_state(self) -> tuple[int, int]:
        """Bytes and mtime (nanoseconds) of the WAL's file: a larger or a younger one has something to move."""
        try:
            found = os.stat(f"{self.path}-wal")
        except FileNotFoundError:
            return 0, 0
        return found.st_size, found.st_mtime_ns

    def check_integrity(self) -> None:
        """Read the whole file and raise `DamagedDatabase` if it is not sound. For a worker thread."""
        sql = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            _quick_check(self.path, sql)
        except sqlite3.DatabaseError as error:
            raise DamagedDatabase(self.path, str(error)) from error
        finally:
            sql.close()

    def meta(self, key: str, default: Any = None) -> Any:
        """A single value that `set_meta` kept (anything that JSON can hold)."""
        row = self.sql.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def set_meta(self, key: str, value: Any) -> None:
        with self._transaction:
            self.sql.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def close(self) -> None:
        self.sql.close()


def _create(path: Path) -> None:
    """Make the file under another name first: an empty file at `path` then always means damage, never a crash in here."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    sql = sqlite3.connect(new, isolation_level=None)
    try:
        sql.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        sql.executescript(f"BEGIN; {schema.TABLES} PRAGMA user_version = {schema.SCHEMA_VERSION}; COMMIT;")
    except sqlite3.OperationalError as error:
        _raise_disk_error(error)
        raise
    finally:
        sql.close()
    new.chmod(0o600)
    crash_point("replica.making")
    wal = Path(f"{path}-wal")
    if wal.exists():  # of a database that was moved away: it must not be replayed into this one
        wal.rename(f"{wal}.stray")
        _sync_folder(path.parent)  # nor may it come back beside the new one after a power loss
    Path(f"{path}-shm").unlink(missing_ok=True)
    crash_point("replica.clearing")
    new.rename(path)
    crash_point("replica.made")
    _sync_folder(path.parent)


def _configure(sql: sqlite3.Connection) -> None:
    sql.execute("PRAGMA journal_mode=WAL")
    sql.execute("PRAGMA synchronous=NORMAL")
    sql.execute("PRAGMA wal_autocheckpoint=0")
    sql.execute(f"PRAGMA journal_size_limit={_WAL_KEPT}")
    sql.execute(f"PRAGMA cache_size=-{_PAGE_CACHE_KIB}")
    sql.execute("PRAGMA temp_store=MEMORY")
    sql.execute("PRAGMA secure_delete=OFF")


def _check_tables(path: Path, sql: sqlite3.Connection) -> None:
    tables = sql.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('meta', 'inode', 'entry')").fetchone()[0]
    if tables != 3:
        raise DamagedDatabase(path, "its tables are missing")


def _upgrade(path: Path, sql: sqlite3.Connection) -> None:
    """Bring a replica of an older version to this one, a version at a time, each in one transaction."""
    version = sql.execute("PRAGMA user_version").fetchone()[0]
    while version in schema.UPGRADES:
        sql.executescript(f"BEGIN IMMEDIATE; {schema.UPGRADES[version]} PRAGMA user_version = {version + 1}; COMMIT;")
        version += 1
    if version != schema.SCHEMA_VERSION:
        raise UnknownSchema(
            f"the replica {path} has version {version}, this Aloft knows version {schema.SCHEMA_VERSION}: "
            f"use the Aloft that wrote it, or update this one"
        )


def _quick_check(path: Path, sql: sqlite3.Connection) -> None:
    answer = sql.execute("PRAGMA quick_check(1)").fetchone()[0]
    if answer != "ok":
        raise DamagedDatabase(path, " ".join(str(answer).split()))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
