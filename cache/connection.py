"""Whether the service can be talked to: one state that everybody who uses the network shares.

Owns the person's wishes (offline, paused) and what stopped the exchange for good (P6), which survive a restart. Makes no
request itself: those who do report how it went.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Any, Protocol

from cache.clock import Clock
from cache.errors import DiskError
from cache.model import Connection as State
from cache.signal import Signal
from remote.api import NotAuthenticated, RemoteError, StoreUnavailable, Unreachable

log = logging.getLogger(__name__)

_OFFLINE, _PAUSED, _STOPPED, _STOP = "offline", "paused", "stopped because", "stopped by"
DOUBTED_AFTER = 5.0
"""Seconds since the service answered last, after which a failing object store is a reason to ask whether it is there."""


class Stop(StrEnum):
    """Who gave the reason to stop, and so what `aloft reconnect` may do about it."""

    SERVICE = "service"
    """It contradicts what it said, or went back."""
    HOME = "home"
    """This device's own state is an old copy, or in use twice."""
    REPLICA = "replica"
    """It is damaged: nothing in it can be relied on."""


class Values(Protocol):
    """The replica's single values."""

    def meta(self, key: str, default: Any = None) -> Any: ...

    def set_meta(self, key: str, value: Any) -> None: ...


class Connection:
    def __init__(self, values: Values, clock: Clock) -> None:
        self._values = values
        self._clock = clock
        self._reached: bool | None = None  # None: not tried yet
        self._logged_out = False
        self._offline = bool(values.meta(_OFFLINE, False))
        self._paused = bool(values.meta(_PAUSED, False))
        self._stopped: str | None = values.meta(_STOPPED)
        self._doubted = False
        self._answered_at = -DOUBTED_AFTER
        self._stop = Stop(values.meta(_STOP) or Stop.SERVICE)
        self._changed = Signal()
        self.last_error: str | None = None
        """What the last failure said, until something works again."""
        self.last_contact_ns: int | None = None
        """When the service answered last (wall clock, nanoseconds)."""

    @property
    def state(self) -> State:
        if self._stopped is not None:
            return State.STOPPED
        if self._offline:
            return State.OFFLINE
        if self._logged_out:
            return State.LOGGED_OUT
        if self._reached is None:
            return State.CONNECTING
        return State.ONLINE if self._reached else State.UNREACHABLE

    @property
    def online(self) -> bool:
        """False: nothing can be asked now, and whoever asks is told so at once. (While connecting, it may be tried.)

        Reading is possible while the exchange of changes has stopped.
        """
        return not self._offline and not self._logged_out and self._reached is not False

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def stopped_because(self) -> str | None:
        return self._stopped

    @property
    def may_sync(self) -> bool:
        """Whether changes may be exchanged, as far as the person and the guards are concerned."""
        return not self._offline and not self._paused and not self._logged_out and self._stopped is None

    @property
    def may_push(self) -> bool:
        return self.may_sync and self._reached is not False

    async def wait_online(self) -> None:
        await self._changed.wait_for(lambda: self.online)

    async def wait_may_sync(self) -> None:
        """Until pull may try. It is pull that finds out whether an unreachable service is back."""
        await self._changed.wait_for(lambda: self.may_sync)

    async def wait_may_push(self) -> None:
        """Until contents and commits may be sent."""
        await self._changed.wait_for(lambda: self.may_push)

    @property
    def is_doubted(self) -> bool:
        """The object store fails, which says nothing of the service: but if the network is gone, so is that."""
        return self._doubted

    async def wait_doubted(self) -> None:
        """Until somebody's request failed, or the person or a guard forbids the exchange: a long poll is worth breaking off."""
        await self._changed.wait_for(lambda: self._reached is False or self._doubted or not self.may_sync)

    async def wait_change(self) -> None:
        """Until the state is another."""
        await self._changed.wait()

    def went_well(self) -> None:
        self.last_contact_ns = self._clock.wall_ns()
        self._answered_at = self._clock.monotonic()
        self._doubted = False
        self.last_error = None
        if self._reached is not True or self._logged_out:
            self._reached = True
            self._logged_out = False
            self._changed.notify()

    def failed(self, error: RemoteError) -> None:
        """A request failed. Only what says something of the link, or of the log-in, changes the state."""
        self.last_error = str(error)
        if isinstance(error, NotAuthenticated):
            if not self._logged_out:
                self._logged_out = True
                self._changed.notify()
        elif isinstance(error, Unreachable):
            if self._reached is not False:
                self._reached = False
                self._changed.notify()
        elif isinstance(error, StoreUnavailable):
            if not self._doubted and self._clock.monotonic() - self._answered_at > DOUBTED_AFTER:
                self._doubted = True
                self._changed.notify()
        else:
            self.last_contact_ns = self._clock.wall_ns()

    def logged_in(self) -> None:
        """There are new tokens: try again."""
        self._logged_out = False
        self._reached = None
        self._changed.notify()

    def _remember(self, key: str, value: Any) -> None:
        """For the next start. On a disk that takes nothing it is true until then: going online may be what makes room."""
        try:
            self._values.set_meta(key, value)
        except DiskError as error:
            log.warning("%r is forgotten at the next start: %s", key, error)

    def try_now(self) -> None:
        """A person waits: what failed is tried again without waiting for its time."""
        self._changed.notify()

    def set_offline(self, offline: bool) -> None:
        self._offline = offline
        self._remember(_OFFLINE, offline)
        self._reached = None
        self._changed.notify()

    def set_paused(self, paused: bool) -> None:
        self._paused = paused
        self._remember(_PAUSED, paused)
        self._changed.notify()

    @property
    def stopped_by(self) -> Stop | None:
        return self._stop if self._stopped is not None else None

    def stop(self, reason: str, by: Stop = Stop.SERVICE) -> None:
        """Nothing is pushed or pulled any more, until `go_on`; a restart does not change that."""
        self._stopped, self._stop = reason, by
        self._remember(_STOPPED, reason)
        self._remember(_STOP, by)
        self._changed.notify()

    def go_on(self) -> None:
        """A person decided."""
        self._stopped = None
        self._remember(_STOPPED, None)
        self._changed.notify()
