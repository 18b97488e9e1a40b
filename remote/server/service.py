"""The service, wired: every module with what it needs, opened from a configuration. Knows nothing of HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from os import urandom

from sqlalchemy.exc import DBAPIError

from remote.crashpoints import crash_point
from remote.server.accounts import Accounts
from remote.server.config import ServerConfig
from remote.server.database.engine import Database, NewerSchema
from remote.server.devices import Devices
from remote.server.downloads import Downloads
from remote.server.epochs import current_epoch
from remote.server.feed import Feed
from remote.server.folder import DataFolder, DataFolderError
from remote.server.namespace import Namespace
from remote.server.objects.endpoint import ObjectEndpoint
from remote.server.objects.local import LocalStore
from remote.server.objects.store import ObjectStore
from remote.server.ratelimit import RateLimiter
from remote.server.threads import Runner, Threads
from remote.server.tokens import AccessTokens
from remote.server.uploads import Uploads
from remote.server.wake import LocalWake, Wake

DATABASE_THREADS = 16
STORE_THREADS = 16
"""For what asks the object store: threads of their own, so that one that hangs holds up nothing else."""
PASSWORD_THREADS = 2
"""argon2id takes 64 MiB and much of a core for each."""


@dataclass(slots=True)
class Service:
    config: ServerConfig
    folder: DataFolder
    database: Database
    epoch: str
    accounts: Accounts
    devices: Devices
    namespace: Namespace
    feed: Feed
    uploads: Uploads
    downloads: Downloads
    store: ObjectStore
    objects: ObjectEndpoint | None
    """The embedded store's own endpoint; None: the store has an address of its own."""
    wake: Wake
    logins: RateLimiter
    in_thread: Runner
    in_store_thread: Runner
    in_password_thread: Runner
    clock: Callable[[], int]
    _closed: bool = field(default=False)

    def close(self) -> None:
        """Wake who waits, and let go of the data folder. May be repeated."""
        if not self._closed:
            self._closed = True
            self.wake.close()
            self.store.close()
            self.database.close()
            self.folder.close()


def create_invitation(config: ServerConfig) -> str:
    """A new invitation code for the service on `config.data`, which may be running. `DataFolderError`."""
    file = config.data / "aloft.db"
    if not file.exists():
        raise DataFolderError(f"there is no service in {config.data} yet: start it once")
    database = Database(file)
    try:
        return Accounts(config, database, time.time_ns, urandom).invite()
    finally:
        database.close()


def open_service(
    config: ServerConfig,
    *,
    clock: Callable[[], int] = time.time_ns,
    random: Callable[[int], bytes] = urandom,
    in_thread: Runner | None = None,
    in_password_thread: Runner | None = None,
) -> Service:
    """Open (and migrate) the data folder. `DataFolderError`. `clock` gives nanoseconds since 1970."""
    folder = DataFolder(config.data)
    try:
        database = Database(folder.database)
        database.migrate()
        epoch = current_epoch(database, clock, random)
        crash_point("service.start.epoch")
        tokens = AccessTokens(folder.key("tokens", random), clock)
        store, endpoint = _open_store(config, folder, clock, random)
    except BaseException as error:
        folder.close()
        if isinstance(error, NewerSchema):
            raise DataFolderError(f"{config.data}: {error}; upgrade this one first") from error
        if isinstance(error, DBAPIError | OSError):
            reason = error.orig if isinstance(error, DBAPIError) else error.strerror
            raise DataFolderError(f"cannot use the data folder {config.data}: {reason} (is its disk full?)") from error
        raise
    crash_point("service.start.opened")
    uploads = Uploads(database, store, config.link_seconds, clock, random)
    return Service(
        config=config,
        folder=folder,
        database=database,
        epoch=epoch,
        accounts=Accounts(config, database, clock, random),
        devices=Devices(config, database, tokens, clock, random),
        namespace=Namespace(database, uploads, epoch, clock),
        feed=Feed(database, epoch),
        uploads=uploads,
        downloads=Downloads(database, store, config.link_seconds),
        store=store,
        objects=endpoint,
        wake=LocalWake(),
        logins=RateLimiter(clock),
        in_thread=in_thread or Threads(DATABASE_THREADS),
        in_store_thread=in_thread or Threads(STORE_THREADS),
        in_password_thread=in_password_thread or Threads(PASSWORD_THREADS),
        clock=clock,
    )


def _open_store(
    config: ServerConfig, folder: DataFolder, clock: Callable[[], int], random: Callable[[int], bytes]
) -> tuple[ObjectStore, ObjectEndpoint | None]:
    if config.s3 is None:
        local = LocalStore(folder.objects, folder.key("objects", random), clock, random)
        return local, ObjectEndpoint(local)
    from remote.server.objects.s3 import S3Store  # boto3 takes a third of a second, and memory: only where it is needed

    return S3Store(config.s3), None
