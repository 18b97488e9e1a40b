"""What the drive says of itself: frozen values that turn into JSON with `dataclasses.asdict`. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from cache.model import Connection
from cache.pins import PinProgress


@dataclass(frozen=True, slots=True)
class Queued:
    """A file whose content is not on the service yet. Bytes."""

    path: str
    size: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits to go up. `changes`: names and attributes that the service does not have. Bytes."""

    files: int
    bytes: int
    changes: int
    first: tuple[Queued, ...]
    """Some of the files: those with errors, then the others."""


@dataclass(frozen=True, slots=True)
class Speeds:
    """The measured link: bytes per second and seconds; None where nothing was measured."""

    upload: float | None
    download: float | None
    latency: float | None
    parallel_uploads: int
    parallel_downloads: int


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """Bytes on disk."""

    used: int
    limit: int
    pinned: int


@dataclass(frozen=True, slots=True)
class Counters:
    """Since the drive started. Bytes are those that went over the link."""

    objects_fetched: int
    bytes_fetched: int
    objects_sent: int
    bytes_sent: int
    objects_reused: int
    corrupt: int
    commits: int
    conflicts: int


@dataclass(frozen=True, slots=True)
class ListingProgress:
    """Of the very first listing: entries so far, and about how many there are (0: unknown)."""

    entries: int
    total: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Breaker:
    """The mass-delete breaker has stopped the push of deletions, or the application of the service's."""

    direction: str
    files: int
    of: int


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """A part of the drive that failed and is started again. `in_seconds`: how long until then."""

    task: str
    error: str
    in_seconds: float


@dataclass(frozen=True, slots=True)
class DriveStatus:
    connection: Connection
    stopped_because: str | None
    last_error: str | None
    """What the last request that failed said, until one works."""
    paused: bool
    queue: Queue
    speeds: Speeds
    cache: CacheStatus
    counters: Counters
    listing: ListingProgress
    pins: PinProgress
    breakers: tuple[Breaker, ...]
    failures: tuple[TaskFailure, ...]
    problems: tuple[str, ...]
    """Changes that the service refuses."""
    trying_again: tuple[str, ...]
    """Why contents or changes that wait could not be sent the last time."""
    fetch_error: str | None
    """Why the last bytes that were wanted from the service could not be had, until some are."""
    quota: int
    used: int
    recovered: tuple[str, ...]
    """Files that the last start surfaced."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """`complete`: all that was closed or fsynced when it was asked is on the service. Else `reason`, and what waits."""

    complete: bool
    reason: str | None
    waiting: tuple[str, ...]
    """Paths; not more than a hundred."""
    files: int
    bytes: int
