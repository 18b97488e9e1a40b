"""One power cut: the folders are rebuilt as the disks could look, the service and the device are started on them, and the
promises held against what is there. Also records the run that is cut."""

from __future__ import annotations

import random
import shutil
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trio

from cache.drive import Drive
from cache.errors import Unavailable
from cache.home import HomePaths
from remote.credentials import CredentialStore
from remote.http import HttpService
from remote.protocol import Kind
from remote.server.app import create_app
from remote.server.config import ServerConfig
from tests.powerloss.layer import Layer
from tests.powerloss.ledger import Ledger, Promise
from tests.powerloss.replay import Disk, Log, Model
from tests.powerloss.workload import DATABASE, Workload
from tests.simulation.served import Served
from tests.support.devices import QUICK, Device, FixedToken
from tests.support.mounts import Device as MountedDevice
from tests.support.mounts import Service as ServiceProcess
from tests.support.waiting import wait_until

HOME, SERVICE = "home", "service"
DRIVES = (Model.STRICT, Model.ORDERED, Model.MIXED)


@dataclass(frozen=True, slots=True)
class Run:
    """A workload that was recorded."""

    log: Log
    ledger: Ledger
    workload: Workload
    first: int
    """The moment from which on it may be cut."""
    last: int


@dataclass(frozen=True, slots=True)
class Cut:
    position: int
    home: Model
    service: Model
    seed: int

    def __str__(self) -> str:
        return f"cut at {self.position}, home {self.home.value}, service {self.service.value}, seed {self.seed}"


@dataclass(slots=True)
class Outcome:
    cut: Cut
    wrong: list[str] = field(default_factory=list)
    set_aside: int = 0


