"""What a service that was restored, or went back, does not have any more: base rows become what it has, and nothing is deleted.

A person's word (`aloft reconnect`) begins a listing that replaces base. An ordinary one says by what it lacks that something was
removed. This one does not, because the service may lack it for another reason: it lost it. Up to the *shared* revision its
history is what this device saw, so of a base row

- that the listing says nothing of: it is lost. The service never heard of it, so base is nothing, and what is here is pushed;
- that changed after the shared revision, and is something else in the listing: lost as well; what is here meets what is there;
- that did not: the listing has the last word, be it a tombstone. That is what was done on the service since.

A content that changed after the shared revision is pushed over the one that it came from if that one is still there (its own
revision is shared), and is a content of unknown origin otherwise, which makes a conflicted copy if it differs.

Statements for all rows at once: a service that lost everything is a whole tree of lost rows.
"""

from __future__ import annotations

from cache.store.database import Database

_ATTRIBUTES = "mode, uid, gid, mtime_ns, xattrs"
_CONTENT = {"manifest_id": "NULL", "manifest_size": "0", "sha256": "NULL"}
"""Columns, and what they hold of a content of unknown origin: it equals nothing."""


class LostRows:
    """Stands in a transaction of the caller's, after the last page of the listing was staged."""

    def __init__(self, database: Database) -> None:
        self._execute = database.sql.execute
        self._execute(
            "CREATE TEMP TABLE IF NOT EXISTS lost_entry (parent INTEGER, name TEXT, ino INTEGER, PRIMARY KEY (parent, name))"
        )
        self._execute("CREATE INDEX IF NOT EXISTS temp.lost_entry_by_ino ON lost_entry (ino)")
        self._execute("CREATE TEMP TABLE IF NOT EXISTS lost_inode (ino INTEGER PRIMARY KEY)")

    def forget(self, space: int, shared: int) -> None:
        """Let base be what the service has of a space, as far as it is known. `shared`: see the module."""
        self._execute("DELETE FROM lost_entry")
        self._execute("DELETE FROM lost_inode")
        self._execute(_FIND_ENTRIES, (space, shared))
        self._execute(_FIND_INODES, (space, shared))
        self._forget_inodes(space, shared)
        self._forget_entries(space, shared)

    def _forget_entries(self, space: int, shared: int) -> None:
        self._execute(
            "DELETE FROM staged_entry AS s WHERE s.ino IS NULL "
            "AND EXISTS (SELECT 1 FROM lost_entry l WHERE l.parent = s.parent AND l.name = s.name)"
        )
        self._execute(
            "INSERT OR REPLACE INTO entry_base (parent, name, ino, rev) SELECT l.parent, l.name, NULL, 0 FROM lost_entry l "
            "WHERE EXISTS (SELECT 1 FROM entry e WHERE e.parent = l.parent AND e.name = l.name)"
        )
        self._execute(
            "DELETE FROM entry_base AS b WHERE EXISTS (SELECT 1 FROM lost_entry l WHERE l.parent = b.parent AND l.name = b.name) "
            "AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.parent = b.parent AND e.name = b.name)"
        )
        for table in ("entry", "entry_base"):
            self._execute(
                f"UPDATE {table} SET rev = 0 WHERE rev > ? AND (SELECT d.space FROM identity d WHERE d.ino = parent) = ?",
                (shared, space),
            )

    def _forget_inodes(self, space: int, shared: int) -> None:
        self._execute("INSERT OR REPLACE INTO inode_base (ino, known) SELECT ino, 0 FROM lost_inode")
        columns = ", ".join(
            f"CASE WHEN i.content_rev <= ?2 THEN CASE WHEN b.ino IS NULL THEN i.{column} ELSE b.{column} END "
            f"WHEN s.content_rev <= ?2 THEN s.{column} ELSE {nothing} END"
            for column, nothing in _CONTENT.items()
        )
        attributes = ", ".join(f"s.{column}" for column in _ATTRIBUTES.split(", "))
        self._execute(
            f"INSERT OR REPLACE INTO inode_base (ino, known, {_ATTRIBUTES}, {', '.join(_CONTENT)}) "
            f"SELECT i.ino, 1, {attributes}, {columns} FROM staged_inode s JOIN inode i ON i.ino = s.ino "
            "LEFT JOIN inode_base b ON b.ino = i.ino WHERE s.space = ?1 AND i.rev > ?2 AND coalesce(b.known, 1) = 1",
            (space, shared),
        )
        self._execute(
            "UPDATE inode SET content_rev = CASE WHEN content_rev > ?2 THEN 0 ELSE content_rev END, rev = 0 "
            "WHERE rev > ?2 AND (SELECT d.space FROM identity d WHERE d.ino = inode.ino) = ?1",
            (space, shared),
        )
        self._execute("UPDATE inode SET rev = 0, content_rev = 0 WHERE ino IN (SELECT ino FROM lost_inode)")


_FIND_ENTRIES = (
    "INSERT INTO lost_entry SELECT b.parent, b.name, b.ino FROM (SELECT parent, name, ino, rev FROM entry_base "
    "WHERE ino IS NOT NULL UNION ALL SELECT parent, name, ino, rev FROM entry e WHERE NOT EXISTS "
    "(SELECT 1 FROM entry_base x WHERE x.parent = e.parent AND x.name = e.name)) b JOIN identity d ON d.ino = b.parent "
    "LEFT JOIN staged_entry s ON s.parent = b.parent AND s.name = b.name "
    "WHERE d.space = ?1 AND (s.parent IS NULL OR (b.rev > ?2 AND s.ino IS NOT b.ino))"
)
_FIND_INODES = (
    "INSERT INTO lost_inode SELECT i.ino FROM inode i JOIN identity d ON d.ino = i.ino JOIN space p ON p.number = d.space "
    "LEFT JOIN inode_base b ON b.ino = i.ino WHERE d.space = ?1 AND i.ino <> p.root AND coalesce(b.known, 1) = 1 "
    "AND NOT EXISTS (SELECT 1 FROM staged_inode s WHERE s.ino = i.ino) "
    "AND (i.content_rev > ?2 OR EXISTS (SELECT 1 FROM lost_entry l WHERE l.ino = i.ino))"
)
