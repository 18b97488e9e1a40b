"""A service and devices of its own on this machine, for the demo and the benchmark.

Everything is done through the command `aloft`, as a person would. What was started is known, and is stopped whatever happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ALOFT = Path(sys.executable).with_name("aloft")
EMAIL = "demo@example.com"
PATIENCE = 180.0
"""Seconds after which anything that has not happened counts as failed."""
STOP_SECONDS = 30.0


class Failed(Exception):
    """Something did not go as promised; the text says what."""


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> float:
    """Poll until it holds; how many seconds that took."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise Failed(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.01)
    return time.monotonic() - start


def stop_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Service:
    """`aloft serve` on a folder, on the port that it had the last time if that is free."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._end_left_over()
        self._process, self.url = self._start(self._last_port())
        (folder / "port").write_text(self.url.rpartition(":")[2])
        (folder / "pid").write_text(str(self._process.pid))
        self.password = self._read_password()

    def _end_left_over(self) -> None:
        """The service of a demo that was killed goes on by itself: it is in the way of this one."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pid = int((self._folder / "pid").read_text())
            if os.fsencode(self._folder) in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)
                wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the service of before ends", STOP_SECONDS)

    def _last_port(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / "port").read_text()
        return "0"

    def _read_password(self) -> str:
        file = self._folder / "password"
        if not file.exists():
            file.touch(0o600)
            file.write_text(secrets.token_urlsafe(12))
        return file.read_text()

    def _start(self, port: str) -> tuple[subprocess.Popen[bytes], str]:
        command = [str(ALOFT), "serve", "--data", str(self._folder / "data"), "--port", port, "--json"]
        log = self._folder / "log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        assert process.stdout is not None
        url = json.loads(process.stdout.readline() or "{}").get("url")
        if url is not None:
            return process, str(url)
        stop_process(process)
        if port != "0":
            return self._start("0")
        raise Failed(f"the service did not start: {log.read_text()}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        stop_process(self._process)


class Device:
    """One home and its mount point."""

    def __init__(self, service: Service, name: str, home: Path, point: Path) -> None:
        self.name = name
        self.home = home
        self.point = point
        self._service = service
        self._foreground: subprocess.Popen[bytes] | None = None
        point.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"ALOFT_HOME": str(self.home), "ALOFT_PASSWORD": self._service.password}

    def run(self, *arguments: str, seconds: float = PATIENCE, may_fail: bool = False) -> subprocess.CompletedProcess[str]:
        """One command of `aloft`, to its end."""
        try:
            done = subprocess.run(
                [str(ALOFT), *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"`aloft {' '.join(arguments)}` did not end within {seconds:.0f} s") from None
        if done.returncode != 0 and not may_fail:
            raise Failed(f"`aloft {' '.join(arguments)}` exited {done.returncode}: {(done.stderr or done.stdout).strip()}")
        return done

    def ask(self, *arguments: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run(*arguments, "--json").stdout)
        return answer

    def register(self) -> None:
        self.run("register", "--server", self._service.url, "--email", EMAIL, "--device", self.name)

    def log_in(self) -> None:
        self.run("login", "--server", self._service.url, "--email", EMAIL, "--device", self.name)

    def mount(self, *options: str) -> None:
        """In the background, as by default."""
        self.run("mount", str(self.point), *options)
        if not self.is_mounted():
            raise Failed(f"`aloft mount` returned, but nothing is mounted at {self.point}")

    def mount_in_foreground(self, *options: str) -> None:
        """As a child of ours, so that it can be killed."""
        with (self.home / "foreground.log").open("wb") as log:
            self._foreground = subprocess.Popen(
                [str(ALOFT), "mount", str(self.point), "--foreground", *options],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process = self._foreground

        def mounted_or_dead() -> bool:
            return self.is_mounted() or process.poll() is not None

        wait_until(mounted_or_dead, f"{self.point} is mounted")
        if process.poll() is not None:
            raise Failed(f"`aloft mount --foreground` ended: {(self.home / 'foreground.log').read_text()}")

    def kill_mount(self) -> None:
        """SIGKILL: no chance to clean up."""
        assert self._foreground is not None
        self._foreground.kill()
        self._foreground.wait()
        self._foreground = None

    def umount(self, *options: str) -> None:
        self.run("umount", str(self.point), *options)
        if self._foreground is not None:
            self._foreground.wait(STOP_SECONDS)
            self._foreground = None

    def is_mounted(self) -> bool:
        """By the kernel's table: looking at the folder itself would hang, or fail, if its process is in trouble."""
        return str(self.point) in mount_points()

    def received(self) -> tuple[int, int]:
        """Bytes and objects that the service has received for this account since it started, by its own count."""
        traffic = self.ask("whoami")["traffic"]
        return int(traffic["received_bytes"]), int(traffic["received_objects"])

    def sent(self) -> int:
        return int(self.ask("whoami")["traffic"]["sent_bytes"])

    def clear_away(self) -> None:
        """Unmount and end the mount process, whatever state they are in."""
        if self.is_mounted():
            with contextlib.suppress(Failed):
                self.run("umount", str(self.point), "--no-wait", seconds=STOP_SECONDS, may_fail=True)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._foreground is not None:
            self._foreground.wait()
        while self.is_mounted():
            subprocess.run(["fusermount3", "-uz", str(self.point)], check=True)

    def processes(self) -> Sequence[int]:
        """Processes whose ALOFT_HOME is this home."""
        mine = f"ALOFT_HOME={self.home}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mine in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found


def mount_points() -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line.split()[4].replace("\\040", " ") for line in lines}
