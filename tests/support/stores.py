"""Real object stores as processes of the tests: on free ports, in a folder of the test's, stopped at the end."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.exceptions import BotoCoreError, ClientError

from remote.server.config import S3Config

ACCESS_KEY = "test:tester"
SECRET_KEY = "testing"
BUCKET = "objects"
"""As the fault proxy tells objects by their path."""
PATIENCE = 60.0
"""Seconds for what a server that runs should do."""
START_SECONDS = 180.0
COMMAND_SECONDS = 120
PORTS = (10_000, 32_000)


class Servers:
    """Processes that belong together; what they print goes to files in `logs`."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> None:
        with (self._logs / f"{Path(command[0]).name}.{len(self._processes)}.out").open("ab") as out:
            # They end with the test run, however that ends.
            bound = ["setpriv", "--pdeathsig", "KILL", *command]
            process = subprocess.Popen(bound, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        self._processes.append(process)

    def run(self, *command: str, limit: float = COMMAND_SECONDS) -> str:
        """What it prints. `limit` in seconds."""
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=limit)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def check(self) -> None:
        """`RuntimeError` if one of them has ended by itself."""
        for process in self._processes:
            if process.poll() is not None:
                said = "\n".join(f"{file.name}:\n{file.read_text(errors='replace')[-2000:]}" for file in self._logs.iterdir())
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}\n{said}")

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """The one that was started last, which speaks S3, takes connections and does not answer."""
        self._processes[-1].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._processes[-1].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End them at once: what they keep goes with the folder."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(PATIENCE)
        self._processes.clear()


@dataclass(frozen=True)
class RunningStore:
    """A store that answers at `url`, with the account of `ACCESS_KEY`. `folder` is its own."""

    name: str
    url: str
    folder: Path
    servers: Servers

    def settings(self, **more: Any) -> S3Config:
        """How the service reaches the bucket of the tests, which `make_bucket` makes."""
        file = self.folder / "credentials"
        file.write_text(f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n")
        return S3Config(**{"bucket": BUCKET, "endpoint": self.url, "credentials_file": file, "prefix": "aloft/", **more})

    def make_bucket(self) -> None:
        """Make it. A store may say that it is not there yet, when it has just begun to answer."""
        client = boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY
        )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                client.create_bucket(Bucket=BUCKET)
                break
            except client.exceptions.BucketAlreadyOwnedByYou:  # the answer to the last attempt was lost
                break
            except (BotoCoreError, ClientError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        client.close()


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
    until = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(url, timeout=5, trust_env=False)
            return
        servers.check()
        if time.monotonic() > until:
            raise RuntimeError(f"{url} does not answer")
        time.sleep(0.02)
