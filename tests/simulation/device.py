"""One device of a simulation: a home on the disk, and one drive after the other that lives on it.

A crash is what SIGKILL leaves: the files as they are at that moment are copied to a new place, and whatever the dying drive
still does, it does to the old one. The moment is between two steps of the loop, at a step of a request, or at a named point in
the middle of a write (`remote.crashpoints`), where a transaction may be open: what is not committed is not in the WAL, or is
there without the end that would make it count, so the next process does not see it, as after a kill. Requests that are under
way may still be applied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import trio

from cache.drive import Drive, DriveOptions
from cache.files import File
from cache.home import HomePaths
from tests.simulation import ledger
from tests.simulation.ledger import Ledger
from tests.simulation.network import Fault, Wire
from tests.simulation.runtime import OwnClock, OwnRandomness
from tests.simulation.serving import DEVICES, Backend

OPTIONS = DriveOptions(cache_size=2 * 2**20, upload_delay=0.2, io_timeout=5.0)


class Died(BaseException):
    """The process died while it did something for a person, so the operation has no end. No part of a drive may catch it."""


@dataclass(eq=False)
class Handle:
    """An open file, as an application holds it. `seen` is what the ledger knows of it, `life` the process that it belongs to."""

    file: File
    seen: ledger.Handle
    life: int


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a device tells the simulation."""

    ledger: Ledger
    trace: Callable[[str], None]
    happened: Callable[[Fault], None]
    committed: Callable[[str], None]
    count: Callable[[str], None]


@dataclass(eq=False)
class _Life:
    """One process: a drive, its wire, and what ends them."""

    drive: Drive
    wire: Wire
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)
    operations: set[trio.CancelScope] = field(default_factory=set)
    person: trio.lowlevel.Task | None = None
    """The task in which something is done on it by a person."""


