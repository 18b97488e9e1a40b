"""A mount process dies, in different work, and is started again."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tests.crash.laboratory import PATIENCE, Bomb, Laboratory, Station
from tests.crash.ledger import Broken, Died, Ledger, look_at
from tests.crash.scenario import Scenario
from tests.crash.workloads import KIB, Work, bytes_for, writing
from tests.support.mounts import Device
from tests.support.waiting import wait_until


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


class Overdue(OnAlpha):
    """A content was uploaded, and its upload session is over before a commit speaks of it, so that it does not count any more."""

    def prepare(self) -> None:
        Work(self.lab.beta, self.case).begin()
        self.lab.beta.sync()
        first = self.lab.bomb("upload.completed")
        self.alpha.mount(first)
        work = Work(self.alpha, self.case, self.ledger)
        with suppress(Died):
            work.wait(work.folder.exists, "the folder")
            work.write("large", 3000 * KIB)
        wait_until(lambda: not self.alpha.is_alive, "the end of the upload", PATIENCE)
        self.alpha.wait_dead()
        self.lab.end_uploads()

    def work(self, work: Work) -> None: ...


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
