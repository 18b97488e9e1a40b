"""Ways to bring a process to a crash point, and what has to be so when it was started again.

A scenario is used once, for one case: `prepare`, then `run`, in which the process with the bomb dies, then `check`, which starts
it again. `check` gives what was seen, fit for the table.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

from remote.crashpoints import CLIENT_POINTS
from tests.crash.laboratory import PATIENCE, Bomb, Laboratory, Station
from tests.crash.ledger import Broken, Died, Ledger, look_at
from tests.crash.workloads import KIB, Work, bytes_for, writing
from tests.support.mounts import ALOFT, Device
from tests.support.waiting import wait_until


class Scenario:
    def __init__(self, lab: Laboratory, case: str) -> None:
        self.lab = lab
        self.case = case

    def prepare(self) -> None: ...

    def run(self, bomb: Bomb) -> None:
        raise NotImplementedError

    def check(self) -> str:
        raise NotImplementedError


class OnAlpha(Scenario):
    """Alpha's mount process dies, and is started again. `work` is what it does."""

    def __init__(self, lab: Laboratory, case: str) -> None:
        super().__init__(lab, case)
        self.alpha = lab.alpha
        self.ledger = Ledger()

    def run(self, bomb: Bomb) -> None:
        if not self.alpha.mount(bomb):
            return
        with suppress(Died):
            self.work(Work(self.alpha, self.case, self.ledger))
        wait_until(lambda: not self.alpha.is_alive, f"the passing of {bomb.point}", PATIENCE)
        self.alpha.wait_dead()

    def work(self, work: Work) -> None:
        raise NotImplementedError

    def check(self) -> str:
        self.alpha.mount()
        seen = self.look()
        self.mend()
        self.alpha.sync()
        self.lab.wait_equal(self.case)
        self.lab.check_roots()
        for station in (self.alpha, self.lab.beta):
            station.check()
        self.alpha.umount()
        return seen

    def look(self) -> str:
        """What of the folder is there at once, before anything went to the service or came from it."""
        wait_until((self.alpha.point / self.case).exists, "the folder", PATIENCE)
        return self.ledger.check(look_at(self.alpha.point / self.case))

    def mend(self) -> None:
        """Before `aloft sync` is to bring it all to the service."""


class Writing(OnAlpha):
    def prepare(self) -> None:
        Work(self.lab.beta, self.case).begin()
        self.lab.beta.sync()
        # alpha learns of the folder when it is mounted: the ledger is about what is in it

    def work(self, work: Work) -> None:
        writing(work)


class Reading(OnAlpha):
    """What another device wrote is listed, read, pinned, evicted; and changed by the other while it is read."""

    def prepare(self) -> None:
        work = Work(self.lab.beta, self.case, self.ledger)
        work.begin()
        for number in range(3):
            work.write(f"large {number}", 1200 * KIB)
        work.write("packed", 20 * KIB)
        work.write("packed too", 30 * KIB)
        work.write("small", 2000)
        work.sync()

    def work(self, work: Work) -> None:
        work.wait(lambda: (work.folder / "small").stat(), "the other device's files")
        for name in ("small", "packed", "large 0"):
            work.read(name)
        work.ask("pin", "large 1")
        work.wait(lambda: self._state("large 1") == "pinned", "the pin")
        self._change(Work(self.lab.beta, self.case, self.ledger))
        work.wait(lambda: self._is_changed(work.folder), "the other device's changes")
        for step in ("evict", "unpin"):
            work.read("large 0")
            work.ask(step, "large 0" if step == "evict" else "large 1")
        work.ask("evict", "large 0", "large 1", "packed")
        for name in ("large 0", "packed", "new"):
            work.read(name)

    def _state(self, name: str) -> str:
        path = str(self.alpha.point / self.case / name)
        return str(self.alpha.ask("status", paths=[path])["files"][0]["state"])

    @staticmethod
    def _is_changed(folder: Path) -> bool:
        return not (folder / "small").exists() and (folder / "new").exists() and (folder / "large 0").stat().st_size == 1300 * KIB

    @staticmethod
    def _change(other: Work) -> None:
        other.replace("large 0", 1300 * KIB)
        other.write("new", 50 * KIB)
        other.remove("small")
        other.sync()

    def look(self) -> str:
        """Alpha has changed nothing, so it comes to show what the other device has, and was asked of nothing else."""
        wanted = look_at(self.lab.beta.point / self.case)
        here = self.alpha.point / self.case

        def is_so() -> bool:
            try:
                return look_at(here) == wanted
            except FileNotFoundError:
                return False

        wait_until(is_so, "the other device's files", PATIENCE)
        return "what the other device wrote is there"


