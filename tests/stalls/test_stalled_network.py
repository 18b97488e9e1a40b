"""Hundreds of readers wait for a network that never answers, and everything else goes on."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from tests.stalls.conftest import FOR_EVER, READABLE, Programs, dribble, silence, write_readable
from tests.stalls.program import BUFFERED, DIRECT, MAPPED
from tests.stalls.watch import Program, Refused, connection_of
from tests.support.fault_proxy import FaultProxy, Kind
from tests.support.mounts import Device, Devices
from tests.support.waiting import wait_until

READERS = 240
FILES = 60
KINDS = [BUFFERED, DIRECT, MAPPED]


def start_readers(device: Device, program: Program, paths: list[Path]) -> dict[str, list[int]]:
    """Returns when they wait: a direct one has a request of its own, the others share those of their file."""
    started: dict[str, list[int]] = program.call("start_readers", [str(path) for path in paths], KINDS, READERS)
    connection = connection_of(device.point)
    wait_until(lambda: connection.waiting() >= len(started[DIRECT]) + len(paths) // 2, "the readers' requests")
    return started


def wait_ended(program: Program, wanted: set[int]) -> dict[int, tuple[str, int]]:
    """How these readers ended: the kind, and the errno, or minus the signal."""
    ended: dict[int, tuple[str, int]] = {}

    def all_ended() -> bool:
        ended.update({pid: (kind, code) for pid, kind, code in program.call("ended_readers")})
        return wanted <= ended.keys()

    wait_until(all_ended, "the end of the readers")
    return ended


def test_everything_else_goes_on_and_readers_can_be_killed(devices: Devices, proxy: FaultProxy, programs: Programs) -> None:
    device = devices.add()
    point = device.mount("--io-timeout", FOR_EVER)
    (point / "here").write_bytes(b"h" * 200_000)
    reading, other = programs(device), programs(device)
    paths = write_readable(device, reading, FILES)
    dribble(proxy)
    started = start_readers(device, reading, paths)
    silence(proxy, Kind.API, Kind.PUT)

    for number in range(30):
        other.call("save", point / f"new {number}", 400_000, number % 3 == 0)
    assert other.call("stat", paths[0]) == READABLE
    assert len(other.call("list_folder", point)) == FILES + 31
    other.call("make_folder", point / "folder")
    other.call("rename", point / "new 1", point / "folder" / "moved")
    other.call("rename", paths[1], paths[2])
    other.call("unlink", point / "new 2")
    other.call("unlink", paths[3])
    other.call("statfs", point)
    assert other.call("read", point / "new 3", 1000) == 1000
    other.call("open_file", "away", paths[4])  # opened, written, synced and closed without its bytes
    other.call("write", "away", "x" * 81920)  # whole pages: to change a part of one, the kernel reads it first
    other.call("fsync", "away")
    other.call("close", "away")
    assert device.json("status")["drive"]["queue"]["files"] > 0

    # The kernel lets a signal end a buffered reader and a page fault. A direct read has been sent: it ends with its answer.
    killed = {*started[BUFFERED][:10], *started[MAPPED][:10]}
    asked = set(started[BUFFERED][10:20])
    for pid in killed | set(started[DIRECT][:10]):
        os.kill(pid, signal.SIGKILL)
    for pid in asked:
        os.kill(pid, signal.SIGTERM)
    ended = wait_ended(reading, killed | asked)
    assert {ended[pid][1] for pid in killed} == {-signal.SIGKILL}
    assert {ended[pid][1] for pid in asked} == {-signal.SIGTERM}

    proxy.clear()
    everybody = {pid for pids in started.values() for pid in pids}
    ended |= wait_ended(reading, everybody - ended.keys())
    assert {ended[pid][1] for pid in started[DIRECT][:10]} == {-signal.SIGKILL}
    left = [code for pid, (_, code) in ended.items() if pid not in killed | asked | set(started[DIRECT][:10])]
    assert left == [0] * (READERS - 40), "what the network brought late was read"


def test_umount_returns_though_readers_wait(devices: Devices, proxy: FaultProxy, programs: Programs) -> None:
    device = devices.add()
    point = device.mount("--io-timeout", FOR_EVER)
    reading = programs(device)
    paths = write_readable(device, reading, FILES)
    dribble(proxy)
    started = start_readers(device, reading, paths)
    silence(proxy, Kind.API, Kind.PUT)
    (point / "new").write_bytes(b"n" * 100_000)
    pid, connection = device.pid(), connection_of(point)
    done = device.run("umount", str(point), "--no-wait")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "still have files" in done.stdout
    assert not point.is_mount()
    connection.abort()  # what `umount --force` does while the folder can still be seen
    ended = wait_ended(reading, {pid for pids in started.values() for pid in pids})
    assert {code for _, code in ended.values()} <= {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, -signal.SIGBUS}
    device.wait_for_the_end_of(pid)


@pytest.mark.long
def test_umount_by_force_ends_readers(devices: Devices, proxy: FaultProxy, programs: Programs) -> None:
    device = devices.add()
    point = device.mount("--io-timeout", FOR_EVER)
    reading = programs(device)
    paths = write_readable(device, reading, FILES)
    dribble(proxy)
    started = start_readers(device, reading, paths)
    silence(proxy, Kind.API, Kind.PUT)
    (point / "new").write_bytes(b"n" * 100_000)
    pid = device.pid()
    device.umount("--force")
    ended = wait_ended(reading, {pid for pids in started.values() for pid in pids})
    assert {code for _, code in ended.values()} <= {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, -signal.SIGBUS}
    device.wait_for_the_end_of(pid)
    device.mount()
    assert (point / "new").read_bytes() == b"n" * 100_000


def test_readers_hear_why_when_the_budget_ends(devices: Devices, proxy: FaultProxy, programs: Programs) -> None:
    device = devices.add()
    device.mount("--io-timeout", "5")
    reading, over = programs(device), programs(device)
    paths = write_readable(device, reading, FILES)
    over.call("open_file", "away", paths[-1])
    silence(proxy)
    over.begin("write", "away", "into a page that has to be read first")
    started = start_readers(device, reading, paths)
    ended = wait_ended(reading, {pid for pids in started.values() for pid in pids})
    for kind, wanted in ((BUFFERED, errno.ETIMEDOUT), (DIRECT, errno.ETIMEDOUT), (MAPPED, -signal.SIGBUS)):
        assert {ended[pid][1] for pid in started[kind]} == {wanted}, kind
    with pytest.raises(Refused) as refused:
        over.answer()
    assert refused.value.errno == errno.ETIMEDOUT
