"""What is done to a whole service, which therefore is one of the case's own: it is restored, or its tombstones are collected."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

from tests.crash.laboratory import PATIENCE, Bomb, Station, check_data
from tests.crash.ledger import Broken, Content, Ledger, look_at
from tests.crash.scenario import Scenario
from tests.crash.workloads import KIB, Work
from tests.support.mounts import Device, Service
from tests.support.service import REPOSITORY
from tests.support.waiting import wait_until


class Apart(Scenario):
    """A service with two devices, of which `first` writes. Whoever runs the service works beside it (`operate`)."""

    def prepare(self) -> None:
        folder = self.lab.folder / f"apart {self.case}"
        folder.mkdir()
        self.service = Service(folder)
        self.data = folder / "service"
        self.first, self.second = (
            Station(Device(self.service, "somebody@example.org", folder, name)) for name in ("first", "second")
        )
        for part in (self.service.kill, self.first.finish, self.second.finish):
            self.lab.at_the_end.callback(part)
        self.service.start()
        self.first.device.register()
        self.second.device.login()
        self.ledger = Ledger()
        self.first.mount()
        self.work = Work(self.first, self.case, self.ledger)
        self.work.begin()

    def operate(self, what: str, bomb: Bomb | None = None) -> int:
        command = [sys.executable, "-m", "tests.crash.operator", what, str(self.data)]
        environment = os.environ | ({} if bomb is None else bomb.environment())
        return subprocess.run(command, cwd=REPOSITORY, env=environment, timeout=PATIENCE, check=False).returncode

    def must_operate(self, what: str) -> None:
        if (code := self.operate(what)) != 0:
            raise Broken(f"{what} ended with {code} afterwards")

    def dies_operating(self, what: str, bomb: Bomb) -> None:
        if (code := self.operate(what, bomb)) != -9:
            raise Broken(f"{what} ended with {code}, and did not pass {bomb.point}")

    def end(self) -> None:
        """Everything is in order on both devices and on the service; then it is closed."""
        for station in (self.first, self.second):
            station.check()
            station.umount()
        self.service.stop()
        check_data(self.data)

    @staticmethod
    def shows(station: Station, case: str) -> dict[str, Content] | None:
        try:
            return look_at(station.point / case)
        except FileNotFoundError:  # it changes while we look, or has not come
            return None


class Collecting(Apart):
    """Tombstones are forgotten while a device is away that has not heard of them."""

    def prepare(self) -> None:
        super().prepare()
        for name in ("kept", "removed", "moved"):
            self.work.write(name, 20 * KIB)
        self.work.sync()
        self.second.mount()
        self._wait_equal()
        self.second.umount()
        self.work.remove("removed")
        self.work.rename("moved", "there")
        self.work.sync()

    def _wait_equal(self) -> None:
        wanted = look_at(self.first.point / self.case)
        wait_until(lambda: self.shows(self.second, self.case) == wanted, "the same files on both devices", PATIENCE)

    def run(self, bomb: Bomb) -> None:
        self.dies_operating("collect", bomb)

    def check(self) -> str:
        self.must_operate("collect")
        with closing(sqlite3.connect(self.data / "aloft.db", timeout=PATIENCE)) as sql:
            (left,) = sql.execute("SELECT count(*) FROM entries WHERE inode IS NULL").fetchone()
        if left:
            raise Broken(f"{left} tombstones are still there")
        self.second.mount()
        self._wait_equal()
        self.work.write("since", 1000)
        self.work.sync()
        self._wait_equal()
        self.ledger.check(look_at(self.first.point / self.case))
        self.end()
        return "collected at the next run; a device that was away lists anew, and has the same files"


class Sweeping(Apart):
    """Versions have expired, an account was closed long ago: what nothing names goes, without a grace."""

    def prepare(self) -> None:
        super().prepare()
        self.work.write("kept", 300 * KIB)
        self.work.write("edited", 300 * KIB)
        self.work.sync()
        self.work.replace("edited", 200 * KIB)
        self.work.sync()
        Device(self.service, "closed@example.org", self.data.parent, "closed").register()
        with closing(sqlite3.connect(self.data / "aloft.db", timeout=PATIENCE)) as sql, sql:
            sql.execute(
                "DELETE FROM versions WHERE NOT EXISTS (SELECT 1 FROM inodes i JOIN entries e ON e.inode = i.id "
                "WHERE i.id = versions.inode AND i.content_rev = versions.content_rev)"
            )
            sql.execute(
                "DELETE FROM inodes WHERE id <> space_id AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.inode = inodes.id)"
            )
            sql.execute("UPDATE accounts SET closed_ns = 1 WHERE email LIKE 'closed%'")

    def run(self, bomb: Bomb) -> None:
        self.dies_operating("sweep", bomb)

    def check(self) -> str:
        self.must_operate("sweep")
        with closing(sqlite3.connect(self.data / "aloft.db", timeout=PATIENCE)) as sql:
            left = sql.execute("SELECT (SELECT count(*) FROM dead_objects), (SELECT max(unswept) FROM spaces)").fetchone()
            known = {row[0].hex() for row in sql.execute("SELECT object_id FROM objects")}
        if left != (0, 0):
            raise Broken(f"{left[0]} dead objects are left, and unswept is {left[1]}")
        stored = {path.name.partition(".")[0] for path in (self.data / "objects").rglob("*.[0-9]*")}
        if stored != known:
            raise Broken(f"the store has {sorted(stored - known)} besides, and lacks {sorted(known - stored)}")
        self.second.mount()
        self.work.write("since", 200 * KIB)
        self.work.sync()
        wanted = look_at(self.first.point / self.case)
        wait_until(lambda: self.shows(self.second, self.case) == wanted, "the same files on both devices", PATIENCE)
        self.ledger.check(wanted)
        self.end()
        return "removed at the next run; every file is whole on a device that fetches it"


class Storing(Apart):
    """Files are on the service; whoever runs it does something to how they are stored. All of them stay, on every device."""

    def prepare(self) -> None:
        super().prepare()
        self.work.write("large", 3000 * KIB)
        for number in range(5):
            self.work.write(f"file {number}", 100 * KIB + number)
        self.work.sync()

    def _all_is_there(self) -> None:
        self.service.stop()
        self.service.start()
        self.work.write("since", 200 * KIB)
        self.work.sync()
        self.second.mount()
        wanted = look_at(self.first.point / self.case)
        wait_until(lambda: self.shows(self.second, self.case) == wanted, "the same files on both devices", PATIENCE)
        self.ledger.check(wanted)
        self.end()


class Rewrapping(Storing):
    """A new master key, and the end of the former one."""

    def run(self, bomb: Bomb) -> None:
        self.dies_operating("rewrap", bomb)

    def check(self) -> str:
        self.must_operate("rewrap")
        keys = json.loads((self.data / "master.key").read_bytes())["keys"]
        needed = json.loads((self.data / "objects" / "about.json").read_bytes())["master_keys"]
        if [key["id"] for key in keys] != needed or len(needed) != 1:
            raise Broken(f"there are {len(keys)} master keys, and the objects are said to need {needed}")
        self._all_is_there()
        return "rewrapped at the next run; every object opens, and the former key is gone"


class Spreading(Storing):
    """Copies are put into a second folder."""

    def run(self, bomb: Bomb) -> None:
        self.dies_operating("spread", bomb)

    def check(self) -> str:
        self.must_operate("spread")
        known = self.data / "folders.json"  # the service does not use the second one
        known.write_text(json.dumps({path: id_ for path, id_ in json.loads(known.read_bytes()).items() if "more" not in path}))
        first, more = (
            {path.name for path in (self.data / name).rglob("*.[0-9]*") if path.stat().st_size} for name in ("objects", "more")
        )
        if not first or first != more:
            raise Broken(f"one folder lacks {sorted(more - first)}, the other {sorted(first - more)}")
        self._all_is_there()
        return "copied at the next run; every object is in both folders"


class Ended(Apart):
    """A folder that somebody else shared with this account ends while it holds what was not sent."""

    def prepare(self) -> None:
        super().prepare()
        self.owner = Device(self.service, "owner@example.org", self.data.parent, "owner")
        self.owner.register()
        self.owner.aloft("mkdir", f"/shared {self.case}")
        for name in ("kept", "edited"):
            (self.data.parent / name).write_bytes(name.encode() * 1000)
            self.owner.aloft("put", str(self.data.parent / name), f"/shared {self.case}/{name}")
        folder = f"/shared {self.case}"
        self.owner.aloft("share", folder, self.first.device.email)
        self.first.device.aloft("invitations", "accept")
        self.shared = self.first.point / folder[1:]
        wait_until(lambda: (self.shared / "edited").exists(), "the shared folder", PATIENCE)
        self.first.device.aloft("pause")
        with (self.shared / "edited").open("r+b") as file:
            file.write(b"EDITED" * 1000)  # all of it: what was there before can be read no more
        (self.shared / "new").write_bytes(b"new" * 30_000)
        self.first.kill()
        self.owner.aloft("unshare", folder, self.first.device.email)

    def run(self, bomb: Bomb) -> None:
        self.first.mount(bomb)
        if self.first.is_alive:
            self.first.device.run("resume")  # of which it may die before it answers
        wait_until(lambda: not self.first.is_alive, f"the passing of {bomb.point}", PATIENCE)
        self.first.wait_dead()

    def check(self) -> str:
        self.first.mount()
        self.first.device.run("resume")
        wait_until(lambda: not self.shared.exists(), "the end of the shared folder", PATIENCE)
        self.work.sync()
        found = {path.name: path.read_bytes() for path in (self.first.point / "Recovered files").iterdir()}
        wanted = {"edited": b"EDITED" * 1000, "new": b"new" * 30_000}
        if found != wanted:
            raise Broken(f"recovered files are {sorted(found)}")
        for name in found:
            (self.first.point / "Recovered files" / name).unlink()
        (self.first.point / "Recovered files").rmdir()
        self.work.sync()
        self.second.mount()
        wait_until(lambda: sorted(os.listdir(self.second.point)) == [self.case], "the same on the other device", PATIENCE)
        self.end()
        return "both files are recovered, once each; the folder is gone"


class Restored(Apart):
    """The service was put back to a copy, after a device had sent more and removed a file. A person says that it is to go on."""

    def prepare(self) -> None:
        super().prepare()
        self.work.write("kept", 20 * KIB)
        self.work.write("edited", 300 * KIB)
        self.work.write("removed", 1000)
        self.work.sync()
        copy = self._stopped_copy()
        self.service.start()
        self.work.overwrite("edited", 50 * KIB, 5000)
        self.work.write("new", 400 * KIB)
        self.work.write("small", 1000)
        returns = self.ledger.state["removed"]
        self.work.remove("removed")
        self.work.sync()
        self.first.umount()
        self.service.stop()
        shutil.rmtree(self.data)
        copy.rename(self.data)
        self.wanted = {**self.ledger.state, "removed": returns}

    def _stopped_copy(self) -> Path:
        self.service.stop()
        copy = self.data.with_name("copy")
        shutil.copytree(self.data, copy)
        return copy

    def is_stopped(self) -> bool:
        return str(self.first.ask("status")["drive"]["connection"]) == "stopped"

    def goes_on(self) -> bool:
        """As a person would: `aloft reconnect` whenever the drive says that it is stopped, until all is well."""
        if self.is_stopped():
            self.first.ask("reconnect", go_on=True)
        self.first.ask("sync", timeout=PATIENCE)
        return self.shows(self.first, self.case) == self.shows(self.second, self.case) == self.wanted

    def check(self) -> str:
        self.first.mount()
        self.second.mount()
        wait_until(self.goes_on, "all files on the service and on both devices", PATIENCE)
        self.end()
        return "what the service had lost is on it again, once; nothing was deleted"


class Reconnecting(Restored):
    def run(self, bomb: Bomb) -> None:
        self.must_operate("restore")
        self.service.start()
        self.first.mount(bomb)
        wait_until(self.is_stopped, "the end of the exchange", PATIENCE)
        with suppress(OSError):
            self.first.ask("reconnect", go_on=True)
        wait_until(lambda: not self.first.is_alive, f"the passing of {bomb.point}", PATIENCE)
        self.first.wait_dead()


class BeginningAnEpoch(Restored):
    def run(self, bomb: Bomb) -> None:
        self.dies_operating("restore", bomb)

    def check(self) -> str:
        self.must_operate("restore")
        self.service.start()
        return super().check()
