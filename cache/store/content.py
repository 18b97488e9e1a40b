"""Rows about contents: drafts, manifests, known chunks, pins. SQL only; what the rows mean is in `schema`.

Synchronous. Methods that write make a transaction of their own, or join the one they stand in. The bytes of large drafts,
the chunk cache and the service are unknown here; so is which files are open.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from cache.store.database import Database
from remote.manifest import ChunkRef, Encoding, Split

_SPLIT = struct.Struct("<III")
_DRAFT = "id, ino, sealed, size, floor, extents, data, changed_ns, manifest_id, sha256, complete, error, unsynced, synced"


@dataclass(frozen=True, slots=True)
class DraftRow:
    id: int
    ino: int
    sealed: bool
    size: int
    floor: int
    extents: bytes
    data: bytes | None
    changed_ns: int
    manifest_id: bytes | None
    sha256: bytes | None
    complete: bool
    error: str | None
    unsynced: str | None = None
    synced: bytes | None = None


@dataclass(frozen=True, slots=True)
class ContentRow:
    """The content beneath the drafts of a file, and the row's size as stat shows it."""

    manifest_id: bytes | None
    manifest_size: int
    sha256: bytes | None
    split: Split | None
    size: int
    nlink: int


@dataclass(frozen=True, slots=True)
class FileRow:
    """What opening a file needs to know."""

    kind: str
    size: int
    manifest_id: bytes | None
    manifest_size: int
    sha256: bytes | None
    inode_id: bytes
    space: int
    space_id: bytes


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file with a draft whose objects are not all on the service."""

    ino: int
    size: int
    error: str | None


class ContentStore:
    def __init__(self, database: Database) -> None:
        self.database = database
        self._execute = database.sql.execute
        self._executemany = database.sql.executemany

    # ---------------------------------------------------------------------------------------------------------- drafts

    def drafts(self, ino: int) -> list[DraftRow]:
        """From the lowest to the topmost."""
        rows = self._execute(f"SELECT {_DRAFT} FROM draft WHERE ino = ? ORDER BY id", (ino,))
        return [_draft_row(row) for row in rows]

    def draft(self, draft: int) -> DraftRow | None:
        row = self._execute(f"SELECT {_DRAFT} FROM draft WHERE id = ?", (draft,)).fetchone()
        return None if row is None else _draft_row(row)

    def has_drafts(self, ino: int) -> bool:
        return self._execute("SELECT 1 FROM draft WHERE ino = ? LIMIT 1", (ino,)).fetchone() is not None

    def draft_ids(self) -> set[int]:
        return {row[0] for row in self._execute("SELECT id FROM draft")}

    def add_draft(
        self,
        ino: int,
        size: int,
        floor: int,
        extents: bytes,
        data: bytes | None,
        changed_ns: int,
        unsynced: str | None = None,
        synced: bytes | None = None,
    ) -> int:
        with self.database.transaction():
            made = self._execute(
                "INSERT INTO draft (ino, size, floor, extents, data, changed_ns, unsynced, synced) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (ino, size, floor, extents, data, changed_ns, unsynced, synced),
            ).lastrowid
        assert made is not None
        return made

    def restore_draft(self, draft: DraftRow) -> None:
        """Put a row back under its id: the draft was dropped, and an open file goes on with it."""
        with self.database.transaction():
            self._execute(
                f"INSERT INTO draft ({_DRAFT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(draft.id, draft.ino, draft.sealed, draft.size, draft.floor, draft.extents, draft.data, draft.changed_ns),
                    *(draft.manifest_id, draft.sha256, draft.complete, draft.error, draft.unsynced, draft.synced),
                ),
            )

    def save_draft(
        self,
        draft: int,
        size: int,
        floor: int,
        extents: bytes,
        data: bytes | None,
        changed_ns: int,
        unsynced: str | None = None,
        synced: bytes | None = None,
    ) -> None:
        with self.database.transaction():
            self._execute(
                "UPDATE draft SET size = ?, floor = ?, extents = ?, data = ?, changed_ns = ?, unsynced = ?, synced = ? "
                "WHERE id = ?",
                (size, floor, extents, data, changed_ns, unsynced, synced, draft),
            )

    def all_synced(self, draft: int) -> None:
        """The draft's file is on the disk, as far as its row speaks of it."""
        with self.database.transaction():
            self._execute("UPDATE draft SET unsynced = NULL, synced = NULL WHERE id = ?", (draft,))

    def unsynced(self) -> list[int]:
        """Files with bytes in drafts' files that nobody synced."""
        return [row[0] for row in self._execute("SELECT DISTINCT ino FROM draft WHERE unsynced IS NOT NULL")]

    def is_unsynced(self, ino: int) -> bool:
        return self._execute("SELECT 1 FROM draft WHERE unsynced IS NOT NULL AND ino = ?", (ino,)).fetchone() is not None

    def set_size(self, ino: int, size: int) -> None:
        """The size as stat shows it. It has no base: the service knows the size of contents, not of drafts."""
        with self.database.transaction():
            self._execute("UPDATE inode SET size = ? WHERE ino = ?", (size, ino))

    def seal(self, draft: int) -> None:
        with self.database.transaction():
            self._execute("UPDATE draft SET sealed = 1 WHERE id = ?", (draft,))

    def complete(self, draft: int, manifest_id: bytes, manifest: bytes, sha256: bytes | None) -> bool:
        """The service holds every object of this manifest. False if the draft is gone meanwhile."""
        with self.database.transaction():
            self._execute("INSERT OR IGNORE INTO manifest VALUES (?, ?)", (manifest_id, manifest))
            changed = self._execute(
                "UPDATE draft SET manifest_id = ?, sha256 = ?, complete = 1, error = NULL WHERE id = ? AND sealed",
                (manifest_id, sha256, draft),
            )
        return changed.rowcount == 1

    def incomplete(self, ino: int) -> None:
        """The service misses objects that it was thought to hold: the sealed drafts of this file must go up again."""
        with self.database.transaction():
            self._execute("UPDATE draft SET complete = 0 WHERE ino = ?", (ino,))

    def set_error(self, ino: int, error: str | None) -> None:
        with self.database.transaction():
            self._execute("UPDATE draft SET error = ?1 WHERE ino = ?2 AND error IS NOT ?1", (error, ino))

    def drop_draft(self, draft: int) -> None:
        with self.database.transaction():
            self._execute("DELETE FROM draft WHERE id = ?", (draft,))

    def drop_drafts(self, ino: int) -> list[int]:
        """Drop all drafts of a file; their ids, whose files may be unlinked after the transaction."""
        with self.database.transaction():
            ids = [row[0] for row in self._execute("SELECT id FROM draft WHERE ino = ?", (ino,))]
            if ids:
                self._execute("DELETE FROM draft WHERE ino = ?", (ino,))
                self._execute("UPDATE inode SET size = manifest_size WHERE ino = ?", (ino,))
        return ids

    def move_drafts(self, from_ino: int, to_ino: int) -> None:
        """The drafts of one file become those of another (a conflicted copy)."""
        with self.database.transaction():
            self._execute("UPDATE draft SET ino = ? WHERE ino = ?", (to_ino, from_ino))

    def give_draft(self, draft: int, ino: int) -> bool:
        """One draft becomes another file's. False: its row is gone."""
        with self.database.transaction():
            return self._execute("UPDATE draft SET ino = ?, complete = 0 WHERE id = ?", (ino, draft)).rowcount == 1

    def acknowledge(self, ino: int, draft: int | None, manifest_id: bytes, size: int, sha256: bytes | None) -> list[int]:
        """The service has this content: the file's drafts up to `draft` are dropped, and it lies beneath what stays.

        Stands in the transaction that records the answer; the ids that are returned are to be unlinked after it
        (`Files.acknowledged`). The base of the inode is the tree store's business, and set by the caller.
        """
        if draft is None:
            return []
        with self.database.transaction():
            ids = [row[0] for row in self._execute("SELECT id FROM draft WHERE ino = ? AND id <= ?", (ino, draft))]
            self._execute("DELETE FROM draft WHERE ino = ? AND id <= ?", (ino, draft))
            self._execute(
                "UPDATE inode SET manifest_id = ?, manifest_size = ?, sha256 = ? WHERE ino = ?",
                (manifest_id, size, sha256, ino),
            )
        return ids

    def is_outstanding(self, ino: int) -> bool:
        """Whether a commit that is not answered yet sends a content of this file."""
        return self._execute("SELECT 1 FROM outstanding_content WHERE ino = ?", (ino,)).fetchone() is not None

    def waiting(self, after: int = 0, limit: int = -1) -> list[Waiting]:
        """Files above `after` with drafts that are not complete on the service, whether sealed or not; `limit` at most.

        What a draft holds stands before what is asked here: some ten microseconds for each.
        """
        rows = self._execute(
            "SELECT ino, max(size), max(error) FROM draft WHERE NOT complete AND ino > ? GROUP BY ino ORDER BY ino LIMIT ?",
            (after, limit),
        )
        return [Waiting(*row) for row in rows]

    def nameless_with_drafts(self) -> list[int]:
        """Files that were deleted here while they had drafts, and of which no outstanding commit speaks."""
        rows = self._execute(
            "SELECT DISTINCT d.ino FROM draft d JOIN inode i ON i.ino = d.ino WHERE i.nlink = 0 "
            "AND NOT EXISTS (SELECT 1 FROM outstanding_content o WHERE o.ino = d.ino)"
        )
        return [row[0] for row in rows]

    # -------------------------------------------------------------------------------------------------------- contents

    def file(self, ino: int) -> FileRow | None:
        row = self._execute(_FILE, (ino,)).fetchone()
        return None if row is None else FileRow(*row)

    def content(self, ino: int) -> ContentRow | None:
        row = self._execute(
            "SELECT manifest_id, manifest_size, sha256, split, size, nlink FROM inode WHERE ino = ? AND kind = 'file'", (ino,)
        ).fetchone()
        if row is None:
            return None
        return ContentRow(row[0], row[1], row[2], None if row[3] is None else Split(*_SPLIT.unpack(row[3])), row[4], row[5])

    def space_id(self, space: int) -> bytes:
        id_: bytes = self._execute("SELECT id FROM space WHERE number = ?", (space,)).fetchone()[0]
        return id_

    def manifest(self, manifest_id: bytes) -> bytes | None:
        row = self._execute("SELECT data FROM manifest WHERE id = ?", (manifest_id,)).fetchone()
        return None if row is None else row[0]

    def put_manifests(self, manifests: Iterable[tuple[bytes, bytes]]) -> None:
        with self.database.transaction():
            self._executemany("INSERT OR IGNORE INTO manifest VALUES (?, ?)", manifests)

    def manifest_of_content(self, space: int, sha256: bytes, size: int) -> bytes | None:
        """The id of a manifest that some file of this space has for the content with this hash, if it is here."""
        row = self._execute(
            "SELECT i.manifest_id FROM inode i JOIN identity d ON d.ino = i.ino JOIN manifest m ON m.id = i.manifest_id "
            "WHERE i.sha256 = ? AND i.manifest_size = ? AND d.space = ? LIMIT 1",
            (sha256, size, space),
        ).fetchone()
        return None if row is None else row[0]

    def siblings(self, ino: int, limit: int) -> list[bytes]:
        """Ids of files beside this one, those with names like its own first."""
        rows = self._execute(
            "SELECT d.id FROM entry own JOIN entry e ON e.parent = own.parent JOIN inode i ON i.ino = e.ino "
            "JOIN identity d ON d.ino = i.ino WHERE own.ino = ?1 AND i.ino <> ?1 AND i.kind = 'file' "
            "ORDER BY substr(e.name, 1, 1) <> substr(own.name, 1, 1), abs(length(e.name) - length(own.name)) LIMIT ?2",
            (ino, limit),
        )
        return [id_ for (id_,) in rows]

    def siblings_without_manifest(self, ino: int, limit: int) -> list[tuple[bytes, bytes]]:
        """(inode id, manifest id) of files beside this one whose manifests are not here."""
        return self._execute(
            "SELECT DISTINCT d.id, i.manifest_id FROM entry own JOIN entry e ON e.parent = own.parent "
            "JOIN inode i ON i.ino = e.ino JOIN identity d ON d.ino = i.ino LEFT JOIN manifest m ON m.id = i.manifest_id "
            "WHERE own.ino = ? AND i.manifest_id IS NOT NULL AND m.id IS NULL AND i.ino <> own.ino LIMIT ?",
            (ino, limit),
        ).fetchall()

    def drop_unused_manifests(self, after: bytes, limit: int, in_use: Collection[bytes]) -> tuple[int, bytes]:
        """Look at the next `limit` manifests above `after`, and forget those that no row speaks of and that are not `in_use`.

        Returns how many went, and where to go on. Does nothing while rows are staged, or many changes wait: then it would have
        to look through all of those.
        """
        rows = self._execute("SELECT id FROM manifest WHERE id > ? ORDER BY id LIMIT ?", (after, limit)).fetchall()
        end = rows[-1][0] if len(rows) == limit else b""
        if not rows or self._execute(_MUCH_UNDER_WAY, {"many": _MANY}).fetchone()[0]:
            return 0, end
        with self.database.transaction():
            unused = self._execute(_UNUSED_MANIFESTS, {"after": after, "last": rows[-1][0]}).fetchall()
            gone = [(id_,) for (id_,) in unused if id_ not in in_use]
            self._executemany("DELETE FROM manifest WHERE id = ?", gone)
        return len(gone), end

    # ---------------------------------------------------------------------------------------------------- known chunks

    def known_chunk(self, space: int, plain_sha256: bytes) -> ChunkRef | None:
        row = self._execute(
            "SELECT object_id, plain_length, stored_length, encoding, start, length FROM known_chunk "
            "WHERE space = ? AND plain_sha256 = ?",
            (space, plain_sha256),
        ).fetchone()
        return None if row is None else ChunkRef(row[0], row[1], row[2], Encoding(row[3]), row[4], row[5])

    def remember_chunks(self, space: int, chunks: Iterable[tuple[bytes, ChunkRef]]) -> None:
        """(plaintext SHA-256, where it is) of chunks that the service holds."""
        with self.database.transaction():
            self._executemany(
                "INSERT OR REPLACE INTO known_chunk VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (space, sha256, ref.object_id, ref.plain_length, ref.stored_length, ref.encoding, ref.start, ref.length)
                    for sha256, ref in chunks
                ],
            )

    def known_chunks(self, after: tuple[int, bytes], limit: int) -> list[tuple[int, bytes]]:
        """The next of them, by space and hash."""
        return self._execute(
            "SELECT space, plain_sha256 FROM known_chunk WHERE (space, plain_sha256) > (?, ?) ORDER BY 1, 2 LIMIT ?",
            (*after, limit),
        ).fetchall()

    def forget_chunks(self, keys: Sequence[tuple[int, bytes]]) -> None:
        if keys:
            with self.database.transaction():
                self._executemany("DELETE FROM known_chunk WHERE space = ? AND plain_sha256 = ?", keys)

    def forget_objects(self, space: int, object_ids: Iterable[bytes]) -> None:
        """The service does not hold these after all."""
        with self.database.transaction():
            for object_id in object_ids:
                self._execute("DELETE FROM known_chunk WHERE space = ? AND object_id = ?", (space, object_id))

    # ------------------------------------------------------------------------------------------- what the service lost

    def losses(self) -> int:
        """How often the service was found to have lost something that may not be on it again. 0: there is nothing of the kind."""
        count: int = self.database.meta(LOSSES, 0)
        return count

    def losses_are_mended(self, losses: int) -> None:
        """All is on the service again, unless it lost more since `losses` was asked for."""
        if self.losses() == losses:
            self.database.set_meta(LOSSES, None)

    def only_here(self, after: int, limit: int) -> tuple[list[bytes], int | None]:
        """Manifests of contents beneath all drafts that base does not say the service has. Looks at `limit` inodes above
        `after`, and returns where to go on (None: at the end)."""
        rows = self._execute(_ONLY_HERE, {"after": after, "limit": limit}).fetchall()
        end = None if len(rows) < limit else rows[-1][0]
        return [manifest_id for _, manifest_id, only_here in rows if only_here], end

    def is_only_here(self, ino: int) -> bool:
        row = self._execute(_ONLY_HERE, {"after": ino - 1, "limit": 1}).fetchone()
        return row is not None and row[0] == ino and bool(row[2])

    # ------------------------------------------------------------------------------------------------------------ pins

    def pin(self, ino: int) -> None:
        with self.database.transaction():
            self._execute("INSERT OR IGNORE INTO pin VALUES (?)", (ino,))

    def unpin(self, ino: int) -> bool:
        with self.database.transaction():
            return self._execute("DELETE FROM pin WHERE ino = ?", (ino,)).rowcount == 1

    def pins(self) -> list[int]:
        return [row[0] for row in self._execute("SELECT ino FROM pin")]

    def is_pinned(self, ino: int) -> bool:
        """Whether the inode or a folder above it is pinned."""
        if self._execute("SELECT 1 FROM pin LIMIT 1").fetchone() is None:
            return False
        return (
            self._execute(
                "WITH RECURSIVE above (ino) AS (VALUES (?) UNION SELECT e.parent FROM entry e JOIN above ON e.ino = above.ino "
                "UNION SELECT m.ino FROM above JOIN space s ON s.root = above.ino "
                "JOIN inode m ON m.kind = 'mount' AND m.target = lower(hex(s.id))) "
                "SELECT 1 FROM above JOIN pin ON pin.ino = above.ino LIMIT 1",
                (ino,),
            ).fetchone()
            is not None
        )

    def files_beneath(self, ino: int) -> list[int]:
        """Files below a folder, also in shared folders that stand there, or the file itself."""
        return [row[0] for row in self._execute(_FILES_BENEATH.format(roots="VALUES (?)"), (ino,))]

    def pinned_files(self) -> list[int]:
        return [row[0] for row in self._execute(_FILES_BENEATH.format(roots="SELECT ino FROM pin"))]


