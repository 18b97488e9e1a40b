"""The service, wired: every module with what it needs, opened from a configuration. Knows nothing of HTTP."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from os import urandom
from pathlib import Path

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from remote.accountapi import AuditPage
from remote.crashpoints import crash_point
from remote.server.accounts import Accounts
from remote.server.audit import ADMINISTRATOR, Action, Audit, Event
from remote.server.backupfolder import StoredBackup
from remote.server.config import ServerConfig
from remote.server.conflicts import Conflicts
from remote.server.contentorigin import ContentTickets
from remote.server.database import accounts as account_rows
from remote.server.database.accounts import AccountLine
from remote.server.database.engine import Database, NewerSchema, Unsuitable
from remote.server.database.opening import open_database, open_wake, sqlite_file
from remote.server.devices import Devices
from remote.server.devicesync import DeviceSyncs
from remote.server.downloads import Downloads
from remote.server.epochs import current_epoch
from remote.server.expiries import Expiries
from remote.server.feed import Feed
from remote.server.filechanges import FileFeed
from remote.server.filedownloads import FileDownloads
from remote.server.files import Files
from remote.server.fileuploads import FileUploads
from remote.server.folder import DataFolder, DataFolderError
from remote.server.garbage import Garbage, Report, Usage, recount
from remote.server.history import History
from remote.server.housekeeping import Housekeeping, index_job, keys_job, scrub_job, usual_jobs
from remote.server.indexing import Indexing
from remote.server.keyring import OBJECTS, TOKENS, Rotation, forget_ended, lives_ns, open_ring, rotate
from remote.server.keys import new_key
from remote.server.mail import Mailer, Outbox
from remote.server.metrics import CountedStore, Metrics
from remote.server.namespace import Namespace
from remote.server.notifications import Notifications
from remote.server.objects.endpoint import ObjectEndpoint
from remote.server.objects.opening import open_local
from remote.server.objects.rewrapping import Rewrapped, Rewrapping
from remote.server.objects.store import ObjectStore
from remote.server.passwords import Passwords
from remote.server.personaltokens import PersonalTokens
from remote.server.publiclinks import PublicLinks
from remote.server.ratelimit import RateLimiter
from remote.server.readiness import Readiness
from remote.server.recovery import Recovery
from remote.server.rewind import Rewind
from remote.server.scrub import Scrubber, ScrubReport
from remote.server.search import Search
from remote.server.sharing import Sharing
from remote.server.streams import LISTENERS, LISTENERS_OF_ACCOUNT, POLLS, POLLS_OF_ACCOUNT, Streams
from remote.server.threads import FairThreads, Repeating, Runner, Threads
from remote.server.tiers import Tiers
from remote.server.tokens import AccessTokens
from remote.server.trash import Trash
from remote.server.uploads import Uploads
from remote.server.wake import Wake

DATABASE_THREADS = 16
READING_THREADS = 8
"""For contents that go through the service."""
STORE_THREADS = 16
"""For what asks the object store: threads of their own, so that one that hangs holds up nothing else."""
INDEX_SECONDS = 2.0
"""Between two looks at what the index for search has to follow; up to twice as long."""
PASSWORD_THREADS = 2
"""argon2id takes 64 MiB and much of a core for each."""


@dataclass(slots=True)
class Service:
    config: ServerConfig
    folder: DataFolder
    database: Database
    epoch: str
    """When it was opened."""
    accounts: Accounts
    audit: Audit
    recovery: Recovery
    personal_tokens: PersonalTokens
    outbox: Outbox
    devices: Devices
    tiers: Tiers
    namespace: Namespace
    files: Files
    trash: Trash
    history: History
    rewind: Rewind
    file_uploads: FileUploads
    file_downloads: FileDownloads
    content_tickets: ContentTickets
    public_links: PublicLinks
    sharing: Sharing
    search: Search
    feed: Feed
    file_feed: FileFeed
    device_syncs: DeviceSyncs
    conflicts: Conflicts
    uploads: Uploads
    downloads: Downloads
    store: ObjectStore
    objects: ObjectEndpoint | None
    """The embedded store's own endpoint; None: the store has an address of its own."""
    wake: Wake
    limiter: RateLimiter
    streams: Streams
    polls: Streams
    listeners: Streams
    notifications: Notifications
    expiries: Expiries
    housekeeping: Housekeeping
    indexing: Housekeeping
    """Of the index for search."""
    metrics: Metrics
    readiness: Readiness
    in_thread: Runner
    in_store_thread: Runner
    in_reading_thread: Runner
    in_password_thread: Runner
    clock: Callable[[], int]
    _closed: bool = field(default=False)

    def close(self) -> None:
        """Wake who waits, and let go of the data folder. May be repeated."""
        if not self._closed:
            self._closed = True
            self.housekeeping.stop()
            self.indexing.stop()
            self.outbox.close()
            self.wake.close()
            self.store.close()
            self.database.close()
            self.folder.close()


