"""Each rule of the design that keeps the kernel and the mount process from waiting for each other; see `situations`."""

from __future__ import annotations

from tests.stalls import situations
from tests.stalls.conftest import FOR_EVER, Programs
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
