"""Starting the mount process in the background: a session of its own, a log, and a pipe over which it says that it is ready.

Imports nothing that takes time: what the mount process needs, it imports itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import fs
from fs.home import Home
from fs.options import MountRequest


class MountFailed(Exception):
    """The mount process did not start; the text is fit to show to a person. `kind` tells the commands what went wrong."""

    def __init__(self, message: str, kind: str = "failed") -> None:
        super().__init__(message)
        self.kind = kind


def start_in_background(home: Home, request: MountRequest) -> int:
    """Start the mount process and wait until the folder is usable. Returns its pid; `MountFailed` says why not."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "r") as reports:
        try:
            process = _spawn(home, writing)
        finally:
            os.close(writing)
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin:  # one that died at once is reported below
            process.stdin.write(request.to_json().encode())
        line = reports.readline()
    if not line:
        process.wait()
        raise MountFailed(f"the mount process ended with code {process.returncode} before it was ready: see {home.log}")
    report = json.loads(line)
    if "error" in report:
        process.wait()
        raise MountFailed(report["error"], report["kind"])
    return process.pid


def _spawn(home: Home, report: int) -> subprocess.Popen[bytes]:
    packages = str(Path(next(iter(fs.__path__))).parent)
    environment = os.environ | {"PYTHONPATH": packages, "ALOFT_HOME": os.fspath(home.path)}
    with home.log.open("ab") as output:
        home.log.chmod(0o600)
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "fs.daemon", str(report)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[report],
            cwd="/",  # it must not keep the folder in use from which it was started
            env=environment,
            start_new_session=True,
        )