class Conflict(OnAlpha):
    """Both devices have written one file; alpha dies while it finds out."""

    def prepare(self) -> None:
        work = Work(self.lab.beta, self.case, self.ledger)
        work.begin()
        work.write("both.txt", 100 * KIB)
        work.write("theirs", 1000)
        work.sync()
        self.alpha.mount()
        here = self.alpha.point / self.case
        wait_until(lambda: (here / "theirs").exists(), "the other device's files", PATIENCE)
        self.alpha.ask("offline")
        self.mine = bytes_for(self.case, "mine", 90 * KIB)
        (here / "both.txt").write_bytes(self.mine)
        (here / "mine").write_bytes(b"mine")
        self.alpha.ask("umount", wait=False)
        self.alpha.wait_dead()
        work.replace("both.txt", 80 * KIB)
        work.sync()
        self.theirs = self.ledger.state["both.txt"]

    def work(self, work: Work) -> None:
        work.ask("online")
        work.wait(lambda: len(os.listdir(work.folder)) == 4, "the conflicted copy")
        work.sync()

    def mend(self) -> None:
        self.alpha.ask("online")

    def look(self) -> str:
        self.alpha.ask("online")
        here = self.alpha.point / self.case

        def settled() -> bool:
            return sorted(os.listdir(here)) == sorted({"both.txt", "theirs", "mine", *self._copies(here)}) and (
                (here / "both.txt").read_bytes() == self.theirs
            )

        wait_until(settled, "the other device's version", PATIENCE)
        copies = self._copies(here)
        if [(here / name).read_bytes() for name in copies] != [self.mine]:
            raise Broken(f"of two versions there are {copies} beside the other device's")
        return "both versions are there, one of them as a conflicted copy"

    @staticmethod
    def _copies(here: Path) -> list[str]:
        return [name for name in os.listdir(here) if name.startswith("both (conflicted copy, alpha,")]


class Squashing(OnAlpha):
    """A content that the service has no room for is written on, so that its upload is given up."""

    def prepare(self) -> None:
        Work(self.lab.beta, self.case).begin()
        self.lab.beta.sync()

    def work(self, work: Work) -> None:
        work.wait(lambda: work.folder.exists(), "the folder")
        self.lab.set_room(0)
        work.write("large", 500 * KIB)
        work.wait(self._has_failed, "the refusal")
        work.overwrite("large", 100 * KIB, 50 * KIB)

    def _has_failed(self) -> bool:
        return any(queued["error"] for queued in self.alpha.ask("status")["drive"]["queue"]["first"])

    def mend(self) -> None:
        self.lab.set_room(2**40)


class Many(Writing):
    """So many small files that the WAL has to be moved."""

    def work(self, work: Work) -> None:
        work.wait(lambda: work.folder.exists(), "the folder")
        for number in range(100):
            work.write(f"file {number}", 60 * KIB)
        work.sync()


class Restart(OnAlpha):
    """The process dies where a draft's file has lost its row, with a new file open, and again while it starts."""

    def prepare(self) -> None:
        work = Work(self.lab.beta, self.case)
        work.begin()
        self.lab.beta.sync()
        first = self.lab.bomb("draft.unlinking")
        self.alpha.mount(first)
        work = Work(self.alpha, self.case, self.ledger)
        work.wait(lambda: work.folder.exists(), "the folder")
        opened: BinaryIO = (work.folder / "unclosed").open("wb")
        try:
            writing(work)
        except Died:
            self.alpha.wait_dead()
        finally:
            with suppress(OSError):
                opened.close()
        if not first.went_off:
            raise Broken("no draft was ever unlinked")
        self.lost = bytes_for(self.case, "lost", 100 * KIB)
        unknown = int(self.case.removeprefix("case ")) * 10**6  # an id that this replica has not given away
        (self.alpha.home / "drafts" / str(unknown)).write_bytes(self.lost)

    def work(self, work: Work) -> None: ...

    def look(self) -> str:
        seen = look_at(self.alpha.point / self.case)
        if seen.pop("unclosed", b"") != b"":
            raise Broken("a file that was never written has bytes")
        before = self.ledger.check(seen)
        recovered = look_at(self.alpha.point / "Recovered files")
        if list(recovered.values()) != [self.lost]:
            raise Broken(f"of one lost draft there are {sorted(recovered)}")
        shutil.rmtree(self.alpha.point / "Recovered files")
        return f"recovered; first died {before}"


