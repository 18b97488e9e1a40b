"""Entries and inodes, local and base: the only writer of `entry`, `inode`, `entry_base`, `inode_base` and `identity`.

Owns the bookkeeping that no caller may have to think of: a row that leaves its base gets a shadow, a shadow that equals its
row goes away, and link counts follow the local names. Knows nothing of POSIX rules, commits or merges.

Everything is synchronous, and everything that writes must stand in a `Database.transaction()`.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import NoEntry
from cache.store.database import Database
from cache.store.schema import PERSONAL, ROOT
from remote.protocol import Kind

KINDS: Mapping[str, Kind] = {kind.value: kind for kind in Kind}

ATTRIBUTE_COLUMNS = ("mode", "uid", "gid", "mtime_ns", "xattrs")
CONTENT_COLUMNS = ("manifest_id", "manifest_size", "sha256")
BASE_COLUMNS = frozenset(ATTRIBUTE_COLUMNS + CONTENT_COLUMNS)
"""Columns that have a base: what the service also holds. The others belong to this machine alone."""


@dataclass(frozen=True, slots=True)
class InodeRow:
    """A row of `inode`; what the columns mean is said in `schema`."""

    ino: int
    kind: Kind
    mode: int
    uid: int | None
    gid: int | None
    mtime_ns: int
    ctime_ns: int
    atime_ns: int
    nlink: int
    size: int
    target: str | None
    device_number: int | None
    xattrs: str | None
    manifest_id: bytes | None
    manifest_size: int
    sha256: bytes | None
    split: bytes | None
    rev: int
    content_rev: int


@dataclass(frozen=True, slots=True)
class BaseRow:
    """Attributes and content of an inode as the service is known to hold them. Its revisions are in the `InodeRow`."""

    mode: int
    uid: int | None
    gid: int | None
    mtime_ns: int
    xattrs: str | None
    manifest_id: bytes | None
    manifest_size: int
    sha256: bytes | None


@dataclass(frozen=True, slots=True)
class DirtyEntry:
    """A name that this device changed: the inode that the service holds under it, and the one here (None: nothing)."""

    parent: int
    name: str
    base: int | None
    local: int | None
    rev: int


_INODE = (
    "ino, kind, mode, uid, gid, mtime_ns, ctime_ns, atime_ns, nlink, size, target, device_number, xattrs, "
    "manifest_id, manifest_size, sha256, split, rev, content_rev"
)
_BASE = "mode, uid, gid, mtime_ns, xattrs, manifest_id, manifest_size, sha256"
SAME_AS_BASE = " AND ".join(f"i.{column} IS b.{column}" for column in _BASE.split(", "))


def encode_xattrs(xattrs: Mapping[str, bytes]) -> str | None:
    """The one spelling of a set of extended attributes, so that equal sets are equal text."""
    if not xattrs:
        return None
    pairs = {name: base64.b64encode(value).decode("ascii") for name, value in xattrs.items()}
    return json.dumps(pairs, sort_keys=True, separators=(",", ":"))


def decode_xattrs(text: str | None) -> dict[str, bytes]:
    return {} if text is None else {name: base64.b64decode(value) for name, value in json.loads(text).items()}


class TreeStore:
    def __init__(self, database: Database) -> None:
        self.database = database
        self._sql = database.sql
        self._execute = database.sql.execute

    # ------------------------------------------------------------------------------------------- spaces and identities

    def add_space(self, id_: bytes, *, mode: int = 0o755, now_ns: int) -> int:
        """Make a space with its root folder, which the service has, though what it says of it is not known yet. No number is
        used twice."""
        last: int = self.database.meta("last space", 0)  # as with an ino, what is kept in memory must not mean another one
        number: int = self._execute("SELECT max(?, coalesce(max(number), 0)) + 1 FROM space", (last,)).fetchone()[0]
        self.database.set_meta("last space", number)
        self._execute("INSERT INTO space (number, id, root) VALUES (?, ?, 0)", (number, id_))
        root = ROOT if number == PERSONAL else None
        root = self._execute("INSERT INTO identity VALUES (?, ?, ?)", (root, id_, number)).lastrowid
        self._execute("UPDATE space SET root = ? WHERE number = ?", (root, number))
        self._execute(
            "INSERT INTO inode (ino, kind, mode, mtime_ns, ctime_ns, atime_ns, nlink, size) "
            "VALUES (?, 'directory', ?, ?, ?, ?, 2, 0)",
            (root, mode, now_ns, now_ns, now_ns),
        )
        return number

    def space_number(self, id_: bytes) -> int | None:
        row = self._execute("SELECT number FROM space WHERE id = ?", (id_,)).fetchone()
        return None if row is None else row[0]

    def root_of(self, space: int) -> int:
        """`NoEntry` for a shared space that went."""
        row = self._execute("SELECT root FROM space WHERE number = ?", (space,)).fetchone()
        if row is None:
            raise NoEntry(f"space {space}")
        root: int = row[0]
        return root

    def is_listed(self, space: int) -> bool:
        """Whether a listing of this space was merged once, so that absence means absence."""
        return bool(self._execute("SELECT listed FROM space WHERE number = ?", (space,)).fetchone()[0])

    def is_root(self, ino: int) -> bool:
        return ino == ROOT or self._execute("SELECT 1 FROM space WHERE root = ?", (ino,)).fetchone() is not None

    def mount_of(self, root: int) -> InodeRow | None:
        """The mount by which the root folder of a shared space is reached; None: there is none, or it has no name."""
        row = self._execute(
            "SELECT m.ino FROM space s JOIN inode m ON m.kind = 'mount' AND m.target = lower(hex(s.id)) "
            "WHERE s.root = ? AND m.nlink > 0",
            (root,),
        ).fetchone()
        return None if row is None else self.inode(row[0])

    def space_of(self, ino: int) -> int:
        """`NoEntry` for an inode of a shared space that went."""
        row = self._execute("SELECT space FROM identity WHERE ino = ?", (ino,)).fetchone()
        if row is None:
            raise NoEntry(f"inode {ino}")
        space: int = row[0]
        return space

    def id_of(self, ino: int) -> bytes:
        id_: bytes = self._execute("SELECT id FROM identity WHERE ino = ?", (ino,)).fetchone()[0]
        return id_

    def ino_of(self, id_: bytes) -> int | None:
        row = self._execute("SELECT ino FROM identity WHERE id = ?", (id_,)).fetchone()
        return None if row is None else row[0]

    def adopt(self, space: int, id_: bytes) -> int:
        """The ino of an id, made if it is new here. It says nothing of the inode itself."""
        ino = self.ino_of(id_)
        if ino is not None:
            return ino
        made = self._execute("INSERT INTO identity (id, space) VALUES (?, ?)", (id_, space)).lastrowid
        assert made is not None
        return made

    # ---------------------------------------------------------------------------------------------------- local: reads

    def inode(self, ino: int) -> InodeRow | None:
        row = self._execute(f"SELECT {_INODE} FROM inode WHERE ino = ?", (ino,)).fetchone()
        return None if row is None else InodeRow(row[0], KINDS[row[1]], *row[2:])

    def child(self, parent: int, name: str) -> int | None:
        row = self._execute("SELECT ino FROM entry WHERE parent = ? AND name = ?", (parent, name)).fetchone()
        return None if row is None else row[0]

    def names(self, ino: int) -> list[tuple[int, str]]:
        return self._execute("SELECT parent, name FROM entry WHERE ino = ? ORDER BY seq", (ino,)).fetchall()

    def children(self, parent: int) -> list[tuple[str, int]]:
        return self._execute("SELECT name, ino FROM entry WHERE parent = ? ORDER BY seq", (parent,)).fetchall()

    def has_children(self, parent: int) -> bool:
        return self._execute("SELECT 1 FROM entry WHERE parent = ? LIMIT 1", (parent,)).fetchone() is not None

    # --------------------------------------------------------------------------------------------------- local: writes

    def put_entry(self, parent: int, name: str, ino: int | None) -> None:
        """Let a local name point at an inode, or at nothing; the base stays what it is."""
        held = self._execute("SELECT seq, ino, rev FROM entry WHERE parent = ? AND name = ?", (parent, name)).fetchone()
        old = None if held is None else held[1]
        if old == ino:
            return
        shadow = self._execute("SELECT ino, rev FROM entry_base WHERE parent = ? AND name = ?", (parent, name)).fetchone()
        if shadow is None:
            rev = 0 if held is None else held[2]
            self._execute("INSERT INTO entry_base VALUES (?, ?, ?, ?)", (parent, name, old, rev))
        elif shadow[0] == ino:
            self._execute("DELETE FROM entry_base WHERE parent = ? AND name = ?", (parent, name))
        rev = shadow[1] if shadow is not None and shadow[0] == ino else 0
        self._set_local(parent, name, held, ino, rev)

    def insert_inode(
        self,
        id_: bytes,
        space: int,
        kind: Kind,
        *,
        mode: int,
        uid: int | None,
        gid: int | None,
        now_ns: int,
        name: tuple[int, str] | None = None,
        mtime_ns: int | None = None,
        size: int = 0,
        target: str | None = None,
        device_number: int | None = None,
        xattrs: str | None = None,
        manifest_id: bytes | None = None,
        manifest_size: int = 0,
        sha256: bytes | None = None,
        split: bytes | None = None,
    ) -> int:
        """A new inode that the service does not have.

        `name`: (parent, name) that it gets here; nothing may be there. Without one, give it a name with `put_entry`.
        """
        ino = self._execute("INSERT INTO identity (id, space) VALUES (?, ?)", (id_, space)).lastrowid
        assert ino is not None
        mtime = now_ns if mtime_ns is None else mtime_ns
        nlink = 0 if name is None else 2 if kind is Kind.DIRECTORY else 1
        self._execute(
            f"INSERT INTO inode ({_INODE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)",
            (
                *(ino, kind.value, mode, uid, gid, mtime, now_ns, now_ns, nlink, size, target, device_number, xattrs),
                *(manifest_id, manifest_size, sha256, split),
            ),
        )
        self._execute("INSERT INTO inode_base (ino, known) VALUES (?, 0)", (ino,))
        if name is not None:
            self._insert_entry(*name, ino, kind)
        return ino

    def _insert_entry(self, parent: int, name: str, ino: int, kind: Kind) -> None:
        # OR IGNORE: the service may hold something under this name that was taken away here.
        self._execute("INSERT OR IGNORE INTO entry_base VALUES (?, ?, NULL, 0)", (parent, name))
        self._execute("INSERT INTO entry (parent, name, ino, rev) VALUES (?, ?, ?, 0)", (parent, name, ino))
        if kind is Kind.DIRECTORY:
            self._execute("UPDATE inode SET nlink = nlink + 1 WHERE ino = ? AND nlink > 0", (parent,))

    def update_inode(self, ino: int, **columns: Any) -> None:
        """Change columns of the local state. `nlink`, `rev` and `content_rev` are not among them."""
        changes_base = not BASE_COLUMNS.isdisjoint(columns)
        if changes_base:
            # INSERT OR IGNORE: a shadow that is there holds the base already, and an inode without one equals its base.
            self._execute(f"INSERT OR IGNORE INTO inode_base SELECT ino, 1, {_BASE} FROM inode WHERE ino = ?", (ino,))
        assignments = ", ".join(f"{column} = ?" for column in columns)
        self._execute(f"UPDATE inode SET {assignments} WHERE ino = ?", (*columns.values(), ino))
        if changes_base:
            self._drop_equal_shadow(ino)

    def touch(self, ino: int, now_ns: int) -> None:
        """A folder's content changed: its mtime and ctime are now."""
        self._execute(f"INSERT OR IGNORE INTO inode_base SELECT ino, 1, {_BASE} FROM inode WHERE ino = ?", (ino,))
        self._execute("UPDATE inode SET mtime_ns = ?, ctime_ns = ? WHERE ino = ?", (now_ns, now_ns, ino))

    def set_ctime(self, ino: int, now_ns: int) -> None:
        self._execute("UPDATE inode SET ctime_ns = ? WHERE ino = ?", (now_ns, ino))

    # ------------------------------------------------------------------------------------------------------------ base

    def base_entry(self, parent: int, name: str) -> int | None:
        """The inode that the service holds under this name."""
        shadow = self._execute("SELECT ino FROM entry_base WHERE parent = ? AND name = ?", (parent, name)).fetchone()
        if shadow is not None:
            ino: int | None = shadow[0]
            return ino
        return self.child(parent, name)

    def entry_rev(self, parent: int, name: str) -> int:
        """The revision of what the service holds under this name; 0 if nothing is known of it."""
        row = self._execute(
            "SELECT rev FROM entry_base WHERE parent = ?1 AND name = ?2 UNION ALL "
            "SELECT rev FROM entry WHERE parent = ?1 AND name = ?2 LIMIT 1",
            (parent, name),
        ).fetchone()
        return 0 if row is None else row[0]

    def base_names(self, ino: int) -> list[tuple[int, str]]:
        """The names by which the service knows an inode."""
        return self._execute(
            "SELECT parent, name FROM entry_base WHERE ino = ?1 UNION ALL "
            "SELECT parent, name FROM entry e WHERE ino = ?1 AND NOT EXISTS "
            "(SELECT 1 FROM entry_base b WHERE b.parent = e.parent AND b.name = e.name)",
            (ino,),
        ).fetchall()

    def base_children(self, parent: int) -> list[tuple[str, int]]:
        """What the service holds in a folder."""
        return self._execute(
            "SELECT name, ino FROM entry_base WHERE parent = ?1 AND ino IS NOT NULL UNION ALL "
            "SELECT name, ino FROM entry e WHERE parent = ?1 AND NOT EXISTS "
            "(SELECT 1 FROM entry_base b WHERE b.parent = e.parent AND b.name = e.name)",
            (parent,),
        ).fetchall()

    def base_inode(self, ino: int) -> BaseRow | None:
        """What the service holds of an inode; None if it does not have it (or nothing is known of it here)."""
        shadow = self._execute(f"SELECT known, {_BASE} FROM inode_base WHERE ino = ?", (ino,)).fetchone()
        if shadow is not None:
            return BaseRow(*shadow[1:]) if shadow[0] else None
        row = self._execute(f"SELECT {_BASE} FROM inode WHERE ino = ?", (ino,)).fetchone()
        return None if row is None else BaseRow(*row)

    def set_entry_states(self, parent: int, name: str, *, base: int | None, rev: int, local: int | None) -> None:
        """Set what the service holds under a name (and in which revision), and what is here."""
        held = self._execute("SELECT seq, ino, rev FROM entry WHERE parent = ? AND name = ?", (parent, name)).fetchone()
        if base == local:
            self._execute("DELETE FROM entry_base WHERE parent = ? AND name = ?", (parent, name))
        else:
            self._execute("INSERT OR REPLACE INTO entry_base VALUES (?, ?, ?, ?)", (parent, name, base, rev))
        own_rev = rev if base == local else 0
        if held is not None and held[1] == local:
            if held[2] != own_rev:
                self._execute("UPDATE entry SET rev = ? WHERE seq = ?", (own_rev, held[0]))
        else:
            self._set_local(parent, name, held, local, own_rev)

    def set_inode_states(self, ino: int, *, base: BaseRow | None, rev: int, content_rev: int, local: InodeRow) -> None:
        """Set what the service holds of an inode, and what is here (`local`; its nlink and revisions are not looked at).

        The inode may be new here: its identity must exist (`adopt`), its names may be given before or after.
        """
        before = self._execute("SELECT kind FROM inode WHERE ino = ?", (ino,)).fetchone()
        values = (
            *(local.kind.value, local.mode, local.uid, local.gid, local.mtime_ns, local.ctime_ns, local.atime_ns, local.size),
            *(local.target, local.device_number, local.xattrs, local.manifest_id, local.manifest_size, local.sha256),
            *(local.split, rev, content_rev),
        )
        if before is None:
            self._execute(
                "INSERT INTO inode (kind, mode, uid, gid, mtime_ns, ctime_ns, atime_ns, size, target, device_number, xattrs, "
                "manifest_id, manifest_size, sha256, split, rev, content_rev, nlink, ino) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
                (*values, ino),
            )
            self._count_links(ino, local.kind)
        else:
            self._execute(
                "UPDATE inode SET kind = ?, mode = ?, uid = ?, gid = ?, mtime_ns = ?, ctime_ns = ?, atime_ns = ?, size = ?, "
                "target = ?, device_number = ?, xattrs = ?, manifest_id = ?, manifest_size = ?, sha256 = ?, split = ?, "
                "rev = ?, content_rev = ? WHERE ino = ?",
                (*values, ino),
            )
        if base is None:
            self._execute("INSERT OR REPLACE INTO inode_base (ino, known) VALUES (?, 0)", (ino,))
        elif base == _base_part(local):
            self._execute("DELETE FROM inode_base WHERE ino = ?", (ino,))
        else:
            self._execute(
                f"INSERT OR REPLACE INTO inode_base (ino, known, {_BASE}) VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(ino, base.mode, base.uid, base.gid, base.mtime_ns, base.xattrs),
                    *(base.manifest_id, base.manifest_size, base.sha256),
                ),
            )

    def dirty_entries(self, space: int) -> list[DirtyEntry]:
        """Names of a space that this device changed."""
        rows = self._execute(
            "SELECT b.parent, b.name, b.ino, e.ino, b.rev FROM entry_base b CROSS JOIN identity p ON p.ino = b.parent "
            "LEFT JOIN entry e ON e.parent = b.parent AND e.name = b.name WHERE p.space = ? AND b.ino IS NOT e.ino",
            (space,),
        )
        return [DirtyEntry(*row) for row in rows]

    def revert_inodes(self, space: int) -> list[int]:
        """Give inodes of a space that the service has the attributes and content that it holds; which they were."""
        inos = [ino for ino in self.dirty_inodes(space) if self.base_inode(ino) is not None]
        for ino in inos:
            self.revert_inode(ino)
        return inos

    def revert_inode(self, ino: int) -> None:
        columns = ", ".join(f"{column} = b.{column}" for column in _BASE.split(", "))
        self._execute(
            f"UPDATE inode SET {columns}, size = CASE kind WHEN 'file' THEN b.manifest_size ELSE size END "
            "FROM inode_base b WHERE b.ino = inode.ino AND b.known AND inode.ino = ?",
            (ino,),
        )
        self._drop_equal_shadow(ino)

    def dirty_inodes(self, space: int) -> list[int]:
        """Inodes of a space that the service does not have, or has with other attributes or content (drafts aside)."""
        rows = self._execute(
            "SELECT b.ino FROM inode_base b CROSS JOIN identity d ON d.ino = b.ino JOIN inode i ON i.ino = b.ino "
            f"WHERE d.space = ? AND NOT (b.known AND {SAME_AS_BASE})",
            (space,),
        )
        return [row[0] for row in rows]

    def nameless(self, after: int, limit: int) -> list[int]:
        """Inodes above `after` that have a name neither here nor on the service: those that `purge` might take away.

        Not before the feed is as new as what was acknowledged: another device may have given the inode a name that is not
        known here yet, and the feed would name it without describing it again.
        """
        rows = self._execute(
            "SELECT i.ino FROM inode i INDEXED BY inode_nameless CROSS JOIN identity d ON d.ino = i.ino "
            "CROSS JOIN space s ON s.number = d.space WHERE i.nlink = 0 AND i.ino > ? "
            "AND (s.acknowledged = 0 OR (s.caught_up AND s.snapshot >= s.acknowledged)) "
            "AND NOT EXISTS (SELECT 1 FROM entry_base b WHERE b.ino = i.ino) ORDER BY i.ino LIMIT ?",
            (after, limit),
        )
        return [row[0] for row in rows]

    def purge(self, ino: int) -> bool:
        """Drop the rows of an inode that has no local name, no base name and no draft, and that nothing else speaks of.

        That includes an outstanding commit, which might. The caller knows that neither the kernel nor an open file holds it.
        """
        if self.is_root(ino) or self._execute(_IS_MENTIONED, (ino,)).fetchone()[0]:
            return False
        self._execute("DELETE FROM inode_base WHERE ino = ?", (ino,))
        self._execute("DELETE FROM inode WHERE ino = ?", (ino,))
        self._execute("DELETE FROM pin WHERE ino = ?", (ino,))
        self._execute("DELETE FROM identity WHERE ino = ?", (ino,))
        return True

    # ---------------------------------------------------------------------------------------------------------- inside

    def _set_local(self, parent: int, name: str, held: tuple[int, int, int] | None, ino: int | None, rev: int) -> None:
        """Write a local entry that changes; its place in the listing stays, if it had one."""
        if ino is None:
            if held is not None:
                self._execute("DELETE FROM entry WHERE seq = ?", (held[0],))
        elif held is None:
            self._execute("INSERT INTO entry (parent, name, ino, rev) VALUES (?, ?, ?, ?)", (parent, name, ino, rev))
        else:
            self._execute("UPDATE entry SET ino = ?, rev = ? WHERE seq = ?", (ino, rev, held[0]))
        if ino is not None:
            self._gained_name(parent, ino)
        if held is not None:
            self._lost_name(parent, held[1])

    def _gained_name(self, parent: int, ino: int) -> None:
        row = self._execute("SELECT kind, nlink FROM inode WHERE ino = ?", (ino,)).fetchone()
        if row is None:
            return  # counted when the inode arrives
        if row[0] != "directory":
            self._execute("UPDATE inode SET nlink = nlink + 1 WHERE ino = ?", (ino,))
            return
        if row[1] == 0:
            self._execute("UPDATE inode SET nlink = ? WHERE ino = ?", (2 + self._subfolders(ino), ino))
        self._execute("UPDATE inode SET nlink = nlink + 1 WHERE ino = ? AND nlink > 0", (parent,))

    def _lost_name(self, parent: int, ino: int) -> None:
        row = self._execute("SELECT kind FROM inode WHERE ino = ?", (ino,)).fetchone()
        if row is None:
            return
        if row[0] != "directory":
            self._execute("UPDATE inode SET nlink = nlink - 1 WHERE ino = ?", (ino,))
            return
        self._execute("UPDATE inode SET nlink = nlink - 1 WHERE ino = ? AND nlink > 0", (parent,))
        if self._execute("SELECT 1 FROM entry WHERE ino = ? LIMIT 1", (ino,)).fetchone() is None and not self.is_root(ino):
            self._execute("UPDATE inode SET nlink = 0 WHERE ino = ?", (ino,))

    def _count_links(self, ino: int, kind: Kind) -> None:
        """Count the names of an inode that arrived after some of them."""
        names = self.names(ino)
        if kind is not Kind.DIRECTORY:
            links = len(names)
        else:
            links = 2 + self._subfolders(ino) if names or self.is_root(ino) else 0
            for parent, _ in names:
                self._execute("UPDATE inode SET nlink = nlink + 1 WHERE ino = ? AND nlink > 0", (parent,))
        if links:
            self._execute("UPDATE inode SET nlink = ? WHERE ino = ?", (links, ino))

    def _subfolders(self, ino: int) -> int:
        count: int = self._execute(
            "SELECT count(*) FROM entry e JOIN inode i ON i.ino = e.ino WHERE e.parent = ? AND i.kind = 'directory'", (ino,)
        ).fetchone()[0]
        return count

    def _drop_equal_shadow(self, ino: int) -> None:
        self._execute(
            "DELETE FROM inode_base AS b WHERE ino = ?1 AND known "
            f"AND EXISTS (SELECT 1 FROM inode i WHERE i.ino = ?1 AND {SAME_AS_BASE})",
            (ino,),
        )


