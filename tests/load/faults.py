"""What goes wrong during a run, by a seeded schedule: one fault at a time, each with its end.

A fault tells the devices that it disturbs before it begins, and when it is over. Mounts and the service that are `spared` are not
killed: their memory is measured over a long time.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.load.machines import Device, Service
from tests.support.fault_proxy import (
    Answer,
    Cut,
    Fault,
    Kind,
    Reset,
    Rewrite,
    Stall,
    Trickle,
    Where,
    flip,
)

ODD = 7919
"""Which byte of a body is wrong, modulo its length."""


class Faults:
    """`run` in a thread until `stop`; `pause` heals everything and returns when it is healed. `failure`: what went wrong with the
    faults themselves, such as a mount that did not come back."""

    def __init__(self, service: Service, devices: Sequence[Device], seed: int, every_seconds: float, kinds: str | None) -> None:
        self._service = service
        self._devices = devices
        self._random = random.Random(f"{seed} faults")
        self._every = every_seconds
        self._only = kinds
        self._stopping = threading.Event()
        self._calm = threading.Lock()
        self._in_a_hurry = threading.Event()
        self.spared: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.log: list[tuple[float, str]] = []
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="faults")

    def start(self) -> None:
        self._thread.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, all is well."""
        self._in_a_hurry.set()
        with self._calm:
            self._in_a_hurry.clear()
            yield

    def stop(self) -> None:
        self._stopping.set()
        self._in_a_hurry.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._every * self._random.uniform(0.3, 1.7)):
                with self._calm:
                    if not self._stopping.is_set():
                        self._one()
        except BaseException as error:  # noqa: BLE001 - the run fails with it
            self.failure = error

    def _one(self) -> None:
        """Nothing, if only kinds were wanted that are not possible any more."""
        kinds = {name: weight for name, (weight, _) in self._kinds().items() if self._only is None or self._only in name}
        if not kinds:
            return
        name = self._random.choices(list(kinds), list(kinds.values()))[0]
        self.log.append((time.monotonic(), name))
        self._kinds()[name][1]()
        self.counts[name] += 1

    def _kinds(self) -> dict[str, tuple[int, Callable[[], None]]]:
        store = (Kind.PUT, Kind.GET)
        noise = Rewrite(flip(ODD))
        found: dict[str, tuple[int, Callable[[], None]]] = {
            "offline": (4, self._offline),
            "pause": (3, self._pause),
            "evict": (3, self._evict),
            "damage cached chunks": (3, self._damage),
            "service hangs": (3, self._freeze_service),
            "service away": (2, lambda: self._door(self._service.proxy.set_service_away)),
            "store away": (2, lambda: self._door(self._service.proxy.set_store_away)),
            "connections reset": (2, self._reset_all),
            "503 for everything": (2, self._inject(Answer(503, {"Retry-After": "2"}), *Kind)),
            "500 from the store": (2, self._inject(Answer(500), *store)),
            "403 from the store": (1, self._inject(Answer(403), *store)),
            "answers lost": (3, self._inject(Reset(Where.ANSWER), *Kind)),
            "requests cut": (2, self._inject(Reset(Where.REQUEST_BODY, 1000), *Kind)),
            "bodies cut": (2, self._inject(Cut(Where.ANSWER_BODY, 500), *Kind)),
            "corrupt bodies": (3, self._inject(noise, Kind.GET)),
            "stalled answers": (3, self._inject(Stall(Where.ANSWER), *Kind)),
            "stalled bodies": (2, self._inject(Stall(Where.ANSWER_BODY, 700), *Kind)),
            "slow link": (2, self._inject(Trickle(100_000), *store)),
        }
        if "service" not in self.spared:
            found["service killed"] = (6, self._kill_service)
        for device in self._devices:
            if device.name not in self.spared:
                found[f"mount {device.name} killed"] = (5, lambda device=device: self._kill(device))  # type: ignore[misc]
                found[f"mount {device.name} ended"] = (3, lambda device=device: self._end(device))  # type: ignore[misc]
        if os.geteuid() == 0:
            found["cache disk full"] = (2, self._fill)
        return found

    # ---------------------------------------------------------------------------------------------------------- the kinds

    def _kill_service(self) -> None:
        with self._disturbing(*self._devices):
            self._service.kill()
            self._hold(0, 6)
            self._service.start()

    def _freeze_service(self) -> None:
        with self._disturbing(*self._devices):
            os.kill(self._service.pid, signal.SIGSTOP)
            try:
                self._hold(2, 20)
            finally:
                os.kill(self._service.pid, signal.SIGCONT)

    def _kill(self, device: Device) -> None:
        device.kill()
        self._hold(0, 3)
        device.mount()

    def _end(self, device: Device) -> None:
        device.end()
        self._hold(0, 3)
        device.mount()

    def _offline(self) -> None:
        device = self._some_device()
        with self._disturbing(device):
            device.ask("offline")
            self._hold(3, 20)
            device.ask("online")

    def _pause(self) -> None:
        device = self._some_device()
        device.ask("pause")
        self._hold(3, 15)
        device.ask("resume")

    def _evict(self) -> None:
        device = self._some_device()
        device.ask("evict", paths=[str(device.point)])

    def _damage(self) -> None:
        """A byte of some chunks in the cache is another one: in new files, as open ones were verified when they were opened."""
        device = self._some_device()
        files = [path for path in device.cache.rglob("*.val") if path.is_file()]
        for path in self._random.sample(files, min(10, len(files))):
            damage(path, self._random.random())

    def _fill(self) -> None:
        device = self._some_device()
        ballast = device.cache / "ballast"
        with self._disturbing(device):
            try:
                subprocess.run(
                    ["dd", "if=/dev/zero", f"of={ballast}", "bs=1M", "count=4096"], check=False, capture_output=True, timeout=120
                )
                self._hold(3, 15)
            finally:
                ballast.unlink(missing_ok=True)

    def _door(self, set_away: Callable[[bool], None]) -> None:
        with self._disturbing(*self._devices):
            set_away(True)
            self._hold(1, 15)
            set_away(False)

    def _reset_all(self) -> None:
        with self._disturbing(*self._devices):
            for _ in range(self._random.randrange(1, 8)):
                self._service.proxy.reset_connections()
                self._hold(0, 1)

    def _inject(self, fault: Fault, *kinds: Kind) -> Callable[[], None]:
        def inject() -> None:
            some = kinds if self._random.random() < 0.5 else (self._random.choice(kinds),)
            with self._disturbing(*self._devices), self._service.proxy.inject(fault, *some, skip=self._random.randrange(3)):
                self._hold(2, 20)

        return inject

    # ------------------------------------------------------------------------------------------------------------- parts

    def _some_device(self) -> Device:
        return self._random.choice(self._devices)

    @contextmanager
    def _disturbing(self, *devices: Device) -> Iterator[None]:
        for device in devices:
            device.disturb()
        try:
            yield
        finally:
            for device in devices:
                device.calm()

    def _hold(self, least: float, most: float) -> None:
        self._in_a_hurry.wait(self._random.uniform(least, most))


def damage(path: Path, where: float) -> None:
    """A copy with another byte takes the file's place."""
    try:
        content = bytearray(path.read_bytes())
    except FileNotFoundError:
        return
    if content:
        content[int(where * len(content))] ^= 1
        new = path.with_suffix(".new")
        new.write_bytes(content)
        new.rename(path)
