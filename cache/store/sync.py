"""Rows about the exchange with the service: spaces, staged pages, the outstanding commit, and the search for what to push.

Each method that writes is one transaction, or joins the one it stands in. What pages mean for the tree is `merging`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from cache.merge import Key
from cache.store.database import Database
from cache.store.schema import PERSONAL
from cache.store.sides import CompleteContent
from cache.store.tree import TreeStore, encode_xattrs
from remote.crashpoints import crash_point
from remote.protocol import EntryState, FolderPage, InodeState, SpaceChanges

_IDS_AT_ONCE = 500
_STAGE_INODE = (
    "INSERT INTO staged_inode VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (ino) DO UPDATE SET "
    "space = excluded.space, rev = excluded.rev, kind = excluded.kind, mode = excluded.mode, uid = excluded.uid, "
    "gid = excluded.gid, mtime_ns = excluded.mtime_ns, xattrs = excluded.xattrs, target = excluded.target, "
    "device_number = excluded.device_number, manifest_id = excluded.manifest_id, "
    "manifest_size = excluded.manifest_size, sha256 = excluded.sha256, content_rev = excluded.content_rev "
    "WHERE excluded.rev >= rev"
)
_STAGE_ENTRY = (
    "INSERT INTO staged_entry VALUES (?, ?, ?, ?, ?) ON CONFLICT (parent, name) DO UPDATE SET "
    "ino = excluded.ino, rev = excluded.rev, space = excluded.space WHERE excluded.rev >= rev"
)
_SPACE = "number, id, root, snapshot, acknowledged, caught_up, listing, listed, total_entries, commit_number"


class ShareState(StrEnum):
    """What this account is in a shared space."""

    EDITOR = "editor"
    VIEWER = "viewer"
    LOWERED = "lowered"
    """A viewer, whose changes from before are not all looked after yet."""
    ENDED = "ended"
    """No member any more; what is unsent there is not all looked after yet."""


class ForeignInode(Exception):
    """The service names one inode in two spaces; nothing of the page was kept."""


@dataclass(frozen=True, slots=True)
class SpaceRow:
    """A row of `space`; what the columns mean is said in `schema`."""

    number: int
    id: bytes
    root: int
    snapshot: int
    acknowledged: int
    caught_up: bool
    listing: bool
    listed: bool
    total_entries: int
    commit_number: int

    @property
    def known(self) -> int:
        """The newest revision that the service is known to have reached."""
        return max(self.snapshot, self.acknowledged)


@dataclass(frozen=True, slots=True)
class Replacing:
    """A listing that replaces base is under way, or waits to be merged.

    `collected`: what it lacks, and changed after this revision, was not removed but lost. `reconnecting`: a person said to go on
    with a service that lost something, so what it lacks says nothing at all; up to `shared` its history is the one known here.
    """

    collected: int = 0
    reconnecting: bool = False
    shared: int = 0


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A commit whose answer is not recorded yet."""

    number: int
    body: bytes


