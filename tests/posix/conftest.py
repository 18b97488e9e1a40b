"""Where the conformance suite runs: an Aloft mount of its own, or the folder that ALOFT_POSIX_DIRECTORY names.

The mount is made as a person would make it, by the command line, once for the whole suite. The folder (of a local file
system) is there to check the suite itself.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ALOFT = Path(sys.executable).with_name("aloft")
PATIENCE = 60.0
"""Seconds that anything may take before it counts as failed."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running service with one account."""

    url: str
    email: str
    password: str
    folder: Path

    def aloft(self, home: str, *arguments: str) -> str:
        environment = os.environ | {"ALOFT_HOME": str(self.folder / home), "ALOFT_PASSWORD": self.password}
        command = [str(ALOFT), *arguments]
        result = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
        )
        if result.returncode != 0:
            pytest.fail(f"{' '.join(command)} exited {result.returncode}:\n{result.stdout}{result.stderr}")
        return result.stdout

    def mount(self, home: str, *options: str) -> Path:
        point = self.folder / f"{home}-mount"
        self.aloft(home, "mount", str(point), "--allow-other", *options)
        if not os.path.ismount(point):
            pytest.fail(f"aloft mount returned, but nothing is mounted at {point}")
        return point

    def settle(self, home: str) -> None:
        """Everything on the service, the cases' many deletions included, which the drive asks about."""
        self.aloft(home, "confirm-deletes")
        self.aloft(home, "sync", "--timeout", "60")

    def umount(self, home: str) -> None:
        point = self.folder / f"{home}-mount"
        try:
            self.aloft(home, "umount", str(point), "--no-wait")
        finally:
            while os.path.ismount(point):
                subprocess.run(["umount", "-l", str(point)], check=True)


def need_fuse_and_root() -> None:
    if not Path("/dev/fuse").exists():
        pytest.fail("this kernel offers no FUSE: /dev/fuse is missing", pytrace=False)
    if os.geteuid() != 0:
        pytest.skip("the conformance suite acts as several users, so it runs as root")


def outside_directory() -> str | None:
    return os.environ.get("ALOFT_POSIX_DIRECTORY")


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    need_fuse_and_root()
    folder = Path(tempfile.mkdtemp(prefix="aloft-posix-"))
    folder.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(
            [str(ALOFT), "serve", "--data", str(folder / "service"), "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"the service did not start:\n{(folder / 'service.log').read_text()}")
                time.sleep(0.02)
        running = Service(f"http://127.0.0.1:{port}", "posix@example.com", "a password for tests", folder)
        running.aloft("first", "register", "--server", running.url, "--email", running.email)
        yield running
    finally:
        process.terminate()
        process.wait(PATIENCE)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def mounted(service: Service) -> Iterator[Path]:
    point = service.mount("first")
    try:
        yield point
    finally:
        service.umount("first")
    service.aloft("first", "fsck")


@pytest.fixture(scope="session")
def under_test(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The folder in which all cases play."""
    outside = outside_directory()
    if outside is None:
        mount: Path = request.getfixturevalue("mounted")
        yield mount
        return
    need_fuse_and_root()
    folder = Path(tempfile.mkdtemp(dir=outside))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def only_aloft() -> None:
    if outside_directory() is not None:
        pytest.skip("a case about Aloft's own rules")


@pytest.fixture
def place(under_test: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty folder for one case, with no umask in the way. The working directory is what it was, afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="case-", dir=under_test))
    folder.chmod(0o755)
    umask, working = os.umask(0), Path.cwd()
    try:
        yield folder
    finally:
        os.umask(umask)
        os.chdir(working)


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder of another file system."""
    folder = Path(tempfile.mkdtemp(prefix="aloft-posix-", dir="/dev/shm"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
