"""The folder of a backup: the database and keys in it, and its objects, which lie as in an embedded store. Blocking."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from remote.server.database.opening import sqlite_file
from remote.server.epochs import begin_epoch
from remote.server.folder import make_folder, sync_folder, write_private
from remote.server.objects.files import OpenFile
from remote.server.objects.folders import path_of
from remote.server.objects.masterkeys import MasterKeys
from remote.server.objects.opening import MASTER_KEY
from remote.server.objects.store import NoSuchObject, object_key

KEYS = ("tokens.key", "objects.key")
"""Where keys are until a service that keeps them in its database has been started."""


class CannotBackUp(Exception):
    """The text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class NamedObject:
    key: str
    id: bytes
    length: int


def place_database(backup: Path, data: Path) -> None:
    """Put the backup's database into its place, where it has begun a new epoch already."""
    shutil.rmtree(data / "restoring", ignore_errors=True)
    make_folder(data / "restoring")
    copy_database(sqlite_file(backup), sqlite_file(data / "restoring"))
    begin_epoch(data / "restoring")
    sqlite_file(data / "restoring").replace(sqlite_file(data))
    sync_folder(data)
    shutil.rmtree(data / "restoring")


def copy_keys(source: Path, target: Path) -> None:
    for name in KEYS:
        if (source / name).exists():
            write_private(target / name, (source / name).read_bytes())
        else:
            (target / name).unlink(missing_ok=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    with (folder / "backup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotBackUp(f"another backup or restore works in {folder}: wait for it") from None
        yield


def copy_database(source: Path, target: Path) -> None:
    """One state of it, whole and durable."""
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as here, closing(sqlite3.connect(target)) as there:
        here.backup(there)
        there.execute("PRAGMA journal_mode = DELETE")
        (answer,) = there.execute("PRAGMA quick_check").fetchone()
    if answer != "ok":
        raise CannotBackUp(f"the database {source} is damaged: {answer}")
    target.chmod(0o600)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def objects_of(database: Path) -> list[NamedObject]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as sql:
        rows = sql.execute("SELECT owner, object_id, generation, length FROM objects ORDER BY owner, object_id").fetchall()
    return [NamedObject(object_key(owner, id_, generation), id_, length) for owner, id_, generation, length in rows]


class StoredBackup:
    """Reads the objects of a backup, which may be on a disk that cannot be written to."""

    def __init__(self, backup: Path) -> None:
        """`DataFolderError`."""
        self._objects = backup / "objects"
        self._keys = MasterKeys(backup / MASTER_KEY)

    def read(self, key: str, length: int) -> bytes | None:
        """The stored bytes; None: it has none. Nobody has verified them."""
        try:
            with OpenFile(path_of(self._objects, key), self._keys) as file:
                return file.read(0, length)
        except NoSuchObject:
            return None


def remove_others(folder: Path, kept: set[str]) -> int:
    removed = 0
    for file in folder.glob("*/*/*"):
        if f"{file.parent.parent.name}/{file.name}" not in kept:
            file.unlink()
            removed += 1
    return removed
