"""A command of the account dies, and is given again."""

from __future__ import annotations

import json
import os

from tests.crash.laboratory import PATIENCE, Bomb, Station
from tests.crash.ledger import Broken
from tests.crash.scenario import Scenario
from tests.support.mounts import Device
from tests.support.waiting import wait_until


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
