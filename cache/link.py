"""What the transfer of contents needs to know of the link: whether there is one, and how much it carries.

`Connection` is implemented by `cache.connection`; the numbers come from `remote.link`, wired in by `cache.drive`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cache.errors import Offline, Unavailable
from remote.api import NotThere, RemoteError, Transient

T = TypeVar("T")


class Reachability(Protocol):
    @property
    def online(self) -> bool:
        """False: nothing can be asked now, and whoever asks is told so at once."""

    async def wait_online(self) -> None: ...

    @property
    def paused(self) -> bool:
        """The person wants nothing to be sent for now."""

    @property
    def may_push(self) -> bool:
        """Whether contents may be sent now."""

    async def wait_may_push(self) -> None: ...

    def went_well(self) -> None: ...

    def failed(self, error: RemoteError) -> None: ...


async def asked(reachability: Reachability, call: Awaitable[T]) -> T:
    """The service's answer to somebody who reads; how it went is reported. Raises `Unavailable`, or `NotThere`, which is an
    answer, too."""
    try:
        answer = await call
    except NotThere:
        reachability.went_well()
        raise
    except RemoteError as error:
        reachability.failed(error)
        if isinstance(error, Transient) and not reachability.online:
            raise Offline(str(error)) from error
        raise Unavailable(str(error)) from error
    reachability.went_well()
    return answer


@dataclass(frozen=True, slots=True)
class LinkDecisions:
    """What follows from the measured link. Called at each decision, so that it follows the link."""

    parallel_uploads: Callable[[], int] = lambda: 4
    parallel_downloads: Callable[[], int] = lambda: 4
    is_slow: Callable[[], bool] = lambda: False
    is_faster_than_zstd: Callable[[], bool] = lambda: False
    bytes_in_flight: Callable[[], int] = lambda: 0
    """Download bandwidth times latency, in bytes."""