_IS_MENTIONED = "SELECT " + " OR ".join(
    f"EXISTS (SELECT 1 FROM {mention})"
    for mention in (
        "entry WHERE ino = ?1",
        "entry_base WHERE ino = ?1",
        "draft WHERE ino = ?1",
        "entry WHERE parent = ?1",
        "entry_base WHERE parent = ?1",
        "staged_inode WHERE ino = ?1",
        "staged_entry WHERE ino = ?1",
        "staged_entry WHERE parent = ?1",
        "outstanding_content WHERE ino = ?1",
        "identity d JOIN space s ON s.number = d.space WHERE d.ino = ?1 AND s.commit_body IS NOT NULL",
    )
)


def _base_part(row: InodeRow) -> BaseRow:
    return BaseRow(row.mode, row.uid, row.gid, row.mtime_ns, row.xattrs, row.manifest_id, row.manifest_size, row.sha256)


def count_unpushed(path: Path) -> int:
    """How many inodes of the replica at `path` have changes that the service has not acknowledged. For any process."""
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("PRAGMA query_only=ON")
        count: int = sql.execute(
            "SELECT count(*) FROM (SELECT coalesce(e.ino, b.ino) FROM entry_base b LEFT JOIN entry e USING (parent, name) "
            "WHERE b.ino IS NOT e.ino UNION SELECT b.ino FROM inode_base b JOIN inode i USING (ino) "
            f"WHERE i.nlink > 0 AND NOT (b.known AND {SAME_AS_BASE}) UNION "
            "SELECT d.ino FROM draft d JOIN inode i USING (ino) WHERE i.nlink > 0)"
        ).fetchone()[0]
        return count
