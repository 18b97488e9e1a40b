"""Values of the cache layer that the file system sees. No behaviour beyond small conveniences, no SQL, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from remote.protocol import Kind


@dataclass(frozen=True, slots=True)
class Node:
    """One inode as the person sees it (the local state). Times in nanoseconds, size in bytes."""

    ino: int
    kind: Kind
    mode: int
    """Permission bits only."""
    uid: int | None
    """None: the account, shown as the mounting user."""
    gid: int | None
    size: int
    nlink: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    device_number: int


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a folder; `cookie` is where the next page of the listing begins after it."""

    cookie: int
    name: str
    node: Node


class RenameMode(Enum):
    REPLACE = "replace"
    NO_REPLACE = "no replace"
    EXCHANGE = "exchange"


@dataclass(frozen=True, slots=True)
class AttributeUpdate:
    """What a SETATTR asks for, size aside. `UNSET` fields stay."""

    class Unset(Enum):
        UNSET = "unset"

    mode: int | Unset = Unset.UNSET
    uid: int | Unset | None = Unset.UNSET
    gid: int | Unset | None = Unset.UNSET
    atime_ns: int | Unset = Unset.UNSET
    mtime_ns: int | Unset = Unset.UNSET
    ctime_ns: int | Unset = Unset.UNSET


@dataclass(frozen=True, slots=True)
class Usage:
    """For statfs; bytes. `inodes`: there are not more."""

    quota: int
    used: int
    inodes: int


# What a merge or an undo changed in the tree, for the kernel's caches. Sent only after the transaction.


@dataclass(frozen=True, slots=True)
class EntryChanged:
    """A name appeared, vanished or points elsewhere."""

    parent: int
    name: str
    gone: bool


@dataclass(frozen=True, slots=True)
class AttributesChanged:
    """Mode, owner, times (of folders and symlinks) or link count changed."""

    ino: int


@dataclass(frozen=True, slots=True)
class ContentChanged:
    """The content (and size and mtime) of a file was replaced by the service's, or its mtime alone. Open files keep what they
    opened."""

    ino: int
    names: tuple[tuple[int, str], ...]


Change = EntryChanged | AttributesChanged | ContentChanged


class FileState(StrEnum):
    """What `aloft status PATH` says of a file."""

    ONLINE_ONLY = "online-only"
    CACHED = "cached"
    PINNED = "pinned"
    DRAFT = "draft"
    UPLOADING = "uploading"
    CONFLICT = "conflict"
    ERROR = "error"


class Connection(StrEnum):
    CONNECTING = "connecting"
    ONLINE = "online"
    UNREACHABLE = "unreachable"
    OFFLINE = "offline"
    """By the person's wish."""
    LOGGED_OUT = "logged out"
    STOPPED = "stopped"
    """The service contradicts what it said before (P6): nothing is pushed or pulled until a person decides."""
