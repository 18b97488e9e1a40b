"""Real mounts whose network breaks on demand: everything between devices and service goes through a `FaultProxy`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.mount_fixtures import device, devices, folder, fuse, mount, shared_service
from tests.support.mounts import Service

__all__ = ["device", "devices", "folder", "fuse", "mount", "proxy", "service", "shared_service"]


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with FaultProxy() as proxy:
        yield proxy


@pytest.fixture
def service(proxy: FaultProxy, tmp_path: Path) -> Iterator[Service]:
    """One of the test's own, behind the proxy."""
    service = Service(tmp_path, options=["--public-url", proxy.store_url], address=proxy.url)
    service.start()
    proxy.upstream = service.port
    yield service
    service.stop()
