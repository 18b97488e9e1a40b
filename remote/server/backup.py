"""Backups of a service: its database, its keys and its objects, in a folder. Blocking; beside a running service.

The database comes first, as a snapshot; then the objects that it names. Objects never change, so only those are copied that the
backup lacks, and none that the snapshot names is deleted from the store for a day. The snapshot takes the place of the last one
when everything is there, and only then what it does not name goes. So a backup that is interrupted is the last one, whole. Its
objects are encrypted like those of an embedded store, under a master key of its own, which lies in it.

To restore, the database comes first where it is PostgreSQL, in a state in which no service starts on it. It names the objects,
and those that the store lacks are put back. Then it is finished, or put into its place, with a new epoch.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from os import urandom
from pathlib import Path
from typing import Protocol

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from remote.server.backupfolder import (
    CannotBackUp,
    NamedObject,
    StoredBackup,
    alone,
    copy_database,
    copy_keys,
    objects_of,
    place_database,
    remove_others,
)
from remote.server.config import ObjectsConfig, ServerConfig
from remote.server.database import pgdump
from remote.server.database.contents import StoredObject
from remote.server.database.engine import NewerSchema, Unsuitable
from remote.server.database.opening import open_database, sqlite_file
from remote.server.database.pgdump import CannotDump
from remote.server.database.postgresql import PostgresDatabase
from remote.server.epochs import begin_epoch_in
from remote.server.folder import make_folder, sync_folder
from remote.server.keys import new_key
from remote.server.objects.folders import path_of
from remote.server.objects.opening import open_local
from remote.server.objects.store import NoSuchObject, ObjectStore, Stored, object_key
from remote.server.service import open_store_beside

AT_ONCE = 8
"""Objects that are read and written at one time; each is in memory."""
ASKED = 256
"""Objects that the store is asked for at one time."""


Told = Callable[[int, int], None]
"""Hears how many objects of how many are done."""


@dataclass(slots=True)
class BackedUp:
    objects: int = 0
    copied: int = 0
    copied_bytes: int = 0
    removed: int = 0
    """Objects of the last backup that nothing needs any more."""
    lost: list[str] = field(default_factory=list)
    """Objects that the service has not, or not as they were; the backup lacks them, too."""


def back_up(config: ServerConfig, target: Path, told: Told = lambda done, total: None) -> BackedUp:
    """Bring the backup in `target` up to date, or begin it. `CannotBackUp`, `StoreUnavailable`, `OSError`."""
    part = _database_of(config)
    if target.resolve().is_relative_to(config.data.resolve()):
        raise CannotBackUp(f"{target} lies in the service's own folder: a backup belongs on another disk")
    part.require_service()
    if any((target / other.file).exists() for other in (_Sqlite, _Postgresql) if other.file != part.file):
        raise CannotBackUp(f"the backup in {target} is of another kind of database: choose another folder")
    make_folder(target)
    with alone(target), closing(open_store_beside(config)) as store:
        fresh = target / f"{part.file}.new"
        named = part.snapshot(fresh)
        part.copy_beside(target)
        report = _copy(named, _Backup(target, store, config.objects.encrypt), told)
        fresh.replace(target / part.file)
        sync_folder(target)
        report.removed = remove_others(target / "objects", {each.key for each in named})
    return report


def restore(config: ServerConfig, backup: Path, *, overwrite: bool = False, told: Told = lambda done, total: None) -> BackedUp:
    """Put a backup into the database and the object store of `config`, on which no service runs, and begin a new epoch.

    `overwrite`: whatever is in the database goes. An interrupted one is repeated. `CannotBackUp`, `StoreUnavailable`, `OSError`.
    """
    part = _database_of(config)
    if not (backup / part.file).exists():
        raise CannotBackUp(f"there is no whole backup of {part.kind} in {backup}")
    with closing(open_store_beside(config)) as store, part.placed(backup, overwrite) as named:
        return _copy(named, _Restored(backup, store), told)


# --------------------------------------------------------------------------------------------------------------- objects


class _Direction(Protocol):
    """From where to where objects are copied."""

    def lacks(self, some: Sequence[NamedObject]) -> list[NamedObject]: ...

    def read(self, one: NamedObject) -> bytes | None:
        """None: it is not there."""

    def write(self, one: NamedObject, body: bytes) -> None: ...


class _Backup:
    """From the store into the folder, in which they lie as in an embedded store."""

    def __init__(self, target: Path, store: ObjectStore, encrypt: bool) -> None:
        self._store = store
        self._objects = target / "objects"
        self._folder = open_local(
            ServerConfig(target, objects=ObjectsConfig(encrypt=encrypt)), new_key(urandom), time.time_ns, urandom
        )

    def lacks(self, some: Sequence[NamedObject]) -> list[NamedObject]:
        return [each for each in some if not path_of(self._objects, each.key).exists()]

    def read(self, one: NamedObject) -> bytes | None:
        try:
            return self._store.read(one.key, one.length + 1)
        except NoSuchObject:
            return None

    def write(self, one: NamedObject, body: bytes) -> None:
        self._folder.write(one.key, one.id, body)


class _Restored:
    """From the folder into the store."""

    def __init__(self, backup: Path, store: ObjectStore) -> None:
        self._backup = StoredBackup(backup)
        self._store = store

    def lacks(self, some: Sequence[NamedObject]) -> list[NamedObject]:
        there = self._store.stat([each.key for each in some])
        return [each for each in some if not _is_it(there.get(each.key), each)]

    def read(self, one: NamedObject) -> bytes | None:
        return self._backup.read(one.key, one.length)

    def write(self, one: NamedObject, body: bytes) -> None:
        self._store.write(one.key, one.id, body)


def _is_it(stored: Stored | None, wanted: NamedObject) -> bool:
    return stored is not None and stored.length == wanted.length and stored.sha256 in (None, wanted.id)


def _copy(wanted: Sequence[NamedObject], direction: _Direction, told: Told) -> BackedUp:
    """Those that are lacking, each compared with its SHA-256."""

    def copy_one(one: NamedObject) -> bool:
        body = direction.read(one)
        if body is None or len(body) != one.length or hashlib.sha256(body).digest() != one.id:
            return False
        direction.write(one, body)
        return True

    report = BackedUp(objects=len(wanted))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for begin in range(0, len(wanted), ASKED):
            some = wanted[begin : begin + ASKED]
            lacking = direction.lacks(some)
            for one, is_copied in zip(lacking, threads.map(copy_one, lacking), strict=True):
                if is_copied:
                    report.copied += 1
                    report.copied_bytes += one.length
                else:
                    report.lost.append(one.key)
            told(begin + len(some), len(wanted))
    return report


# ------------------------------------------------------------------------------------------------------------- databases


class _Database(ABC):
    """What differs between the two. All of it raises `CannotBackUp`."""

    kind: str
    file: str
    """Its name in a backup."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config

    @abstractmethod
    def require_service(self) -> None:
        """There is something to back up."""

    @abstractmethod
    def snapshot(self, file: Path) -> list[NamedObject]:
        """One state of it in the file, whole and durable; and the objects that it names."""

    @abstractmethod
    def copy_beside(self, target: Path) -> None:
        """What else a service with this database needs."""

    @abstractmethod
    @contextmanager
    def placed(self, backup: Path, overwrite: bool) -> Iterator[list[NamedObject]]:
        """Put it back. Within, it names these objects, and no service starts on it; at the end it has a new epoch."""


