"""Real mounts whose network breaks on demand: everything between devices and service goes through a `FaultProxy`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.pair import IO_TIMEOUT, Pair
from tests.support.fault_proxy import FaultProxy
from tests.support.mount_fixtures import device, devices, folder, fuse, mount, shared_service
from tests.support.mounts import Devices, Service

__all__ = ["device", "devices", "folder", "fuse", "mount", "pair", "proxy", "service", "shared_service"]


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with FaultProxy() as proxy:
        yield proxy


@pytest.fixture
def service(proxy: FaultProxy, tmp_path: Path) -> Iterator[Service]:
    """One of the test's own, behind the proxy."""
    service = behind(proxy, tmp_path)
    yield service
    service.stop()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two mounted devices behind a proxy, for all tests of a file: each leaves them as it found them, without faults."""
    folder = Path(tempfile.mkdtemp(prefix="aloft-faults-"))
    with FaultProxy() as proxy:
        service = behind(proxy, folder)
        devices = Devices(folder, service)
        one, two = devices.add("one"), devices.add("two")
        a, b = one.mount("--io-timeout", str(IO_TIMEOUT)), two.mount("--io-timeout", str(IO_TIMEOUT))
        yield Pair(proxy, service, one, two, a, b)
        wrong = devices.finish()
        service.stop()
    shutil.rmtree(folder)
    assert not wrong, "\n".join(wrong)


def behind(proxy: FaultProxy, folder: Path) -> Service:
    service = Service(folder, options=["--public-url", proxy.store_url], address=proxy.url)
    service.start()
    proxy.upstream = service.port
    return service
