"""What start-up and `fsck` ask of the rows about drafts and unfinished files. SQL only; the decisions are `cache.recovery`'s."""

from __future__ import annotations

from dataclasses import dataclass

from cache.store.database import Database
from cache.synced import Shown


@dataclass(frozen=True, slots=True)
class FileDraft:
    """A draft whose bytes are in a file of its own."""

    id: int
    ino: int
    extents: bytes


class RestartStore:
    def __init__(self, database: Database) -> None:
        self.database = database
        self._execute = database.sql.execute

    def last_draft_id(self) -> int:
        """The highest id that a draft of this replica was ever given; also by a transaction that later dropped it."""
        row = self._execute("SELECT seq FROM sqlite_sequence WHERE name = 'draft'").fetchone()
        return 0 if row is None else row[0]

    def drafts_in_rows(self) -> set[int]:
        """Ids of drafts whose bytes are in the replica."""
        return {row[0] for row in self._execute("SELECT id FROM draft WHERE data IS NOT NULL")}

    def drafts_in_files(self) -> list[FileDraft]:
        return [FileDraft(*row) for row in self._execute("SELECT id, ino, extents FROM draft WHERE data IS NULL")]

    def adopt_draft(self, draft: int, ino: int, size: int, extents: bytes, changed_ns: int, boot: str) -> None:
        """Give a file in `drafts/` its row back, under the id that is its name. Nobody knows whether it was synced."""
        with self.database.transaction():
            self._execute(
                "INSERT INTO draft (id, ino, size, floor, extents, changed_ns, unsynced) VALUES (?, ?, ?, 0, ?, ?, ?)",
                (draft, ino, size, extents, changed_ns, boot),
            )
            self._execute("UPDATE inode SET size = ? WHERE ino = ?", (size, ino))

    def unsynced_before(self, boot: str) -> list[int]:
        """Files with drafts that hold bytes which another boot wrote and never synced."""
        return [row[0] for row in self._execute("SELECT DISTINCT ino FROM draft WHERE unsynced <> ? ORDER BY ino", (boot,))]

    def go_back(self, draft: int, shown: Shown) -> None:
        """A draft shows this now, and all of it can be believed. What the service was told of it means nothing any more."""
        with self.database.transaction():
            self._execute(
                "UPDATE draft SET size = ?, floor = ?, extents = ?, unsynced = NULL, synced = NULL, complete = 0, "
                "manifest_id = NULL, sha256 = NULL WHERE id = ?",
                (shown.size, shown.floor, shown.extents.pack(), draft),
            )

    def set_shown_size(self, ino: int) -> None:
        """The size of a file follows its topmost draft, or the content where there is none."""
        with self.database.transaction():
            self._execute(
                "UPDATE inode SET size = "
                "coalesce((SELECT size FROM draft WHERE ino = ?1 ORDER BY id DESC LIMIT 1), manifest_size) WHERE ino = ?1",
                (ino,),
            )

    def never_closed(self) -> list[int]:
        """New files with a name, but without content and without a draft."""
        rows = self._execute(
            "SELECT i.ino FROM inode i WHERE i.kind = 'file' AND i.manifest_id IS NULL AND i.nlink > 0 "
            "AND NOT EXISTS (SELECT 1 FROM draft d WHERE d.ino = i.ino)"
        )
        return [row[0] for row in rows]
