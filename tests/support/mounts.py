"""Real mounts for tests: the real commands in subprocesses, with the real service.

The fixtures that hand these out are in `tests.support.mount_fixtures`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import PATIENCE, wait_until

ALOFT = Path(sys.executable).with_name("aloft")
PASSWORD = "correct horse battery"


@dataclass
class Service:
    """`address`: where devices find it, if that is not where it listens. `prefix`: words before the command."""

    folder: Path
    url: str = ""
    process: subprocess.Popen[str] | None = None
    port: int = 0
    options: Sequence[str] = ()
    address: str = ""
    prefix: Sequence[str] = ()

    def start(self) -> None:
        """On the same port again after `stop`."""
        command = [*self.prefix, str(ALOFT), "serve", "--data", str(self.folder / "service"), "--port", str(self.port), "--json"]
        with (self.folder / "service.log").open("a") as log:
            self.process = subprocess.Popen([*command, *self.options], stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            pytest.fail(f"the service did not start:\n{self.log()}")
        self.url = json.loads(line)["url"]
        self.port = int(self.url.rsplit(":", 1)[1])

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self._end()

    def kill(self) -> None:
        """As `kill -9` does."""
        if self.process is not None:
            self.process.kill()
            self._end()

    def log(self) -> str:
        path = self.folder / "service.log"
        return path.read_text() if path.exists() else ""

    def _end(self) -> None:
        assert self.process is not None
        self.process.communicate(timeout=PATIENCE)
        self.process = None


@dataclass
class Device:
    """One home. Its commands run as a person would run them. `environment`: what they have besides the test's own; `prefix`:
    words before them."""

    service: Service
    email: str
    folder: Path
    name: str
    environment: dict[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    point: Path = field(init=False)
    home: Path = field(init=False)

    def __post_init__(self) -> None:
        self.home, self.point = self.folder / f"{self.name}-home", self.folder / self.name
        self.point.mkdir()

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"ALOFT_HOME": str(self.home), "ALOFT_PASSWORD": PASSWORD} | self.environment
        command = [*self.prefix, str(ALOFT), *arguments]
        return subprocess.run(
            command,
            env=environment | options.pop("env", {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            **options,
        )

    def aloft(self, *arguments: str) -> str:
        done = self.run(*arguments)
        if done.returncode != 0:
            pytest.fail(f"aloft {' '.join(arguments)} exited {done.returncode}:\n{done.stdout}{done.stderr}\n{self.log()}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.aloft(*arguments, "--json"))

    def register(self) -> None:
        self.aloft("register", "--server", self._server(), "--email", self.email, "--device", self.name)

    def login(self) -> None:
        self.aloft("login", "--server", self._server(), "--email", self.email, "--device", self.name)

    def _server(self) -> str:
        return self.service.address or self.service.url

    def mount(self, *options: str) -> Path:
        self.aloft("mount", str(self.point), "--upload-delay", "0", *options)
        assert self.is_mounted(), "aloft mount returned, but nothing is mounted"
        return self.point

    def umount(self, *options: str) -> str:
        return self.aloft("umount", str(self.point), *options)

    def pid(self) -> int:
        return int(self.json("status")["mount"]["pid"])

    def kill(self) -> None:
        """As `kill -9` does, and until the process is gone."""
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        self.wait_for_the_end_of(pid)

    def wait_for_the_end_of(self, pid: int) -> None:
        wait_until(lambda: not is_running(pid), f"the end of the mount process {pid}")

    def counters(self) -> Any:
        return self.json("status")["drive"]["counters"]

    def state(self, path: Path) -> str:
        return str(self.json("status", str(path))["files"][0]["state"])

    def log(self) -> str:
        path = self.home / "run" / "mount.log"
        return path.read_text() if path.exists() else ""

    def finish(self) -> list[str]:
        """Unmount whatever is left; what was wrong."""
        wrong = []
        while self.is_mounted():
            subprocess.run(["fusermount3", "-uz", str(self.point)], check=True, capture_output=True)
        lock = self.home / "run" / "mount.lock"
        if lock.exists():
            self._wait_for_the_process(lock)
            wrong += self._fsck()
        if "Traceback" in self.log():
            wrong.append(f"the log of {self.name} has a traceback:\n{self.log()[-4000:]}")
        return wrong

    def _fsck(self) -> list[str]:
        done = self.run("fsck", "--json")
        return [] if done.returncode == 0 else [f"fsck of {self.name}:\n{done.stdout}{done.stderr}"]

    def is_mounted(self) -> bool:
        """By the table of mounts: another user's cannot be looked into, and one that hangs should not be."""
        return any(line.split(" ")[4] == str(self.point) for line in Path("/proc/self/mountinfo").read_text().splitlines())

    def _wait_for_the_process(self, lock: Path) -> None:
        pid = lock.read_text().split("\n")[0]
        if pid:
            self.wait_for_the_end_of(int(pid))


def is_running(pid: int) -> bool:
    """A zombie is not; but one whose threads still end may hold the kernel's connection open."""
    try:
        is_zombie = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return not is_zombie or len(os.listdir(f"/proc/{pid}/task")) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


class Devices:
    def __init__(self, folder: Path, service: Service) -> None:
        self._folder, self._service = folder, service
        self._email = f"{uuid.uuid4()}@example.org"
        self.made: list[Device] = []

    def add(self, name: str = "", email: str | None = None, **environment: str) -> Device:
        """Logged in, not mounted. All devices of a test belong to one account, but those with another address."""
        device = Device(self._service, email or self._email, self._folder, name or f"device{len(self.made) + 1}", environment)
        if device.email in {other.email for other in self.made}:
            device.login()
        else:
            device.register()
        self.made.append(device)
        return device

    def finish(self) -> list[str]:
        """What was wrong at the end."""
        return [line for device in self.made for line in device.finish()]
