"""The service of a simulation: the real one, on a data folder that can be killed, copied, put back and started again.

Migrating a database and hashing a password take long, so one data folder with one account and its devices is made for the whole
process, and each life begins with a copy of it.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

import remote.server.database.engine
import remote.server.passwords
from remote.accountapi import Account, DeviceLogin, LoginRequest, RegisterRequest
from remote.protocol import Device
from remote.server.collection import collect
from remote.server.config import ServerConfig
from remote.server.devices import ALL_SCOPES, Caller
from remote.server.epochs import begin_epoch
from remote.server.garbage import Garbage
from remote.server.objects.folders import ABOUT
from remote.server.service import Service, open_service
from tests.simulation import runtime

BASE = "http://service.simulation"
HASTE_NS = 5 * 10**9
"""How soon garbage goes, by the world's clock: uploads take as long."""
DEVICES = ("ada", "bob", "cyd", "dan", "eve")
_PASSWORD = "correct horse"


class Template:
    """A data folder as it is after everybody has logged in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        chance = random.Random("template")
        config = ServerConfig(data=folder, password_memory_kib=64)
        service = open_service(config, clock=lambda: runtime.EPOCH_SECONDS * 10**9, random=chance.randbytes)
        self.account: Account = service.accounts.register(RegisterRequest(email="ada@example.org", password=_PASSWORD))
        self.devices: list[Device] = []
        for name in DEVICES:
            who = DeviceLogin(installation=chance.randbytes(16), name=name)
            request = LoginRequest(email="ada@example.org", password=_PASSWORD, device=who)
            self.devices.append(service.devices.login(self.account, request).device)
        service.close()


@cache
def template() -> Template:
    """Made once in a process, and removed with it."""
    made = Path(tempfile.mkdtemp(prefix="aloft-simulation-template-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Template(made / "data")


class Backend:
    """The one service. `service` is None while it is down."""

    def __init__(self, folder: Path, seed: object) -> None:
        self._folder = folder
        self._random = random.Random(f"service {seed}")
        self._number = 0
        self.account = template().account
        self.space = self.account.space
        self.data = self._next_place()
        _copy(template().folder, self.data)
        self._backup: Path | None = None
        self.service: Service | None = None
        self.generation = 0
        """Counts starts: an answer of an earlier one never arrives."""
        self.changes = 0
        """How often what the service holds became another."""
        self._until_point: int | None = None
        self.on_served: Callable[[], None] = lambda: None
        """Called when a request was served, before its answer leaves: where the service may die."""
        self.start()

    def caller(self, index: int) -> Caller:
        return Caller(self.account.id, template().devices[index].id, ALL_SCOPES)

    def start(self) -> None:
        config = ServerConfig(data=self.data, password_memory_kib=64)
        with _as_it_is():
            self.service = open_service(config, clock=runtime.wall_ns, random=self._random.randbytes)
        self.generation += 1

    def stop(self) -> None:
        """In an orderly way: who waits is answered."""
        if self.service is not None:
            self.service.close()
            self.service = None

    def crash_at_point(self, points: int) -> None:
        """Die at a crash point, after passing so many."""
        self._until_point = points

    def crash_never(self) -> None:
        self._until_point = None

    def dies_at(self, point: str) -> bool:
        """It passes a crash point: whether it is the one at which it is to die."""
        if self._until_point is None or self.service is None or point.startswith("service.start."):
            return False
        self._until_point -= 1
        return self._until_point < 0

    def crash(self) -> None:
        """At this very moment: what is in its files is all that is left."""
        self.crash_never()
        left = self._next_place()
        _copy(self.data, left)
        self.stop()
        self.data = left

    def collect(self) -> None:
        """Forget all tombstones, which devices that were away have yet to hear of, and uploads that may be still under way."""
        if self.service is not None:
            collect(self.service.database, runtime.wall_ns, keep_ns=0)
            self.changes += 1
        if self.service is not None:  # it did not die of that
            store = self.service.store
            Garbage(self.service.database, store, runtime.wall_ns, grace_ns=HASTE_NS, abandoned_ns=HASTE_NS).collect()

    def back_up(self) -> None:
        """Copy the data folder as it is."""
        self._backup = self._next_place()
        _copy(self.data, self._backup)

    @property
    def has_backup(self) -> bool:
        return self._backup is not None

    def restore(self) -> None:
        """Put the backup in the place of the data folder, as `python -m remote.server --new-epoch` expects it; it is down."""
        assert self._backup is not None
        self.stop()
        self.data = self._next_place()
        _copy(self._backup, self.data)
        with _as_it_is():
            begin_epoch(self.data, clock=runtime.wall_ns, random=self._random.randbytes)
        self.changes += 1

    def _next_place(self) -> Path:
        self._number += 1
        return self._folder / f"service-{self._number}"


@contextmanager
def _as_it_is() -> Iterator[None]:
    """Leave out what takes long at a start: migrating a database that is migrated, hashing a password that nobody has."""
    with (
        mock.patch.object(remote.server.database.engine.Database, "migrate"),
        mock.patch.object(remote.server.passwords, "PasswordHasher", _NoPasswords),
    ):
        yield


class _NoPasswords:
    def __init__(self, **_: object) -> None:
        pass

    def hash(self, password: str) -> str:
        return "nobody logs in"


def _copy(source: Path, target: Path) -> None:
    """All files of a data folder. Objects that are whole never change, so they are shared."""
    for folder, _, files in os.walk(source):
        there = target / Path(folder).relative_to(source)
        there.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in files:
            if name.endswith("-shm"):
                continue
            file = Path(folder) / name
            parts = file.relative_to(source).parts
            if "objects" in parts and "incoming" not in parts and name != ABOUT:
                os.link(file, there / name)
            else:
                shutil.copyfile(file, there / name)
