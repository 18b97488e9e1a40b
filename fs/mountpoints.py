"""What the machine knows of mount points: which exist, which are dead, how they are taken away, what limits they have.

Reads `/proc/self/mountinfo`, runs `fusermount3`, writes to sysfs. Knows nothing of a running mount's loop; whatever touches
a path that may be a FUSE mount of this very process must be called in a worker thread.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

CONNECTIONS = Path("/sys/fs/fuse/connections")
MAX_BACKGROUND = 1024
READ_AHEAD_KIB = 1024
_FUSE = Path("/dev/fuse")
_FUSE_CONFIGURATION = Path("/etc/fuse.conf")
_MOUNTINFO = Path("/proc/self/mountinfo")
_STACKED_MAX = 100
_DYING_SECONDS = 0.05
"""While its process ends, a mount says ECONNABORTED; ENOTCONN comes after that."""
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class MountPointError(Exception):
    """The folder cannot be mounted on, or not be unmounted; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Mounted:
    path: Path
    major: int
    minor: int
    kind: str

    @property
    def is_aloft(self) -> bool:
        return self.kind == "fuse.aloft"


def mounts() -> list[Mounted]:
    """All mounts that this process sees; of those on one path, the last is on top."""
    return [_parse(line) for line in _MOUNTINFO.read_bytes().splitlines()]


def mounted_at(path: Path) -> list[Mounted]:
    """The mounts stacked on exactly this (real) path, the topmost last."""
    return [mounted for mounted in mounts() if mounted.path == path]


def _parse(line: bytes) -> Mounted:
    # proc(5): id, parent, major:minor, root, mount point, options, optional fields…, "-", type, source, super options
    fields = line.split(b" ")
    major, minor = fields[2].split(b":")
    point = _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), fields[4])
    kind = fields[fields.index(b"-", 6) + 1]
    return Mounted(Path(os.fsdecode(point)), int(major), int(minor), kind.decode())


def check_fuse(*, allow_other: bool) -> None:
    """Raise `MountPointError` if this user cannot mount at all, which libfuse itself says only to the log."""
    fusermount()
    try:
        os.close(os.open(_FUSE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise MountPointError(f"this kernel has no FUSE: {_FUSE} is missing (`modprobe fuse`)") from None
    except OSError as error:
        raise MountPointError(f"cannot open {_FUSE}: {error.strerror}") from error
    if allow_other and os.geteuid() != 0 and not _users_may_allow_other():
        raise MountPointError(f"--allow-other needs the line `user_allow_other` in {_FUSE_CONFIGURATION}")


def _users_may_allow_other() -> bool:
    try:
        lines = _FUSE_CONFIGURATION.read_text().splitlines()
    except FileNotFoundError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def prepare_mount_point(path: Path) -> Path:
    """The real path of a folder that can be mounted on. Makes it if only it is missing, clears dead mounts from it."""
    for _ in range(_STACKED_MAX):
        try:
            os.listdir(path)
        except FileNotFoundError:
            _make(path)
        except NotADirectoryError:
            raise MountPointError(f"{path} is not a folder") from None
        except OSError as error:
            if error.errno == errno.ECONNABORTED:
                time.sleep(_DYING_SECONDS)
                continue
            if error.errno != errno.ENOTCONN:
                raise MountPointError(f"cannot mount on {path}: {error.strerror}") from error
            # A mount whose process is gone. Mounts stack, so there may be another one below; and only after this errno,
            # because -uz would also take a live mount away.
            unmount(path, lazily=True)
        else:
            break
    real = path.resolve(strict=True)
    on_top = mounted_at(real)
    if on_top:
        what = "an Aloft drive" if on_top[-1].is_aloft else f"something else ({on_top[-1].kind})"
        raise MountPointError(f"{path} is in use: {what} is mounted there already")
    if any(real.iterdir()):
        raise MountPointError(f"{path} is not empty: choose an empty folder, or move what is in it")
    return real


def _make(path: Path) -> None:
    try:
        path.mkdir()
    except OSError as error:
        raise MountPointError(f"cannot make the folder {path}: {error.strerror}") from error


def is_dead(path: Path) -> bool:
    """Whether the process behind a mount point is gone. STATFS is a request that no cache of the kernel answers."""
    for _ in range(_STACKED_MAX):
        try:
            os.statvfs(path)
        except OSError as error:
            if error.errno != errno.ECONNABORTED:
                return error.errno == errno.ENOTCONN
            time.sleep(_DYING_SECONDS)
        else:
            return False
    return False


def fusermount() -> str:
    """The absolute path of `fusermount3`: found before anything is mounted, since $PATH may lead into the mount itself."""
    found = shutil.which("fusermount3", path=os.environ.get("PATH", os.defpath) + ":/usr/bin:/bin:/usr/local/bin")
    if found is None:
        raise MountPointError("fusermount3 is missing: install the package fuse3")
    return str(Path(found).resolve())


def unmount_command(path: Path, *, lazily: bool, tool: str | None = None) -> list[str]:
    return [tool or fusermount(), "-uz" if lazily else "-u", "--", os.fspath(path)]


def unmount(path: Path, *, lazily: bool) -> None:
    """Not for the process that serves the mount."""
    done = subprocess.run(unmount_command(path, lazily=lazily), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MountPointError(f"cannot unmount {path}: {done.stderr.strip() or 'fusermount3 failed'}")


def abort(mounted: Mounted) -> None:
    """Cut the kernel's connection: every request fails at once, and dirty pages are lost. For a mount that hangs."""
    if not _fusectl():
        raise MountPointError(f"cannot abort: {CONNECTIONS} is not mounted (`mount -t fusectl fusectl {CONNECTIONS}`)")
    try:
        (CONNECTIONS / str(mounted.minor) / "abort").write_text("1")
    except OSError as error:
        raise MountPointError(f"cannot abort the connection of {mounted.path}: {error.strerror}") from error


def fuse_descriptor() -> int:
    """This process's end of the kernel's connection. An error on it: the session is over."""
    return next(int(link.name) for link in Path("/proc/self/fd").iterdir() if _target(link) == os.fspath(_FUSE))


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # the one that listed the folder
        return ""


def raise_limits(device: int) -> bool:
    """Let many requests wait at once, and read ahead further. False: the kernel's limit of background requests stays.

    The kernel lets 12 background requests (read-ahead and write-back together) be outstanding, so twelve readers that wait
    for the network would block everybody's `close()`.
    """
    _raise_read_ahead(device)
    if not _fusectl():
        return False
    connection = CONNECTIONS / str(os.minor(device))
    try:
        (connection / "max_background").write_text(str(MAX_BACKGROUND))
        (connection / "congestion_threshold").write_text(str(MAX_BACKGROUND))
    except OSError as error:
        log.warning("cannot raise the limits of this mount: %s", error)
        return False
    return True


def _raise_read_ahead(device: int) -> None:
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    try:
        setting.write_text(str(READ_AHEAD_KIB))
    except OSError as error:  # root only; without, our own read-ahead by chunks carries the mount
        log.debug("read-ahead stays as it is: %s", error)


def _fusectl() -> bool:
    """Whether fusectl is mounted; mounts it if it is not and we may."""
    if any(mounted.path == CONNECTIONS for mounted in mounts()):
        return True
    if os.geteuid() != 0:
        return False
    done = subprocess.run(
        ["mount", "-t", "fusectl", "fusectl", os.fspath(CONNECTIONS)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        log.warning("cannot mount fusectl: %s", done.stderr.strip())
    return done.returncode == 0
