"""The same for somebody who is not root: mounted by `fusermount3`, which is all that an ordinary user may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stalls import situations
from tests.stalls.conftest import FOR_EVER, Programs
from tests.stalls.stops import stop_gently, stop_roughly
from tests.stalls.watch import connection_of
from tests.support.fault_proxy import FaultProxy
from tests.support.mounts import Device, Devices

pytestmark = pytest.mark.long

USER = 65534
MAY_READ = "dac_read_search"
AS_USER = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *("--inh-caps", f"+{MAY_READ}", "--ambient-caps", f"+{MAY_READ}"),
)
"""Somebody who may do nothing that others may not but read, so that a checkout and an interpreter in root's home can be run."""
EVERYBODY = 0o666


@pytest.fixture
def fuse_for_everybody() -> Iterator[None]:
    """As every distribution has it."""
    path = Path("/dev/fuse")
    mode = path.stat().st_mode & 0o777
    path.chmod(EVERYBODY)
    yield
    path.chmod(mode)


@pytest.fixture
def device(devices: Devices, folder: Path, fuse_for_everybody: None) -> Device:
    """Of the user's, with all that is in its home. Not mounted."""
    assert os.geteuid() == 0, "only root can act as somebody else"
    device = devices.add()
    folder.chmod(0o711)
    for path in (device.point, device.home, *device.home.rglob("*")):
        os.chown(path, USER, USER, follow_symlinks=False)
    device.prefix = AS_USER
    return device


@pytest.mark.parametrize(
    "situation",
    [situations.buffered_readers, situations.direct_readers, situations.offline, situations.open_files],
)
def test_readers_that_wait_hold_nobody_up(
    situation: Callable[[Device, FaultProxy, Programs], None], device: Device, proxy: FaultProxy, programs: Programs
) -> None:
    device.mount("--io-timeout", FOR_EVER)
    assert os.stat(f"/proc/{device.pid()}").st_uid == USER
    assert connection_of(device.point).max_background() == 1024, "the user who mounted may raise it, too"
    situation(device, proxy, programs)


@pytest.mark.parametrize("how", ["SIGTERM", "fusermount3 -u", "aloft umount --no-wait", "aloft umount --timeout 1"])
def test_a_stop_that_the_kernel_takes_part_in_loses_nothing(
    how: str, device: Device, proxy: FaultProxy, programs: Programs
) -> None:
    stop_gently(device, how, proxy, programs)


@pytest.mark.parametrize("how", ["SIGKILL", "aloft umount --force"])
def test_a_stop_without_the_kernel_keeps_what_was_closed_or_fsynced(
    how: str, device: Device, proxy: FaultProxy, programs: Programs
) -> None:
    stop_roughly(device, how, proxy, programs)
