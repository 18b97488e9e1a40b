"""Paths of plain clients: what they may look like, and what they name in a space's tree. The one place that resolves them.

A path is absolute: `/` is the root folder of the account's personal space, and a path goes on through a mount into the shared
space that it leads to (`reach`). Names obey `remote.names`, so there is no `..`; symlinks are named and never followed.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from remote.names import RESERVED_IN_ROOT, BadName, check_name
from remote.protocol import Kind, ProblemType
from remote.server.check import View
from remote.server.database import accounts as account_rows
from remote.server.database import sharing
from remote.server.database.tree import InodeRow, Key
from remote.server.devices import Caller
from remote.server.problems import Refused, not_found
from remote.server.tree import Tree

MAX_PATH_BYTES = 16 * 1024
MAX_DEPTH = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """What a path names: a name in a folder that is there, and the inode that has it, if one has."""

    path: str
    key: Key
    inode: InodeRow | None
    above: tuple[bytes, ...]
    """The folders on the way, from the root on; the last one holds the name."""

    @property
    def name(self) -> str:
        return self.key[1] or self.path.rpartition("/")[2]

    @property
    def is_root(self) -> bool:
        return not self.above

    @property
    def is_reserved(self) -> bool:
        """Nothing new may be put there."""
        return len(self.above) == 1 and self.name == RESERVED_IN_ROOT


@dataclass(frozen=True, slots=True)
class Reached:
    """The space that a path leads into, the names that are left there, and the path of the space's root."""

    space: bytes
    names: tuple[str, ...]
    prefix: str = ""


def home_space(connection: Connection, caller: Caller) -> bytes:
    """The space in which the caller's paths begin."""
    return account_rows.personal_space(connection, caller.account)


def reach(connection: Connection, caller: Caller, names: tuple[str, ...], *, enter: bool = False) -> Reached:
    """A path that ends at a mount means the mount itself, or with `enter` the root folder that it leads to."""
    home = home_space(connection, caller)
    mounts = sharing.mounts(connection, caller.account)
    if mounts:
        tree = Tree(connection, home)
        place = root(tree)
        for at, name in enumerate(names, start=1):
            if place.inode is None or place.inode.kind is not Kind.DIRECTORY:
                break
            place = child(tree, place, name)
            mount = None if place.inode is None else mounts.get(place.inode.id)
            if mount is not None and (enter or at < len(names)):
                return Reached(mount.space_id, names[at:], place.path)
    return Reached(home, names)


def prefix_of(connection: Connection, account: bytes, space: bytes) -> str:
    """The path of a space's root, for this account; empty for its personal space."""
    for mount, membership in sharing.mounts(connection, account).items():
        if membership.space_id == space:
            place = place_of(Tree(connection, account_rows.personal_space(connection, account)), mount)
            return "" if place is None else place.path
    return ""


def split_path(text: str, field: str = "path") -> tuple[str, ...]:
    """The names of a path. `Refused` (invalid) for what is no path; one slash at the end says nothing."""
    if not text.startswith("/"):
        raise Refused(ProblemType.INVALID, "A path begins with a slash.", field=field)
    if len(text.encode(errors="surrogatepass")) > MAX_PATH_BYTES:
        raise Refused(ProblemType.INVALID, f"A path has at most {MAX_PATH_BYTES} bytes.", field=field)
    inner = text[1:].removesuffix("/")
    names = tuple(inner.split("/")) if inner else ()
    if len(names) > MAX_DEPTH:
        raise Refused(ProblemType.INVALID, f"A path has at most {MAX_DEPTH} names.", field=field)
    try:
        return tuple(check_name(name) for name in names)
    except BadName as error:
        raise Refused(ProblemType.INVALID, f"{error}.", field=field) from error


def split_new_path(text: str, field: str = "path") -> tuple[str, ...]:
    """The same, of what is to be made; `Refused` (invalid) also for what is reserved."""
    names = split_path(text, field)
    if names[:1] == (RESERVED_IN_ROOT,):
        raise Refused(ProblemType.INVALID, f"/{RESERVED_IN_ROOT} is reserved: choose another name.", field=field)
    return names


def root(view: View) -> Place:
    return Place(view.prefix or "/", (b"", ""), view.inode(view.root), ())


def child(view: View, folder: Place, name: str) -> Place:
    """The place of a name in a folder; `Refused` (not found) if that is none."""
    inode = require_there(folder)
    if inode.kind is Kind.SYMLINK:
        raise not_found(f"{folder.path} is a symlink, which the service does not follow: name the folder itself.")
    if inode.kind is not Kind.DIRECTORY:
        raise not_found(f"{folder.path} is no folder.")
    key = (inode.id, name)
    held = view.entry(key).inode
    path = f"{view.prefix if folder.is_root else folder.path}/{name}"
    return Place(path, key, None if held is None else view.inode(held), (*folder.above, inode.id))


def locate(view: View, names: tuple[str, ...]) -> Place:
    """The place that a path names, whether something is there or not. `Refused` (not found) if its folder is not there."""
    place = root(view)
    for name in names:
        place = child(view, place, name)
    return place


def find(view: View, names: tuple[str, ...]) -> tuple[Place, InodeRow]:
    """What is there; `Refused` (not found) if nothing is."""
    place = locate(view, names)
    return place, require_there(place)


def require_there(place: Place) -> InodeRow:
    if place.inode is None:
        raise not_found(f"There is nothing at {place.path}.")
    return place.inode


def place_of(view: View, id_: bytes) -> Place | None:
    """Where an inode is: under the first of its names. None if it has none, or hangs on nothing."""
    names: list[Key] = []
    folder = id_
    while folder != view.root:
        key = min(view.names(folder), default=None)
        if key is None or len(names) == MAX_DEPTH:
            return None
        names.append(key)
        folder = key[0]
    place = root(view)
    for _, name in reversed(names):
        place = child(view, place, name)
    return place