class Anew(Scenario):
    """A third device, whose replica was moved away (its WAL stayed), lists everything anew."""

    def prepare(self) -> None:
        work = Work(self.lab.beta, self.case, Ledger())
        work.begin()
        work.make_folder("folder")
        work.write("folder/file", 20 * KIB)
        work.sync()
        self.gamma = Station(Device(self.lab.service, self.lab.email, self.lab.folder, f"gamma-{self.case[5:]}"))
        self.gamma.device.login()
        self.gamma.mount()
        wait_until(lambda: (self.gamma.point / self.case / "folder" / "file").exists(), "the first listing", PATIENCE)
        self.gamma.kill()
        (self.gamma.home / "replica.db").rename(self.lab.folder / f"moved away {self.case}")
        if not (self.gamma.home / "replica.db-wal").exists():
            raise Broken("there is no WAL that could be in the way")

    def run(self, bomb: Bomb) -> None:
        try:
            if self.gamma.mount(bomb):
                wait_until(lambda: bomb.went_off, f"the passing of {bomb.point}", PATIENCE)
                self.gamma.wait_dead()
        finally:
            self.gamma.finish()

    def check(self) -> str:
        self.gamma.mount()

        here, there = self.gamma.point, self.lab.beta.point
        wait_until(
            lambda: sorted(os.listdir(here)) == sorted(os.listdir(there)), "the same names as on the other device", PATIENCE
        )
        wanted = look_at(there / self.case)

        def is_equal() -> bool:
            try:
                return look_at(here / self.case) == wanted
            except FileNotFoundError:
                return False

        wait_until(is_equal, "the same files as on the other device", PATIENCE)
        self.gamma.check(allowed=frozenset({"replica.db-wal.stray"}))
        self.gamma.umount()
        self.gamma.device.aloft("logout")
        return "listed anew, the same as on the other device"


# ------------------------------------------------------------------------------------------------------- of the account


class Command(Scenario):
    """A command dies and is given again. `self.station`: a home of its own, of an account of its own."""

    arguments: tuple[str, ...] = ("register",)

    def prepare(self) -> None:
        self.station = self.new_station()

    def new_station(self, email: str | None = None) -> Station:
        name = f"command-{self.case[5:]}-{len(list(self.lab.folder.glob('command-*')))}"
        email = email or f"{name.replace(' ', '-')}@example.org"
        return Station(Device(self.lab.service, email, self.lab.folder, name))

    def run(self, bomb: Bomb) -> None:
        code = self.command(bomb, *self.arguments)
        if code != -9:
            raise Broken(f"aloft {self.arguments[0]} ended with {code}, and did not pass {bomb.point}")

    def command(self, bomb: Bomb | None, what: str, *arguments: str, station: Station | None = None) -> int:
        device = (station or self.station).device
        if what in ("register", "login"):
            arguments = ("--server", self.lab.service.url, "--email", device.email, "--device", device.name, *arguments)
        return device.run(what, *arguments, env={} if bomb is None else bomb.environment()).returncode

    def must(self, *arguments: str) -> None:
        code = self.command(None, *arguments)
        if code != 0:
            raise Broken(f"aloft {arguments[0]} ended with {code} afterwards")

    def in_order(self) -> None:
        """Logged in as one device, with nothing left over."""
        listed = self.station.device.json("devices")["devices"]
        if len(listed) != 1:
            raise Broken(f"the account has {len(listed)} devices")
        self.station.check_names()


class Registering(Command):
    def check(self) -> str:
        if self.command(None, "register") != 0:  # the account may be there
            self.must("login")
        self.in_order()
        return "registered and logged in, as one device"