class _Sqlite(_Database):
    kind, file = "SQLite", "aloft.db"

    def require_service(self) -> None:
        if not sqlite_file(self.config.data).exists():
            raise CannotBackUp(f"there is no service in {self.config.data}")

    def snapshot(self, file: Path) -> list[NamedObject]:
        copy_database(sqlite_file(self.config.data), file)
        return objects_of(file)

    def copy_beside(self, target: Path) -> None:
        copy_keys(self.config.data, target)

    @contextmanager
    def placed(self, backup: Path, overwrite: bool) -> Iterator[list[NamedObject]]:
        data = self.config.data
        if sqlite_file(data).exists():
            raise CannotBackUp(f"there is a service in {data} already: restore into another folder")
        make_folder(data)
        with alone(data):
            yield objects_of(sqlite_file(backup))
            copy_keys(backup, data)
            place_database(backup, data)


class _Postgresql(_Database):
    kind, file = "PostgreSQL", "aloft.dump"

    def require_service(self) -> None:
        """`pg_dump` says whether it can be reached, and what it holds is then looked at."""

    def snapshot(self, file: Path) -> list[NamedObject]:
        with self._opened() as database:
            return _named(pgdump.dump(database, file))

    def copy_beside(self, target: Path) -> None:
        """Nothing: keys are in the database."""

    @contextmanager
    def placed(self, backup: Path, overwrite: bool) -> Iterator[list[NamedObject]]:
        dump = backup / self.file
        with self._opened() as database, pgdump.held(database):
            pgdump.restore(database, dump, overwrite=overwrite)
            yield _named(pgdump.named_objects(database))
            pgdump.finish(database, dump, lambda connection: begin_epoch_in(connection, urandom(16).hex(), time.time_ns()))

    @contextmanager
    def _opened(self) -> Iterator[PostgresDatabase]:
        database = open_database(self.config)
        assert isinstance(database, PostgresDatabase)
        with closing(database):
            try:
                yield database
            except (CannotDump, NewerSchema, Unsuitable) as error:
                raise CannotBackUp(str(error)) from error
            except (SQLAlchemyError, psycopg.Error) as error:
                reason = " ".join(str(getattr(error, "orig", error)).split())
                raise CannotBackUp(f"{self.config.database_name} cannot be used: {reason}") from error


def _database_of(config: ServerConfig) -> _Database:
    return _Sqlite(config) if config.database is None else _Postgresql(config)


def _named(found: Sequence[tuple[bytes, StoredObject]]) -> list[NamedObject]:
    return [NamedObject(object_key(owner, one.object_id, one.generation), one.object_id, one.length) for owner, one in found]
