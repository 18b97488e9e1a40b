"""Staged rows that meet no local change, applied by the thousand: what `TreeStore.set_entry_states` and `set_inode_states` would
do for each, in a handful of statements.

Beside `tree` the only writer of `entry` and `inode`, and it keeps the same promises: shadows are not touched (there are none
on these rows), link counts follow the names, and a name that stays keeps its place in the listing. Which rows these are is
`merging`'s decision. Everything stands in a transaction of the caller's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cache.merge import Key
from cache.store.database import Database

_TABLES = (
    "bulk_entry (parent INTEGER, name TEXT, ino INTEGER, rev INTEGER, PRIMARY KEY (parent, name))",
    "bulk_inode (ino INTEGER PRIMARY KEY)",
    "not_bulk_entry (parent INTEGER, name TEXT, PRIMARY KEY (parent, name))",
    "not_bulk_inode (ino INTEGER PRIMARY KEY)",
)
_COLUMNS = ("mode", "uid", "gid", "mtime_ns", "xattrs", "manifest_id", "manifest_size", "sha256")
_DIFFERS = " OR ".join(f"i.{column} IS NOT s.{column}" for column in _COLUMNS)
_COPY = ", ".join(f"{column} = s.{column}" for column in _COLUMNS)


@dataclass(frozen=True, slots=True)
class EntryMoved:
    """A name that pointed at `before` and points at `after`."""

    key: Key
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class InodeRenewed:
    """An inode that was here, and has other attributes now."""

    ino: int
    is_file: bool
    content: bool
    """Its content is another."""
    mtime: bool


class BulkRows:
    """Fill `entries` and `inodes` by the methods that begin with `take`, then `apply`."""

    def __init__(self, database: Database) -> None:
        self._execute = database.sql.execute
        self._executemany = database.sql.executemany
        for table in _TABLES:
            self._execute(f"CREATE TEMP TABLE IF NOT EXISTS {table}")

    def take_all_but(self, space: int, keys: list[Key], inodes: list[int]) -> None:
        """All that is staged for a space, without these names and inodes."""
        self._clear()
        self._executemany("INSERT OR IGNORE INTO not_bulk_entry VALUES (?, ?)", keys)
        self._executemany("INSERT OR IGNORE INTO not_bulk_inode VALUES (?)", [(ino,) for ino in inodes])
        self._execute(
            "INSERT INTO bulk_entry SELECT parent, name, ino, rev FROM staged_entry s WHERE space = ? "
            "AND NOT EXISTS (SELECT 1 FROM not_bulk_entry n WHERE n.parent = s.parent AND n.name = s.name)",
            (space,),
        )
        self._execute(
            "INSERT INTO bulk_inode SELECT ino FROM staged_inode s WHERE space = ? "
            "AND NOT EXISTS (SELECT 1 FROM not_bulk_inode n WHERE n.ino = s.ino) "
            "AND (EXISTS (SELECT 1 FROM inode i WHERE i.ino = s.ino) "
            "OR EXISTS (SELECT 1 FROM staged_entry e WHERE e.ino = s.ino))",
            (space,),
        )

    def take_connected(self, space: int, folder: int, after: str, limit: int) -> tuple[int, str, list[int]]:
        """Staged names of a folder after a name, as far as nothing here meets them and their inodes are described.

        Returns how many, the last of them, and which of their inodes are folders.
        """
        self._clear()
        rows = self._execute(
            "SELECT s.parent, s.name, s.ino, s.rev, i.ino IS NULL, n.kind FROM staged_entry s "
            "LEFT JOIN staged_inode n ON n.ino = s.ino LEFT JOIN inode i ON i.ino = s.ino "
            "WHERE s.parent = ?1 AND s.name > ?2 AND s.space = ?3 AND s.ino IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.parent = s.parent AND e.name = s.name) "
            "AND NOT EXISTS (SELECT 1 FROM entry_base b WHERE b.parent = s.parent AND b.name = s.name) "
            "AND CASE WHEN i.ino IS NULL THEN n.kind IS NOT NULL "
            "AND (n.kind <> 'directory' OR (SELECT count(*) FROM staged_entry x WHERE x.ino = s.ino) = 1) "
            "ELSE i.kind <> 'directory' AND NOT EXISTS (SELECT 1 FROM inode_base b WHERE b.ino = s.ino) "
            "AND NOT EXISTS (SELECT 1 FROM draft d WHERE d.ino = s.ino) END ORDER BY s.name LIMIT ?4",
            (folder, after, space, limit),
        ).fetchall()
        self._executemany("INSERT INTO bulk_entry VALUES (?, ?, ?, ?)", [row[:4] for row in rows])
        self._executemany("INSERT OR IGNORE INTO bulk_inode VALUES (?)", [(row[2],) for row in rows if row[4]])
        return len(rows), rows[-1][1] if rows else after, [row[2] for row in rows if row[4] and row[5] == "directory"]

    def apply(self, now_ns: int) -> tuple[list[EntryMoved], list[InodeRenewed]]:
        """Give these rows the service's state, base and local; what changed in the local tree."""
        renewed = self._apply_inodes(now_ns)
        moved = self._apply_entries()
        return moved, renewed

    def forget_staged(self) -> None:
        """What was applied is staged no more."""
        self._execute(
            "DELETE FROM staged_entry AS s WHERE EXISTS "
            "(SELECT 1 FROM bulk_entry b WHERE b.parent = s.parent AND b.name = s.name)"
        )
        self._execute("DELETE FROM staged_inode WHERE ino IN (SELECT ino FROM bulk_inode)")

    def _clear(self) -> None:
        for table in ("bulk_entry", "bulk_inode", "not_bulk_entry", "not_bulk_inode"):
            self._execute(f"DELETE FROM {table}")

    def _apply_inodes(self, now_ns: int) -> list[InodeRenewed]:
        rows = self._execute(
            "SELECT i.ino, i.kind = 'file', "
            "i.manifest_id IS NOT s.manifest_id AND (s.sha256 IS NULL OR i.sha256 IS NOT s.sha256), "
            "i.mtime_ns IS NOT s.mtime_ns FROM bulk_inode b CROSS JOIN staged_inode s ON s.ino = b.ino "
            f"CROSS JOIN inode i ON i.ino = b.ino WHERE {_DIFFERS}"
        )
        renewed = [InodeRenewed(ino, bool(is_file), bool(content), bool(mtime)) for ino, is_file, content, mtime in rows]
        self._execute(
            f"UPDATE inode AS i SET ctime_ns = CASE WHEN {_DIFFERS} THEN ?1 ELSE i.ctime_ns END, {_COPY}, "
            "size = CASE WHEN i.kind = 'file' THEN s.manifest_size ELSE i.size END, rev = s.rev, content_rev = s.content_rev "
            "FROM staged_inode s WHERE s.ino = i.ino AND i.ino IN (SELECT ino FROM bulk_inode)",
            (now_ns,),
        )
        self._execute(
            "INSERT OR IGNORE INTO inode (ino, kind, mode, uid, gid, mtime_ns, ctime_ns, atime_ns, nlink, size, target, "
            "device_number, xattrs, manifest_id, manifest_size, sha256, rev, content_rev) "
            "SELECT s.ino, s.kind, s.mode, s.uid, s.gid, s.mtime_ns, ?1, s.mtime_ns, 0, s.manifest_size, s.target, "
            "s.device_number, s.xattrs, s.manifest_id, s.manifest_size, s.sha256, s.rev, s.content_rev "
            "FROM bulk_inode b CROSS JOIN staged_inode s ON s.ino = b.ino",
            (now_ns,),
        )
        return renewed

    def _apply_entries(self) -> list[EntryMoved]:
        rows = self._execute(
            "SELECT b.parent, b.name, e.ino, b.ino, old.kind = 'directory', new.kind = 'directory' FROM bulk_entry b "
            "LEFT JOIN entry e ON e.parent = b.parent AND e.name = b.name LEFT JOIN inode old ON old.ino = e.ino "
            "LEFT JOIN inode new ON new.ino = b.ino WHERE e.ino IS NOT b.ino"
        ).fetchall()
        self._execute(
            "DELETE FROM entry WHERE seq IN (SELECT e.seq FROM bulk_entry b CROSS JOIN entry e ON e.parent = b.parent "
            "AND e.name = b.name WHERE b.ino IS NULL)"
        )
        self._execute(
            "UPDATE entry SET ino = b.ino, rev = b.rev FROM bulk_entry b "
            "WHERE b.parent = entry.parent AND b.name = entry.name AND b.ino IS NOT NULL"
        )
        self._execute(
            "INSERT INTO entry (parent, name, ino, rev) SELECT b.parent, b.name, b.ino, b.rev FROM bulk_entry b "
            "WHERE b.ino IS NOT NULL AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.parent = b.parent AND e.name = b.name)"
        )
        self._count_links(rows)
        return [EntryMoved((parent, name), before, after) for parent, name, before, after, _, _ in rows]

    def _count_links(self, rows: list[tuple[int, str, int | None, int | None, int | None, int | None]]) -> None:
        """Set the link counts of what gained or lost a name, and of the folders in which a folder came or went."""
        files: set[int] = set()
        folders: set[int] = set()
        subfolders: Counter[int] = Counter()
        for parent, _, before, after, was_folder, is_folder in rows:
            for ino, folder, step in ((before, was_folder, -1), (after, is_folder, 1)):
                if ino is not None and folder:
                    folders.add(ino)
                    subfolders[parent] += step
                elif ino is not None:
                    files.add(ino)
        self._executemany(
            "UPDATE inode SET nlink = (SELECT count(*) FROM entry e WHERE e.ino = inode.ino) WHERE ino = ?",
            [(ino,) for ino in files],
        )
        self._executemany(
            "UPDATE inode SET nlink = nlink + ? WHERE ino = ? AND nlink > 0",
            [(count, parent) for parent, count in subfolders.items() if count],
        )
        self._executemany(
            "UPDATE inode SET nlink = CASE WHEN EXISTS (SELECT 1 FROM entry e WHERE e.ino = inode.ino) THEN 2 + (SELECT count(*) "
            "FROM entry e CROSS JOIN inode c ON c.ino = e.ino WHERE e.parent = inode.ino AND c.kind = 'directory') ELSE 0 END "
            "WHERE ino = ? AND (nlink = 0 OR NOT EXISTS (SELECT 1 FROM entry e WHERE e.ino = inode.ino))",
            [(ino,) for ino in folders],
        )
