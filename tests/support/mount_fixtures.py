"""The fixtures of tests on real mounts, for a `conftest.py` to import. After each test every home must pass `aloft fsck`.

A kernel without FUSE is a failure, not a reason to skip.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounts import Device, Devices, Service

__all__ = ["device", "devices", "folder", "fuse", "mount", "service", "shared_service"]


@pytest.fixture(scope="session", autouse=True)
def fuse() -> None:
    assert Path("/dev/fuse").exists(), "this kernel has no FUSE: the mount tests cannot run (modprobe fuse?)"
    assert shutil.which("fusermount3"), "fusermount3 is missing: install the package fuse3"


@pytest.fixture(scope="session")
def shared_service() -> Iterator[Service]:
    folder = Path(tempfile.mkdtemp(prefix="aloft-mount-service-"))
    service = Service(folder)
    service.start()
    yield service
    service.stop()
    shutil.rmtree(folder)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """One of the test's own, for tests that stop it."""
    service = Service(tmp_path)
    service.start()
    yield service
    service.stop()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, and outside of pytest's own, which it would clean through mounts."""
    folder = Path(tempfile.mkdtemp(prefix="aloft-mount-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def devices(folder: Path, request: pytest.FixtureRequest) -> Iterator[Devices]:
    own = "service" in request.fixturenames
    devices = Devices(folder, request.getfixturevalue("service" if own else "shared_service"))
    yield devices
    wrong = devices.finish()
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def device(devices: Devices) -> Device:
    return devices.add()


@pytest.fixture
def mount(device: Device) -> Path:
    return device.mount()