def create_invitation(config: ServerConfig) -> str:
    """A new invitation code for the service of `config`, which may be running. `DataFolderError`."""
    with administered(config) as database:
        passwords = Passwords(config.password_memory_kib)
        code = database.repeat(Accounts(config, database, passwords, time.time_ns, urandom).invite)
        Audit(database, time.time_ns, urandom).note(Event(Action.INVITE, ADMINISTRATOR))
    return code


def create_password_code(config: ServerConfig, email: str) -> str | None:
    """A code by which a forgotten password is replaced; None: there is no such account. `DataFolderError`."""
    with administered(config) as database:
        passwords = Passwords(config.password_memory_kib)
        code = database.repeat(Recovery(database, passwords, None, None, time.time_ns, urandom).make_code, email)
        if code is not None:
            Audit(database, time.time_ns, urandom).note(Event(Action.MAKE_PASSWORD_CODE, ADMINISTRATOR, email=email))
    return code


def rotate_keys(
    config: ServerConfig, names: Sequence[str] | None = None, *, at_once: bool = False, dry_run: bool = False
) -> list[Rotation]:
    """New keys for the service of `config`, which may be running: of all names, or of these. `DataFolderError`; `ValueError`:
    there is no such name."""
    known = list(lives_ns(config))
    chosen = known if names is None else names
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(f"there are no keys called {unknown[0]!r}: {' and '.join(known)} are the names")
    with administered(config) as database:
        rotations = database.repeat(
            partial(rotate, database, config, chosen, time.time_ns, urandom, at_once=at_once, dry_run=dry_run)
        )
        for each in () if dry_run else rotations:
            subject = f"{each.name}, at once" if at_once else each.name
            Audit(database, time.time_ns, urandom).note(Event(Action.ROTATE_KEYS, ADMINISTRATOR, subject=subject))
    return rotations


def audit_page(
    config: ServerConfig, *, email: str | None = None, action: str | None = None, before: str | None = None, limit: int = 100
) -> AuditPage | None:
    """The last events of all accounts, or of one; None: there is none of this e-mail. `DataFolderError`, `Refused`."""
    with administered(config) as database:
        audit = Audit(database, time.time_ns, urandom)
        account = None if email is None else audit.account_of(email)
        return None if email is not None and account is None else audit.page(account, action=action, before=before, limit=limit)


def collect_garbage(config: ServerConfig, *, dry_run: bool = False) -> Report:
    """Remove what nothing names any more from the service of `config`, which may be running. `DataFolderError`,
    `StoreUnavailable`."""
    with administered(config) as database, closing(open_store_beside(config)) as store:
        return Garbage(database, store, time.time_ns).collect(dry_run=dry_run)


