"""What the rules are for: with one switched off, its situation hangs, or loses what was written."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.stalls import situations
from tests.stalls.conftest import FOR_EVER, Programs
from tests.stalls.watch import Hangs
from tests.stalls.without import mounted_without
from tests.support.fault_proxy import FaultProxy
from tests.support.mounts import Device, Devices, is_running
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.long

HANGS_AFTER = 20.0
"""Seconds. With the rule it takes a fraction of one, without it an I/O budget of ten minutes."""
Situation = Callable[[Device, FaultProxy, Programs, float], None]


@pytest.mark.parametrize(
    ("rule", "situation", "seconds"),
    [
        ("kernel_limits_stay", situations.buffered_readers, HANGS_AFTER),
        ("any_number_of_reads_waits", situations.buffered_readers, HANGS_AFTER),
        ("few_tasks", situations.direct_readers, HANGS_AFTER),
        ("offline_is_not_known", situations.offline, HANGS_AFTER),
        ("open_waits", situations.open_files, HANGS_AFTER),
        ("close_waits", situations.open_files, HANGS_AFTER),
        ("fsync_waits", situations.open_files, HANGS_AFTER),
    ],
)
def test_without_it_others_hang(
    rule: str, situation: Situation, seconds: float, devices: Devices, proxy: FaultProxy, programs: Programs
) -> None:
    device = devices.add()
    with mounted_without(rule, device, "--io-timeout", FOR_EVER), pytest.raises(Hangs):
        situation(device, proxy, programs, seconds)


@pytest.mark.parametrize("situation", [situations.buffered_readers, situations.direct_readers])
def test_with_the_rules_nobody_hangs(situation: Situation, devices: Devices, proxy: FaultProxy, programs: Programs) -> None:
    device = devices.add()
    device.mount("--io-timeout", FOR_EVER)
    situation(device, proxy, programs, PATIENCE)


def test_few_reads_wait_where_the_limit_cannot_be_raised(devices: Devices, proxy: FaultProxy, programs: Programs) -> None:
    device = devices.add()
    with mounted_without("kernel_limits_cannot_be_raised", device, "--io-timeout", FOR_EVER):
        situations.buffered_readers(device, proxy, programs, PATIENCE)


def test_with_data_invalidation_no_other_change_is_seen(devices: Devices, proxy: FaultProxy, programs: Programs) -> None:
    device, other = devices.add(), devices.add()
    other.mount()
    with mounted_without("data_is_invalidated", device, "--io-timeout", FOR_EVER), pytest.raises(Hangs):
        situations.change_of_a_file_that_is_being_read(device, other, proxy, programs, HANGS_AFTER)


def test_notices_from_the_loop_end_in_a_deadlock(devices: Devices, programs: Programs) -> None:
    device, other = devices.add(), devices.add()
    other.mount()
    with mounted_without("notices_are_sent_by_the_loop", device) as process:
        with pytest.raises(Hangs):
            situations.changes_in_a_busy_folder(device, other, programs, HANGS_AFTER)
        process.send_signal(signal.SIGKILL)
        with pytest.raises(pytest.fail.Exception):  # beyond `kill -9`
            wait_until(lambda: not is_running(process.pid), "its end", 5)


@pytest.mark.parametrize("rule", ["terminate_comes_first", "the_loop_ends_with_the_unmounting"])
def test_ending_before_the_kernel_loses_what_open_files_hold(rule: str, devices: Devices, programs: Programs) -> None:
    device = devices.add()
    with mounted_without(rule, device) as process:
        program = programs(device)
        program.call("map_file", "map", device.point / "mapped", "m" * 50_000)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        program.call("unmap", "map")
    device.mount()
    mapped = device.point / "mapped"
    assert not mapped.exists() or mapped.read_text() != "m" * 50_000


def test_clearing_any_mount_would_take_a_live_one_away(devices: Devices) -> None:
    device, other = devices.add(), devices.add()
    point = device.mount()
    (point / "file").touch()
    other.point.rmdir()
    other.point = point
    held = os.open(point, os.O_RDONLY)  # so that the number of its device is not given to the next mount
    try:
        with mounted_without("any_mount_is_cleared", other):
            assert point.stat().st_dev != os.fstat(held).st_dev
    finally:
        os.close(held)
