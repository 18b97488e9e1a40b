"""What happens in one life of a few devices and their service, as data; and how a seed becomes it.

A step is (what, device, three integers modulo what exists), so leaving steps out gives a smaller scenario that means something.
Most lives begin with a tree that everybody has, because from an empty one conflicts are rare; names are few, so that kinds
collide. Then come phases: each device works on its own with one family of operations, connected or not, and faults meet its
requests. A fifth of the lives have one device on which people do anything: nothing that it did may ever change there.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

OPERATIONS_MIN = 200
FAULTS_MIN = 10

ALL = {
    "create": 5,
    "mkdir": 3,
    "unpack": 1,
    "symlink": 1,
    "overwrite": 4,
    "rewrite": 3,
    "install": 2,
    "append": 3,
    "patch": 3,
    "truncate": 2,
    "save_by_rename": 4,
    "rename": 5,
    "move": 3,
    "rename_over": 2,
    "exchange": 2,
    "link": 2,
    "unlink": 4,
    "unlink_one": 2,
    "rmdir": 1,
    "rmtree": 1,
    "chmod": 1,
    "utime": 1,
    "set_xattr": 1,
    "open_file": 3,
    "create_open": 2,
    "write_open": 6,
    "fsync_open": 2,
    "close_open": 3,
    "read": 2,
    "read_open": 1,
    "sync": 1,
    "pin": 1,
    "evict": 1,
}
TREE = {"mkdir": 4, "rename": 6, "move": 6, "exchange": 3, "rmdir": 2, "rmtree": 1, "create": 2, "unpack": 2, "unlink": 1}
DEEP = {"mkdir_deep": 4, "exchange_folders": 5, "turn_over": 2, "move": 4, "rename": 3, "create": 2, "rmdir": 1, "overwrite": 1}
FILES = {
    "overwrite": 4,
    "rewrite": 4,
    "install": 2,
    "append": 4,
    "patch": 4,
    "truncate": 2,
    "save_by_rename": 4,
    "rename": 2,
    "rename_over": 2,
    "link": 2,
    "unlink": 3,
    "unlink_one": 3,
    "create": 3,
    "chmod": 1,
    "utime": 1,
    "open_file": 3,
    "write_open": 7,
    "fsync_open": 2,
    "close_open": 3,
    "read": 2,
    "evict": 1,
}
SHARED = {"create": 6, "mkdir": 4, "link": 1, "symlink": 1, "mkdir_deep": 2}

FAULTS = {"fault": 14, "cable": 3, "crash": 4, "service": 2, "collect": 2}
RESTORED_HOMES = 0.15
"""In so many lives the home of a device is once put back to a backup,"""
RESTORED_SERVICES = 0.1
"""and in so many the service."""


@dataclass(frozen=True, slots=True)
class Step:
    what: str
    device: int = 0
    a: int = 0
    b: int = 0
    c: int = 0

    def __str__(self) -> str:
        return f"{self.what} {self.device} {self.a} {self.b} {self.c}"


@dataclass(frozen=True, slots=True)
class Scenario:
    seed: int
    devices: int
    single: bool
    """Only on the first device people do anything."""
    healing: int
    """Which of the three orders."""
    page_limit: int | None
    latency: float
    skews: tuple[int, ...]
    """How wrong each device's clock is, in seconds."""
    steps: tuple[Step, ...] = field(default=(), repr=False)

    def without(self, start: int, end: int) -> Scenario:
        return replace(self, steps=self.steps[:start] + self.steps[end:])


def generate(seed: int) -> Scenario:
    return _Generator(seed).scenario()


class _Generator:
    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._chance = chance = random.Random(f"scenario {seed}")
        self._devices = chance.choice((2, 2, 2, 2, 3, 3, 3, 4, 5))
        self._single = chance.random() < 0.2
        self._steps: list[Step] = []
        self._operations = self._faults = 0

    def scenario(self) -> Scenario:
        chance = self._chance
        self._share()
        restored = [
            *(["home"] if chance.random() < RESTORED_HOMES else []),
            *(["service"] if chance.random() < RESTORED_SERVICES else []),
        ]
        device = chance.randrange(self._devices)
        phase = 0
        while self._operations < OPERATIONS_MIN:
            phase += 1
            for what in restored:
                if phase == 2:
                    self._add(f"back up {what}", device)
                if phase == 4:
                    self._add(f"restore {what}", device)
                    self._wait(4.0)
                    self._add("reconnect", device)
            self._phase()
        while self._faults < FAULTS_MIN + 10:
            self._fault(chance.randrange(self._devices))
            self._wait(3.0)
        return Scenario(
            seed=self._seed,
            devices=self._devices,
            single=self._single,
            healing=chance.randrange(3),
            page_limit=chance.choice((None, None, 3, 20)),
            latency=chance.choice((0.0, 0.05, 0.4)),
            skews=tuple(chance.choice((0, 0, 0, 7200, -26_000, 40)) for _ in range(self._devices)),
            steps=tuple(self._steps),
        )

    def _add(self, what: str, device: int = 0) -> None:
        integers = [self._chance.randrange(1_000_000) for _ in range(3)]
        self._steps.append(Step(what, device, *integers))

    def _wait(self, seconds: float) -> None:
        self._steps.append(Step("wait", 0, int(self._chance.random() * seconds * 1000)))

    def _share(self) -> None:
        """A tree that everybody has."""
        if self._chance.random() < 0.9:
            for _ in range(self._chance.choice((6, 10, 16))):
                self._operation(SHARED, 0)
            self._steps.append(Step("settle"))

    def _phase(self) -> None:
        """Everybody works, some of them cut off; then the network has its day."""
        chance = self._chance
        active = [0] if self._single else list(range(self._devices))
        offline = [device for device in active if chance.random() < 0.6]
        for device in offline:
            self._add("offline" if chance.random() < 0.3 else "unplug", device)
        work = []
        for device in active:
            family = chance.choice((ALL, ALL, FILES, FILES, TREE, DEEP))
            work += [(device, family)] * chance.choice((5, 10, 20, 30) if self._single else (3, 6, 10, 16))
        if chance.random() < 0.7:
            chance.shuffle(work)
        calm = chance.random() < 0.5
        for device, family in work:
            self._operation(family, device)
            if chance.random() < 0.15:
                self._wait(0.6)
            if not calm and chance.random() < 0.12:
                self._fault(chance.randrange(self._devices))
        for device in offline:
            if chance.random() < 0.5:
                self._fault(device)
            self._add("connect", device)
        for _ in range(chance.choice((0, 1, 3))):
            self._fault(chance.randrange(self._devices))
            self._wait(2.0)
        self._wait(chance.choice((0.2, 2.0, 8.0)))

    def _operation(self, family: dict[str, int], device: int) -> None:
        self._add(_weighted(self._chance, family), device)
        self._operations += 1

    def _fault(self, device: int) -> None:
        self._add(_weighted(self._chance, FAULTS), device)
        self._faults += 1


def _weighted(chance: random.Random, weights: dict[str, int]) -> str:
    return chance.choices(list(weights), list(weights.values()))[0]
