"""A mount in the middle of everything, the ways to end it, and what has to be there afterwards."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stalls.conftest import FOR_EVER, Programs, dribble, silence, write_readable
from tests.stalls.program import BUFFERED
from tests.stalls.watch import Program, Refused, connection_of
from tests.support.fault_proxy import FaultProxy, Kind
from tests.support.mounts import Device
from tests.support.waiting import wait_until

MAPPED, DIRTY, SYNCED = "m" * 70_000, "d" * 90_000, "s" * 30_000
CLOSED = "s" * 120_000


@dataclass
class Busy:
    """A mount in the middle of everything."""

    device: Device
    holder: Program
    reader: Program
    away: list[Path]
    pid: int

    def let_go(self) -> None:
        """The programs close their files. After a mount was cut off they hear of it, or not."""
        for call, name in (("unmap", "map"), ("close", "dirty"), ("close", "synced")):
            with suppress(Refused):
                self.holder.call(call, name)


def make_busy(device: Device, proxy: FaultProxy, programs: Programs) -> Busy:
    point = device.mount("--io-timeout", FOR_EVER)
    holder, reader = programs(device), programs(device)
    away = write_readable(device, reader, 4)
    dribble(proxy)
    silence(proxy, Kind.PUT)
    holder.call("save", point / "closed", len(CLOSED))
    holder.call("save_noise", point / "large", 6_000_000)  # being sent, without an end
    holder.call("map_file", "map", point / "mapped", MAPPED)
    holder.call("open_file", "dirty", point / "dirty")
    holder.call("write", "dirty", DIRTY)
    holder.call("open_file", "synced", point / "synced")
    holder.call("write", "synced", SYNCED)
    holder.call("fsync", "synced")
    holder.call("write", "synced", "more")
    reader.call("start_readers", [str(path) for path in away], [BUFFERED], 4)
    connection = connection_of(point)
    wait_until(lambda: connection.waiting() >= 4, "the readers' requests")
    wait_until(lambda: proxy.count(Kind.PUT) > 0, "an upload")
    return Busy(device, holder, reader, away, device.pid())


def stop(busy: Busy, how: str) -> None:
    point, device = busy.device.point, busy.device
    match how:
        case "SIGTERM" | "SIGINT" | "SIGKILL":
            os.kill(busy.pid, signal.Signals[how])
        case "umount":  # refused as long as somebody is inside
            assert subprocess.run(["umount", str(point)], capture_output=True, timeout=60, check=False).returncode != 0
            assert device.is_mounted()
            subprocess.run(["umount", "-l", str(point)], timeout=60, check=True)
        case "fusermount3 -u":
            command = [*device.prefix, "fusermount3"]
            refused = subprocess.run([*command, "-u", str(point)], capture_output=True, timeout=60, check=False)
            assert refused.returncode != 0
            assert device.is_mounted()
            subprocess.run([*command, "-uz", str(point)], timeout=60, check=True)
        case "umount -l":
            subprocess.run(["umount", "-l", str(point)], timeout=60, check=True)
        case "aloft umount --no-wait":
            done = device.run("umount", str(point), "--no-wait")
            assert done.returncode == 3, done.stdout + done.stderr
            assert "Only on this device" in done.stdout
        case "aloft umount --timeout 1":
            done = device.run("umount", str(point), "--timeout", "1")
            assert done.returncode == 3, done.stdout + done.stderr
        case "aloft umount --force":
            device.umount("--force")
    if how != "SIGKILL":
        wait_until(lambda: not device.is_mounted(), "the end of the mount")


GENTLE = ("SIGTERM", "SIGINT", "umount", "umount -l", "fusermount3 -u", "aloft umount --no-wait", "aloft umount --timeout 1")
ROUGH = ("SIGKILL", "aloft umount --force")


def check(device: Device, programs: Programs, *, everything: bool) -> None:
    """At the next mount, and on the service once everything is there."""
    point = device.point
    device.mount()
    program = programs(device)
    assert program.call("text_of", point / "closed") == CLOSED
    assert program.call("stat", point / "large") == 6_000_000
    synced = program.call("text_of", point / "synced")
    assert synced.startswith(SYNCED)
    if everything:
        assert synced == SYNCED + "more"
        assert program.call("text_of", point / "dirty") == DIRTY
        assert program.call("text_of", point / "mapped") == MAPPED
    device.aloft("sync")
    assert device.json("status")["drive"]["queue"]["files"] == 0


def stop_gently(device: Device, how: str, proxy: FaultProxy, programs: Programs) -> None:
    """The kernel takes part: everything is there afterwards, what open files held, too."""
    busy = make_busy(device, proxy, programs)
    stop(busy, how)
    busy.let_go()
    busy.reader.call("kill_readers")
    device.wait_for_the_end_of(busy.pid)
    proxy.clear()
    check(device, programs, everything=True)


def stop_roughly(device: Device, how: str, proxy: FaultProxy, programs: Programs) -> None:
    """It does not: what was closed or fsynced is there."""
    busy = make_busy(device, proxy, programs)
    stop(busy, how)
    with pytest.raises(Refused) as refused:  # P8: who has a file open hears it
        busy.holder.call("fsync", "dirty")
    assert refused.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
    busy.let_go()
    device.wait_for_the_end_of(busy.pid)
    proxy.clear()
    check(device, programs, everything=False)
