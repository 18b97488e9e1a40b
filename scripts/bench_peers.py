"""What is measured: Aloft and rclone, each as a mounted folder over a store on this machine's loopback.

Both are set up as their makers mean them to be used for a drive: a full local cache, writes that go up in the background.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from playground import Device, Failed, Service, mount_points, stop_process, wait_until

SETTLE_SECONDS = 900.0


class Drive(Protocol):
    """One mounted drive."""

    @property
    def point(self) -> Path: ...

    def settle(self) -> None:
        """Return when everything that was written is on the store."""

    def resident_bytes(self) -> int:
        """Memory of the mount's process."""

    def mount(self) -> None: ...

    def umount(self) -> None: ...


class Peer(Protocol):
    """A program under measurement."""

    name: str

    def first(self) -> contextlib.AbstractContextManager[Drive]:
        """A mounted drive on an empty store."""

    def second(self) -> contextlib.AbstractContextManager[Drive]:
        """Another one on the same store, with nothing cached."""

    def stop(self) -> None: ...


def require_mount(point: Path) -> None:
    """A mount that failed silently would mean to measure the local disk."""
    found = subprocess.run(
        ["findmnt", "--noheadings", "--output", "FSTYPE", str(point)], capture_output=True, text=True, check=False
    )
    if "fuse" not in found.stdout:
        raise Failed(f"nothing is mounted at {point}")


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise Failed(f"process {pid} has no VmRSS")


class AloftDrive:
    def __init__(self, device: Device) -> None:
        self._device = device

    @property
    def point(self) -> Path:
        return self._device.point

    def mount(self) -> None:
        self._device.mount("--upload-delay", "5")  # rclone's write-back waits as long
        require_mount(self.point)

    def umount(self) -> None:
        self._device.umount("--timeout", str(SETTLE_SECONDS))

    def settle(self) -> None:
        # The drive asks before so many deletions at once as the benchmark makes.
        self._device.run("confirm-deletes")
        self._device.run("sync", "--timeout", str(SETTLE_SECONDS), seconds=SETTLE_SECONDS + 30)

    def resident_bytes(self) -> int:
        return max(resident_bytes(pid) for pid in self._device.processes())


class Aloft:
    name = "aloft"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._service = Service(folder / "service")
        self._registered = False
        self._devices = 0

    @contextlib.contextmanager
    def first(self) -> Iterator[Drive]:
        with self._device() as drive:
            yield drive

    @contextlib.contextmanager
    def second(self) -> Iterator[Drive]:
        with self._device() as drive:
            yield drive

    @contextlib.contextmanager
    def _device(self) -> Iterator[Drive]:
        self._devices += 1
        name = f"device{self._devices}"
        device = Device(self._service, name, self._folder / f"{name}-home", self._folder / name)
        try:
            if self._registered:
                device.log_in()
            else:
                device.register()
                self._registered = True
            drive = AloftDrive(device)
            drive.mount()
            yield drive
        finally:
            device.clear_away()
            # A device is one of five: its slot is needed for the next one.
            device.run("logout", "--keep-drafts", may_fail=True)

    def stop(self) -> None:
        self._service.stop()


class RcloneDrive:
    MOUNT_OPTIONS = (
        "--vfs-cache-mode=full",
        "--dir-cache-time=72h",
        "--poll-interval=0",
        "--attr-timeout=1h",
        "--use-server-modtime",
        "--vfs-write-back=5s",
        "--vfs-fast-fingerprint",
        "--transfers=16",
        "--checkers=16",
        "--buffer-size=32M",
        "--vfs-read-chunk-size=32M",
        "--s3-upload-concurrency=4",
        "--s3-chunk-size=16M",
    )

    def __init__(self, program: Path, folder: Path, environment: dict[str, str]) -> None:
        self._program = program
        self._folder = folder
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._control = f"127.0.0.1:{free_port()}"
        self._point = folder / "point"
        self._point.mkdir(parents=True)

    @property
    def point(self) -> Path:
        return self._point

    def mount(self) -> None:
        command = [str(self._program), "mount", "peer:bucket", str(self._point), *self.MOUNT_OPTIONS]
        command += [f"--cache-dir={self._folder / 'cache'}", "--rc", f"--rc-addr={self._control}", "--rc-no-auth"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(lambda: str(self._point) in mount_points(), f"rclone mounts {self._point}", 30)
        require_mount(self._point)

    def umount(self) -> None:
        subprocess.run(["fusermount3", "-u", str(self._point)], check=True)
        assert self._process is not None
        self._process.wait(60)
        self._process = None

    def settle(self) -> None:
        wait_until(lambda: self._waiting() == 0, "rclone has uploaded everything", SETTLE_SECONDS)

    def _waiting(self) -> int:
        command = [str(self._program), "rc", f"--rc-addr={self._control}", "vfs/stats"]
        answer = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True).stdout
        cache = json.loads(answer)["diskCache"]
        return int(cache["uploadsInProgress"]) + int(cache["uploadsQueued"])

    def resident_bytes(self) -> int:
        assert self._process is not None
        return resident_bytes(self._process.pid)

    def clear_away(self) -> None:
        while str(self._point) in mount_points():
            subprocess.run(["fusermount3", "-uz", str(self._point)], check=True)
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


class Rclone:
    name = "rclone"

    def __init__(self, folder: Path, program: Path) -> None:
        self._folder = folder
        self._program = program
        self._drives = 0
        port = free_port()
        self._environment = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"} | {
            "RCLONE_CONFIG": "/dev/null",
            "RCLONE_CONFIG_PEER_TYPE": "s3",
            "RCLONE_CONFIG_PEER_PROVIDER": "Rclone",
            "RCLONE_CONFIG_PEER_ENDPOINT": f"http://127.0.0.1:{port}",
            "RCLONE_CONFIG_PEER_ACCESS_KEY_ID": "bench",
            "RCLONE_CONFIG_PEER_SECRET_ACCESS_KEY": "bench-secret",
        }
        store = folder / "store"
        (store / "bucket").mkdir(parents=True)
        command = [str(program), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "bench,bench-secret"]
        command.append(str(store))
        with (folder / "log").open("wb") as log:
            self._server = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_until(lambda: _answers(port), "rclone serve s3 answers", 30)
        except Failed:
            self.stop()
            raise

    @contextlib.contextmanager
    def first(self) -> Iterator[Drive]:
        with self._drive() as drive:
            yield drive

    @contextlib.contextmanager
    def second(self) -> Iterator[Drive]:
        with self._drive() as drive:
            yield drive

    @contextlib.contextmanager
    def _drive(self) -> Iterator[Drive]:
        self._drives += 1
        drive = RcloneDrive(self._program, self._folder / f"drive{self._drives}", self._environment)
        try:
            drive.mount()
            yield drive
        finally:
            drive.clear_away()

    def stop(self) -> None:
        stop_process(self._server)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