def scrub_objects(
    config: ServerConfig,
    *,
    backup: Path | None = None,
    rate: int | None = None,
    dry_run: bool = False,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> ScrubReport:
    """Read all objects of the service of `config`, which may be running, again; mend what is damaged from a backup. `told`:
    how many of how many. `DataFolderError`, `StoreUnavailable`."""
    with administered(config) as database, closing(open_store_beside(config)) as store:
        scrubber = Scrubber(database, store, time.time_ns, rate=rate)
        total = scrubber.total()
        read_backup = None if backup is None else StoredBackup(backup).read
        return scrubber.run(read_backup=read_backup, dry_run=dry_run, told=lambda report: told(report.objects, total))


@dataclass(frozen=True, slots=True)
class FolderLine:
    id: str
    path: str
    free_bytes: int | None
    """None: it is not there."""


def object_folders(config: ServerConfig) -> list[FolderLine]:
    """`DataFolderError`."""
    if config.s3 is not None:
        raise DataFolderError("objects are kept in S3, and not in folders")
    with administered(config), closing(open_local(config, new_key(urandom), time.time_ns, urandom, clear=False)) as store:
        return [
            FolderLine(each.id, str(each.path.absolute()), shutil.disk_usage(each.path).free if each.is_there() else None)
            for each in store.folders
        ]


def rewrap_objects(
    config: ServerConfig, *, finish: bool = False, dry_run: bool = False, told: Callable[[int], None] = lambda done: None
) -> Rewrapped:
    """A new master key for the objects of the service of `config`, which may be running.

    `DataFolderError`, `StoreUnavailable`, `OSError`.
    """
    if config.s3 is not None:
        raise DataFolderError("objects in S3 are encrypted by the store, with its own keys (s3.sse)")
    if not config.objects.encrypt:
        raise DataFolderError("objects.encrypt is false: set it to true first")
    with administered(config), closing(open_local(config, new_key(urandom), time.time_ns, urandom, clear=False)) as store:
        return Rewrapping(store, config.data, time.time_ns, urandom).run(finish=finish, dry_run=dry_run, told=told)


def recount_usage(config: ServerConfig, *, dry_run: bool = False) -> list[tuple[str, Usage]]:
    """The accounts, by their e-mail, whose usage was not what their rows add up to. `DataFolderError`."""
    with administered(config) as database:
        wrong = recount(database, dry_run=dry_run)
        with database.read() as connection:
            return [(account_rows.email_of(connection, one.account), one) for one in wrong]


def list_accounts(config: ServerConfig) -> list[AccountLine]:
    """All accounts of the service of `config`, by their e-mail. `DataFolderError`."""
    with administered(config) as database, database.read() as connection:
        return account_rows.all_accounts(connection)


@contextmanager
def administered(config: ServerConfig) -> Iterator[Database]:
    """The database of the service of `config`, which may be running. `DataFolderError` if it cannot be used."""
    if config.database is None and not sqlite_file(config.data).exists():
        raise DataFolderError(f"there is no service in {config.data} yet: start it once")
    database = open_database(config)
    try:
        yield database
    except SQLAlchemyError as error:
        raise _in_words(config, database, error) from error
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
    """Open (and migrate) data folder and database. `DataFolderError`. `clock` gives nanoseconds since 1970."""
    database = open_database(config)  # asks nothing yet
    folder = DataFolder(config.data, shared=config.database is not None)
    try:
        database.migrate()
        epoch = current_epoch(database, clock, random)
        crash_point("service.start.epoch")
        token_keys = open_ring(config, folder, database, TOKENS, clock, random)
        store, endpoint = _open_store(config, folder, database, clock, random)
        folder.share()
    except BaseException as error:
        database.close()
        folder.close()
        if isinstance(error, NewerSchema):
            raise DataFolderError(f"{config.database_name}: {error}; upgrade this one first") from error
        if isinstance(error, Unsuitable):
            raise DataFolderError(f"{config.database_name}: {error}") from error
        if isinstance(error, SQLAlchemyError):
            raise _in_words(config, database, error) from error
        if isinstance(error, OSError):
            raise DataFolderError(f"cannot use the data folder {config.data}: {error.strerror} (is its disk full?)") from error
        raise
    crash_point("service.start.opened")
    metrics, wake = Metrics(), open_wake(database)
    metrics.watch(database, wake.waiting, clock)
    store = CountedStore(store, metrics)
    passwords = Passwords(config.password_memory_kib)
    mailer = None if config.smtp is None else Mailer(config.smtp)
    uploads = Uploads(database, store, config.tier, config.link_seconds, clock, random)
    namespace = Namespace(database, uploads, config.tier, clock)
    file_downloads = FileDownloads(database, store, config.link_seconds)
    notifications = Notifications(database, clock)
    expiries = Expiries(database, namespace, clock, random)
    jobs = usual_jobs(database, store, config.tier, expiries, notifications, mailer, clock)
    jobs.append(keys_job(partial(forget_ended, database, config, clock)))
    if config.s3 is None:
        jobs.append(scrub_job(database, store, clock))
    return Service(
        config=config,
        folder=folder,
        database=database,
        epoch=epoch,
        accounts=Accounts(config, database, passwords, clock, random),
        audit=Audit(database, clock, random),
        recovery=Recovery(database, passwords, mailer, config.public_url, clock, random),
        personal_tokens=PersonalTokens(database, clock, random),
        outbox=Outbox(),
        devices=Devices(config, database, AccessTokens(token_keys, clock), clock, random),
        tiers=Tiers(config, database, clock),
        namespace=namespace,
        files=Files(database, namespace, clock, random),
        trash=Trash(database, namespace, clock, random),
        history=History(database),
        rewind=Rewind(database, namespace, clock, random),
        file_uploads=FileUploads(database, uploads, namespace, clock, random),
        file_downloads=file_downloads,
        content_tickets=ContentTickets(token_keys, clock),
        public_links=PublicLinks(database, file_downloads, passwords, token_keys, clock, random),
        sharing=Sharing(database, namespace, clock, random),
        search=Search(database),
        feed=Feed(database),
        file_feed=FileFeed(database),
        device_syncs=DeviceSyncs(database, clock),
        conflicts=Conflicts(database, namespace, clock, random),
        uploads=uploads,
        downloads=Downloads(database, store, config.link_seconds),
        store=store,
        objects=endpoint,
        wake=wake,
        limiter=RateLimiter(database, clock),
        streams=Streams(),
        polls=Streams(POLLS, POLLS_OF_ACCOUNT, "requests wait for changes"),
        listeners=Streams(LISTENERS, LISTENERS_OF_ACCOUNT, "streams are open"),
        notifications=notifications,
        expiries=expiries,
        metrics=metrics,
        readiness=Readiness(database, store, clock),
        housekeeping=Housekeeping(database, jobs, clock),
        indexing=Housekeeping(
            database, [index_job(Indexing(database, file_downloads, clock))], clock, look_seconds=INDEX_SECONDS
        ),
        in_thread=Repeating(in_thread or FairThreads(DATABASE_THREADS), database),
        in_store_thread=Repeating(in_thread or FairThreads(STORE_THREADS), database),
        in_reading_thread=in_thread or Threads(READING_THREADS),
        in_password_thread=Repeating(in_password_thread or FairThreads(PASSWORD_THREADS), database),
        clock=clock,
    )


def _open_store(
    config: ServerConfig, folder: DataFolder, database: Database, clock: Callable[[], int], random: Callable[[int], bytes]
) -> tuple[ObjectStore, ObjectEndpoint | None]:
    if config.s3 is None:
        keys = open_ring(config, folder, database, OBJECTS, clock, random)
        local = open_local(config, keys, clock, random, clear=folder.alone)
        return local, ObjectEndpoint(local)
    from remote.server.objects.s3 import S3Store  # boto3 takes a third of a second, and memory: only where it is needed

    return S3Store(config.s3), None


def open_store_beside(config: ServerConfig) -> ObjectStore:
    """The objects of a service that may be running: to read and to delete, not to sign."""
    if config.s3 is None:
        return open_local(config, new_key(urandom), time.time_ns, urandom, clear=False)
    from remote.server.objects.s3 import S3Store

    return S3Store(config.s3)


def _in_words(config: ServerConfig, database: Database, error: SQLAlchemyError) -> Exception:
    """What to tell the person who starts the service, if the database cannot be used now; else the error itself."""
    if not database.is_away(error):
        return error
    reason = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
    if config.database is None:
        return DataFolderError(f"cannot use the data folder {config.data}: {reason} (is its disk full?)")
    return DataFolderError(f"{config.database_name} cannot be used: {reason}")
