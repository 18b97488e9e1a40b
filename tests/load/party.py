"""One run from its start to its end: who takes part, when all are quiet, and what is compared then."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.load import figures, verdict
from tests.load.board import Board, State, Wish
from tests.load.crew import Crew
from tests.load.faults import Faults
from tests.load.machines import Device, Failed, Service, wait_until
from tests.load.summary import Summary
from tests.load.work import Task

HANG_SECONDS = 60.0
QUIET_SECONDS = 600.0
SYNC_SECONDS = 300.0
LOOK = 0.25
CONFIRM_EVERY = 3.0
SPARE_AT = 0.25
"""From this part of the run on, the first device and the service live on: their growth is looked at from half time to the end."""
CACHE_DISK = "200m"
ONE, TWO = "one", "two"
CACHE_MIB = {ONE: 64, TWO: 24}
WHERE = {"git": (0,), "sqlite": (0,), "fio": (0,), "stress-ng": (0,), "copies": (1,)}
"""Which devices have such a worker; the others have one each."""


@dataclass(frozen=True)
class Plan:
    seconds: float
    seed: int
    workers: tuple[str, ...]
    fault_every: float
    faults: str | None
    planted: str | None
    judge_growth: bool


class Party:
    """`run`, then `close` whatever happened. `wrong`: what was; nothing, if the run passed."""

    def __init__(self, folder: Path, plan: Plan, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._plan = plan
        self._say = say
        self.wrong: list[str] = []
        self.summary = Summary(plan.seed, plan.seconds, self.wrong)
        self._board = Board.create(folder / "board")
        self._service: Service | None = None
        self._devices: list[Device] = []
        self._crew = Crew(self._board)
        self._faults: Faults | None = None
        self._disks: list[Path] = []
        self._confirmed_at = 0.0

    def run(self) -> None:
        self._start_machines()
        self._start_crew()
        self._start_faults()
        started, half = time.monotonic(), self._plan.seconds / 2
        self._take_figures("start")
        self._watch(started + self._plan.seconds * SPARE_AT)
        assert self._faults is not None
        self._faults.spared |= {ONE, "service"}
        self._watch(started + half)
        with self._all_quiet():
            self._take_figures("half")
        self._watch(started + self._plan.seconds)
        with self._all_quiet():
            self._take_figures("end")
            self._judge_growth()
        self._end_crew()
        self._compare()

    def close(self) -> None:
        """Everything that was started ends, and is counted."""
        if self._faults is not None:
            with suppress(Failed):
                self._faults.stop()
            self.summary.faults = dict(self._faults.counts)
        self.summary.workers = self._crew.count()
        for device in self._devices:
            device.clear_away()
        self._crew.kill()
        if self._service is not None:
            self._service.close()
        for disk in self._disks:
            subprocess.run(["umount", "-l", str(disk)], check=False, capture_output=True)

    def say_stacks(self) -> None:
        """Where everybody is, when something hangs. The mounts do not survive that."""
        self.wrong += self._crew.stacks()
        for device in self._devices:
            device.dump_stacks()
        time.sleep(1.0)
        self.wrong += [f"log of {device.name}: {device.log[-6000:]}" for device in self._devices]

    # ------------------------------------------------------------------------------------------------------------- start

    def _start_machines(self) -> None:
        self._service = Service(self._folder)
        for number, name in enumerate((ONE, TWO)):
            device = self._add_device(number, name, self._plan.planted if number == 0 else None)
            device.enter(self._service.proxy.url, register=number == 0)
            device.mount()
        self._say(f"service {self._service.pid}, mounts {' '.join(str(device.pid) for device in self._devices)}")

    def _add_device(self, number: int, name: str, planted: str | None = None) -> Device:
        options = ["--cache-size", f"{CACHE_MIB.get(name, 1024)}M", "--upload-delay", "0.2"]
        device = Device(number, name, self._folder, self._board, options, planted)
        if os.geteuid() == 0:
            size = f"size={CACHE_DISK}" if name in CACHE_MIB else "size=2g"
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"{size},mode=700", "aloft-load", str(device.cache)], check=True)
            self._disks.append(device.cache)
        self._devices.append(device)
        return device

    def _start_crew(self) -> None:
        root = self._devices[0].point / "load"
        root.mkdir()
        scratch = self._folder / "scratch"
        scratch.mkdir()
        tasks = list(self._tasks(scratch))
        for folder in {task.folder.name for task in tasks}:
            (root / folder).mkdir()
        checksums = self._make_static(scratch / "static", root / "static", with_large="reader" in self._plan.workers)
        for task in tasks:
            task.scratch.mkdir()
            (task.scratch / "manifest.json").write_text(checksums)
        self._sync()
        there = self._devices[1].point / "load"
        wait_until(lambda: (there / "static" / "last").exists(), "the second device has it all", QUIET_SECONDS)
        for task in tasks:
            wait_until(lambda task=task: task.folder.is_dir(), f"{task.folder} is there", QUIET_SECONDS)  # type: ignore[misc]
            self._crew.add(task)

    def _tasks(self, scratch: Path) -> Iterator[Task]:
        slot = 0
        for kind in self._plan.workers:
            for number in WHERE.get(kind, (0, 1)):
                name = f"{kind}-{self._devices[number].name}"
                inside = {"shared": "shared", "reader": "static"}.get(kind, name)
                folder = self._devices[number].point / "load" / inside
                yield Task(name, kind, slot, number, folder, scratch / name, self._folder / "board", self._plan.seed)
                slot += 1

    def _make_static(self, originals: Path, folder: Path, *, with_large: bool) -> str:
        """Files that nobody changes, small and large; their checksums as JSON."""
        source = random.Random(self._plan.seed)
        originals.mkdir()
        folder.mkdir(exist_ok=True)
        checksums = {}
        sizes = [source.choice((700, 9_000, 60_000)) for _ in range(60)]
        if with_large:
            sizes += [source.randrange(200_000, 4_000_000) for _ in range(14)]
        for number, size in enumerate(sizes):
            content = source.randbytes(size)
            for place in (originals, folder):
                (place / f"static{number}").write_bytes(content)
            checksums[f"static{number}"] = hashlib.sha256(content).hexdigest()
        (folder / "last").write_bytes(b"")
        return json.dumps(checksums)

    def _start_faults(self) -> None:
        assert self._service is not None
        plan = self._plan
        only = None if plan.faults == "none" else plan.faults
        self._faults = Faults(self._service, self._devices, plan.seed, plan.fault_every, only)
        if plan.faults != "none":
            self._faults.start()

    # ------------------------------------------------------------------------------------------------------------- watch

    def _watch(self, until: float) -> None:
        while time.monotonic() < until:
            time.sleep(LOOK)
            self._look()

    def _look(self) -> None:
        """Raise at the first thing that is wrong."""
        self._crew.check(HANG_SECONDS)
        assert self._faults is not None
        if self._faults.failure is not None:
            raise self._faults.failure
        for device in self._devices:
            if device.has_ended():
                raise Failed(f"the mount process of {device.name} ended by itself: {device.log[-3000:]}")
        if time.monotonic() - self._confirmed_at > CONFIRM_EVERY:
            self._confirmed_at = time.monotonic()
            self._confirm_deletions()

    def _confirm_deletions(self) -> None:
        """Stressors remove files by the thousand, which the breaker holds back until a person confirms."""
        for device in self._devices:
            before = self._board.device(device.number)
            if not before.up:
                continue
            try:
                if device.ask("status")["drive"]["breakers"]:
                    device.ask("confirm-deletes")
                    self.summary.confirmed += 1
            except Failed:
                if self._board.device(device.number).generation == before.generation:
                    raise

    @contextmanager
    def _all_quiet(self) -> Iterator[None]:
        """No faults, no work, and everything on the service."""
        assert self._faults is not None
        with self._faults.paused():
            self._say("quiet: waiting until all is closed, compared and synced")
            self._board.wish = Wish.BE_QUIET
            self._wait_for(State.QUIET)
            self._sync()
            for device in self._devices:
                device.ask("evict", paths=[str(device.point)])
            end = time.monotonic() + min(45.0, self._plan.seconds / 20)
            while time.monotonic() < end:
                time.sleep(LOOK)
                self._look()
            yield
            self._board.wish = Wish.WORK
            self._say("going on" if self._crew.is_working() else "done")

    def _wait_for(self, state: State) -> None:
        end = time.monotonic() + QUIET_SECONDS
        while not self._crew.are_all(state):
            self._look()
            if time.monotonic() > end:
                raise Failed(f"not {state.name} within {QUIET_SECONDS:.0f} s: {self._crew.describe()}")
            time.sleep(LOOK)

    def _sync(self) -> None:
        """Both, twice: what the one brings the other may have to answer."""
        for device in [*self._devices, *self._devices]:
            end = time.monotonic() + SYNC_SECONDS
            while True:
                self._confirm_deletions()
                report = device.ask("sync", timeout=20)
                if report["complete"]:
                    break
                if time.monotonic() > end:
                    raise Failed(
                        f"{device.name} is not synced after {SYNC_SECONDS:.0f} s: {report}; {device.ask('status')['drive']}"
                    )

    # ----------------------------------------------------------------------------------------------------------- figures

    def _take_figures(self, when: str) -> None:
        assert self._service is not None
        taken: figures.Figures = {}
        for device in self._devices:
            taken |= figures.prefixed(device.name, figures.of_process(device.pid))
            taken[f"{device.name} tasks"] = device.ask("status")["mount"]["tasks"]
            parts = device.home.parts(device.cache)
            taken[f"{device.name} replica"] = figures.size_of(parts.database)
            taken[f"{device.name} wal"] = figures.size_of(Path(f"{parts.database}-wal"))
            taken[f"{device.name} cache"], taken[f"{device.name} cache files"] = figures.of_folder(device.cache)
            taken[f"{device.name} drafts"], taken[f"{device.name} draft files"] = figures.of_folder(parts.drafts)
            taken[f"{device.name} home files"] = figures.of_folder(device.home.path)[1] - taken[f"{device.name} draft files"]
        taken |= figures.prefixed("service", figures.of_process(self._service.pid))
        taken["service data"], taken["service files"] = figures.of_folder(self._service.data)
        self.summary.figures[when] = taken
        self._say(f"{when}: " + ", ".join(f"{name} {value:,}" for name, value in taken.items()))

    def _judge_growth(self) -> None:
        limits = {f"{name} cache": size * figures.MIB for name, size in CACHE_MIB.items()}
        self.wrong += figures.beyond(self.summary.figures["end"], limits)
        if self._plan.judge_growth:
            grown = figures.growth(self.summary.figures["half"], self.summary.figures["end"])
            self.wrong += [line for line in grown if not line.startswith((f"{TWO} rss", f"{TWO} pss"))]

    # --------------------------------------------------------------------------------------------------------------- end

    def _end_crew(self) -> None:
        assert self._faults is not None
        self._faults.stop()
        self._board.wish = Wish.STOP
        self._wait_for(State.ENDED)
        self._crew.wait()

    def _compare(self) -> None:
        """A third device, new and empty, shows what the service holds."""
        assert self._service is not None
        self._sync()
        self._say("comparing both devices and the service")
        third = self._add_device(2, "three")
        third.enter(self._service.proxy.url, register=False)
        third.mount()
        wait_until(lambda: third.ask("status")["drive"]["listing"]["finished"], "the third device lists all", SYNC_SECONDS)
        self._say("the third device lists all")
        self._compare_trees([device.point for device in self._devices])
        self._say(f"{self.summary.entries:,} entries compared")
        ledgers = [path / "ledger" for path in sorted((self._folder / "scratch").glob("shared-*"))]
        if ledgers:
            self.wrong += verdict.of_shared(third.point / "load" / "shared", ledgers)
        self._check()

    def _compare_trees(self, points: Sequence[Path]) -> None:
        end = time.monotonic() + 60
        while True:
            trees = [verdict.describe(point) for point in points]
            names = [device.name for device in self._devices]
            wrong = [
                line
                for name, tree in zip(names[1:], trees[1:], strict=True)
                for line in verdict.differences(names[0], name, trees[0], tree)
            ]
            if not wrong or time.monotonic() > end:
                break
            time.sleep(1)
        self.wrong += wrong
        self.summary.entries = len(trees[0])

    def _check(self) -> None:
        assert self._service is not None
        for device in self._devices:
            if not device.ask("fsck")["clean"]:
                self.wrong.append(f"fsck of {device.name}: {device.ask('fsck')}")
            device.umount()
            done = device.run("fsck", "--json", seconds=300)
            if done.returncode != 0:
                self.wrong.append(f"fsck of {device.name}, unmounted: {done.stdout}{done.stderr}")
            self.wrong += [f"the log of {device.name} has a traceback: {device.log[-4000:]}"] * ("Traceback" in device.log)
        if self._service.stop() != 0:
            self.wrong.append("the service did not end well")
        if "Traceback" in self._service.log:
            self.wrong.append(f"the service's log has a traceback: …{self._service.log[-4000:]}")
        self.wrong += verdict.of_service(self._service.data)
