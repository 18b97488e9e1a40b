"""Every way to end a mount, while programs hold open files, dirty pages and mappings, and transfers are under way.

What is there afterwards is what P1 says: what was closed or fsynced always, what open files hold if the kernel could still bring
it, that is, unless the process was killed or cut off.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stalls.conftest import FOR_EVER, Programs, dribble, silence, write_readable
from tests.stalls.program import BUFFERED
from tests.stalls.watch import Program, Refused, connection_of
from tests.support.fault_proxy import FaultProxy, Kind
from tests.support.mounts import ALOFT, Device, Devices
from tests.support.waiting import wait_until

MAPPED, DIRTY, SYNCED = "m" * 70_000, "d" * 90_000, "s" * 30_000
CLOSED = b"c" * 120_000


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
    (point / "closed").write_bytes(CLOSED)
    (point / "large").write_bytes(os.urandom(6_000_000))  # being sent, without an end
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


def is_mounted(point: Path) -> bool:
    return any(line.split(" ")[4] == str(point) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def stop(busy: Busy, how: str) -> None:
    point, device = busy.device.point, busy.device
    match how:
        case "SIGTERM" | "SIGINT" | "SIGKILL":
            os.kill(busy.pid, signal.Signals[how])
        case "umount":  # refused as long as somebody is inside
            assert subprocess.run(["umount", str(point)], capture_output=True, timeout=60, check=False).returncode != 0
            assert is_mounted(point)
            subprocess.run(["umount", "-l", str(point)], timeout=60, check=True)
        case "fusermount3 -u":
            assert subprocess.run(["fusermount3", "-u", str(point)], capture_output=True, timeout=60, check=False).returncode != 0
            assert is_mounted(point)
            subprocess.run(["fusermount3", "-uz", str(point)], timeout=60, check=True)
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
        wait_until(lambda: not is_mounted(point), "the end of the mount")


GENTLE = ("SIGTERM", "SIGINT", "umount", "umount -l", "fusermount3 -u", "aloft umount --no-wait", "aloft umount --timeout 1")
ROUGH = ("SIGKILL", "aloft umount --force")


def check(device: Device, *, everything: bool) -> None:
    """At the next mount, and on the service once everything is there."""
    point = device.point
    device.mount()
    assert (point / "closed").read_bytes() == CLOSED
    assert (point / "large").stat().st_size == 6_000_000
    synced = (point / "synced").read_text()
    assert synced.startswith(SYNCED)
    if everything:
        assert synced == SYNCED + "more"
        assert (point / "dirty").read_text() == DIRTY
        assert (point / "mapped").read_text() == MAPPED
    device.aloft("sync")
    assert device.json("status")["drive"]["queue"]["files"] == 0


@pytest.mark.parametrize("how", [pytest.param(how, marks=() if how in GENTLE[:1] else pytest.mark.long) for how in GENTLE])
def test_a_stop_that_the_kernel_takes_part_in_loses_nothing(
    how: str, devices: Devices, proxy: FaultProxy, programs: Programs
) -> None:
    device = devices.add()
    busy = make_busy(device, proxy, programs)
    stop(busy, how)
    busy.let_go()
    busy.reader.call("kill_readers")
    device.wait_for_the_end_of(busy.pid)
    proxy.clear()
    check(device, everything=True)


@pytest.mark.parametrize("how", [pytest.param(how, marks=() if how == "SIGKILL" else pytest.mark.long) for how in ROUGH])
def test_a_stop_without_the_kernel_keeps_what_was_closed_or_fsynced(
    how: str, devices: Devices, proxy: FaultProxy, programs: Programs
) -> None:
    device = devices.add()
    busy = make_busy(device, proxy, programs)
    stop(busy, how)
    with pytest.raises(Refused) as refused:  # P8: who has a file open hears it
        busy.holder.call("fsync", "dirty")
    assert refused.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
    busy.let_go()
    device.wait_for_the_end_of(busy.pid)
    proxy.clear()
    check(device, everything=False)


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """A small disk for the home, of which nothing is left within."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):  # what were buffered would fail again when it is closed
        while True:
            file.write(b"f" * 65536)
    yield
    filler.unlink()


@pytest.mark.parametrize("how", ["SIGTERM", pytest.param("aloft umount --no-wait", marks=pytest.mark.long)])
@pytest.mark.parametrize("network", [pytest.param("away", marks=pytest.mark.long), "silent"])
def test_a_stop_on_a_full_disk_without_a_network(
    how: str, network: str, devices: Devices, proxy: FaultProxy, programs: Programs
) -> None:
    device = devices.add()
    with small_disk(device.home):
        point = device.mount()
        holder = programs(device)
        (point / "closed").write_bytes(CLOSED)
        if network == "away":
            proxy.set_service_away(True)
            proxy.set_store_away(True)
        else:
            silence(proxy)
        (point / "here").write_bytes(b"h" * 50_000)
        holder.call("open_file", "dirty", point / "dirty")
        holder.call("write", "dirty", "d" * 4096)
        pid = device.pid()
        with full_disk(device.home):
            if how == "SIGTERM":
                os.kill(pid, signal.SIGTERM)
            else:
                assert device.run("umount", str(point), "--no-wait").returncode == 3
            wait_until(lambda: not is_mounted(point), "the end of the mount")
            with suppress(Refused):  # no room for it: then it is told
                holder.call("close", "dirty")
            device.wait_for_the_end_of(pid)
        proxy.clear()
        device.mount()
        assert (point / "closed").read_bytes() == CLOSED
        assert (point / "here").read_bytes() == b"h" * 50_000
        device.aloft("sync")
        device.umount()
        assert device.run("fsck").returncode == 0


@contextmanager
def small_disk(home: Path) -> Iterator[None]:
    """The home moves to a file system of 64 MiB."""
    aside = home.with_name(home.name + "-aside")
    home.rename(aside)
    home.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", str(home)], check=True)
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", str(home)], check=True)
        yield
    finally:
        subprocess.run(["cp", "-a", f"{home}/.", str(aside)], check=True)
        subprocess.run(["umount", "-l", str(home)], check=True)
        home.rmdir()
        aside.rename(home)


def test_of_two_mounts_of_one_home_at_once_one_is_refused(devices: Devices, folder: Path) -> None:
    device = devices.add()
    environment = os.environ | {"ALOFT_HOME": str(device.home)}
    points = [device.point, folder / "second"]
    started = [
        subprocess.Popen(
            ["aloft", "mount", str(point)],
            executable=ALOFT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for point in points
    ]
    ends = [process.communicate(timeout=120)[1] for process in started]
    codes = [process.returncode for process in started]
    assert sorted(codes) == [0, 1], ends
    assert "has this home mounted" in ends[codes.index(1)]
    mounted, refused = points[codes.index(0)], points[codes.index(1)]
    assert is_mounted(mounted)
    assert not is_mounted(refused)
    device.point = mounted
