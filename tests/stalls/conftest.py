"""Real mounts whose network can fall silent, programs that use them under a watchdog, and the devices of `tests.support`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.stalls.watch import Program, connection_of, stacks
from tests.support.fault_proxy import FaultProxy, Injected, Kind, Stall, Trickle, Where
from tests.support.mount_fixtures import folder, fuse
from tests.support.mounts import Device, Devices, Service

__all__ = ["devices", "folder", "fuse", "programs", "proxy", "service"]

READABLE = 300_000
"""Bytes of a file that has to be fetched."""
FOR_EVER = "600"
"""Seconds: an I/O budget that no test sees the end of, so that what ends, ended for another reason."""

Programs = Callable[[Device], Program]


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultProxy]:
    with FaultProxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def service(proxy: FaultProxy) -> Iterator[Service]:
    folder = Path(tempfile.mkdtemp(prefix="aloft-stalls-service-"))
    service = Service(folder, options=["--public-url", proxy.store_url], address=proxy.url)
    service.start()
    proxy.upstream = service.port
    yield service
    proxy.clear()
    service.stop()
    shutil.rmtree(folder)


@pytest.fixture
def devices(folder: Path, service: Service, proxy: FaultProxy) -> Iterator[Devices]:
    devices = Devices(folder, service)
    yield devices
    proxy.clear()
    for device in devices.made:  # whatever went wrong: nothing may stay behind that cannot be killed
        with suppress(AssertionError):
            connection_of(device.point).abort()
    wrong = devices.finish()
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def programs(devices: Devices) -> Iterator[Programs]:
    """Makes programs that use a device's folder. They are told to end before the device is looked at."""
    made: list[Program] = []

    def start(device: Device) -> Program:
        pid = int((device.home / "run" / "mount.lock").read_text().split("\n")[0])
        made.append(Program(lambda: stacks(pid, device.log), device.prefix))
        return made[-1]

    yield start
    for program in made:
        program.end()


def silence(proxy: FaultProxy, *kinds: Kind) -> Injected:
    """From now on nothing answers: connections are accepted, requests are taken, and that is all."""
    return proxy.inject(Stall(Where.REQUEST_BODY), *kinds)


def dribble(proxy: FaultProxy) -> Injected:
    """Bytes come down, but so few that readers wait for minutes, and that no timeout of the transport ends their waiting."""
    return proxy.inject(Trickle(1000), Kind.GET)


def write_readable(device: Device, program: Program, count: int) -> list[Path]:
    """Files that the device knows and does not have: on the service, out of its cache, and out of the kernel's."""
    paths = [device.point / f"away {number:03}" for number in range(count)]
    for path in paths:
        program.call("save_noise", path, READABLE)
    device.aloft("sync")
    program.call("forget_pages", [str(path) for path in paths])
    device.aloft("evict", *map(str, paths))
    return paths
