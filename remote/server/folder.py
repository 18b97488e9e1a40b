"""The data folder: one service at a time, private to its user."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from remote.server.keys import KEY_BYTES, Key

SHARE_SECONDS = 30.0


class DataFolderError(Exception):
    """The data folder cannot be used; the text says what to do."""


class DataFolder:
    """An opened and locked data folder. `close` lets the next service have it.

    One that is `shared` is used by all processes of a service on one machine; `alone` says whether this is the only one, which
    stays so until it calls `share`.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path = path
        self._shared = shared
        try:
            make_folder(path)
            path.chmod(0o700)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataFolderError(f"cannot use the data folder {path}: {error.strerror}") from error
        self.alone = self._try_lock(fcntl.LOCK_EX)
        if not self.alone and not (shared and self._wait_for_share()):
            os.close(self._lock)
            raise DataFolderError(f"another service is running on {path}; stop it first, or choose another --data")

    def share(self) -> None:
        """Let the other processes in, if it is shared."""
        if self._shared:
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def _wait_for_share(self) -> bool:
        """Whether the others let this one in: they do as soon as they have started."""
        until = time.monotonic() + SHARE_SECONDS
        while not self._try_lock(fcntl.LOCK_SH):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def _try_lock(self, kind: int) -> bool:
        try:
            fcntl.flock(self._lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @property
    def objects(self) -> Path:
        return self.path / "objects"

    def old_key(self, name: str) -> Key | None:
        """The key called `name`, if it is still in a file, where keys were before they were in the database."""
        file = self._key_file(name)
        try:
            known = json.loads(file.read_bytes())
            key = Key(str(known["kid"]), bytes.fromhex(known["secret"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise DataFolderError(f"{file} is damaged; restore it, or remove it (all devices then log in again)") from error
        if len(key.secret) < KEY_BYTES:
            raise DataFolderError(f"{file} holds a key that is too short; remove it (all devices then log in again)")
        return key

    def forget_old_key(self, name: str) -> None:
        """The database has it, durably, or has another one."""
        self._key_file(name).unlink(missing_ok=True)

    def _key_file(self, name: str) -> Path:
        return self.path / f"{name}.key"

    def close(self) -> None:
        os.close(self._lock)

    def __enter__(self) -> DataFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def write_private(file: Path, content: bytes) -> None:
    """Write `file` whole and durably, mode 0600."""
    temporary = file.with_name(file.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    sync_folder(file.parent)


def make_folder(path: Path, mode: int = 0o700) -> None:
    """`path`, private, and what is missing above it; their names are durable, also where a process died while it made them."""
    if not path.parent.is_dir():
        make_folder(path.parent, 0o777)
    path.mkdir(mode, exist_ok=True)
    with suppress(PermissionError):  # a folder that we may write and not read can only be left to the kernel
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
