"""Where mount point, home and cache may lie: none inside another, and the cache in a folder that is made for it.

Paths are compared as they really are. Nothing of a mount point is opened here: it may be dead.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from fs.home import Home

_OURS = frozenset({"chunks", "pinned"})
"""What the chunk cache makes in its folder."""


class PlaceError(Exception):
    """The text says which two places are in each other's way."""


def check_places(home: Home, mount_point: Path, cache: Path | None) -> None:
    """Raise `PlaceError` if one of the three lies in another (the cache's usual place in the home aside)."""
    point, home_path = real(mount_point), real(home.path)
    _refuse_nested("the mount point", point, "the home", home_path)
    if cache is None or real(cache) == real(home.parts().cache):
        return
    _refuse_nested("the mount point", point, "the cache", real(cache))
    _refuse_nested("the cache", real(cache), "the home", home_path)


def _refuse_nested(one: str, path: Path, other: str, other_path: Path) -> None:
    if path == other_path:
        raise PlaceError(f"{one} and {other} cannot be the same folder, {path}")
    if path.is_relative_to(other_path):
        raise PlaceError(f"{one} ({path}) cannot be inside {other} ({other_path})")
    if other_path.is_relative_to(path):
        raise PlaceError(f"{other} ({other_path}) cannot be inside {one} ({path})")


def real(path: Path) -> Path:
    """Without symbolic links, and without asking the last part itself, which may be a mount that is dead."""
    path = Path(os.path.normpath(path.absolute()))
    last = path.parent.resolve() / path.name
    try:
        return last.resolve() if last.is_symlink() else last
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return last  # a mount whose process is gone: not a symbolic link


def prepare_cache(path: Path) -> Path:
    """A folder for the chunk cache, for its owner only. A folder with other things in it is not ours to close."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = path.resolve(strict=True)
        status = folder.stat()
        if status.st_uid != os.geteuid():
            raise PlaceError(f"the cache folder {path} belongs to another user")
        foreign = [entry.name for entry in folder.iterdir() if entry.name not in _OURS]
        if foreign:
            raise PlaceError(f"the cache folder {path} holds other things ({foreign[0]}): choose an empty one")
        folder.chmod(0o700)
    except OSError as error:
        raise PlaceError(f"cannot use the cache folder {path}: {error.strerror}") from error
    return folder