class Device:
    """`life` counts the processes; an operation that began in one and ends in another did not end."""

    def __init__(
        self, index: int, folder: Path, backend: Backend, seed: object, nursery: trio.Nursery, hooks: Hooks, skew: int
    ) -> None:
        self.index = index
        self.name = DEVICES[index]
        self.life = 0
        self.handles: list[Handle] = []
        self.page_limit: int | None = None
        self.latency = 0.0
        self.cable = True
        self.clock = OwnClock(skew)
        self._folder = folder
        self._backend = backend
        self._seed = seed
        self._nursery = nursery
        self._hooks = hooks
        self._home = self._next_home()
        self._home.mkdir()
        self._backup: tuple[Path, object] | None = None
        self._running: _Life | None = None
        self._until_crash: int | None = None
        self._until_point: int | None = None

    # ------------------------------------------------------------------------------------------------------- its lives

    @property
    def drive(self) -> Drive:
        assert self._running is not None
        return self._running.drive

    @property
    def wire(self) -> Wire:
        assert self._running is not None
        return self._running.wire

    @property
    def home(self) -> Path:
        return self._home

    @property
    def alive(self) -> bool:
        return self._running is not None

    async def start(self) -> None:
        """A new process on what the home holds."""
        self.life += 1
        seed = f"{self._seed} {self.name} {self.life}"
        caller = self._backend.caller(self.index)
        hooks = self._hooks
        wire = Wire(
            self.name,
            self._backend,
            caller,
            seed,
            self._nursery,
            *(hooks.trace, hooks.happened, hooks.committed, hooks.ledger.fail),
        )
        wire.page_limit, wire.latency, wire.cable = self.page_limit, self.latency, self.cable
        wire.on_event = self._step
        drive = Drive(
            HomePaths.under(self._home),
            wire,
            OPTIONS,
            self.clock,
            OwnRandomness(seed),
            space=self._backend.space,
            device=self.name,
            boot="the same all the time",
        )
        database = self._home / "replica.db"
        self._running = life = _Life(drive, wire)
        self._hooks.ledger.device_started(self.name, database)
        await self._nursery.start(self._live, life)

    async def _live(self, life: _Life, task_status: trio.TaskStatus[None]) -> None:
        _RUNNING.set((self, life))
        try:
            with life.scope:
                await life.drive.run(task_status=task_status)
        finally:
            life.ended.set()

    async def crash(self) -> None:
        """The process is gone, now."""
        life = self._running
        if life is not None:
            self._die()
            await life.ended.wait()

    async def stop(self) -> None:
        """An orderly end: unmounting, without waiting for the network."""
        life, self._running = self._running, None
        if life is not None:
            for handle in self.handles:
                await handle.file.flush()
                handle.seen.kept()
                handle.file.release()
                handle.seen.released()
            self.handles.clear()
            await life.drive.stop()
            await life.ended.wait()
            life.wire.dead = True
            self._hooks.ledger.device_stopped(self.name)

    def crash_after(self, steps: int) -> None:
        """Die after so many more steps of requests."""
        self._until_crash = steps

    def crash_at_point(self, points: int) -> None:
        """Die at a crash point, after passing so many."""
        self._until_point = points

    def crash_never(self) -> None:
        self._until_crash = self._until_point = None

    def _step(self) -> None:
        if self._until_crash is not None:
            self._until_crash -= 1
            if self._until_crash < 0:
                self._hooks.trace(f"{self.name} dies in the middle of it")
                self._hooks.count("fault: crash in a request")
                self._die()

    def _passed(self, life: _Life, point: str) -> None:
        if self._until_point is None or life is not self._running:
            return
        self._until_point -= 1
        if self._until_point < 0:
            self._hooks.trace(f"{self.name} dies at {point}")
            self._hooks.count("fault: crash at a point")
            self._hooks.count(f"crash point: {point}")
            self._die()
            if trio.lowlevel.current_task() is life.person:
                raise Died

    def _die(self) -> None:
        life, self._running = self._running, None
        self.crash_never()
        if life is None:
            return
        left = self._next_home()
        _copy(self._home, left)
        self._home = left
        self._hooks.ledger.device_crashed(self.name)
        self._hooks.ledger.device_stopped(self.name)
        self.handles.clear()
        life.wire.dead = True
        life.scope.cancel()
        for scope in life.operations:
            scope.cancel()

    @contextmanager
    def operation(self) -> Iterator[None]:
        """Within, a person does something on this process: it ends with it. `Died` if that is in the middle of a write."""
        life = self._running
        assert life is not None
        before, token = life.person, _RUNNING.set((self, life))
        life.person = trio.lowlevel.current_task()
        try:
            with trio.CancelScope() as scope:
                life.operations.add(scope)
                yield
        finally:
            life.operations.discard(scope)
            life.person = before
            _RUNNING.reset(token)

    # -------------------------------------------------------------------------------------------------------- backups

    def back_up(self) -> None:
        """Copy the home as it is, as a person's backup does."""
        copy = self._next_home()
        _copy(self._home, copy)
        self._backup = copy, self._hooks.ledger.device_backed_up(self.name)

    @property
    def has_backup(self) -> bool:
        return self._backup is not None

    def restore(self) -> None:
        """Put the backup in the place of the home, of which no process may run."""
        assert self._running is None
        assert self._backup is not None
        copy, known = self._backup
        self._home = self._next_home()
        _copy(copy, self._home)
        self._hooks.ledger.device_restored(self.name, known)

    def _next_home(self) -> Path:
        number = 1
        while (home := self._folder / f"{self.name}-{number}").exists():
            number += 1
        return home

    # ------------------------------------------------------------------------------------------------------------ the cable

    def set_cable(self, plugged: bool) -> None:
        self.cable = plugged
        if self._running is not None:
            self._running.wire.set_cable(plugged)


_RUNNING: ContextVar[tuple[Device, _Life] | None] = ContextVar("running", default=None)
"""For which process the code works that runs now."""


def passed(point: str) -> None:
    """The code passes a crash point of a client."""
    running = _RUNNING.get()
    if running is not None:
        device, life = running
        device._passed(life, point)


def _copy(source: Path, target: Path) -> None:
    """All files of a home, as they are at this moment. What SQLite keeps in shared memory goes with the process."""
    for folder, _, files in os.walk(source):
        there = target / Path(folder).relative_to(source)
        there.mkdir()
        for name in files:
            if not name.endswith("-shm"):
                shutil.copyfile(Path(folder) / name, there / name)
