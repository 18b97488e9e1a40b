"""Each rule of the design that keeps the kernel and the mount process from waiting for each other; see `situations`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.stalls import situations
from tests.stalls.conftest import FOR_EVER, Programs
from tests.stalls.without import mounted_without
from tests.support.fault_proxy import FaultProxy
from tests.support.mounts import Devices


def test_going_offline_is_heard_at_once(devices: Devices, proxy: FaultProxy, programs: Programs) -> None:
    device = devices.add()
    device.mount("--io-timeout", FOR_EVER)
    situations.offline(device, proxy, programs)


def test_nothing_but_reading_waits_for_the_network(devices: Devices, proxy: FaultProxy, programs: Programs) -> None:
    device = devices.add()
    device.mount("--io-timeout", FOR_EVER)
    situations.open_files(device, proxy, programs)


def test_the_kernel_is_told_of_changes_while_it_waits_for_us(devices: Devices, proxy: FaultProxy, programs: Programs) -> None:
    device, other = devices.add(), devices.add()
    device.mount("--io-timeout", FOR_EVER)
    other.mount()
    situations.change_of_a_file_that_is_being_read(device, other, proxy, programs)
    situations.changes_in_a_busy_folder(device, other, programs)


def test_dead_mounts_that_lie_on_each_other_are_cleared(devices: Devices) -> None:
    below, above = devices.add(), devices.add()
    point = below.mount()
    (point / "file").write_text("below")
    below.aloft("sync")
    above.point.rmdir()
    above.point = point
    with mounted_without("mount_points_are_not_prepared", above):
        assert mounts_at(point) == 2
        pid = int((below.home / "run" / "mount.lock").read_text().split("\n")[0])
        os.kill(pid, signal.SIGKILL)
        below.wait_for_the_end_of(pid)
    assert mounts_at(point) == 2
    assert below.run("umount", str(point)).returncode == 0
    assert mounts_at(point) == 0
    assert (below.mount() / "file").read_text() == "below"


def mounts_at(point: Path) -> int:
    return sum(line.split(" ")[4] == str(point) for line in Path("/proc/self/mountinfo").read_text().splitlines())
