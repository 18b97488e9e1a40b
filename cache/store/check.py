"""What must hold between the rows of a replica, as queries that find what does not; and the repairs that are safe.

Nothing here deletes content or a name that the person can see, except a name that points at nothing. A repair that would need
a guess is not made: the row is reported, and the next full listing puts the base right.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.store.database import Database
from cache.store.restart import FileDraft


@dataclass(frozen=True, slots=True)
class Invariant:
    """`query` finds rows that break it; their columns, joined, are the finding. `repair` mends all of them; None: by hand."""

    name: str
    query: str
    repair: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    invariant: Invariant
    detail: str


_LINKS = (
    "CASE WHEN i.kind <> 'directory' THEN (SELECT count(*) FROM entry e WHERE e.ino = i.ino) "
    "WHEN NOT EXISTS (SELECT 1 FROM entry e WHERE e.ino = i.ino) "
    "AND NOT EXISTS (SELECT 1 FROM space s WHERE s.root = i.ino) THEN 0 "
    "ELSE 2 + (SELECT count(*) FROM entry e JOIN inode c ON c.ino = e.ino WHERE e.parent = i.ino AND c.kind = 'directory') END"
)
_SHOWN_SIZE = "coalesce((SELECT d.size FROM draft d WHERE d.ino = i.ino ORDER BY d.id DESC LIMIT 1), i.manifest_size)"
_CONNECTED = (
    "WITH RECURSIVE below (ino) AS (SELECT root FROM space UNION "
    "SELECT e.ino FROM entry e JOIN inode i ON i.ino = e.ino JOIN below ON e.parent = below.ino WHERE i.kind = 'directory') "
)

INVARIANTS = (
    Invariant(
        "every name points at an inode",
        "SELECT e.parent, e.name, e.ino FROM entry e WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = e.ino)",
        "DELETE FROM entry WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = entry.ino)",
    ),
    Invariant(
        "names are in folders",
        "SELECT e.parent, e.name FROM entry e LEFT JOIN inode i ON i.ino = e.parent WHERE i.kind IS NOT 'directory'",
    ),
    Invariant(
        "every inode has an id",
        "SELECT i.ino FROM inode i WHERE NOT EXISTS (SELECT 1 FROM identity d WHERE d.ino = i.ino)",
    ),
    Invariant(
        "every id is in a space",
        "SELECT d.ino FROM identity d WHERE NOT EXISTS (SELECT 1 FROM space s WHERE s.number = d.space)",
    ),
    Invariant(
        "names stay in their space",
        "SELECT e.parent, e.name, e.ino FROM entry e JOIN identity p ON p.ino = e.parent JOIN identity c ON c.ino = e.ino "
        "WHERE p.space <> c.space",
    ),
    Invariant(
        "a folder has one name",
        "SELECT e.ino, count(*) FROM entry e JOIN inode i ON i.ino = e.ino WHERE i.kind = 'directory' GROUP BY e.ino "
        "HAVING count(*) > 1",
    ),
    Invariant(
        "every folder with a name hangs below a root",
        _CONNECTED
        + "SELECT i.ino FROM inode i WHERE i.kind = 'directory' AND EXISTS (SELECT 1 FROM entry e WHERE e.ino = i.ino) "
        "AND i.ino NOT IN (SELECT ino FROM below)",
    ),
    Invariant(
        "a deleted folder is empty",
        "SELECT DISTINCT e.parent FROM entry e JOIN inode i ON i.ino = e.parent WHERE i.nlink = 0",
    ),
    Invariant(
        "link counts are right",
        f"SELECT i.ino, i.nlink, {_LINKS} FROM inode i WHERE i.nlink <> {_LINKS}",
        f"UPDATE inode AS i SET nlink = {_LINKS} WHERE i.nlink <> {_LINKS}",
    ),
    Invariant(
        "no shadow equals its name",
        "SELECT b.parent, b.name FROM entry_base b LEFT JOIN entry e USING (parent, name) WHERE b.ino IS e.ino",
        "DELETE FROM entry_base AS b WHERE b.ino IS (SELECT e.ino FROM entry e WHERE e.parent = b.parent AND e.name = b.name)",
    ),
    Invariant(
        "every shadow has its inode",
        "SELECT b.ino FROM inode_base b WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = b.ino)",
        "DELETE FROM inode_base WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = inode_base.ino)",
    ),
    Invariant(
        "shadows of names speak of known inodes",
        "SELECT b.parent, b.name, b.ino FROM entry_base b WHERE NOT EXISTS (SELECT 1 FROM identity d WHERE d.ino = b.parent) "
        "OR (b.ino IS NOT NULL AND NOT EXISTS (SELECT 1 FROM identity d WHERE d.ino = b.ino))",
    ),
    Invariant(
        "a file that the service has has content",
        "SELECT i.ino FROM inode i LEFT JOIN inode_base b ON b.ino = i.ino WHERE i.kind = 'file' AND i.manifest_id IS NULL "
        "AND (b.ino IS NULL OR (b.known AND b.manifest_id IS NULL))",
    ),
    Invariant(
        "sizes are those of the content",
        f"SELECT i.ino, i.size, {_SHOWN_SIZE} FROM inode i WHERE i.kind = 'file' AND i.size <> {_SHOWN_SIZE}",
        f"UPDATE inode AS i SET size = {_SHOWN_SIZE} WHERE i.kind = 'file' AND i.size <> {_SHOWN_SIZE}",
    ),
    Invariant(
        "symbolic links and mounts have a target",
        "SELECT i.ino FROM inode i WHERE (i.kind IN ('symlink', 'mount')) <> (i.target IS NOT NULL)",
    ),
    Invariant(
        "drafts belong to files",
        "SELECT d.id, d.ino FROM draft d LEFT JOIN inode i ON i.ino = d.ino WHERE i.kind IS NOT 'file'",
    ),
    Invariant(
        "only the topmost draft is open",
        "SELECT d.ino, d.id FROM draft d WHERE NOT d.sealed "
        "AND EXISTS (SELECT 1 FROM draft t WHERE t.ino = d.ino AND t.id > d.id)",
    ),
    Invariant(
        "a complete draft has its manifest",
        "SELECT d.ino, d.id FROM draft d WHERE d.complete AND NOT EXISTS (SELECT 1 FROM manifest m WHERE m.id = d.manifest_id)",
        "UPDATE draft AS d SET complete = 0 WHERE d.complete "
        "AND NOT EXISTS (SELECT 1 FROM manifest m WHERE m.id = d.manifest_id)",
    ),
    Invariant(
        "staged rows speak of known inodes",
        "SELECT s.ino FROM staged_inode s WHERE NOT EXISTS (SELECT 1 FROM identity d WHERE d.ino = s.ino) UNION ALL "
        "SELECT s.ino FROM staged_entry s WHERE s.ino IS NOT NULL AND NOT EXISTS (SELECT 1 FROM identity d WHERE d.ino = s.ino) "
        "UNION ALL SELECT s.parent FROM staged_entry s WHERE NOT EXISTS (SELECT 1 FROM identity d WHERE d.ino = s.parent)",
    ),
    Invariant(
        "contents are outstanding only with a commit",
        "SELECT o.ino FROM outstanding_content o LEFT JOIN identity d ON d.ino = o.ino LEFT JOIN space s ON s.number = d.space "
        "WHERE s.commit_body IS NULL",
        "DELETE FROM outstanding_content WHERE NOT EXISTS (SELECT 1 FROM identity d JOIN space s ON s.number = d.space "
        "WHERE d.ino = outstanding_content.ino AND s.commit_body IS NOT NULL)",
    ),
    Invariant(
        "pins are on inodes",
        "SELECT p.ino FROM pin p WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = p.ino)",
        "DELETE FROM pin WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = pin.ino)",
    ),
)


def find(sql: sqlite3.Connection) -> Iterator[Finding]:
    """Everything that breaks an invariant. Reads whole tables: for a worker thread with a connection of its own."""
    for invariant in INVARIANTS:
        for row in sql.execute(invariant.query):
            yield Finding(invariant, ", ".join(str(column) for column in row))


class Snapshot:
    """One state of the replica, however long it is looked at, beside whoever changes it. For a worker thread."""

    def __init__(self, path: Path) -> None:
        # One thread at a time, though not always the same one.
        self._sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._sql.execute("PRAGMA query_only=ON")
        self._sql.execute("BEGIN")
        self._sql.execute("SELECT 1 FROM meta").fetchone()

    def close(self) -> None:
        self._sql.close()

    def damage(self) -> str | None:
        """What SQLite finds wrong with the file itself; None: nothing."""
        answer = str(self._sql.execute("PRAGMA quick_check(1)").fetchone()[0])
        return None if answer == "ok" else " ".join(answer.split())

    def findings(self) -> list[Finding]:
        return list(find(self._sql))

    def names(self) -> Iterator[tuple[int, str]]:
        return self._sql.execute("SELECT parent, name FROM entry")

    def last_draft_id(self) -> int:
        row = self._sql.execute("SELECT seq FROM sqlite_sequence WHERE name = 'draft'").fetchone()
        return 0 if row is None else row[0]

    def drafts_in_files(self) -> list[FileDraft]:
        return [FileDraft(*row) for row in self._sql.execute("SELECT id, ino, extents FROM draft WHERE data IS NULL")]

    def drafts_in_rows(self) -> Iterator[tuple[int, bytes, bytes]]:
        """(id, extents, bytes)."""
        return self._sql.execute("SELECT id, extents, data FROM draft WHERE data IS NOT NULL")

    def manifests(self) -> Iterator[tuple[bytes, bytes]]:
        return self._sql.execute("SELECT id, data FROM manifest")

    def sizes_of_manifests(self) -> dict[bytes, int]:
        """What the rows say of the size of each manifest that is here."""
        return dict(
            self._sql.execute("SELECT i.manifest_id, i.manifest_size FROM inode i JOIN manifest m ON m.id = i.manifest_id")
        )

    def outstanding_commits(self) -> list[tuple[int, bytes]]:
        """(number, body)."""
        return self._sql.execute("SELECT commit_number, commit_body FROM space WHERE commit_body IS NOT NULL").fetchall()

    def xattrs(self) -> Iterator[tuple[int, str]]:
        return self._sql.execute("SELECT ino, xattrs FROM inode WHERE xattrs IS NOT NULL")

    def count(self, table: str) -> int:
        count: int = self._sql.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return count


def repair(database: Database, invariants: Iterable[Invariant]) -> None:
    """Mend what can be mended safely."""
    with database.transaction():
        for invariant in invariants:
            if invariant.repair is not None:
                database.sql.execute(invariant.repair)
