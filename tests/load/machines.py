"""The service and the devices of a run, as processes: started, killed, stopped and started again, and cleared away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fs.control import ControlError, call
from fs.home import Home
from tests.load.board import Board
from tests.load.board import Device as OnBoard
from tests.support.fault_proxy import FaultProxy
from tests.support.service import RunningService, start_service

ALOFT = Path(sys.executable).with_name("aloft")
EMAIL = "load@example.org"
PASSWORD = "correct horse battery"
ADDRESS_SPACE = 8 * 2**30
"""Bytes that a mount process may map: a stressor may ask for absurd sizes."""
START_SECONDS = 180.0
END_SECONDS = 600.0
"""A mount that is told to end serves until its last file is closed; every program here closes its files sooner, though an
archiver on a machine that is busy tenfold may take minutes."""


class Failed(Exception):
    """Something did not go as promised; the text says what."""


class Hangs(Failed):
    """Something does not end."""


def wait_until(condition: Callable[[], object], what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.05)


class Service:
    """Behind a proxy, whose addresses stay when the service gets another port."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "service"
        self.proxy = FaultProxy()
        self.start()

    def start(self) -> None:
        self._running: RunningService = start_service(self._data, public_url=self.proxy.store_url)
        self.proxy.upstream = self._running.port

    @property
    def pid(self) -> int:
        return self._running.process.pid

    @property
    def data(self) -> Path:
        return self._data

    @property
    def log(self) -> str:
        return self._running.log.read_text(errors="replace")

    def is_running(self) -> bool:
        return self._running.process.poll() is None

    def kill(self) -> None:
        self._running.kill()

    def stop(self) -> int:
        return self._running.stop()

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        self._running.kill()
        self.proxy.close()


