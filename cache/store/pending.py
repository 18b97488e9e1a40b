"""Counts and lists of what the service does not have yet, for `sync` and `status`. Only reads."""

from __future__ import annotations

from dataclasses import dataclass

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


class PendingStore:
    def __init__(self, database: Database) -> None:
        self._execute = database.sql.execute

    def spaces(self) -> list[int]:
        return [row[0] for row in self._execute("SELECT number FROM space")]

    def drafts(self) -> list[tuple[int, int]]:
        """(draft, ino) of every draft of a file that has a name."""
        return self._execute("SELECT d.id, d.ino FROM draft d JOIN inode i ON i.ino = d.ino WHERE i.nlink > 0").fetchall()

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

    def counts(self) -> Pending:
        files, size = self._execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM (SELECT max(d.size) AS size FROM draft d JOIN inode i ON i.ino = d.ino "
            "WHERE i.nlink > 0 GROUP BY d.ino)"
        ).fetchone()
        entries: int = self._execute(
            "SELECT count(*) FROM entry_base b LEFT JOIN entry e USING (parent, name) WHERE b.ino IS NOT e.ino"
        ).fetchone()[0]
        inodes: int = self._execute(
            f"SELECT count(*) FROM inode_base b JOIN inode i USING (ino) WHERE b.known AND i.nlink > 0 AND NOT ({SAME_AS_BASE})"
        ).fetchone()[0]
        return Pending(files, size, entries + inodes)

    def files(self, limit: int) -> list[PendingFile]:
        """Some of the files with drafts: those with errors first."""
        rows = self._execute(
            "SELECT d.ino, max(d.size), max(d.error) FROM draft d JOIN inode i ON i.ino = d.ino WHERE i.nlink > 0 "
            "GROUP BY d.ino ORDER BY max(d.error) IS NULL, d.ino LIMIT ?",
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
        return staged + here, total, False