_FILE = (
    "SELECT i.kind, i.size, i.manifest_id, CASE WHEN i.manifest_id IS NULL THEN 0 ELSE i.manifest_size END, i.sha256, "
    "d.id, d.space, s.id FROM inode i JOIN identity d ON d.ino = i.ino JOIN space s ON s.number = d.space WHERE i.ino = ?"
)
LOSSES = "contents lost"
"""A single value, see `losses`."""
_ONLY_HERE = (
    "SELECT b.ino, i.manifest_id, coalesce(i.kind = 'file' AND i.nlink > 0 AND i.manifest_id IS NOT NULL "
    "AND (b.known = 0 OR b.manifest_id IS NOT i.manifest_id), 0) "
    "FROM (SELECT ino, known, manifest_id FROM inode_base WHERE ino > :after ORDER BY ino LIMIT :limit) b "
    "LEFT JOIN inode i ON i.ino = b.ino ORDER BY b.ino"
)
_MANY = 2000
_MUCH_UNDER_WAY = (
    "SELECT EXISTS (SELECT 1 FROM staged_inode) OR (SELECT count(*) FROM (SELECT 1 FROM inode_base LIMIT :many)) = :many "
    "OR (SELECT count(*) FROM (SELECT 1 FROM draft LIMIT :many)) = :many"
)
_UNUSED_MANIFESTS = (
    "SELECT id FROM manifest m WHERE id > :after AND id <= :last "
    "AND NOT EXISTS (SELECT 1 FROM inode i WHERE i.manifest_id = m.id) "
    "AND id NOT IN (SELECT manifest_id FROM inode_base WHERE manifest_id IS NOT NULL) "
    "AND id NOT IN (SELECT manifest_id FROM draft WHERE manifest_id IS NOT NULL) "
    "AND id NOT IN (SELECT manifest_id FROM outstanding_content)"
)
_FILES_BENEATH = (
    "WITH RECURSIVE beneath (ino) AS ({roots} UNION SELECT e.ino FROM entry e JOIN beneath ON e.parent = beneath.ino "
    "UNION SELECT s.root FROM beneath CROSS JOIN inode m ON m.ino = beneath.ino AND m.kind = 'mount' "
    "JOIN space s ON lower(hex(s.id)) = m.target) "
    "SELECT i.ino FROM beneath JOIN inode i ON i.ino = beneath.ino WHERE i.kind = 'file' AND i.nlink > 0"
)


def pack_split(split: Split) -> bytes:
    return _SPLIT.pack(split.minimum, split.average, split.maximum)


def _draft_row(row: tuple[object, ...]) -> DraftRow:
    id_, ino, sealed, size, floor, extents, data, changed_ns, manifest_id, sha256, complete, *rest = row
    return DraftRow(id_, ino, bool(sealed), size, floor, extents, data, changed_ns, manifest_id, sha256, bool(complete), *rest)  # type: ignore[arg-type]