class SyncStore:
    def __init__(self, database: Database, tree: TreeStore) -> None:
        self.database = database
        self._tree = tree
        self._execute = database.sql.execute
        self._executemany = database.sql.executemany

    # ---------------------------------------------------------------------------------------------------------- spaces

    def spaces(self) -> list[SpaceRow]:
        return [_space_row(row) for row in self._execute(f"SELECT {_SPACE} FROM space ORDER BY number")]

    def space(self, number: int) -> SpaceRow:
        return _space_row(self._execute(f"SELECT {_SPACE} FROM space WHERE number = ?", (number,)).fetchone())

    def space_number(self, id_: bytes) -> int | None:
        return self._tree.space_number(id_)

    def add_space(self, id_: bytes, now_ns: int) -> int:
        return self._tree.add_space(id_, now_ns=now_ns)

    # ---------------------------------------------------------------------------------------------------- shared spaces

    def share(self, space: int) -> ShareState | None:
        """What this account is in a shared space; None: its mount was not seen yet."""
        kept: str | None = self.database.meta(f"share {space}")
        return None if kept is None else ShareState(kept)

    def set_share(self, space: int, state: ShareState | None) -> None:
        """Nothing is outstanding any more of a space that takes no changes."""
        with self.database.transaction():
            if state is not ShareState.EDITOR:
                self.close_commit(space, 0)
            self.database.set_meta(f"share {space}", state)

    def takes_changes(self, space: int) -> bool:
        return space == PERSONAL or self.share(space) is ShareState.EDITOR

    def vanishing_into_shares(self, space: int) -> set[int]:
        """Files below folders in whose place a mount is staged: they do not disappear, they are in the shared space."""
        below = [
            folder
            for parent, name in self._execute(
                "SELECT s.parent, s.name FROM staged_entry s JOIN staged_inode n ON n.ino = s.ino "
                "WHERE s.space = ? AND n.kind = 'mount'",
                (space,),
            ).fetchall()
            if (folder := self._tree.base_entry(parent, name)) is not None
        ]
        found: set[int] = set()
        while below:
            for _, ino in self._tree.base_children(below.pop()):
                if ino not in found:
                    found.add(ino)
                    below.append(ino)
        return found

    def unsent_files(self, space: int) -> list[int]:
        """Files of a space with content that the service does not have under their name: in drafts, or (an empty file, or
        one whose bytes it has all) in the local manifest."""
        rows = self._execute(
            "SELECT d.ino FROM draft d JOIN identity i ON i.ino = d.ino WHERE i.space = ?1 UNION "
            "SELECT b.ino FROM inode_base b JOIN identity i ON i.ino = b.ino JOIN inode n ON n.ino = b.ino "
            "WHERE i.space = ?1 AND n.kind = 'file' AND n.nlink > 0 AND n.manifest_id IS NOT NULL "
            "AND NOT (b.known AND b.manifest_id IS n.manifest_id) ORDER BY 1",
            (space,),
        )
        return [ino for (ino,) in rows]

    def inodes_of(self, space: int) -> list[int]:
        return [ino for (ino,) in self._execute("SELECT ino FROM identity WHERE space = ?", (space,))]

    def drop_rows(self, space: int, limit: int) -> int:
        """Forget some inodes of a space, with all that is known of them; how many they were."""
        with self.database.transaction():
            rows = self._execute(
                "SELECT i.ino FROM identity i JOIN space s ON s.number = i.space WHERE i.space = ? AND i.ino <> s.root LIMIT ?",
                (space, limit),
            ).fetchall()
            for table in ("entry", "entry_base", "staged_entry"):
                self._executemany(f"DELETE FROM {table} WHERE parent = ?", rows)
            for table in ("entry", "entry_base", "staged_inode", "outstanding_content", "inode_base", "inode", "pin", "identity"):
                self._executemany(f"DELETE FROM {table} WHERE ino = ?", rows)
        return len(rows)

    def drop_space(self, space: int) -> None:
        """Forget an empty space, and its root folder."""
        with self.database.transaction():
            root = self._tree.root_of(space)
            for table in ("entry", "entry_base", "staged_entry"):
                self._execute(f"DELETE FROM {table} WHERE parent = ?", (root,))
            for table in ("inode_base", "inode", "pin", "identity"):
                self._execute(f"DELETE FROM {table} WHERE ino = ?", (root,))
            self._execute("DELETE FROM known_chunk WHERE space = ?", (space,))
            self._execute("DELETE FROM space WHERE number = ?", (space,))
            for key in ("share", "replacing", "folder pages"):
                self.database.set_meta(f"{key} {space}", None)

    # ----------------------------------------------------------------------------------------------------- single values

    def cursor(self) -> str:
        """Where the feed goes on; "": at a listing from the beginning."""
        cursor: str = self.database.meta("cursor", "")
        return cursor

    def epoch(self) -> str | None:
        """The service's; None: it has not said it yet."""
        epoch: str | None = self.database.meta("epoch")
        return epoch

    def set_cursor(self, cursor: str, epoch: str) -> None:
        self.database.set_meta("cursor", cursor)
        if self.epoch() != epoch:
            self.database.set_meta("epoch", epoch)

    def replica(self) -> bytes:
        """What names this replica among all that its device ever had (`name_replica`)."""
        return bytes.fromhex(self.database.meta("replica"))

    def name_replica(self, id_: bytes, *, anew: bool = False) -> None:
        """Commits are counted under this name, unless the replica has one already."""
        if anew or self.database.meta("replica") is None:
            self.database.set_meta("replica", id_.hex())

    def forget_cursor(self) -> None:
        self.database.set_meta("cursor", "")

    def replacing(self, space: int) -> Replacing | None:
        kept = self.database.meta(f"replacing {space}")
        return None if kept is None else Replacing(**kept)

    def set_replacing(self, space: int, replacing: Replacing | None) -> None:
        if replacing != self.replacing(space):
            self.database.set_meta(f"replacing {space}", None if replacing is None else asdict(replacing))

    def newest_folder_page(self, space: int) -> int:
        """The service's revision at the newest folder page that was staged: the feed has to reach it before a merge."""
        revision: int = self.database.meta(f"folder pages {space}", 0)
        return revision

    # --------------------------------------------------------------------------------------------------------- staging

    def begin_listing(self, space: int) -> None:
        """A listing from the beginning follows: forget what was staged. The very first one adds to an empty base, so that
        its rows may be applied as they come; any later one replaces base."""
        with self.database.transaction():
            row, replacing = self.space(space), self.replacing(space)
            if replacing is None and (row.listed or row.snapshot):
                replacing = Replacing()
            self.set_replacing(space, replacing)
            self._execute("DELETE FROM staged_entry WHERE space = ?", (space,))
            self._execute("DELETE FROM staged_inode WHERE space = ?", (space,))
            self._execute("UPDATE space SET caught_up = 0, listing = ? WHERE number = ?", (replacing is not None, space))

    def lost_epoch(self) -> str | None:
        """The epoch in which this device saw what the service does not have any more, while it reconnects."""
        epoch: str | None = self.database.meta("lost epoch")
        return epoch

    def note_shared(self, space: int, revision: int) -> None:
        """While a device reconnects: up to which revision the service's history is the one known here."""
        replacing = self.replacing(space)
        if replacing is not None and replacing.reconnecting:
            self.set_replacing(space, replace(replacing, shared=revision))

    def doubt_service(self) -> None:
        """The service may have lost anything: a listing that replaces base has to come before anything is pushed."""
        with self.database.transaction():
            self.database.set_meta("lost epoch", self.epoch() or self.lost_epoch())
            self.database.set_meta("epoch", None)
            self.forget_cursor()
            for space in self.spaces():
                self.set_replacing(space.number, Replacing(reconnecting=True))
                self._execute("UPDATE space SET snapshot = 0, acknowledged = 0 WHERE number = ?", (space.number,))
                self.begin_listing(space.number)

    def stage(self, space: int, page: SpaceChanges) -> tuple[list[Key], list[int]]:
        """Keep a page's rows until they are merged; of two rows for one key the higher revision stays.

        Returns what the page named. Raises `ForeignInode`.
        """
        with self.database.transaction():
            keys, inodes = self._stage(space, page.inodes, page.entries)
            replacing = self.replacing(space) if page.full else None
            if replacing is not None:
                self.set_replacing(space, replace(replacing, collected=page.collected))
            self._execute(
                "UPDATE space SET snapshot = max(snapshot, ?), caught_up = ?, total_entries = coalesce(?, total_entries) "
                "WHERE number = ?",
                (page.revision, not page.has_more, page.total_entries, space),
            )
        return keys, inodes

    def stage_folder(self, space: int, folder: int, after: str, page: FolderPage) -> None:
        """Keep the rows of one folder, like those of a page of the feed. Raises `ForeignInode`.

        What is staged of this stretch of the folder, is not newer and not in the page, was removed meanwhile: the feed will
        say so, but until then it would stand in the way of the name that the same inode has now. Tombstones stay.
        """
        with self.database.transaction():
            self._execute(
                "DELETE FROM staged_entry WHERE parent = ?1 AND name > ?2 AND (?3 IS NULL OR name <= ?3) AND rev <= ?4 "
                "AND ino IS NOT NULL",
                (folder, after, page.next, page.revision),
            )
            self._stage(space, page.inodes, page.entries)
            newest = max(self.newest_folder_page(space), page.revision)
            self.database.set_meta(f"folder pages {space}", newest)

    def _stage(self, space: int, inodes: Sequence[InodeState], entries: Sequence[EntryState]) -> tuple[list[Key], list[int]]:
        """In few statements: a page of a thousand rows holds the loop for as long as this takes."""
        ids = [row.id for row in inodes]
        for row in entries:
            ids += (row.parent,) if row.inode is None else (row.parent, row.inode)
        inos = self._adopt(space, ids)
        self._executemany(_STAGE_INODE, [_inode_values(space, inos[row.id], row) for row in inodes])
        keys = [(inos[row.parent], row.name) for row in entries]
        self._executemany(
            _STAGE_ENTRY,
            [
                (*key, None if row.inode is None else inos[row.inode], row.rev, space)
                for key, row in zip(keys, entries, strict=True)
            ],
        )
        return keys, [inos[row.id] for row in inodes]

    def _adopt(self, space: int, ids: Iterable[bytes]) -> dict[bytes, int]:
        """The inos of these ids, made if they are new here. Raises `ForeignInode`."""
        unique = list(dict.fromkeys(ids))
        found: dict[bytes, int] = {}
        for at in range(0, len(unique), _IDS_AT_ONCE):
            some = unique[at : at + _IDS_AT_ONCE]
            query = f"SELECT id, ino, space FROM identity WHERE id IN ({', '.join('?' * len(some))})"
            for id_, ino, of in self._execute(query, some):
                if of != space:
                    raise ForeignInode(f"inode {id_.hex()} is in two spaces")
                found[id_] = ino
        for id_ in unique:
            if id_ not in found:
                found[id_] = self._tree.adopt(space, id_)
        return found

    def has_staged(self, space: int) -> bool:
        return any(
            self._execute(f"SELECT 1 FROM {table} WHERE space = ? LIMIT 1", (space,)).fetchone()
            for table in ("staged_entry", "staged_inode")
        )

    def count_staged(self, space: int) -> int:
        count: int = self._execute("SELECT count(*) FROM staged_entry WHERE space = ?", (space,)).fetchone()[0]
        return count

    def count_entries(self, space: int) -> int:
        """Entries of a space that are here, whether the service has them or not."""
        count: int = self._execute(
            "SELECT count(*) FROM entry e JOIN identity d ON d.ino = e.parent WHERE d.space = ?", (space,)
        ).fetchone()[0]
        return count

    # ------------------------------------------------------------------------------------------------- the commit, sent

    def outstanding(self, space: int) -> Outstanding | None:
        row = self._execute("SELECT commit_number, commit_body FROM space WHERE number = ?", (space,)).fetchone()
        return None if row[1] is None else Outstanding(*row)

    def store_commit(self, space: int, number: int, body: bytes, contents: Iterable[tuple[int, CompleteContent]]) -> None:
        """Keep a commit exactly as it will be sent, and which content of which inode is in it."""
        with self.database.transaction():
            self._execute("UPDATE space SET commit_number = ?, commit_body = ? WHERE number = ?", (number, body, space))
            self._executemany(
                "INSERT INTO outstanding_content VALUES (?, ?, ?, ?, ?)",
                [(ino, sent.draft, sent.manifest_id, sent.size, sent.sha256) for ino, sent in contents],
            )
            crash_point("commit.storing")

    def outstanding_content(self, ino: int) -> CompleteContent | None:
        row = self._execute(
            "SELECT draft, manifest_id, manifest_size, sha256 FROM outstanding_content WHERE ino = ?", (ino,)
        ).fetchone()
        return None if row is None else CompleteContent(*row)

    def close_commit(self, space: int, acknowledged: int) -> None:
        """The answer is recorded: nothing is outstanding any more."""
        with self.database.transaction():
            self._execute(
                "DELETE FROM outstanding_content AS o WHERE (SELECT d.space FROM identity d WHERE d.ino = o.ino) = ?",
                (space,),
            )
            self._execute(
                "UPDATE space SET commit_body = NULL, acknowledged = max(acknowledged, ?) WHERE number = ?",
                (acknowledged, space),
            )

    # --------------------------------------------------------------------------------------------------- what to push

    def ready_entries(
        self, space: int, after: Key, limit: int, held_removals: Set[int] = frozenset()
    ) -> tuple[list[Key], Key | None]:
        """Dirty names after a key, without new files whose bytes are still on their way, and names that `held_removals` lost.

        Looks at `limit` names at most, and returns where to go on (None: at the end).
        """
        rows = self._execute(
            "SELECT b.parent, b.name, b.ino, b.ino IS NOT e.ino AND NOT coalesce(i.kind = 'file' AND i.manifest_id IS NULL "
            "AND NOT EXISTS (SELECT 1 FROM draft f WHERE f.ino = i.ino AND f.complete = 1), 0) AND d.space = ? "
            "FROM (SELECT parent, name, ino FROM entry_base WHERE (parent, name) > (?, ?) ORDER BY parent, name LIMIT ?) b "
            "JOIN identity d ON d.ino = b.parent "
            "LEFT JOIN entry e ON e.parent = b.parent AND e.name = b.name LEFT JOIN inode i ON i.ino = e.ino",
            (space, *after, limit),
        ).fetchall()
        end = None if len(rows) < limit else (rows[-1][0], rows[-1][1])
        return [(parent, name) for parent, name, old, ready in rows if ready and old not in held_removals], end

    def ready_inodes(self, space: int, after: int, limit: int) -> tuple[list[int], int | None]:
        """Inodes above `after` that the service has, and whose attributes or complete content may differ from what it has."""
        rows = self._execute(
            "SELECT ino FROM (SELECT ino FROM inode_base WHERE known = 1 AND ino > ?1 UNION "
            "SELECT ino FROM draft WHERE complete = 1 AND ino > ?1) ORDER BY ino LIMIT ?2",
            (after, limit),
        ).fetchall()
        inodes = [ino for (ino,) in rows]
        return [ino for ino in inodes if self._tree.space_of(ino) == space], None if len(inodes) < limit else inodes[-1]

    # ------------------------------------------------------------------------------------------------------ for guards

    def files_to_disappear(self, space: int) -> list[int]:
        """Files that the service has under a name, and that have none here."""
        rows = self._execute(
            "SELECT i.ino FROM inode i INDEXED BY inode_nameless JOIN identity d ON d.ino = i.ino "
            "WHERE i.nlink = 0 AND i.kind <> 'directory' AND d.space = ? "
            "AND EXISTS (SELECT 1 FROM entry_base b WHERE b.ino = i.ino)",
            (space,),
        )
        return [ino for (ino,) in rows]

    def files_to_vanish(self, space: int) -> list[int]:
        """Files that have a name here, and lose one on the service with what is staged. Some of them may have another."""
        rows = self._execute(
            "SELECT DISTINCT i.ino FROM staged_entry s LEFT JOIN entry_base b ON b.parent = s.parent AND b.name = s.name "
            "LEFT JOIN entry e ON e.parent = s.parent AND e.name = s.name "
            "JOIN inode i ON i.ino = CASE WHEN b.parent IS NULL THEN e.ino ELSE b.ino END "
            "WHERE s.space = ? AND s.ino IS NOT i.ino AND i.kind <> 'directory' AND i.nlink > 0",
            (space,),
        )
        return [ino for (ino,) in rows]

    def count_files(self, space: int) -> int:
        """Files of a space that have a name, here or on the service."""
        count: int = self._execute(
            "SELECT count(*) FROM inode i JOIN identity d ON d.ino = i.ino WHERE d.space = ? AND i.kind <> 'directory' "
            "AND (i.nlink > 0 OR EXISTS (SELECT 1 FROM entry_base b WHERE b.ino = i.ino))",
            (space,),
        ).fetchone()[0]
        return count


def _inode_values(space: int, ino: int, row: InodeState) -> tuple[object, ...]:
    attributes, content = row.attributes, row.content
    xattrs = encode_xattrs({name: value for name, value in attributes.xattrs.items() if value is not None})
    return (
        *(ino, space, row.rev, row.kind.value, attributes.mode, attributes.uid, attributes.gid, attributes.mtime_ns),
        *(xattrs, row.target, row.device_number),
        *((None, 0, None) if content is None else (content.manifest_id, content.size, content.sha256)),
        row.content_rev,
    )


def _space_row(row: Sequence[int | bytes]) -> SpaceRow:
    number, id_, root, snapshot, acknowledged, caught_up, listing, listed, total, commit = row
    return SpaceRow(number, id_, root, snapshot, acknowledged, bool(caught_up), bool(listing), bool(listed), total, commit)  # type: ignore[arg-type]
