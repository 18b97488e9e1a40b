"""Rows as the file system shows them: the reads that every LOOKUP, GETATTR and READDIR runs. Only reads, and only local state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cache.model import Listed, Node
from cache.store.database import Database
from cache.store.tree import KINDS
from remote.protocol import Kind

_NODE = (
    "i.ino, i.kind, i.mode, i.uid, i.gid, CASE i.kind WHEN 'symlink' THEN length(CAST(i.target AS BLOB)) ELSE i.size END, "
    "i.nlink, i.atime_ns, i.mtime_ns, i.ctime_ns, i.device_number"
)
_BY_INO = f"SELECT {_NODE} FROM inode i WHERE i.ino = ?"
_BY_NAME = f"SELECT {_NODE} FROM entry e CROSS JOIN inode i ON i.ino = e.ino WHERE e.parent = ? AND e.name = ?"
_PAGE = (
    f"SELECT e.seq, e.name, {_NODE} FROM entry e INDEXED BY entry_by_parent CROSS JOIN inode i ON i.ino = e.ino "
    "WHERE e.parent = ? AND e.seq > ? ORDER BY e.seq LIMIT ?"
)


_MOUNTED = (
    f"SELECT {_NODE} FROM inode m JOIN space s ON lower(hex(s.id)) = m.target "
    "CROSS JOIN inode i ON i.ino = s.root WHERE m.ino = ?"
)
_NOT_YET = 0o555
"""The mode of a shared folder of which nothing is known yet."""


class NodeReader:
    def __init__(self, database: Database) -> None:
        self._execute = database.sql.execute

    def node(self, ino: int) -> Node | None:
        row = self._execute(_BY_INO, (ino,)).fetchone()
        if row is None:
            return None
        return _not_yet(row) if row[1] == Kind.MOUNT else _node(*row)

    def child(self, parent: int, name: str) -> Node | None:
        """What is under a name: for the mount of a shared folder, that folder."""
        row = self._execute(_BY_NAME, (parent, name)).fetchone()
        return None if row is None else self._followed(row)

    def page(self, directory: int, after_cookie: int, limit: int) -> list[Listed]:
        """Entries of a folder in the order in which they were made, beginning after a cookie (0: from the first)."""
        rows = self._execute(_PAGE, (directory, after_cookie, limit)).fetchall()
        return [Listed(cookie, name, self._followed(node)) for cookie, name, *node in rows]

    def _followed(self, row: Sequence[Any]) -> Node:
        if row[1] != Kind.MOUNT:
            return _node(*row)
        root = self._execute(_MOUNTED, (row[0],)).fetchone()
        return _not_yet(row) if root is None else _node(*root)

    def highest_ino(self) -> int:
        """Numbers are not used again, so there are at most so many inodes. To count them would take the longer the more there
        are, and every `df` asks."""
        highest: int = self._execute("SELECT coalesce(max(ino), 0) FROM identity").fetchone()[0]
        return highest


def _not_yet(row: Sequence[Any]) -> Node:
    """A shared folder that the feed has not brought yet: empty. It has the mount's number until then."""
    return replace(_node(*row), kind=Kind.DIRECTORY, mode=_NOT_YET, nlink=2)


def _node(
    ino: int,
    kind: str,
    mode: int,
    uid: int | None,
    gid: int | None,
    size: int,
    nlink: int,
    atime_ns: int,
    mtime_ns: int,
    ctime_ns: int,
    device_number: Any,
) -> Node:
    return Node(ino, KINDS[kind], mode, uid, gid, size, nlink, atime_ns, mtime_ns, ctime_ns, device_number or 0)
