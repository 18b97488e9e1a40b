"""Backups of an embedded service: its database, its keys and its objects, in a folder. Blocking; beside a running service.

The database comes first, as a snapshot; then the objects that it names. Objects never change, so only those are copied that the
backup lacks, and none that the snapshot names is deleted from the store for a day. The snapshot takes the place of the last one
when everything is there, and only then what it does not name goes. So a backup that is interrupted is the last one, whole.

To restore is the reverse: objects, keys, then the database, which has begun a new epoch before it is put into its place.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from remote.server.config import ServerConfig
from remote.server.database.opening import sqlite_file
from remote.server.epochs import begin_epoch
from remote.server.folder import make_folder, sync_folder, write_private
from remote.server.objects.local import path_of
from remote.server.objects.store import object_key

KEYS = ("tokens.key", "objects.key")
"""Where keys are until a service that keeps them in its database has been started."""
_PIECE = 2**20

Told = Callable[[int, int], None]
"""Hears how many objects of how many are done."""


class CannotBackUp(Exception):
    """The text says why, and what to do."""


@dataclass(slots=True)
class BackedUp:
    objects: int = 0
    copied: int = 0
    copied_bytes: int = 0
    removed: int = 0
    """Objects of the last backup that nothing needs any more."""
    lost: list[str] = field(default_factory=list)
    """Objects that the service has not, or not as they were; the backup lacks them, too."""


@dataclass(frozen=True, slots=True)
class NamedObject:
    key: str
    id: bytes
    length: int


def back_up(config: ServerConfig, target: Path, told: Told = lambda done, total: None) -> BackedUp:
    """Bring the backup in `target` up to date, or begin it. `CannotBackUp`, `OSError`."""
    if config.database is not None or config.s3 is not None:
        raise ValueError("backups of PostgreSQL and of objects in S3 are made by `sharedbackup`")
    source = sqlite_file(config.data)
    if not source.exists():
        raise CannotBackUp(f"there is no service in {config.data}")
    if (target / "aloft.dump").exists():
        raise CannotBackUp(f"the backup in {target} is of PostgreSQL: choose another folder")
    if target.resolve().is_relative_to(config.data.resolve()):
        raise CannotBackUp(f"{target} lies in the service's own folder: a backup belongs on another disk")
    make_folder(target)
    with alone(target):
        snapshot = target / "aloft.db.new"
        copy_database(source, snapshot)
        copy_keys(config.data, target)
        named = objects_of(snapshot)
        report = _copy_objects(config.data / "objects", target / "objects", named, told)
        snapshot.replace(sqlite_file(target))
        sync_folder(target)
        report.removed = remove_others(target / "objects", {each.key for each in named})
    return report


def restore(backup: Path, data: Path, told: Told = lambda done, total: None) -> BackedUp:
    """Make a data folder of a backup, and begin a new epoch there. What an interrupted one has copied is used.

    `CannotBackUp`, `OSError`.
    """
    if not sqlite_file(backup).exists():
        raise CannotBackUp(f"there is no whole backup in {backup}")
    if sqlite_file(data).exists():
        raise CannotBackUp(f"there is a service in {data} already: restore into another folder")
    make_folder(data)
    with alone(data):
        report = _copy_objects(backup / "objects", data / "objects", objects_of(sqlite_file(backup)), told)
        copy_keys(backup, data)
        place_database(backup, data)
    return report


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


def _copy_objects(source: Path, target: Path, wanted: list[NamedObject], told: Told) -> BackedUp:
    make_folder(target)
    report = BackedUp(objects=len(wanted))
    folders: set[Path] = set()
    for number, each in enumerate(wanted):
        file = path_of(target, each.key)
        if not file.exists():
            make_folder(file.parent)
            if _copy_object(path_of(source, each.key), file, each):
                folders.add(file.parent)
                report.copied += 1
                report.copied_bytes += each.length
            else:
                report.lost.append(each.key)
        told(number + 1, len(wanted))
    for folder in folders:
        sync_folder(folder)
    return report


def _copy_object(source: Path, target: Path, wanted: NamedObject) -> bool:
    """False: it is not there, or its bytes are not those that its name says."""
    temporary = target.with_name(f"{target.name}.new")
    hashed, left = hashlib.sha256(), wanted.length
    try:
        with source.open("rb") as here, temporary.open("wb") as there:
            while piece := here.read(_PIECE):
                hashed.update(piece[:left])
                left -= len(piece[:left])
                there.write(piece)
            there.flush()
            os.fsync(there.fileno())
    except FileNotFoundError:
        return False
    if left or hashed.digest() != wanted.id:
        temporary.unlink()
        return False
    temporary.replace(target)
    return True


def read_backed_up(backup: Path, key: str, length: int) -> bytes | None:
    """The stored bytes of an object in a backup; None: it has none. Nobody has verified them."""
    try:
        with path_of(backup / "objects", key).open("rb") as file:
            return file.read(length)
    except FileNotFoundError:
        return None


def remove_others(folder: Path, kept: set[str]) -> int:
    removed = 0
    for file in folder.glob("*/*/*"):
        if f"{file.parent.parent.name}/{file.name}" not in kept:
            file.unlink()
            removed += 1
    return removed
