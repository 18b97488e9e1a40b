"""Mounting with a rule switched off (see `unruly`), such that whatever hangs can be cut off afterwards."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.stalls.watch import Connection, connection_of
from tests.support.mounts import Device, is_running
from tests.support.waiting import PATIENCE, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def mounted_without(rule: str, device: Device, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The device is mounted within. At the end its connection is cut and its process killed."""
    command = [sys.executable, "-m", "tests.stalls.unruly", rule, "mount", str(device.point), "--foreground", "--json"]
    environment = os.environ | {"ALOFT_HOME": str(device.home), "PYTHONPATH": str(REPOSITORY)}
    with (device.home / "run" / "mount.log").open("a") as log:
        process = subprocess.Popen(
            [*command, "--upload-delay", "0", *options],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    connection: Connection | None = None
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], PATIENCE)[0], "it does not start"
        assert json.loads(process.stdout.readline())["pid"] == process.pid, device.log()
        connection = connection_of(device.point)
        yield process
    finally:
        if connection is not None:
            connection.abort()
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        wait_until(lambda: not is_running(process.pid), "the end of a process whose connection was cut")
        process.wait(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()