def record(folder: Path, *, seed: int, steps: int) -> Run:
    """Run the workload on a real mount and a real service, on a disk that is recorded; then nothing is left running."""
    layer = Layer(folder)
    service = ServiceProcess(layer.point)
    mounts = folder / "mounts"
    mounts.mkdir()
    device = MountedDevice(service, "ada@example.org", mounts, "laptop")
    device.home = layer.point / HOME
    ledger = Ledger(lambda: layer.position, [DATABASE])
    try:
        service.start()
        device.register()
        workload = Workload(device.mount(), ledger, seed)
        first = layer.position
        workload.begin()
        workload.run(steps // 3)
        _sync(device)
        ledger.acknowledged()
        device.aloft("pause")
        workload.run(steps // 3)
        device.aloft("resume")
        workload.run(steps // 3)
        _sync(device)
        ledger.acknowledged()
        last = layer.position
        device.umount()
        service.stop()
    finally:
        device.finish()
        service.kill()
        layer.stop()
    return Run(Log.read(layer.log), ledger, workload, first, last)


def _sync(device: MountedDevice) -> None:
    """In portions, so that no single command runs into its time limit on a machine that is busy."""
    wait_until(lambda: device.run("sync", "--timeout", "20").returncode == 0, "the end of the sync", seconds=300)


def choose(run: Run, count: int, seed: int) -> list[Cut]:
    """Moments at random, half of them just after a sync, where an order shows. The power fails in the home's machine, in the
    service's, or in both."""
    dice = random.Random(seed)
    syncs = [
        end
        for operation, end in zip(run.log.operations, run.log.ends, strict=True)
        if operation.kind.startswith("fsync") and run.first < end <= run.last
    ]
    ends = [end for end in run.log.ends if run.first < end <= run.last]
    cuts = []
    for number in range(count):
        position = dice.choice(syncs if number % 2 else ends)
        model = DRIVES[number // 2 % 3]
        which = number // 6 % 4
        home, service = [(model, Model.LATEST), (model, Model.LATEST), (Model.LATEST, model), (model, model)][which]
        cuts.append(Cut(position, home, service, dice.randrange(2**32)))
    return cuts


async def look(run: Run, cut: Cut, folder: Path, forgets: Callable[[str, str], bool] = lambda sync, path: False) -> Outcome:
    """Start everything on what that cut leaves, in `folder`, which is made and removed."""
    outcome = Outcome(cut)
    disk = Disk(forgets)
    disk.follow(run.log.until(cut.position))
    disk.build(folder, {HOME: cut.home, SERVICE: cut.service}, cut.seed)
    try:
        with trio.fail_after(120):
            await _look(run, outcome, folder)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what that cut leads to)
        outcome.wrong += _said(error)
    finally:
        shutil.rmtree(folder)
    return outcome


def _said(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [line for each in error.exceptions for line in _said(each)]
    where = traceback.extract_tb(error.__traceback__)[-1]
    return [f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"]


async def _look(run: Run, outcome: Outcome, folder: Path) -> None:
    cut = outcome.cut
    credentials = CredentialStore(folder / HOME / "credentials.json").read()
    assert credentials is not None, "the credentials are gone"
    assert credentials.tokens is not None
    app = create_app(ServerConfig(data=folder / SERVICE, password_memory_kib=1024))
    transport = httpx.ASGITransport(app)
    try:
        with _served(folder / SERVICE, credentials.account.space) as served:
            outcome.wrong += [f"service: {rule}: {case}" for rule, case in served.problems()]
            found = contents_on_service(served)
            outcome.wrong += [f"service: {line}" for line in run.ledger.broken(found, cut.position, {Promise.ACKNOWLEDGED})]
        token = FixedToken(credentials.tokens.access_token)
        async with (
            HttpService(credentials.endpoint(), token, transport=transport, object_transport=transport) as service,
            trio.open_nursery() as nursery,
        ):
            boot = None if cut.home is Model.LATEST else "the boot after"
            space, name = credentials.account.space, credentials.device.name
            drive = Drive(HomePaths.under(folder / HOME), service, QUICK, space=space, device=name, boot=boot)
            await nursery.start(drive.run)
            device = Device(name, drive, [])
            promises = {Promise.SYNCED, Promise.ACKNOWLEDGED} | ({Promise.CLOSED} if cut.home is Model.LATEST else set())
            found = await _contents_here(device)
            outcome.set_aside = sum("power loss" in path for path in device.tree())
            outcome.wrong += run.ledger.broken(found, cut.position, promises, unseen=device.tree().keys() - found.keys())
            problems = (await drive.fsck(repair=False)).problems  # chunks of the cache may be lost, which fsck mends by itself
            outcome.wrong += [f"fsck: {problem}" for problem in problems if not problem.repaired]
            if outcome.wrong:  # what is not right now will not be right on the service
                nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()
            drive.connection.set_paused(False)
            report = await drive.sync(60.0)
            if not report.complete:
                outcome.wrong.append(f"sync: {report}")
            with _served(folder / SERVICE, space) as served:
                outcome.wrong += [f"service: {rule}: {case}" for rule, case in served.problems()]
                here, there = await device.contents(), contents_on_service(served)
            outcome.wrong += [f"after the sync: {line}" for line in run.ledger.broken(here, cut.position, promises)]
            outcome.wrong += _database(run, here, cut.position, folder)
            differ = sorted(path for path in {*here, *there} if here.get(path) != there.get(path))
            outcome.wrong += [f"{path}: the service has another content after the sync" for path in differ]
            nursery.cancel_scope.cancel()
    finally:
        app.state.service.close()


async def _contents_here(device: Device) -> dict[str, bytes]:
    """Every file that can be read before anything was exchanged: a content that is on the service only, and not committed there
    yet, cannot."""
    found = {}
    for path, node in device.tree().items():
        if node.kind is Kind.FILE:
            with suppress(Unavailable):
                found[path] = await device.read(path)
    return found


@contextmanager
def _served(data: Path, space: bytes) -> Iterator[Served]:
    served = Served(data, space)
    try:
        yield served
    finally:
        served.close()


def contents_on_service(served: Served) -> dict[str, bytes]:
    """Every file, with bytes that are whole (P5)."""
    found = {}
    for (parent, name), inode in served.tree.entries.items():
        row = served.tree.rows[inode]
        if row.kind == Kind.FILE.value and row.manifest_id is not None:
            folder = served.tree.path(parent)
            found[f"{folder}/{name}".lstrip("/")] = served.read(row.manifest_id)
    return found


def _database(run: Run, found: dict[str, bytes], cut: int, folder: Path) -> list[str]:
    """SQLite on the mount finds its rows again, whatever state its own files are in."""
    committed = max((rows for moment, rows in run.workload.rows if moment <= cut), default=0)
    copy = folder / "copy"
    copy.mkdir()
    for path, content in found.items():
        if path.startswith(DATABASE) and "power loss" not in path:
            (copy / Path(path).name).write_bytes(content)
    if not committed:
        return []
    with closing(sqlite3.connect(copy / Path(DATABASE).name)) as sql:
        (state,) = sql.execute("PRAGMA integrity_check").fetchone()
        if state != "ok":
            return [f"the program's database is damaged: {state}"]
        (rows,) = sql.execute("SELECT count(*) FROM row").fetchone()
    return [f"the program's database has {rows} of {committed} rows"] if rows < committed else []
