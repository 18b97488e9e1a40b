"""Situations that would end in a deadlock, or in a loss, without a rule of the design. Each is gone through with the rule
(`test_rules`), and with the rule switched off (`test_rules_off`).

A device is mounted when it comes here. `seconds`: what takes longer hangs.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from tests.stalls.conftest import Programs, dribble, write_readable
from tests.stalls.program import BUFFERED, DIRECT
from tests.stalls.watch import Hangs, Refused, connection_of
from tests.support.fault_proxy import FaultProxy
from tests.support.mounts import Device
from tests.support.waiting import PATIENCE, wait_until


def buffered_readers(device: Device, proxy: FaultProxy, programs: Programs, seconds: float = PATIENCE) -> None:
    """More of them wait than the kernel has background requests. Others write and close."""
    reading, other = programs(device), programs(device)
    paths = write_readable(device, reading, 40)
    dribble(proxy)
    reading.call("start_readers", [str(path) for path in paths], [BUFFERED], 40)
    connection = connection_of(device.point)
    wait_until(lambda: connection.waiting() >= 12, "the readers' requests")
    for number in range(4):
        other.call("save", device.point / f"new {number}", 400_000, seconds=seconds)


def direct_readers(device: Device, proxy: FaultProxy, programs: Programs, seconds: float = PATIENCE) -> None:
    """More of them wait than pyfuse3 handles by itself. Others list, and look names up."""
    reading, other = programs(device), programs(device)
    paths = write_readable(device, reading, 10)
    dribble(proxy)
    reading.call("start_readers", [str(path) for path in paths], [DIRECT], 130)
    connection = connection_of(device.point)
    wait_until(lambda: connection.waiting() >= 99, "the readers' requests")
    other.call("list_folder", device.point, seconds=seconds)
    other.call("save", device.point / "new", 1000, seconds=seconds)


def offline(device: Device, proxy: FaultProxy, programs: Programs, seconds: float = PATIENCE) -> None:
    """A person goes offline: those who wait hear it, and those who come later."""
    waiting, later = programs(device), programs(device)
    paths = write_readable(device, waiting, 2)
    dribble(proxy)
    waiting.begin("read", paths[0], 1000)
    connection = connection_of(device.point)
    wait_until(lambda: connection.waiting() >= 1, "the reader's request")
    device.aloft("offline")
    for program in (waiting, later):
        if program is later:
            program.begin("read", paths[1], 1000)
        with pytest.raises(Refused) as refused:
            program.answer(seconds)
        assert refused.value.errno == errno.ENETDOWN
    device.aloft("online")


def open_files(device: Device, proxy: FaultProxy, programs: Programs, seconds: float = PATIENCE) -> None:
    """Whatever is done with a file but reading it needs no network, so that no program waits that a signal cannot end."""
    program = programs(device)
    program.describe = lambda: ""  # to write its stacks ends the mount process, and with it what is to be seen below
    path = write_readable(device, program, 1)[0]
    dribble(proxy)
    for call, arguments in (
        ("stat", (path,)),
        ("open_file", ("file", path, os.O_RDWR)),
        ("write", ("file", "w" * 4096)),
        ("fsync", ("file",)),
        ("close", ("file",)),
        ("rename", (path, device.point / "renamed")),
        ("unlink", (device.point / "renamed",)),
    ):
        try:
            program.call(call, *arguments, seconds=seconds)
        except Hangs:
            program.process.send_signal(signal.SIGKILL)
            with pytest.raises(pytest.fail.Exception):
                wait_until(lambda: program.process.poll() is not None, "the end of a program that was killed", 5)
            raise


def change_of_a_file_that_is_being_read(
    device: Device, other: Device, proxy: FaultProxy, programs: Programs, seconds: float = PATIENCE
) -> None:
    """Another device changes a file's mode while somebody waits for the file's bytes; then it makes a new one. Both are seen."""
    reading, looking = programs(device), programs(device)
    path = write_readable(device, reading, 1)[0]
    wait_until(lambda: (other.point / path.name).exists(), "the file on the other device")
    with pytest.raises(Refused):
        looking.call("stat", device.point / "new")  # the kernel remembers that there is none
    with dribble(proxy):
        reading.begin("read", path, 1000)
        connection = connection_of(device.point)
        wait_until(lambda: connection.waiting() >= 1, "the reader's request")
        (other.point / path.name).chmod(0o640)
        other.aloft("sync")
        wait_until(lambda: _replica_knows_mode(device, path, 0o640), "the change to arrive")
        (other.point / "new").write_text("new")
        other.aloft("sync")

        def is_seen() -> bool:
            try:
                return bool(looking.call("stat", device.point / "new", seconds=seconds) == 3)
            except Refused:
                return False

        try:
            wait_until(is_seen, "the new file", seconds)
        except pytest.fail.Exception as failure:
            raise Hangs(str(failure)) from failure
    reading.answer()


def _replica_knows_mode(device: Device, path: Path, mode: int) -> bool:
    """Asked without the kernel, whose cache is what the test is about."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(f"file:{device.home / 'replica.db'}?mode=ro", uri=True, timeout=60)) as sql:
        row = sql.execute("SELECT i.mode FROM entry e JOIN inode i ON i.ino = e.ino WHERE e.name = ?", (path.name,)).fetchone()
    return row is not None and row[0] & 0o777 == mode


def changes_in_a_busy_folder(device: Device, other: Device, programs: Programs, seconds: float = PATIENCE) -> None:
    """Both devices make and remove names in one folder: the kernel holds its lock while it waits for our answers."""
    folder, busy, watching = device.point / "busy", programs(device), programs(device)
    folder.mkdir()
    device.aloft("sync")
    theirs = other.point / "busy"
    wait_until(theirs.exists, "the folder on the other device")
    enough = device.folder / "enough"
    busy.begin("churn", folder, enough)
    for number in range(12):
        (theirs / f"theirs {number}").write_text("x")
        if number % 3 == 2:
            (theirs / f"theirs {number - 1}").unlink()
            other.aloft("sync")
    wanted = {f"theirs {number}" for number in range(12) if number % 3 != 1}
    wait_until(lambda: wanted <= set(watching.call("list_folder", folder, seconds=seconds)), "the other device's files")
    enough.touch()
    assert busy.answer(seconds) > 0