class LoggingIn(Command):
    arguments = ("login",)

    def prepare(self) -> None:
        other = self.new_station()
        self.command(None, "register", station=other)
        other.device.aloft("logout")
        self.station = self.new_station(other.device.email)

    def check(self) -> str:
        self.must("login")
        self.in_order()
        return "logged in, as one device"


class LoggingOut(Command):
    arguments = ("logout",)

    def prepare(self) -> None:
        super().prepare()
        self.must("register")

    def check(self) -> str:
        self.must("logout")
        if self.command(None, "whoami") != 4:
            raise Broken("it is still logged in")
        self.must("login")
        self.in_order()
        return "logged out; and in again as the same device"


class Refreshing(LoggingOut):
    """The access token has run out."""

    arguments = ("whoami",)

    def run(self, bomb: Bomb) -> None:
        expire(self.station)
        super().run(bomb)

    def check(self) -> str:
        for _ in range(2):
            self.must("whoami")
        self.in_order()
        return "still logged in"


def expire(station: Station) -> None:
    """As if the access token were as good as over."""
    file = station.home / "credentials.json"
    credentials = json.loads(file.read_text())
    credentials["tokens"]["renew_at"] = 0.0
    file.write_text(json.dumps(credentials))


class AnotherAccount(Command):
    """Another account logs in to a home that was used."""

    arguments = ("login", "--email")

    def prepare(self) -> None:
        super().prepare()
        self.must("register")
        self.other = self.new_station()
        self.command(None, "register", station=self.other)
        self._fill(self.other, "of the other")
        self._fill(self.station, "of the first")
        # what a crash may have left of a draft that the service has acknowledged
        (self.station.home / "drafts" / "1").write_bytes(b"acknowledged long ago" * 5000)

    @staticmethod
    def _fill(station: Station, name: str) -> None:
        station.mount()
        (station.point / name).write_bytes(bytes(100_000))
        station.sync()
        station.umount()

    def run(self, bomb: Bomb) -> None:
        code = self._as(self.other, bomb)
        if code != -9:
            raise Broken(f"aloft login as another account ended with {code}")

    def _as(self, whom: Station, bomb: Bomb | None = None) -> int:
        server, email = self.lab.service.url, whom.device.email
        environment = {} if bomb is None else bomb.environment()
        return self.station.device.run("login", "--server", server, "--email", email, env=environment).returncode

    def check(self) -> str:
        self._shows(self.station, "of the first")
        self._shows(self.other, "of the other")
        return "each account sees its own files, and no others"

    def _shows(self, whom: Station, name: str) -> None:
        if (code := self._as(whom)) != 0:
            raise Broken(f"aloft login ended with {code} afterwards")
        self.station.mount()
        wait_until(lambda: os.listdir(self.station.point), "the account's files", PATIENCE)
        names = os.listdir(self.station.point)
        if names != [name]:
            raise Broken(f"{names} are shown instead of {name!r}")
        self.station.umount()


# -------------------------------------------------------------------------------------------------------- of the service


class Serving(Scenario):
    """The service dies and is started again, while both devices are mounted and alpha writes: no call of a program fails."""

    def prepare(self) -> None:
        Work(self.lab.beta, self.case).begin()
        self.lab.beta.sync()
        self.lab.alpha.mount()
        self.ledger = Ledger()

    def run(self, bomb: Bomb) -> None:
        with self.lab.serving(bomb):
            try:
                writing(Work(self.lab.alpha, self.case, self.ledger))
            except Died as error:
                raise Broken(f"the drive did not go on without the service: {error}") from error

    def check(self) -> str:
        self.ledger.check(look_at(self.lab.alpha.point / self.case))
        self.lab.alpha.sync()
        self.lab.wait_equal(self.case)
        self.lab.check_roots()
        for station in (self.lab.alpha, self.lab.beta):
            station.check()
        self.lab.alpha.umount()
        return "every call returned; all is on the service and the second device"


