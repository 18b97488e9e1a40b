"""Real mounts on a network that can fall silent. The devices, their commands and what is checked after each test are those of
`tests/mount`; between them and the service stand two gates, one for calls and one for the bytes of objects."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.mount.conftest import Device, fuse
from tests.stalls.gate import Gate
from tests.stalls.watch import Program, stacks
from tests.support.service import RunningService, start_service

__all__ = ["fuse"]

READABLE = 300_000


@dataclass
class Network:
    """The service as devices see it: `url` is where they log in."""

    service: RunningService
    calls: Gate
    objects: Gate
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.calls.url

    def silence(self) -> None:
        self.calls.silence()
        self.objects.silence()

    def answer(self) -> None:
        self.calls.answer()
        self.objects.answer()


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    folder = Path(tempfile.mkdtemp(prefix="aloft-stalls-service-"))
    calls, objects = Gate(), Gate()
    with start_service(folder / "data", public_url=objects.url) as service:
        calls.target = objects.target = service.port
        yield Network(service, calls, objects)
        calls.close()
        objects.close()
    shutil.rmtree(folder)


class Devices:
    def __init__(self, folder: Path, network: Network) -> None:
        self._folder, self._network = folder, network
        self._email = f"{uuid.uuid4()}@example.org"
        self.made: list[Device] = []

    def add(self) -> Device:
        """Logged in, not mounted. All devices of a test belong to one account."""
        device = Device(self._network, self._email, self._folder, f"device{len(self.made) + 1}")  # type: ignore[arg-type]
        if self.made:
            device.login()
        else:
            device.register()
        self.made.append(device)
        return device


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, and outside of pytest's own, which it would clean through mounts."""
    folder = Path(tempfile.mkdtemp(prefix="aloft-stalls-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def devices(folder: Path, network: Network) -> Iterator[Devices]:
    devices = Devices(folder, network)
    yield devices
    network.answer()
    wrong = [line for device in devices.made for line in device.finish()]
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def programs() -> Iterator[Callable[[Device], Program]]:
    """Makes programs that use a device's folder. They are gone before the device is."""
    made: list[Program] = []

    def start(device: Device) -> Program:
        pid = int((device.home / "run" / "mount.lock").read_text().split("\n")[0])
        made.append(Program(lambda: stacks(pid, device.log)))
        return made[-1]

    yield start
    for program in made:
        program.close()


def write_readable(device: Device, program: Program, count: int) -> list[Path]:
    """Files that the device knows and does not have: on the service, out of its cache, and out of the kernel's."""
    paths = [device.point / f"away {number:03}" for number in range(count)]
    for path in paths:
        path.write_bytes(os.urandom(READABLE))
    device.aloft("sync")
    device.aloft("evict", *map(str, paths))
    program.call("forget_pages", [str(path) for path in paths])
    return paths
