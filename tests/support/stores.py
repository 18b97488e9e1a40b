"""Real object stores as processes of the tests: on free ports, in a folder of the test's, stopped at the end."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

ACCESS_KEY = "test:tester"
SECRET_KEY = "testing"
PATIENCE = 60.0
"""Seconds for a server to begin, or to end."""
COMMAND_SECONDS = 120
PORTS = (10_000, 32_000)


class Servers:
    """Processes that belong together; what they print goes to files in `logs`."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        with (self._logs / f"{Path(command[0]).name}.{len(self._processes)}.out").open("ab") as out:
            # They end with the test run, however that ends.
            bound = ["setpriv", "--pdeathsig", "KILL", *command]
            process = subprocess.Popen(bound, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, start_new_session=True)
        self._processes.append(process)
        return process

    def run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=COMMAND_SECONDS)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def check(self) -> None:
        """`RuntimeError` if one of them has ended by itself."""
        for process in self._processes:
            if process.poll() is not None:
                said = "\n".join(f"{file.name}:\n{file.read_text(errors='replace')[-2000:]}" for file in self._logs.iterdir())
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}\n{said}")

    def pause(self) -> None:
        """All of them hang, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End them at once: what they keep goes with the folder."""
        self._signal(signal.SIGKILL)
        for process in self._processes:
            process.wait(PATIENCE)
        self._processes.clear()

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)


@dataclass(frozen=True)
class RunningStore:
    """A store that answers at `url`."""

    name: str
    url: str
    access_key: str
    secret_key: str
    servers: Servers


def free_ports(count: int) -> list[int]:
    """Ports of which none is in use, all different. Below those that the kernel gives away, so that they stay free."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.choice(range(*PORTS))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def wait_for_http(url: str, servers: Servers) -> None:
    """Return when `url` answers anything."""
    until = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(url, timeout=5, trust_env=False)
            return
        servers.check()
        if time.monotonic() > until:
            raise RuntimeError(f"{url} does not answer")
        time.sleep(0.02)