class Device:
    """One home and its mount. Tells the board before its mount goes, and after it came."""

    def __init__(
        self, number: int, name: str, folder: Path, board: Board, options: Sequence[str] = (), planted: str | None = None
    ) -> None:
        self.number = number
        self.name = name
        self.home = Home(folder / f"{name}-home")
        self.point = folder / name
        self.cache = folder / f"{name}-cache"
        self._board = board
        self._options = options
        self._program = [str(ALOFT)] if planted is None else [sys.executable, "-m", "tests.load.planted", planted]
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._disturbers = 0
        self.point.mkdir()
        self.cache.mkdir()

    # ---------------------------------------------------------------------------------------------------------- commands

    def run(self, *arguments: str, seconds: float = START_SECONDS) -> subprocess.CompletedProcess[str]:
        command = [str(ALOFT), *arguments]
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "check": False}
        try:
            return subprocess.run(command, env=self._environment, timeout=seconds, **options)
        except subprocess.TimeoutExpired:
            raise Failed(f"aloft {' '.join(arguments)} did not end within {seconds:.0f} s") from None

    def aloft(self, *arguments: str, seconds: float = START_SECONDS) -> str:
        done = self.run(*arguments, seconds=seconds)
        if done.returncode != 0:
            raise Failed(f"aloft {' '.join(arguments)} exited {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """As `aloft COMMAND` does, without a process of its own."""
        try:
            return call(self.home.control_socket, command, arguments)
        except ControlError as error:
            raise Failed(f"{command} on device {self.name}: {error}") from error

    def enter(self, url: str, *, register: bool) -> None:
        command = "register" if register else "login"
        self.aloft(command, "--server", url, "--email", EMAIL, "--device", self.name)

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {"ALOFT_HOME": str(self.home.path), "ALOFT_PASSWORD": PASSWORD}

    # -------------------------------------------------------------------------------------------------------------- mount

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def log(self) -> str:
        path = self.home.path / "foreground.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def has_ended(self) -> bool:
        """By itself: nobody told it to."""
        return self._process is not None and self._process.poll() is not None

    def mount(self) -> None:
        """In the foreground, as a child of ours, under a limit of its address space."""
        arguments = ["mount", str(self.point), "--foreground", "--cache-dir", str(self.cache), *self._options]
        with (self.home.path / "foreground.log").open("ab") as log:
            process = subprocess.Popen(
                ["prlimit", f"--as={ADDRESS_SPACE}", *self._program, *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._process = process
        wait_until(lambda: self._is_usable() or process.poll() is not None, f"{self.point} is usable", START_SECONDS)
        if process.poll() is not None:
            raise Failed(f"the mount of {self.name} ended at once: {self.log[-2000:]}")
        with self._lock:
            here = self._board.device(self.number)
            self._board.set_device(self.number, OnBoard(True, here.generation, here.disturbances, here.calm_since))

    def kill(self) -> None:
        """SIGKILL, and take away what is left of the mount."""
        self._announce_end()
        assert self._process is not None
        process, self._process = self._process, None
        process.kill()
        process.wait(END_SECONDS)
        self._detach()

    def end(self) -> None:
        """As a machine that shuts down: SIGTERM; whoever has files open may close them."""
        self._announce_end()
        assert self._process is not None
        process, self._process = self._process, None
        process.terminate()
        try:
            status = process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process = process
            raise Hangs(
                f"the mount of {self.name} did not end within {END_SECONDS:.0f} s of a SIGTERM; it is held by {self._holders()}"
            ) from None
        if status != 0:
            raise Failed(f"the mount of {self.name} ended with {status} after a SIGTERM: {self.log[-2000:]}")

    def umount(self) -> None:
        self._announce_end()
        self.aloft("umount", str(self.point), "--timeout", "120", seconds=200)
        assert self._process is not None
        self._process.wait(END_SECONDS)
        self._process = None

    def clear_away(self) -> None:
        """Whatever state it is in."""
        if self._process is not None:
            self._process.kill()
        self._abort_connection()
        self._detach()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(30)

    def dump_stacks(self) -> None:
        """What its threads do goes to its log. It does not survive that."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGABRT)

    def is_mounted(self) -> bool:
        return any(line.split(" ")[4] == str(self.point) for line in Path("/proc/self/mountinfo").read_text().splitlines())

    def _holders(self) -> list[str]:
        """Who has a file of the mount open or stands in it, looked up without touching it. What is not in the tree any more has
        paths from its own root, where all that the run does is in `load`."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                names = {os.readlink(link) for link in (process / "cwd", *(process / "fd").iterdir())}
                held = sorted(name for name in names if name.startswith((f"{self.point}/", "/load")))
                if held:
                    found.append(f"{process.name} {(process / 'cmdline').read_bytes()[:80]!r} with {held[:3]}")
            except OSError:
                continue  # it has ended
        return found

    def _is_usable(self) -> bool:
        if not self.is_mounted():
            return False
        try:
            call(self.home.control_socket, "status", {})
        except (ControlError, OSError):
            return False
        return True

    def _announce_end(self) -> None:
        with self._lock:
            here = self._board.device(self.number)
            self._board.set_device(self.number, OnBoard(False, here.generation + 1, here.disturbances, here.calm_since))

    def _detach(self) -> None:
        while self.is_mounted():
            subprocess.run(["fusermount3", "-uz", str(self.point)], check=False, capture_output=True)

    def _abort_connection(self) -> None:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split(" ")
            if fields[4] == str(self.point):
                with suppress(OSError):
                    Path(f"/sys/fs/fuse/connections/{fields[2].split(':')[1]}/abort").write_text("1")

    # ------------------------------------------------------------------------------------------------------ disturbances

    def disturb(self) -> None:
        """From now on, operations that need the network, or room, may fail."""
        with self._lock:
            self._disturbers += 1
            here = self._board.device(self.number)
            self._board.set_device(self.number, OnBoard(here.up, here.generation, here.disturbances + 1, 0))

    def calm(self) -> None:
        with self._lock:
            self._disturbers -= 1
            here = self._board.device(self.number)
            since = 0 if self._disturbers else time.monotonic_ns()
            self._board.set_device(self.number, OnBoard(here.up, here.generation, here.disturbances, since))
