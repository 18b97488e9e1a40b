"""Counts and lists of what the service does not have yet, for `sync` and `status`. Only reads."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cache.store.database import Database
from cache.store.tree import SAME_AS_BASE


@dataclass(frozen=True, slots=True)
class Pending:
    """Files with drafts, their bytes, and names and inodes that differ from their base."""

    files: int
    bytes: int
    changes: int


@dataclass(frozen=True, slots=True)
class PendingFile:
    ino: int
    size: int
    error: str | None


@dataclass(frozen=True, slots=True)
class DirtyName:
    parent: int
    name: str
    base: int | None
    local: int | None


@dataclass(frozen=True, slots=True)
class DirtyInode:
    """`known`: the service has it; `dirty`: it differs, and has a name."""

    ino: int
    rev: int
    known: bool
    dirty: bool


class PendingStore:
    def __init__(self, database: Database) -> None:
        self._sql = database.sql
        self._execute = database.sql.execute

    def spaces(self) -> list[int]:
        return [row[0] for row in self._execute("SELECT number FROM space")]

    # Slices, because there may be hundreds of thousands, and the loop is not to stand still.

    def drafts_after(self, draft: int, limit: int) -> list[tuple[int, int]]:
        """(draft, ino) of drafts of files that have a name, in the order of the drafts."""
        return self._execute(
            "SELECT d.id, d.ino FROM draft d CROSS JOIN inode i ON i.ino = d.ino WHERE d.id > ? AND i.nlink > 0 "
            "ORDER BY d.id LIMIT ?",
            (draft, limit),
        ).fetchall()

    def entries_after(self, key: tuple[int, str], limit: int) -> list[DirtyName]:
        """Names that may differ from their base, in the order of their keys."""
        rows = self._execute(
            "SELECT b.parent, b.name, b.ino, e.ino FROM entry_base b LEFT JOIN entry e USING (parent, name) "
            "WHERE (b.parent, b.name) > (?, ?) ORDER BY b.parent, b.name LIMIT ?",
            (*key, limit),
        )
        return [DirtyName(*row) for row in rows]

    def inodes_after(self, ino: int, limit: int) -> list[DirtyInode]:
        """Inodes that may differ from their base, in the order of their numbers."""
        rows = self._execute(
            f"SELECT b.ino, i.rev, b.known, i.nlink > 0 AND NOT (b.known AND {SAME_AS_BASE}) FROM inode_base b "
            "CROSS JOIN inode i ON i.ino = b.ino WHERE b.ino > ? ORDER BY b.ino LIMIT ?",
            (ino, limit),
        )
        return [DirtyInode(ino, rev, bool(known), bool(dirty)) for ino, rev, known, dirty in rows]

    def is_pending_draft(self, draft: int) -> bool:
        """Whether the draft is there, and its file has a name."""
        return (
            self._execute(
                "SELECT 1 FROM draft d JOIN inode i ON i.ino = d.ino WHERE d.id = ? AND i.nlink > 0", (draft,)
            ).fetchone()
            is not None
        )

    def is_dirty(self, ino: int) -> bool:
        return (
            self._execute(
                f"SELECT 1 FROM inode_base b JOIN inode i USING (ino) WHERE b.ino = ? AND NOT (b.known AND {SAME_AS_BASE})",
                (ino,),
            ).fetchone()
            is not None
        )

    def is_long(self, limit: int) -> bool:
        """Whether there is more than the loop should count."""
        return any(
            self._execute(f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT ?)", (limit,)).fetchone()[0] == limit
            for table in ("draft", "entry_base", "inode_base")
        )

    def counts(self) -> Pending:
        return _counts(self._sql)

    def files(self, limit: int) -> list[PendingFile]:
        """Some of the files with drafts: those with errors first. Looks at no more of them than it returns."""
        failed = self._files(limit, "EXISTS", "(SELECT ino FROM draft INDEXED BY draft_error WHERE error IS NOT NULL)")
        return failed + self._files(limit - len(failed), "NOT EXISTS", "(SELECT ino FROM draft INDEXED BY draft_by_ino)")

    def _files(self, limit: int, with_error: str, inos: str) -> list[PendingFile]:
        rows = self._execute(
            f"SELECT o.ino, (SELECT max(d.size) FROM draft d WHERE d.ino = o.ino), "
            "(SELECT max(d.error) FROM draft d WHERE d.ino = o.ino) "
            f"FROM (SELECT DISTINCT ino FROM {inos} ORDER BY ino) o CROSS JOIN inode i ON i.ino = o.ino WHERE i.nlink > 0 "
            f"AND {with_error} (SELECT 1 FROM draft e WHERE e.ino = o.ino AND e.error IS NOT NULL) LIMIT ?",
            (limit,),
        )
        return [PendingFile(*row) for row in rows]

    def has_errors(self) -> bool:
        return self._execute("SELECT 1 FROM draft WHERE error IS NOT NULL LIMIT 1").fetchone() is not None

    def error_of(self, ino: int) -> str | None:
        row = self._execute("SELECT error FROM draft WHERE ino = ? AND error IS NOT NULL LIMIT 1", (ino,)).fetchone()
        return None if row is None else row[0]

    def listed_entries(self) -> tuple[int, int, bool]:
        """(entries that arrived, about how many there are, whether the listing is done) of the spaces' first listings."""
        staged: int = self._execute("SELECT count(*) FROM staged_entry").fetchone()[0]
        total, listed = self._execute("SELECT coalesce(sum(total_entries), 0), coalesce(min(listed), 0) FROM space").fetchone()
        if listed:
            return total, total, True
        here: int = self._execute("SELECT count(*) FROM entry WHERE rev > 0").fetchone()[0]
        return min(staged + here, total), total, False  # what a folder page brought comes once more with the feed


def count_beside(path: Path) -> Pending:
    """`PendingStore.counts` over a connection of its own: for a worker thread."""
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("PRAGMA query_only=ON")
        return _counts(sql)


def _counts(sql: sqlite3.Connection) -> Pending:
    files, size = sql.execute(
        "SELECT count(*), coalesce(sum(size), 0) FROM (SELECT max(d.size) AS size FROM draft d JOIN inode i ON i.ino = d.ino "
        "WHERE i.nlink > 0 GROUP BY d.ino)"
    ).fetchone()
    entries: int = sql.execute(
        "SELECT count(*) FROM entry_base b LEFT JOIN entry e USING (parent, name) WHERE b.ino IS NOT e.ino"
    ).fetchone()[0]
    inodes: int = sql.execute(
        f"SELECT count(*) FROM inode_base b JOIN inode i USING (ino) WHERE b.known AND i.nlink > 0 AND NOT ({SAME_AS_BASE})"
    ).fetchone()[0]
    return Pending(files, size, entries + inodes)
