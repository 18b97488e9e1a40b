"""The real service in a process of its own, for tests that need one: on a free port, on a folder of the test's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
STOP_SECONDS = 30


class RunningService:
    """A service that accepts connections at `url`. Its log is in `log`."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        """Stop as a person would (SIGTERM); the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._wait()

    def kill(self) -> int:
        """Kill without a chance to clean up."""
        if self.process.poll() is None:
            self.process.kill()
        return self._wait()

    def _wait(self) -> int:
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    def __enter__(self) -> RunningService:
        return self

    def __exit__(self, *details: object) -> None:
        self.kill()


def start_service(data: Path, *, port: int = 0, host: str = "127.0.0.1", **options: Any) -> RunningService:
    """Start the service on `data` and return when it accepts connections.

    `options` are those of `python -m remote.server`, with underscores: `registration="invite"`, `quota=10_000_000`,
    `public_url=…`, `max_devices=…`. Passwords are hashed cheaply unless `password_memory` says otherwise. A restart on the
    same address: `start_service(data, port=old.port)`.
    """
    options.setdefault("password_memory", 1024)
    command = [sys.executable, "-m", "remote.server", "--data", str(data), "--host", host, "--port", str(port)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    log = data.parent / f"{data.name}.service.log"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with log.open("ab") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, cwd=REPOSITORY, env=environment)
    assert process.stdout is not None
    first = process.stdout.readline()
    if not first:
        process.wait()
        process.stdout.close()
        raise RuntimeError(f"the service did not start:\n{log.read_text()}")
    return RunningService(process, json.loads(first)["url"], log)