class ServingCommands(Command):
    """The service dies while a new account registers, logs in, uses its tokens, and removes a device."""

    def run(self, bomb: Bomb) -> None:
        with self.lab.serving(bomb):
            self.second = self.new_station(self.station.device.email)
            for station in (self.station, self.second):
                self._until(0, "login" if station is self.second else "register", station)
                expire(station)
                self._until(0, "whoami", station)
            listed = self.station.device.json("devices")["devices"]
            (other,) = [device["id"] for device in listed if not device["current"]]
            if self.command(None, "devices", "remove", other) not in (0, 5):
                raise Broken("the device could not be removed")

    def _until(self, code: int, what: str, station: Station) -> None:
        """As a person would: again, when it failed because the service was gone."""
        done = []

        def is_done() -> bool:
            done.append(self.command(None, what, station=station))
            if what == "register" and done[-1] == 1:
                done.append(self.command(None, "login", station=station))
            return done[-1] == code

        wait_until(is_done, f"aloft {what} to work (it ended with {done})", PATIENCE)

    def check(self) -> str:
        for device in self.station.device.json("devices")["devices"]:
            if not device["current"]:
                self.station.device.aloft("devices", "remove", device["id"])
        self.must("whoami")
        self.in_order()
        if self.command(None, "whoami", station=self.second) != 4:
            raise Broken("a device that was removed is still logged in")
        return "each command worked, at the latest when it was given again"


class Starting(Scenario):
    """A new service dies while it starts."""

    def prepare(self) -> None:
        self.data = self.lab.folder / f"service of {self.case}"
        incoming = self.data / "objects" / "incoming"
        incoming.mkdir(parents=True)
        (incoming / "left over").write_bytes(b"half an object")

    def run(self, bomb: Bomb) -> None:
        code, line = self._serve(bomb)
        if line or code != -9:
            raise Broken(f"aloft serve ended with {code}, and did not pass {bomb.point}")

    def _serve(self, bomb: Bomb | None) -> tuple[int, str]:
        command = [str(ALOFT), "serve", "--data", str(self.data), "--port", "0", "--json"]
        with (self.lab.folder / "service.log").open("a") as log:
            environment = os.environ | (bomb.environment() if bomb else {})
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        if line:
            process.terminate()
        process.communicate(timeout=PATIENCE)
        return process.returncode, line

    def check(self) -> str:
        code, line = self._serve(None)
        if code != 0 or not line:
            raise Broken(f"the service does not start any more ({code})")
        names = {path.name for path in self.data.iterdir() if not path.name.startswith("aloft.db")}
        if strays := names - {"lock", "objects", "objects.key", "tokens.key"}:
            raise Broken(f"left over: {sorted(strays)}")
        if list((self.data / "objects" / "incoming").iterdir()):
            raise Broken("a left-over of an upload is still there")
        with closing(sqlite3.connect(self.data / "aloft.db")) as sql:
            (epochs,) = sql.execute("SELECT count(*) FROM epochs").fetchone()
        if epochs != 1:
            raise Broken(f"the service has {epochs} epochs")
        return "started anew"


# ------------------------------------------------------------------------------------------------------ which for which

_BY_POINT: dict[str, type[Scenario]] = {
    "upload.squashed": Squashing,
    "upload.squash-saved": Squashing,
    "checkpoint.moving": Many,
    "checkpoint.moved": Many,
    "account.registered": Registering,
    "logout.told": LoggingOut,
    "credentials.written": LoggingIn,
    "credentials.replaced": LoggingIn,
    "listing.shown": Anew,
}
_BY_AREA: dict[str, type[Scenario]] = {
    "page": Reading,
    "merge": Conflict,
    "files": Conflict,
    "kernel": Reading,
    "download": Reading,
    "chunk": Reading,
    "pin": Reading,
    "replica": Anew,
    "recovery": Restart,
    "installation": Registering,
    "login": LoggingIn,
    "token": Refreshing,
    "set-aside": AnotherAccount,
    "service.account": ServingCommands,
    "service.login": ServingCommands,
    "service.tokens": ServingCommands,
    "service.device": ServingCommands,
    "service.start": Starting,
}


def scenario_of(point: str) -> type[Scenario]:
    """The one that passes a point."""
    area = point.rpartition(".")[0]
    usual = Writing if point in CLIENT_POINTS else Serving
    return _BY_POINT.get(point) or _BY_AREA.get(area) or usual
