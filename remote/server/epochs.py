"""Epochs: how a service that was restored to an older state says so. Blocking.

A restored service goes on with revisions that its devices have seen before, with other rows behind them. So it begins a new
*epoch*, and keeps at which revision of each space it did: a device whose knowledge ends at or before that revision has lost
nothing and goes on; any other stops, and a person decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from os import urandom
from pathlib import Path

from sqlalchemy import Connection

from remote.crashpoints import crash_point
from remote.server.config import ServerConfig
from remote.server.database import devicesync
from remote.server.database import epochs as rows
from remote.server.database.engine import Database
from remote.server.database.epochs import Began
from remote.server.database.opening import open_database, sqlite_file
from remote.server.folder import DataFolder, DataFolderError


def current_epoch(database: Database, clock: Callable[[], int], random: Callable[[int], bytes]) -> str:
    """The present epoch of a database; the first one begins if it was made just now."""
    with database.alone() as connection:
        if not rows.has_begun(connection):
            rows.begin(connection, random(16).hex(), clock())
        return rows.current(connection)


def begin_epoch(
    data: Path,
    *,
    database: str | None = None,
    clock: Callable[[], int] = time.time_ns,
    random: Callable[[int], bytes] = urandom,
) -> str:
    """Begin a new epoch on a data folder, or a `database`, that was restored from a copy, before a service is started on it.

    `DataFolderError` if there is none, or a service runs on the folder. Returns the new epoch. One transaction.
    """
    config = ServerConfig(data, database=database)
    if database is not None:
        return _begin_epoch(config, clock, random)
    if not sqlite_file(data).exists():
        raise DataFolderError(f"there is no service in {data}")
    with DataFolder(data):
        return _begin_epoch(config, clock, random)


def _begin_epoch(config: ServerConfig, clock: Callable[[], int], random: Callable[[int], bytes]) -> str:
    database = open_database(config)
    try:
        database.migrate()
        current_epoch(database, clock, random)
        epoch = random(16).hex()
        with database.alone() as connection:
            begin_epoch_in(connection, epoch, clock())
        crash_point("service.epoch.begun")
        return epoch
    finally:
        database.close()


def begin_epoch_in(connection: Connection, epoch: str, now_ns: int) -> None:
    """In a transaction of `alone`, on a database that has begun one before."""
    rows.begin(connection, epoch, now_ns)
    rows.doubt_uploads(connection)
    devicesync.forget_positions(connection)
    crash_point("service.epoch.beginning")


def shared_until(history: Sequence[Began], epoch: str) -> Mapping[bytes, int] | None:
    """Up to which revision of each space what a device saw in `epoch` is what this service has (a space that is not named: 0).

    None: the service knows nothing of that epoch, so nothing of it can be relied on. Only for epochs before the present one.
    """
    at = next((index for index, began in enumerate(history) if began.epoch == epoch), None)
    if at is None or at + 1 == len(history):
        return None
    later = history[at + 1 :]
    return {space: min(began.revisions.get(space, 0) for began in later) for space in later[0].revisions}
