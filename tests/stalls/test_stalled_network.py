"""Hundreds of readers wait for a network that never answers, and everything else goes on."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.stalls.conftest import Network, write_readable
from tests.stalls.program import BUFFERED, DIRECT, MAPPED
from tests.stalls.watch import Connection, Program
from tests.support.waiting import wait_until

READERS = 240
FILES = 60
KINDS = [BUFFERED, DIRECT, MAPPED]
FOR_EVER = "600"
"""Seconds: an I/O budget that no test sees the end of, so that what ends, ended for another reason."""


def start_readers(device: Any, program: Program, paths: list[Any], kinds: list[str] = KINDS) -> dict[str, list[int]]:
    """Returns when they wait: a direct one has a request of its own, the others share those of their file."""
    started: dict[str, list[int]] = program.call("start_readers", [str(path) for path in paths], kinds, READERS)
    connection, wanted = Connection(device.point), len(started.get(DIRECT, [])) + len(paths) // 2
    wait_until(lambda: connection.waiting() >= wanted, "the readers' requests")
    return started


def wait_ended(program: Program, wanted: set[int]) -> dict[int, tuple[str, int]]:
    """How these readers ended."""
    ended: dict[int, tuple[str, int]] = {}

    def all_ended() -> bool:
        ended.update({pid: (kind, code) for pid, kind, code in program.call("ended_readers")})
        return wanted <= ended.keys()

    wait_until(all_ended, "the end of the readers", 120)
    return ended


def test_everything_else_goes_on(devices: Any, network: Network, programs: Callable[[Any], Program]) -> None:
    device = devices.add()
    point = device.mount("--io-timeout", FOR_EVER)
    (point / "here").write_bytes(b"h" * 200_000)
    reading, writing = programs(device), programs(device)
    paths = write_readable(device, reading, FILES)
    network.silence()
    started = start_readers(device, reading, paths)

    for number in range(30):
        writing.call("save", point / f"new {number}", 400_000, number % 3 == 0)
    assert writing.call("stat", paths[0]) == 300_000
    assert len(writing.call("list_folder", point)) == FILES + 31
    writing.call("make_folder", point / "folder")
    writing.call("rename", point / "new 1", point / "folder" / "moved")
    writing.call("rename", paths[1], paths[2])
    writing.call("unlink", point / "new 2")
    writing.call("unlink", paths[3])
    writing.call("statfs", point)
    assert writing.call("read", point / "new 3", 1000) == 1000
    writing.call("open_file", "away", paths[4])  # opened and closed, also for writing, without its bytes
    writing.call("write", "away", "x" * 81920)  # whole pages: into a part of one the kernel first reads the rest
    writing.call("fsync", "away")
    writing.call("close", "away")
    status = device.json("status")
    assert status["drive"]["queue"]["files"] > 0

    # Buffered readers and page faults end with the signal; the kernel lets a direct read be killed only before it was sent.
    killed = {*started[BUFFERED][:10], *started[MAPPED][:10]}
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    polite = set(started[BUFFERED][10:20])
    for pid in polite:
        os.kill(pid, signal.SIGTERM)
    ended = wait_ended(reading, killed | polite)
    assert {ended[pid][1] for pid in killed} == {-signal.SIGKILL}
    assert {ended[pid][1] for pid in polite} == {-signal.SIGTERM}

    done = device.run("umount", str(point), "--no-wait")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "still have files" in done.stdout
    writing.close()


def test_readers_end_within_the_budget_and_hear_why(devices: Any, network: Network, programs: Callable[[Any], Program]) -> None:
    device = devices.add()
    device.mount("--io-timeout", "5")
    reading, over = programs(device), programs(device)
    paths = write_readable(device, reading, FILES)
    network.silence()
    over.call("open_file", "away", paths[4])
    began = time.monotonic()
    over.begin("write", "away", "into a page that has to be read first")
    started = start_readers(device, reading, paths)
    first = time.monotonic()
    ended = {}
    while len(ended) < READERS and time.monotonic() < first + 120:
        for pid, kind, code in reading.call("ended_readers"):
            ended[pid] = (kind, code, time.monotonic() - first)
        time.sleep(0.01)
    for kind in KINDS:
        mine = [one for one in ended.values() if one[0] == kind]
        print(kind, Counter(one[1] for one in mine), min(one[2] for one in mine), max(one[2] for one in mine))
    try:
        print("write", over.answer())
    except Exception as e:
        print("write", e, time.monotonic() - began)
    assert 0
