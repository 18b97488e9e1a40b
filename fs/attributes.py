"""From the replica's nodes to what the kernel is told of them, and from a SETATTR to what the replica is asked.

Owners: what the mounting user creates belongs to the account (`None` in the replica) and is shown as the mounting user on
every device. Numeric owners count only in a mount of root's that other users may enter; everywhere else all files are
shown as the mounting user's, and a change of owner is accepted and has no effect, so that `cp -a` and `rsync -a` work.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pyfuse3 import EntryAttributes, SetattrFields

from cache.model import AttributeUpdate, Node
from fs.inodes import Held
from remote.protocol import Kind

TIMEOUT_SECONDS = 3600
"""How long the kernel may believe what it was told: every remote change is invalidated, so nothing needs to expire."""

UNSET = AttributeUpdate.Unset.UNSET

FORMATS: Mapping[Kind, int] = MappingProxyType(
    {
        Kind.FILE: stat.S_IFREG,
        Kind.DIRECTORY: stat.S_IFDIR,
        Kind.SYMLINK: stat.S_IFLNK,
        Kind.FIFO: stat.S_IFIFO,
        Kind.SOCKET: stat.S_IFSOCK,
        Kind.CHARACTER: stat.S_IFCHR,
        Kind.BLOCK: stat.S_IFBLK,
    }
)
_WRITE_BITS = 0o222
_KINDS = {value: kind for kind, value in FORMATS.items()}


def kind_of_mode(mode: int) -> Kind:
    """The kind that mknod asks for; no format bits at all mean a regular file."""
    return _KINDS[stat.S_IFMT(mode) or stat.S_IFREG]


@dataclass(frozen=True, slots=True)
class Owners:
    """Who the mounting user is, and whether other owners than they exist here."""

    uid: int
    gid: int
    numeric: bool

    def shown_uid(self, node: Node) -> int:
        return node.uid if self.numeric and node.uid is not None else self.uid

    def shown_gid(self, node: Node) -> int:
        return node.gid if self.numeric and node.gid is not None else self.gid

    def kept_uid(self, uid: int) -> int | None:
        """What the replica keeps for an owner: None for the mounting user, who is the account."""
        return uid if self.numeric and uid != self.uid else None

    def kept_gid(self, gid: int) -> int | None:
        return gid if self.numeric and gid != self.gid else None


def entry_attributes(node: Node, number: int, owners: Owners, *, writable: bool = True) -> EntryAttributes:
    """`writable`: whether this account may change the node at all; if not, nobody is shown a right to."""
    entry = EntryAttributes()
    entry.st_ino = number
    entry.st_mode = FORMATS[node.kind] | (node.mode if writable else node.mode & ~_WRITE_BITS)
    entry.st_nlink = node.nlink
    entry.st_uid = owners.shown_uid(node)
    entry.st_gid = owners.shown_gid(node)
    entry.st_rdev = node.device_number
    entry.st_size = node.size
    entry.st_blocks = (node.size + 511) // 512
    entry.st_atime_ns = node.atime_ns
    entry.st_mtime_ns = node.mtime_ns
    entry.st_ctime_ns = node.ctime_ns
    entry.entry_timeout = TIMEOUT_SECONDS
    entry.attr_timeout = TIMEOUT_SECONDS
    return entry


def no_entry() -> EntryAttributes:
    """A name that does not exist, as an answer that the kernel keeps."""
    entry = EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = TIMEOUT_SECONDS
    return entry


def requested_update(held: Held, attr: EntryAttributes, fields: SetattrFields, owners: Owners) -> AttributeUpdate:
    """What a SETATTR asks for, its size aside.

    The kernel repeats the mtime of a regular file after every link, unlink and rename. When the service changed that time
    since the kernel learned it, the kernel's is old: then an mtime that the kernel believed anyway asks for nothing.
    """
    repeated = held.superseded and attr.st_mtime_ns == held.mtime_ns
    return AttributeUpdate(
        mode=attr.st_mode & 0o7777 if fields.update_mode else UNSET,
        uid=owners.kept_uid(attr.st_uid) if fields.update_uid and owners.numeric else UNSET,
        gid=owners.kept_gid(attr.st_gid) if fields.update_gid and owners.numeric else UNSET,
        atime_ns=attr.st_atime_ns if fields.update_atime else UNSET,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime and not repeated else UNSET,
        ctime_ns=attr.st_ctime_ns if fields.update_ctime else UNSET,
    )
