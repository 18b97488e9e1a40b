"""The home: the folder that holds all state of one client. Owns its layout, its safety and its locks.

    credentials.json             (remote.credentials) who is logged in, and the tokens
    installation                 this client's id, made once, kept for ever
    run/                         control.sock, mount.lock, mount.log
    replica.db, drafts/, cache/  (cache.home says what they are)

Two homes are two devices. Everything in it is for its owner only. Must not know what is in the files.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from cache.disk import make_folder, sync_folder
from cache.home import HomePaths
from remote.crashpoints import crash_point

ENVIRONMENT = "ALOFT_HOME"
INSTALLATION_BYTES = 16


class HomeError(Exception):
    """This home cannot be used; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class MountProcess:
    """Who holds a home's mount lock, as far as it said."""

    pid: int | None
    mount_point: str | None


class HomeBusy(HomeError):
    """A mount process runs for this home."""

    def __init__(self, holder: MountProcess) -> None:
        who = f"process {holder.pid}" if holder.pid else "a process"
        where = holder.mount_point or "DIR"
        super().__init__(f"{who} has this home mounted: run `aloft umount {where}` first")
        self.holder = holder


@dataclass(frozen=True, slots=True)
class Home:
    """Paths of a home that was checked by `open_home`."""

    path: Path

    @property
    def credentials(self) -> Path:
        return self.path / "credentials.json"

    @property
    def installation_file(self) -> Path:
        return self.path / "installation"

    def parts(self, cache_folder: Path | None = None) -> HomePaths:
        """The places of the cache layer; `cache_folder` is where the person wants the chunk cache instead."""
        return HomePaths.under(self.path, cache_folder)

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def control_socket(self) -> Path:
        """May be longer than an address of a Unix socket: go there through the folder's descriptor."""
        return self.run / "control.sock"

    @property
    def mount_lock(self) -> Path:
        return self.run / "mount.lock"

    @property
    def shown(self) -> Path:
        """The number of the last notification that was shown on the desktop."""
        return self.path / "notifications"

    @property
    def log(self) -> Path:
        return self.run / "mount.log"

    def installation(self) -> bytes:
        """This client's id. Made at the first call; of two processes that make it at once, one wins for both."""
        try:
            known = self._read_installation()
        except FileNotFoundError:
            return self._make_installation()
        for left_over in self.path.glob("installation.*.new"):  # of a process that was killed while it made one
            left_over.unlink(missing_ok=True)
        return known

    def _make_installation(self) -> bytes:
        temporary = self.installation_file.with_name(f"installation.{os.getpid()}.new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(INSTALLATION_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            # A link and not a rename: it does not replace the id that another process made meanwhile.
            crash_point("installation.written")
            self.installation_file.hardlink_to(temporary)
            crash_point("installation.named")
        except (FileExistsError, FileNotFoundError):  # there is one now, and whoever saw it may have cleared our file away
            return self._read_installation()
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(self.path)
        return self._read_installation()

    def _read_installation(self) -> bytes:
        try:
            value = bytes.fromhex(self.installation_file.read_text().strip())
        except ValueError:
            value = b""
        if len(value) != INSTALLATION_BYTES:
            raise HomeError(f"{self.installation_file} is damaged: remove it, and this home becomes a new device")
        return value

    @contextmanager
    def locked(self, mount_point: Path | None = None) -> Iterator[int]:
        """Be the one process that owns this home's state, as the mount process is; `HomeBusy` if there is one.

        Gives the lock's descriptor. The lock belongs to it and to its copies in forked children, and ends with the last.
        """
        descriptor = os.open(self.mount_lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno != errno.EWOULDBLOCK:
                    raise
                raise HomeBusy(_holder(descriptor)) from None
            self.say_who(descriptor, mount_point)
            yield descriptor
        finally:
            os.close(descriptor)

    def say_who(self, descriptor: int, mount_point: Path | None = None) -> None:
        """Write down who holds the lock; for a process that took it over from its parent, too."""
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n{mount_point or ''}\n".encode(errors="surrogateescape"), 0)

    def mount_process(self) -> MountProcess | None:
        """Who has this home mounted, if somebody has."""
        try:
            descriptor = os.open(self.mount_lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                raise
            return _holder(descriptor)
        else:
            return None
        finally:
            os.close(descriptor)


def home_path(environ: Mapping[str, str] | None = None) -> Path:
    """Where the home is or would be."""
    environ = os.environ if environ is None else environ
    chosen = environ.get(ENVIRONMENT, "")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return platformdirs.user_data_path("aloft").absolute()


def open_home(path: Path | None = None) -> Home:
    """The home at `path` (default: `home_path()`), made if it is not there; `HomeError` if it is not safe to use."""
    path = path if path is not None else home_path()
    try:
        make_folder(path)
        real = _owned_folder(path, follow=True)
        _refuse_open_parent(real.parent)
        home = Home(real)
        parts = home.parts()
        for folder in (home.run, parts.drafts, parts.cache):
            make_folder(folder)
            _owned_folder(folder, follow=False)
    except OSError as error:
        raise HomeError(f"cannot use the home {path}: {error.strerror}; set {ENVIRONMENT} to choose another one") from error
    return home


def _owned_folder(path: Path, *, follow: bool) -> Path:
    """The real path of a folder that is ours alone. Only the home itself may be reached by a link, and only by our own."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        if not follow or status.st_uid != os.geteuid():
            raise HomeError(f"{path} is a symbolic link where a folder has to be")
        path = path.resolve(strict=True)
        status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise HomeError(f"{path} is not a folder")
    if status.st_uid != os.geteuid():
        raise HomeError(f"{path} belongs to another user (uid {status.st_uid}); set {ENVIRONMENT} to a folder of your own")
    if stat.S_IMODE(status.st_mode) & 0o077:
        path.chmod(0o700)
    return path


def _refuse_open_parent(parent: Path) -> None:
    status = parent.stat()
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise HomeError(f"anybody may replace folders in {parent}; set {ENVIRONMENT} to a safer place")


def _holder(descriptor: int) -> MountProcess:
    lines = os.pread(descriptor, 8192, 0).decode(errors="surrogateescape").split("\n")
    pid = int(lines[0]) if lines[0].isdigit() else None
    return MountProcess(pid, lines[1] if len(lines) > 1 and lines[1] else None)
