"""Every way to end a mount, while programs hold open files, dirty pages and mappings, and transfers are under way.

What is there afterwards is what P1 says: what was closed or fsynced always, what open files hold if the kernel could still bring
it, that is, unless the process was killed or cut off.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.stalls.conftest import Programs, silence
from tests.stalls.stops import CLOSED, GENTLE, ROUGH, stop_gently, stop_roughly
from tests.stalls.watch import Refused
from tests.support.fault_proxy import FaultProxy
from tests.support.mounts import ALOFT, Devices
from tests.support.waiting import wait_until


@pytest.mark.parametrize("how", [pytest.param(how, marks=() if how in GENTLE[:1] else pytest.mark.long) for how in GENTLE])
def test_a_stop_that_the_kernel_takes_part_in_loses_nothing(
    how: str, devices: Devices, proxy: FaultProxy, programs: Programs
) -> None:
    stop_gently(devices.add(), how, proxy, programs)


@pytest.mark.parametrize("how", [pytest.param(how, marks=() if how == "SIGKILL" else pytest.mark.long) for how in ROUGH])
def test_a_stop_without_the_kernel_keeps_what_was_closed_or_fsynced(
    how: str, devices: Devices, proxy: FaultProxy, programs: Programs
) -> None:
    stop_roughly(devices.add(), how, proxy, programs)


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
        (point / "closed").write_text(CLOSED)
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
            wait_until(lambda: not device.is_mounted(), "the end of the mount")
            with suppress(Refused):  # no room for it: then it is told
                holder.call("close", "dirty")
            device.wait_for_the_end_of(pid)
        proxy.clear()
        device.mount()
        assert (point / "closed").read_text() == CLOSED
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
    device.point = points[codes.index(1)]
    assert not device.is_mounted()
    device.point = points[codes.index(0)]
    assert device.is_mounted()
