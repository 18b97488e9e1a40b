"""A service, a device that is killed and one that watches: real processes on real mounts, cheap enough for a hundred deaths."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from fs.control import ControlError, call
from remote.crashpoints import CRASH_AT, CRASH_NOTE
from tests.crash.ledger import Broken, look_at, modes_of
from tests.simulation.served import Served
from tests.support.mounts import ALOFT, Device, Service
from tests.support.waiting import wait_until

PATIENCE = 120.0
HOME_NAMES = {"cache", "credentials.json", "credentials.json.lock", "drafts", "installation", "replica.db", "run"}
WAL_NAMES = {"replica.db-wal", "replica.db-shm", "replica.db-boot"}


@dataclass(frozen=True, slots=True)
class Bomb:
    """Where a process is to die, and the file in which it says so."""

    point: str
    nth: int
    note: Path

    def environment(self) -> dict[str, str]:
        return {CRASH_AT: f"{self.point}:{self.nth}", CRASH_NOTE: str(self.note)}

    @property
    def went_off(self) -> bool:
        return self.note.exists()


@dataclass
class Station:
    """A device whose mount process is a child of the test, so that its end is known."""

    device: Device
    process: subprocess.Popen[str] | None = None

    @property
    def point(self) -> Path:
        return self.device.point

    @property
    def home(self) -> Path:
        return self.device.home

    def mount(self, bomb: Bomb | None = None, *options: str) -> bool:
        """Whether the mount began; with a bomb it may end before."""
        command = [str(ALOFT), "mount", str(self.point), "--foreground", "--json", "--upload-delay", "0", *options]
        environment = os.environ | {"ALOFT_HOME": str(self.home)} | (bomb.environment() if bomb else {})
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline():
            return True
        self.wait_dead()
        if bomb is None:
            raise Broken(f"{self.device.name} cannot be mounted any more:\n{self.log.read_text()[-3000:]}")
        return False

    @property
    def log(self) -> Path:
        return self.device.folder / f"{self.device.name}.log"

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait_dead(self) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        code = self.process.wait(PATIENCE)
        self.process.stdout.close()
        self.process = None
        return code

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.wait_dead()

    def ask(self, command: str, **arguments: Any) -> Any:
        """`OSError` if the process is gone."""
        try:
            return call(self.home / "run" / "control.sock", command, arguments)
        except ControlError as error:
            if error.kind in ("not mounted", "ended"):
                raise ConnectionResetError(str(error)) from error
            raise

    def sync(self, timeout: float = PATIENCE) -> None:
        report = self.ask("sync", timeout=timeout)
        if not report["complete"]:
            raise Broken(f"aloft sync of {self.device.name} was not complete: {report}")

    def umount(self) -> None:
        self.ask("umount", wait=True, timeout=PATIENCE)
        code = self.wait_dead()
        if code != 0:
            raise Broken(f"the mount of {self.device.name} ended with {code}")

    def finish(self) -> None:
        """At the end of a test, whatever state it is in."""
        with suppress(subprocess.SubprocessError):
            subprocess.run(["fusermount3", "-uz", str(self.point)], capture_output=True, check=False)
        if self.process is not None:
            self.process.kill()
            self.wait_dead()

    # ------------------------------------------------------------------------------------------- what must be in order

    def check(self, allowed: frozenset[str] = frozenset()) -> None:
        """fsck beside the mount, and nothing left over in the home but what is `allowed`."""
        report = self.ask("fsck", repair=False)
        if not report["clean"]:
            raise Broken(f"fsck of {self.device.name}: {report['problems']}")
        wait_until(lambda: not list((self.home / "drafts").iterdir()), f"no file in the drafts of {self.device.name}", PATIENCE)
        self.check_names(allowed)
        if "Traceback" in self.log.read_text():
            raise Broken(f"the log of {self.device.name} has a traceback:\n{self.log.read_text()[-3000:]}")

    def check_names(self, allowed: frozenset[str] = frozenset()) -> None:
        names = {path.name for path in self.home.iterdir()}
        if strays := names - HOME_NAMES - WAL_NAMES - allowed:
            raise Broken(f"left over in the home of {self.device.name}: {sorted(strays)}")


class Laboratory:
    """`alpha` is killed, `beta` watches; both belong to one account. Every case has a folder of its own in their tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.service = Service(folder)
        self.email = f"{uuid.uuid4()}@example.org"
        self.alpha = Station(Device(self.service, self.email, folder, "alpha"))
        self.beta = Station(Device(self.service, self.email, folder, "beta"))
        self.at_the_end = ExitStack()
        """What cases began beside the laboratory's own."""
        self._cases = 0
        self._bombs = 0

    def start(self) -> None:
        self.service.start()
        self.alpha.device.register()
        self.beta.device.login()
        self.beta.mount()

    def finish(self) -> None:
        self.at_the_end.close()
        self.alpha.finish()
        self.beta.finish()
        if self.service.process is not None:
            self.service.kill()

    def new_case(self) -> str:
        self._cases += 1
        return f"case {self._cases}"

    def bomb(self, point: str, nth: int = 1) -> Bomb:
        self._bombs += 1
        return Bomb(point, nth, self.folder / f"note {self._bombs}")

    def wait_equal(self, case: str) -> None:
        """The other device shows what the first one has."""
        here, there = self.alpha.point / case, self.beta.point / case
        wanted = look_at(here)
        modes = modes_of(here, wanted)
        seen: dict[str, bytes | None] = {}

        def is_equal() -> bool:
            nonlocal seen
            try:
                seen = look_at(there)
                return seen == wanted and modes_of(there, seen) == modes
            except FileNotFoundError:  # it changes while we look
                return False

        try:
            wait_until(is_equal, "the second device's tree", PATIENCE)
        except BaseException as error:
            names = sorted(set(wanted) ^ set(seen)) or [name for name in wanted if wanted[name] != seen[name]]
            raise Broken(f"the second device does not have the same tree: {names}") from error

    def check_roots(self) -> None:
        """Nothing stays beside the folders of cases; what is removed on one device goes on the other a moment later."""
        for station in (self.alpha, self.beta):
            try:
                wait_until(lambda at=station: not self._strays(at), f"nothing else on {station.device.name}", PATIENCE)  # type: ignore[misc]
            except BaseException as error:
                raise Broken(f"{station.device.name} shows {self._strays(station)}, which nobody made") from error

    def _strays(self, station: Station) -> list[str]:
        return sorted(name for name in os.listdir(station.point) if not name.startswith("case "))

    def set_room(self, quota: int) -> None:
        """What the account may store, in bytes; as an operator would."""
        with closing(sqlite3.connect(self.folder / "service" / "aloft.db", timeout=PATIENCE)) as sql, sql:
            sql.execute("UPDATE accounts SET own_quota_bytes = ? WHERE email = ?", (quota, self.email))

    def end_uploads(self) -> None:
        """As if a day had passed since the last upload."""
        with closing(sqlite3.connect(self.folder / "service" / "aloft.db", timeout=PATIENCE)) as sql, sql:
            sql.execute("UPDATE upload_sessions SET last_used_ns = 0")

    def check_service(self) -> None:
        check_data(self.folder / "service")

    @contextmanager
    def serving(self, bomb: Bomb) -> Iterator[None]:
        """The service is started with a bomb. When it dies, it is started again at once, as whoever runs it would do."""
        self.service.stop()
        if self.start_service(bomb):
            process = self.service.process
            assert process is not None
            restarter = Thread(target=self._restart_after, args=(process,))
            restarter.start()
            try:
                yield
            finally:
                if process.poll() is None and not bomb.went_off:
                    process.kill()
                restarter.join()
        else:
            self.start_service(None)
            yield

    def _restart_after(self, process: subprocess.Popen[str]) -> None:
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        self.start_service(None)

    def start_service(self, bomb: Bomb | None) -> bool:
        """Whether it listens; with a bomb it may die before."""
        command = [str(ALOFT), "serve", "--data", str(self.folder / "service"), "--port", str(self.service.port), "--json"]
        with (self.folder / "service.log").open("a") as log:
            environment = os.environ | (bomb.environment() if bomb else {})
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        if line:
            self.service.process, self.service.url = process, json.loads(line)["url"]
            self.service.port = int(self.service.url.rsplit(":", 1)[1])
            return True
        process.communicate(timeout=PATIENCE)
        self.service.process = None
        if bomb is None and "Address already in use" in self.service.log()[-200:]:  # somebody's connection has our port
            time.sleep(1)
            return self.start_service(None)
        if bomb is None:
            raise Broken(f"the service does not start any more:\n{self.service.log()[-3000:]}")
        return False


def check_data(data: Path) -> None:
    """What a service's tables and object files say of each other, read from outside."""
    with closing(sqlite3.connect(f"file:{data / 'aloft.db'}?mode=ro", uri=True)) as sql:
        damage = sql.execute("PRAGMA integrity_check").fetchone()[0]
        if damage != "ok":
            raise Broken(f"the service's database: {damage}")
        spaces = [
            row[0] for row in sql.execute("SELECT id FROM spaces s WHERE EXISTS (SELECT 1 FROM inodes i WHERE i.space_id = s.id)")
        ]
    for space in spaces:
        with closing(Served(data, space)) as served:
            problems = [f"{rule}: {case}" for rule, case in served.problems()] + served.tree.faults()
            for row in served.tree.rows.values():
                if row.manifest_id is not None:
                    served.read(row.manifest_id)
        if problems:
            raise Broken(f"the service contradicts itself: {problems}")


@contextmanager
def laboratory() -> Iterator[Laboratory]:
    folder = Path(tempfile.mkdtemp(prefix="aloft-crash-"))
    lab = Laboratory(folder)
    try:
        lab.start()
        yield lab
    finally:
        lab.finish()
        shutil.rmtree(folder)
