"""The service dies, and is started again."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing

from tests.crash.command_scenarios import Command, expire
from tests.crash.laboratory import PATIENCE, Bomb, Station
from tests.crash.ledger import Broken, Died, Ledger, look_at
from tests.crash.scenario import Scenario
from tests.crash.workloads import Work, writing
from tests.support.mounts import ALOFT
from tests.support.waiting import wait_until


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


class ServingAgain(Serving):
    """The account's last upload session is over."""

    def prepare(self) -> None:
        super().prepare()
        self.lab.end_uploads()


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
        if strays := names - {"lock", "objects", "master.key", "folders.json"}:
            raise Broken(f"left over: {sorted(strays)}")
        if list((self.data / "objects" / "incoming").iterdir()):
            raise Broken("a left-over of an upload is still there")
        with closing(sqlite3.connect(self.data / "aloft.db")) as sql:
            (epochs,) = sql.execute("SELECT count(*) FROM epochs").fetchone()
        if epochs != 1:
            raise Broken(f"the service has {epochs} epochs")
        return "started anew"
