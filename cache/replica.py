"""The tree as the person sees it: names and attributes with POSIX's rules, each method one transaction, none waits.

What the file system uses beside `cache.files`. Owns the rules of names, times and moves; rows are the stores' business,
contents are `cache.files`'s, and nothing here knows the network or the kernel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from cache.clock import Clock, Randomness
from cache.errors import (
    AnotherSpace,
    AttributeTooLarge,
    Busy,
    DirectoryNotEmpty,
    EntryExists,
    InvalidMove,
    InvalidName,
    IsADirectory,
    NameTooLong,
    NoEntry,
    NoSuchAttribute,
    NotADirectory,
    NotAllowed,
    ReservedName,
)
from cache.home import HomePaths
from cache.model import AttributeUpdate, Listed, Node, RenameMode, Usage
from cache.store.content import ContentStore, pack_split
from cache.store.database import Database
from cache.store.nodes import NodeReader
from cache.store.schema import PERSONAL, ROOT
from cache.store.tree import InodeRow, TreeStore, count_unpushed, decode_xattrs, encode_xattrs
from remote.crashpoints import crash_point
from remote.manifest import Manifest, decode_manifest, manifest_id
from remote.names import MAX_NAME_BYTES, RESERVED_IN_ROOT, BadName, check_name
from remote.protocol import INODE_ID_BYTES, MAX_XATTR_BYTES, Kind

EMPTY_MANIFEST = Manifest.from_inline(b"").encode()
EMPTY_MANIFEST_ID = manifest_id(EMPTY_MANIFEST)
EMPTY_SHA256 = hashlib.sha256(b"").digest()

_UNSET = AttributeUpdate.Unset.UNSET
_MAX_XATTRS = 1000
_SETGID = 0o2000
_EDITOR = 0o200
"""In the mode of a mount: whether this account may change what is in the shared folder."""
_SHORT = MAX_NAME_BYTES // 4
"""A name of so many characters is never too long, whatever they are."""


def _nothing(_: int) -> None:
    """The hook until somebody sets one."""


def _never(_: int) -> bool:
    return False


class Replica:
    """Raises `cache.errors`. Hooks, set by whoever wires the parts:

    `on_local_change(space)` after each transaction that may have something to push;
    `is_held(ino)`: the kernel or an open file still holds this inode, so that its rows must stay;
    `is_fetched(ino)`: this folder's names came before the very first listing was complete;
    `drop_drafts(ino)`: take away the drafts of an inode that is about to be purged.
    """

    def __init__(self, database: Database, tree: TreeStore, clock: Clock, randomness: Randomness) -> None:
        self._database = database
        self._tree = tree
        self._nodes = NodeReader(database)
        self._contents = ContentStore(database)
        self._clock = clock
        self._randomness = randomness
        self._transaction = database.transaction()
        self._space_of = lru_cache(maxsize=4096)(tree.space_of)
        self._writable: dict[int, bool] = {}
        """Of shared spaces, until a merge."""
        self._listed: set[int] = set()
        self.on_local_change: Callable[[int], None] = _nothing
        self.is_held: Callable[[int], bool] = _never
        self.is_fetched: Callable[[int], bool] = _never
        self.drop_drafts: Callable[[int], None] = _nothing
        self.sweep_wanted = True

    # ----------------------------------------------------------------------------------------------------------- reads

    def lookup(self, parent: int, name: str) -> Node:
        if len(name) > _SHORT:
            _checked(name)
        node = self._nodes.child(parent, name)
        if node is None:
            raise NoEntry(name)
        return node

    def node(self, ino: int) -> Node:
        node = self._nodes.node(ino)
        if node is None:
            raise NoEntry(f"inode {ino}")
        return node

    def list_entries(self, directory: int, after_cookie: int, limit: int) -> list[Listed]:
        """At most `limit` entries after a cookie; an empty list is the end. While a folder changes, one pass over it sees
        each entry that stays exactly once."""
        return self._nodes.page(directory, after_cookie, limit)

    def read_link(self, ino: int) -> str:
        row = self._row(ino)
        if row.target is None:
            raise InvalidName(f"inode {ino} is not a symbolic link")
        return row.target

    def usage(self) -> Usage:
        """What the service last said of the account; the inodes are as many as were ever known here."""
        kept = self._database.meta("usage", {})
        return Usage(kept.get("quota", 0), kept.get("used", 0), self._nodes.highest_ino())

    def is_listed(self, directory: int) -> bool:
        """Whether what is missing in this folder is known to be missing: False only while the very first listing loads, and
        the folder was not fetched by itself."""
        space = self._tree.space_of(directory)
        if space not in self._listed:
            if not self._tree.is_listed(space):
                if self.is_fetched(directory):
                    return True
                return self._tree.base_inode(directory) is None  # made here: all there is in it is here
            self._listed.add(space)
        return True

    def path_of(self, ino: int) -> str | None:
        """One path of an inode from the root of the drive, without a slash before it; "" is the root. None: no name."""
        parts: list[str] = []
        while ino != ROOT:
            mount = self._tree.mount_of(ino) if self._tree.is_root(ino) else None
            names = self._tree.names(ino if mount is None else mount.ino)
            if not names:
                return None
            ino, name = names[0]
            parts.append(name)
        return "/".join(reversed(parts))

    def resolve(self, path: str) -> Node:
        """The node at a path from the root of the personal space. Symbolic links are not followed."""
        node = self.node(ROOT)
        for name in path.split("/"):
            if name:
                if node.kind is not Kind.DIRECTORY:
                    raise NotADirectory(path)
                node = self.lookup(node.ino, name)
        return node

    # ------------------------------------------------------------------------------------------------- names come and go

    def create(
        self,
        parent: int,
        name: str,
        kind: Kind,
        *,
        mode: int,
        uid: int | None,
        gid: int | None,
        target: str | None = None,
        device_number: int = 0,
        published: bool = False,
    ) -> Node:
        """A new inode under a new name. In a folder with the set-gid bit it gets the folder's group (and a folder the bit).

        A file begins without content: it is not pushed before its first close. With `published` it is an empty file at once.
        """
        self._check_new(parent, name)
        now = self._clock.wall_ns()
        with self._transaction:
            folder = self._folder(parent)
            self.require_writable(parent)
            if self._tree.child(parent, name) is not None:
                raise EntryExists(name)
            if folder.mode & _SETGID:
                gid = folder.gid
                mode |= _SETGID if kind is Kind.DIRECTORY else 0
            empty = kind is Kind.FILE and published
            if empty:
                self._contents.put_manifests([(EMPTY_MANIFEST_ID, EMPTY_MANIFEST)])
            space = self._space_of(parent)
            ino = self._tree.insert_inode(
                self._randomness.bytes(INODE_ID_BYTES),
                space,
                kind,
                mode=mode,
                uid=uid,
                gid=gid,
                now_ns=now,
                name=(parent, name),
                target=target,
                device_number=device_number if kind in (Kind.CHARACTER, Kind.BLOCK) else None,
                manifest_id=EMPTY_MANIFEST_ID if empty else None,
                sha256=EMPTY_SHA256 if empty else None,
            )
            self._tree.touch(parent, now)
            node = self.node(ino)
            crash_point("names.creating")
        crash_point("names.created")
        self.on_local_change(space)
        return node

    def link(self, ino: int, parent: int, name: str) -> Node:
        """A second name for a file."""
        self._check_new(parent, name)
        now = self._clock.wall_ns()
        with self._transaction:
            row = self._row(ino)
            self._folder(parent)
            self.require_writable(parent)
            if row.kind is Kind.DIRECTORY:
                raise IsADirectory("a folder has one name")
            if row.nlink == 0:
                raise NoEntry(f"inode {ino} was deleted")
            if self._tree.child(parent, name) is not None:
                raise EntryExists(name)
            space = self._same_space(ino, parent)
            self._tree.put_entry(parent, name, ino)
            self._tree.set_ctime(ino, now)
            self._tree.touch(parent, now)
            node = self.node(ino)
        self.on_local_change(space)
        return node

    def unlink(self, parent: int, name: str) -> int:
        """Take a name of anything but a folder away; the inode that it pointed at."""
        return self._remove(parent, name, folder=False)

    def rmdir(self, parent: int, name: str) -> int:
        return self._remove(parent, name, folder=True)

    def _remove(self, parent: int, name: str, *, folder: bool) -> int:
        now = self._clock.wall_ns()
        with self._transaction:
            row = self._child(parent, name)
            self.require_writable(parent)
            if row.kind is Kind.MOUNT:
                raise Busy("a shared folder is left, or its sharing ended, by aloft unshare")
            if folder and row.kind is not Kind.DIRECTORY:
                raise NotADirectory(name)
            if not folder and row.kind is Kind.DIRECTORY:
                raise IsADirectory(name)
            if folder and self._tree.has_children(row.ino):
                raise DirectoryNotEmpty(name)
            self._tree.put_entry(parent, name, None)
            self._tree.set_ctime(row.ino, now)
            self._tree.touch(parent, now)
            crash_point("names.removing")
        crash_point("names.removed")
        self.on_local_change(self._space_of(parent))
        return row.ino

    def forget(self, ino: int) -> None:
        """Neither the kernel nor an open file holds this inode any more; if it has no name, `sweep` will purge it."""
        self.sweep_wanted = True

    def sweep(self, after: int = 0, limit: int = 100) -> int | None:
        """Purge inodes above `after` that have no name, here or on the service, and that nobody holds.

        Looks at most at `limit` of them and returns where to go on, or None at the end. Their drafts go with them: a name
        that the person took away, and the service does not have either, has nothing left to bring them back under.
        """
        self.sweep_wanted = False
        candidates = self._tree.nameless(after, limit)
        with self._transaction:
            for ino in candidates:
                if not self.is_held(ino):
                    self.drop_drafts(ino)
                    self._tree.purge(ino)
                    crash_point("sweep.purging")
        if candidates:
            crash_point("sweep.purged")
        return candidates[-1] if len(candidates) == limit else None

    # ----------------------------------------------------------------------------------------------------------- moves

    def replacing(self, parent: int, name: str, new_parent: int, new_name: str, mode: RenameMode) -> int | None:
        """The inode that such a `rename` would let take the name of another one."""
        target = self._tree.child(new_parent, new_name) if mode is RenameMode.REPLACE else None
        moved = None if target is None else self._tree.child(parent, name)
        return None if moved == target else moved

    def rename(self, parent: int, name: str, new_parent: int, new_name: str, mode: RenameMode) -> int | None:
        """Move a name. Returns the inode that lost its name to the move, if one did."""
        self._check_new(new_parent, new_name)
        if mode is RenameMode.EXCHANGE:
            self._check_new(parent, name)
        now = self._clock.wall_ns()
        with self._transaction:
            moved = self._child(parent, name)
            self._folder(new_parent)
            self.require_writable(parent)
            space = self._same_space(parent, new_parent)
            target = self._tree.child(new_parent, new_name)
            if target is not None and target != moved.ino and self._row(target).kind is Kind.MOUNT:
                raise Busy("a shared folder has that name")
            if target is not None and mode is RenameMode.NO_REPLACE:
                raise EntryExists(new_name)
            if target == moved.ino:
                return None  # one inode, two names (or the same): POSIX wants that nothing happens
            if parent != new_parent and moved.kind is Kind.DIRECTORY:
                self._refuse_loop(moved.ino, new_parent)
            if mode is RenameMode.EXCHANGE:
                if moved.kind is Kind.MOUNT:
                    raise Busy("a shared folder does not change places")
                if target is None:
                    raise NoEntry(new_name)
                self._exchange(parent, name, moved, new_parent, new_name, target)
                target = None
            else:
                if target is not None and moved.kind is Kind.MOUNT:
                    raise Busy("a shared folder takes no other's name")
                if target is not None:
                    self._make_way(moved, target, now)
                self._tree.put_entry(new_parent, new_name, moved.ino)  # before the old name goes, so that it is never nameless
                self._tree.put_entry(parent, name, None)
            self._tree.set_ctime(moved.ino, now)
            self._tree.touch(parent, now)
            if parent != new_parent:
                self._tree.touch(new_parent, now)
            crash_point("names.renaming")
        crash_point("names.renamed")
        self.on_local_change(space)
        return target

    def _exchange(self, parent: int, name: str, moved: InodeRow, new_parent: int, new_name: str, target: int) -> None:
        other = self._row(target)
        if parent != new_parent and other.kind is Kind.DIRECTORY:
            self._refuse_loop(target, parent)
        self._tree.put_entry(new_parent, new_name, moved.ino)
        self._tree.put_entry(parent, name, target)
        self._tree.set_ctime(target, self._clock.wall_ns())

    def _make_way(self, moved: InodeRow, target: int, now: int) -> None:
        """The inode under the new name is about to lose it to `moved`."""
        other = self._row(target)
        if other.kind is Kind.DIRECTORY:
            if moved.kind is not Kind.DIRECTORY:
                raise IsADirectory("a folder has that name")
            if self._tree.has_children(target):
                raise DirectoryNotEmpty("the folder in the way is not empty")
        elif moved.kind is Kind.DIRECTORY:
            raise NotADirectory("a file has that name")
        if moved.kind is other.kind is Kind.FILE and moved.split is None:
            split = self._split_of(other)
            if split is not None:  # saved anew and renamed over the old: cut it like the old, so that the chunks meet
                self._tree.update_inode(moved.ino, split=split)
        self._tree.set_ctime(target, now)

    def _split_of(self, row: InodeRow) -> bytes | None:
        """The split to keep for a file: its own, or that of its content."""
        if row.split is not None or row.manifest_id is None:
            return row.split
        encoded = self._contents.manifest(row.manifest_id)
        if encoded is None:
            return None
        split = decode_manifest(encoded).split
        return pack_split(split) if split.average else None

    def _refuse_loop(self, folder: int, new_parent: int) -> None:
        above: int | None = new_parent
        while above is not None and not self._tree.is_root(above):
            if above == folder:
                raise InvalidMove("a folder cannot move below itself")
            names = self._tree.names(above)
            above = names[0][0] if names else None

    # ------------------------------------------------------------------------------------------------------- attributes

    def set_attributes(self, ino: int, update: AttributeUpdate) -> Node:
        columns = {
            column: value
            for column, value in (
                ("mode", update.mode),
                ("uid", update.uid),
                ("gid", update.gid),
                ("atime_ns", update.atime_ns),
                ("mtime_ns", update.mtime_ns),
                ("ctime_ns", update.ctime_ns),
            )
            if value is not _UNSET
        }
        if not columns:
            return self.node(ino)
        columns.setdefault("ctime_ns", self._clock.wall_ns())
        with self._transaction:
            self._row(ino)
            if not columns.keys() <= {"atime_ns", "ctime_ns"}:
                self.require_writable(ino)
            self._tree.update_inode(ino, **columns)
            node = self.node(ino)
            crash_point("attributes.changing")
        crash_point("attributes.changed")
        self.on_local_change(self._tree.space_of(ino))
        return node

    def get_xattr(self, ino: int, name: str) -> bytes:
        try:
            return decode_xattrs(self._row(ino).xattrs)[name]
        except KeyError:
            raise NoSuchAttribute(name) from None

    def list_xattrs(self, ino: int) -> list[str]:
        return list(decode_xattrs(self._row(ino).xattrs))

    def set_xattr(self, ino: int, name: str, value: bytes, create: bool = False, replace: bool = False) -> None:
        """`create`: it must not be there; `replace`: it must be."""
        if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
            raise NameTooLong(name)
        xattrs = decode_xattrs(self._row(ino).xattrs)
        if create and name in xattrs:
            raise EntryExists(name)
        if replace and name not in xattrs:
            raise NoSuchAttribute(name)
        xattrs[name] = value
        if len(xattrs) > _MAX_XATTRS or sum(map(len, xattrs.values())) > MAX_XATTR_BYTES:
            raise AttributeTooLarge(f"more than {MAX_XATTR_BYTES} bytes of extended attributes")
        self._write_xattrs(ino, xattrs)

    def remove_xattr(self, ino: int, name: str) -> None:
        xattrs = decode_xattrs(self._row(ino).xattrs)
        if name not in xattrs:
            raise NoSuchAttribute(name)
        del xattrs[name]
        self._write_xattrs(ino, xattrs)

    def _write_xattrs(self, ino: int, xattrs: dict[str, bytes]) -> None:
        self.require_writable(ino)
        with self._transaction:
            self._tree.update_inode(ino, xattrs=encode_xattrs(xattrs), ctime_ns=self._clock.wall_ns())
        self.on_local_change(self._tree.space_of(ino))

    # ------------------------------------------------------------------------------------------------------------ roles

    def is_writable(self, ino: int) -> bool:
        """Whether this account may change what is in the inode's space: not as a viewer, nor as a member no more."""
        space = self._space_of(ino)
        if space == PERSONAL:
            return True
        writable = self._writable.get(space)
        if writable is None:
            mount = self._tree.mount_of(self._tree.root_of(space))
            writable = self._writable[space] = mount is not None and bool(mount.mode & _EDITOR)
        return writable

    def forget_roles(self) -> None:
        """Mounts may say something else now."""
        self._writable.clear()

    def require_writable(self, ino: int) -> None:
        if not self.is_writable(ino):
            raise NotAllowed("this folder was shared to look at it")

    # ---------------------------------------------------------------------------------------------------------- inside

    def _row(self, ino: int) -> InodeRow:
        row = self._tree.inode(ino)
        if row is None:
            raise NoEntry(f"inode {ino}")
        return row

    def _child(self, parent: int, name: str) -> InodeRow:
        ino = self._tree.child(parent, name)
        if ino is None:
            self._folder(parent)
            raise NoEntry(name)
        return self._row(ino)

    def _folder(self, ino: int) -> InodeRow:
        """The folder that is to get a name: it must be there, and be one."""
        row = self._row(ino)
        if row.kind is not Kind.DIRECTORY:
            raise NotADirectory(f"inode {ino}")
        if row.nlink == 0:
            raise NoEntry("the folder was deleted")
        return row

    def _check_new(self, parent: int, name: str) -> None:
        """Whether something may be given that name there."""
        _checked(name)
        if name == RESERVED_IN_ROOT and self._tree.is_root(parent):
            raise ReservedName(f"{name} is a reserved name in this folder")

    def _same_space(self, ino: int, other: int) -> int:
        space = self._tree.space_of(ino)
        if self._tree.space_of(other) != space:
            raise AnotherSpace("names do not move between spaces")
        return space


def _checked(name: str) -> None:
    try:
        check_name(name)
    except BadName as bad:
        if len(name.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
            raise NameTooLong(str(bad)) from None
        raise InvalidName(str(bad)) from None


def unpushed_changes(home: Path) -> int:
    """How many changes exist only in this home (rows to push, and files with drafts); 0 if there is no replica.

    Opens the replica for reading, beside a running mount process if there is one. Raises `sqlite3.DatabaseError` if it is
    damaged: then nobody can say.
    """
    path = HomePaths.under(home).database
    return count_unpushed(path) if path.exists() else 0
