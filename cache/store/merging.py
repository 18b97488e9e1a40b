"""A merge as rows: what is staged, and what `cache.merge` decided, become the new base and local states in one transaction.

Also the very first listing, whose rows are applied as far as they hang on the root while the rest still comes. What the
kernel and open files have to hear is returned, for after the transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from cache.clock import Clock, Randomness
from cache.guards import WENT_BACK, Contradiction, check_service_tree
from cache.merge import Contacts, Fate, FreeName, Key, Merged, State, find_contacts, merge
from cache.model import AttributesChanged, Change, ContentChanged, EntryChanged
from cache.store.bulk import BulkRows, EntryMoved, InodeRenewed
from cache.store.content import LOSSES, ContentStore
from cache.store.database import Database
from cache.store.lost import LostRows
from cache.store.sides import BaseSide, LocalSide, ServiceSide, StagedInode, encode_opaque
from cache.store.sync import Replacing
from cache.store.tree import KINDS, BaseRow, InodeRow, TreeStore
from remote.crashpoints import crash_point
from remote.protocol import INODE_ID_BYTES, Kind

_NOTHING = Contacts(frozenset(), frozenset())
_BASE_COLUMNS = ("mode", "uid", "gid", "mtime_ns", "xattrs", "manifest_id", "manifest_size", "sha256")


@dataclass(slots=True)
class Applied:
    """What a merge did, for the kernel's caches, open files and the status."""

    changes: list[Change] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)
    """Files that have the service's content now."""
    moved: list[tuple[int, int]] = field(default_factory=list)
    """(from, to): the drafts of a file became those of a conflicted copy."""
    dropped: list[tuple[int, list[int]]] = field(default_factory=list)
    """(file, drafts): rows that are gone because the service has the content, or nobody can want it any more."""
    vanished: list[tuple[int, Key]] = field(default_factory=list)
    """(file, name): its last name here, which the merge took away."""
    conflicts: int = 0


@dataclass(frozen=True, slots=True)
class _Place:
    """What a key holds after the merge, on the service and here."""

    key: Key
    base: int | None
    rev: int
    local: int | None


class MergeStore:
    def __init__(self, database: Database, tree: TreeStore, contents: ContentStore, clock: Clock, randomness: Randomness) -> None:
        self.database = database
        self._tree = tree
        self._contents = contents
        self._clock = clock
        self._randomness = randomness
        self._execute = database.sql.execute
        self._bulk = BulkRows(database)
        self._lost = LostRows(database)
        self.base = BaseSide(tree)
        self.local = LocalSide(tree)
        self.service = ServiceSide(tree, self.base)

    # ------------------------------------------------------------------------------------------------------- before it

    def finish_listing(self, space: int, replacing: Replacing) -> None:
        """A listing that replaces base is complete: what is to be thought of the names that it lacks?

        They were removed, and the service does not remember when: tombstones are staged. If it would remember
        (`Contradiction`), or a person said that it lost something, they are lost, and nothing is removed here.
        """
        with self.database.transaction():
            if replacing.reconnecting:
                self._lost.forget(space, replacing.shared)
                self.database.set_meta(LOSSES, self.database.meta(LOSSES, 0) + 1)
                self._execute("UPDATE space SET listing = 0 WHERE number = ?", (space,))
                crash_point("reconnect.forgetting")
                return
            if self._execute(_LOST, (space, replacing.collected)).fetchone() is not None:
                raise Contradiction(f"{WENT_BACK} (a listing lacks what was not removed)")
            self._execute(
                "INSERT OR IGNORE INTO staged_entry SELECT b.parent, b.name, NULL, s.snapshot, s.number FROM entry_base b "
                "JOIN identity d ON d.ino = b.parent JOIN space s ON s.number = d.space WHERE s.number = ? AND b.ino IS NOT NULL",
                (space,),
            )
            self._execute(
                "INSERT OR IGNORE INTO staged_entry SELECT e.parent, e.name, NULL, s.snapshot, s.number FROM entry e "
                "JOIN identity d ON d.ino = e.parent JOIN space s ON s.number = d.space WHERE s.number = ? AND NOT EXISTS "
                "(SELECT 1 FROM entry_base b WHERE b.parent = e.parent AND b.name = e.name)",
                (space,),
            )
            self._execute("UPDATE space SET listing = 0 WHERE number = ?", (space,))

    def drop_known(self, space: int) -> None:
        """Forget staged rows that say nothing new: older than base, or what an acknowledgement said already."""
        with self.database.transaction():
            for statement in _KNOWN:
                self._execute(statement, (space,))

    # ------------------------------------------------------------------------------------------------------- the merge

    def merge(
        self,
        space: int,
        root: int,
        free_name: FreeName,
        keep: frozenset[int] = frozenset(),
        at_the_end: Callable[[], None] = lambda: None,
    ) -> Applied:
        """Merge all that is staged. `keep`: files that stay here though the service removed them. `at_the_end` is called in
        the same transaction.

        Raises `Contradiction` or `MergeImpossible`, and then changes nothing.
        """
        with self.database.transaction():
            applied = Applied()
            if self._has_staged(space):
                if self._execute(_KIND_CHANGED, (space,)).fetchone() is not None:
                    raise Contradiction("the service says of an inode that it is of another kind now")
                if self._execute(_TWO_OF_ONE_REVISION, (space,)).fetchone() is not None:
                    raise Contradiction("the service says two different things of a name at one revision")
                check_service_tree(self.service, self._staged_names(space), self._folders_losing_a_name(space), root)
                contacts = self._contacts(space, root, keep)
                merged = merge(self.base, self.service, self.local, contacts, root, free_name)
                self._apply(space, merged, applied)
            self._execute("UPDATE space SET listed = 1 WHERE number = ?", (space,))
            if self.database.meta(f"replacing {space}") is not None:
                self.database.set_meta(f"replacing {space}", None)
            at_the_end()
            crash_point("merge.merging")
        return applied

    def _staged_names(self, space: int) -> list[tuple[Key, int, Kind | None]]:
        rows = self._execute(
            "SELECT s.parent, s.name, s.ino, coalesce(n.kind, CASE WHEN b.known = 0 THEN NULL ELSE i.kind END) "
            "FROM staged_entry s LEFT JOIN staged_inode n ON n.ino = s.ino LEFT JOIN inode i ON i.ino = s.ino "
            "LEFT JOIN inode_base b ON b.ino = s.ino WHERE s.space = ? AND s.ino IS NOT NULL",
            (space,),
        )
        return [((parent, name), ino, None if kind is None else KINDS[kind]) for parent, name, ino, kind in rows]

    def _folders_losing_a_name(self, space: int) -> list[int]:
        rows = self._execute(
            "SELECT i.ino FROM staged_entry s LEFT JOIN entry_base b ON b.parent = s.parent AND b.name = s.name "
            "LEFT JOIN entry e ON e.parent = s.parent AND e.name = s.name "
            "JOIN inode i ON i.ino = CASE WHEN b.parent IS NULL THEN e.ino ELSE b.ino END "
            "WHERE s.space = ? AND s.ino IS NOT i.ino AND i.kind = 'directory'",
            (space,),
        )
        return [ino for (ino,) in rows]

    def _has_staged(self, space: int) -> bool:
        return any(
            self._execute(f"SELECT 1 FROM {table} WHERE space = ? LIMIT 1", (space,)).fetchone()
            for table in ("staged_entry", "staged_inode")
        )

    def _contacts(self, space: int, root: int, keep: frozenset[int]) -> Contacts:
        """As `find_contacts` has them; it is asked only about staged rows that may be near a local change."""
        if not any(self._execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in ("entry_base", "inode_base", "draft")):
            contacts = _NOTHING
        else:
            keys = self._execute(_KEYS_NEAR_CHANGES, (space,)).fetchall()
            inodes = [row[0] for row in self._execute(_INODES_NEAR_CHANGES, (space,))]
            contacts = find_contacts(self.base, self.service, self.local, keys, inodes, root, self._is_dirty)
        return Contacts(contacts.inodes | keep, contacts.moved_folders, keep) if keep else contacts

    def _is_dirty(self, ino: int) -> bool:
        """Whether base and local may differ (deciding an inode for nothing does no harm)."""
        return self._execute(_IS_DIRTY, (ino,)).fetchone() is not None

    # --------------------------------------------------------------------------------------------------- its outcome

    def _apply(self, space: int, merged: Merged, applied: Applied) -> None:
        now = self._clock.wall_ns()
        places = self._places(space, merged)  # all reads of the old states come before the first write
        sources = {copied.source: self._row(copied.source) for copied in merged.copies}
        decided = [(ino, self.service.staged(ino), self._tree.base_inode(ino)) for ino in merged.states]
        superfluous = self._never_here(space)
        self._bulk.take_all_but(space, [place.key for place in places], list(merged.states))
        changes = _Changes(applied)
        changes.bulk(*self._bulk.apply(now))
        for ino, staged, base in decided:
            self._apply_decided(ino, merged.states[ino], merged.fates[ino], staged, base, now, changes)
        for place in places:
            self._apply_place(place, changes)
        for copied in merged.copies:
            self._make_copy(space, copied.key, sources[copied.source], now, changes)
        applied.conflicts = len(merged.copies) + merged.rules["renamed"]
        self._execute("DELETE FROM staged_entry WHERE space = ?", (space,))
        self._execute("DELETE FROM staged_inode WHERE space = ?", (space,))
        for ino in superfluous:
            if self._tree.inode(ino) is None:
                self._tree.purge(ino)
        changes.finish(self._tree)

    def _never_here(self, space: int) -> list[int]:
        """What is staged, or is the folder of something staged, and has no row: perhaps only a number that nobody needs."""
        rows = self._execute(
            "SELECT x.ino FROM (SELECT parent AS ino FROM staged_entry WHERE space = ?1 UNION SELECT ino FROM staged_entry "
            "WHERE space = ?1 AND ino IS NOT NULL UNION SELECT ino FROM staged_inode WHERE space = ?1) x "
            "WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = x.ino) "
            "AND NOT EXISTS (SELECT 1 FROM staged_entry e WHERE e.ino = x.ino)",
            (space,),
        )
        return [ino for (ino,) in rows]

    def _places(self, space: int, merged: Merged) -> list[_Place]:
        """The keys that are not simply the service's now: names of decided inodes, and names that were changed here."""
        claimed = {key: ino for ino, names in merged.names.items() for key in names}
        affected: dict[Key, None] = dict.fromkeys(self._execute(_STAGED_SHADOWED, (space,)).fetchall())
        for ino, names in merged.names.items():
            for side in (self.base, self.service, self.local):
                affected.update(dict.fromkeys(side.names(ino)))
            affected.update(dict.fromkeys(names))
        places = []
        for key in affected:
            staged = self._execute("SELECT ino, rev FROM staged_entry WHERE parent = ? AND name = ?", key).fetchone()
            base, rev = staged if staged is not None else (self.base.holder(key), self._tree.entry_rev(*key))
            places.append(_Place(key, base, rev, claimed.get(key) or self._undecided_holder(key, merged)))
        return places

    def _undecided_holder(self, key: Key, merged: Merged) -> int | None:
        """Of an inode that was not decided, one of the two sides left the names alone: those of the other are the result."""
        for ino in (self.service.holder(key), self.local.holder(key)):
            if ino is not None and ino not in merged.names:
                service = self.service.names(ino)
                if key in (self.local.names(ino) if service == self.base.names(ino) else service):
                    return ino
        return None

    def _apply_decided(
        self, ino: int, state: State, fate: Fate, staged: StagedInode | None, base: BaseRow | None, now: int, changes: _Changes
    ) -> None:
        old = self._tree.inode(ino)
        if old is None:
            if staged is None:
                return
            old = _new_row(ino, staged, now)
        service = base if staged is None else staged.base
        rev, content_rev = (old.rev, old.content_rev) if staged is None else (staged.rev, staged.content_rev)
        if fate is Fate.KEEP_BASE and service is not None:
            content_rev = old.content_rev
            service = _with_content_of(base, service)
        new = replace(
            old, mode=state.mode, uid=state.uid, gid=state.gid, mtime_ns=state.mtime_ns, xattrs=encode_opaque(state.xattrs)
        )
        if fate not in (Fate.KEEP, Fate.KEEP_BASE) and service is not None and old.kind is Kind.FILE:
            new = replace(
                new,
                manifest_id=service.manifest_id,
                manifest_size=service.manifest_size,
                sha256=service.sha256,
                size=service.manifest_size,
            )
            drafts = [] if fate is Fate.COPY else self._contents.drop_drafts(ino)
            if drafts or new.manifest_id != old.manifest_id:
                changes.applied.dropped.append((ino, drafts))
        if new != old:
            new = replace(new, ctime_ns=now)
        self._tree.set_inode_states(ino, base=service, rev=rev, content_rev=content_rev, local=new)
        changes.inode(old, new, replaced=fate in (Fate.REPLACE, Fate.COPY))

    def _apply_place(self, place: _Place, changes: _Changes) -> None:
        parent, name = place.key
        before = self._tree.child(parent, name)
        self._tree.set_entry_states(parent, name, base=place.base, rev=place.rev, local=place.local)
        if before != place.local:
            changes.entry(place.key, before, place.local)

    def _make_copy(self, space: int, key: Key, source: InodeRow, now: int, changes: _Changes) -> None:
        """The content that `source` had before the merge becomes a file of its own."""
        ino = self._tree.insert_inode(
            self._randomness.bytes(INODE_ID_BYTES),
            space,
            Kind.FILE,
            mode=source.mode,
            uid=source.uid,
            gid=source.gid,
            now_ns=now,
            name=key,
            mtime_ns=source.mtime_ns,
            size=source.size,
            xattrs=source.xattrs,
            manifest_id=source.manifest_id,
            manifest_size=source.manifest_size,
            sha256=source.sha256,
            split=source.split,
        )
        self._contents.move_drafts(source.ino, ino)
        changes.applied.moved.append((source.ino, ino))
        changes.entry(key, None, ino)

    def _row(self, ino: int) -> InodeRow:
        row = self._tree.inode(ino)
        assert row is not None, "a merge copied the content of an inode that is not here"
        return row

    # -------------------------------------------------------------------------------------------- the very first listing

    def apply_connected(self, space: int, folders: deque[tuple[int, str]], limit: int) -> list[Change]:
        """Apply staged rows of these folders (each with the name after which to go on), as far as nothing here meets them.

        At most about `limit` rows; folders that are applied are added, finished ones leave.
        """
        changes = _Changes(Applied())
        now = self._clock.wall_ns()
        with self.database.transaction():
            while folders and limit > 0:
                folder, after = folders[0]
                count, last, below = self._bulk.take_connected(space, folder, after, limit)
                if count < limit:
                    folders.popleft()
                else:
                    folders[0] = (folder, last)
                limit -= max(count, 1)
                if count:
                    changes.bulk(*self._bulk.apply(now))
                    self._bulk.forget_staged()
                    folders.extend((ino, "") for ino in below)
            changes.finish(self._tree)
        return changes.applied.changes

    def folders_here(self, space: int) -> list[int]:
        rows = self._execute(
            "SELECT i.ino FROM inode i JOIN identity d ON d.ino = i.ino WHERE d.space = ? AND i.kind = 'directory'", (space,)
        )
        return [ino for (ino,) in rows]

    def known_folders(self, keys: Iterable[Key], inodes: Iterable[int]) -> list[int]:
        """Folders that are here and for which a page that was just staged may hold something."""
        parents = {parent for parent, _ in keys}
        for ino in inodes:
            parents.update(row[0] for row in self._execute("SELECT parent FROM staged_entry WHERE ino = ?", (ino,)))
        return sorted(parent for parent in parents if self._tree.inode(parent) is not None)


class _Changes:
    """Gathers what changed in the tree."""

    def __init__(self, applied: Applied) -> None:
        self.applied = applied
        self._attributes: dict[int, None] = {}
        self._contents: dict[int, None] = {}
        self._times: dict[int, None] = {}
        self._lost: dict[int, Key] = {}

    def entry(self, key: Key, before: int | None, after: int | None) -> None:
        self.applied.changes.append(EntryChanged(*key, gone=after is None))
        self._attributes.update(dict.fromkeys(ino for ino in (key[0], before, after) if ino is not None))
        if before is not None:
            self._lost[before] = key

    def bulk(self, moved: Iterable[EntryMoved], renewed: Iterable[InodeRenewed]) -> None:
        for one in moved:
            self.entry(one.key, one.before, one.after)
        for inode in renewed:
            self._attributes[inode.ino] = None
            if inode.is_file and inode.content:
                self._contents[inode.ino] = None
            elif inode.is_file and inode.mtime:
                self._times[inode.ino] = None

    def inode(self, old: InodeRow | None, new: InodeRow, *, replaced: bool = False) -> None:
        if old is None:
            return
        same = new.manifest_id == old.manifest_id or (new.sha256 is not None and new.sha256 == old.sha256)
        if new.kind is Kind.FILE and (replaced or not same):
            self._contents[new.ino] = None
        elif new.kind is Kind.FILE and new.mtime_ns != old.mtime_ns:
            self._times[new.ino] = None
        if new != old:
            self._attributes[new.ino] = None

    def finish(self, tree: TreeStore) -> None:
        for ino, key in self._lost.items():
            row = tree.inode(ino)
            if row is not None and row.kind is Kind.FILE and row.nlink == 0:
                self.applied.vanished.append((ino, key))
        for ino in self._contents:
            self.applied.replaced.append(ino)
            self.applied.changes.append(ContentChanged(ino, tuple(tree.names(ino))))
        # The kernel believes its own mtime of a file as it believes its own pages: it has to forget the file for both.
        self.applied.changes += [ContentChanged(ino, tuple(tree.names(ino))) for ino in self._times]
        self.applied.changes += [AttributesChanged(ino) for ino in self._attributes]


def _with_content_of(base: BaseRow | None, service: BaseRow) -> BaseRow:
    if base is None:
        return replace(service, manifest_id=None, manifest_size=0, sha256=None)
    return replace(service, manifest_id=base.manifest_id, manifest_size=base.manifest_size, sha256=base.sha256)


def _new_row(ino: int, staged: StagedInode, now: int) -> InodeRow:
    base = staged.base
    return InodeRow(
        ino=ino,
        kind=staged.kind,
        mode=base.mode,
        uid=base.uid,
        gid=base.gid,
        mtime_ns=base.mtime_ns,
        ctime_ns=now,
        atime_ns=base.mtime_ns,
        nlink=0,
        size=base.manifest_size,
        target=staged.target,
        device_number=staged.device_number,
        xattrs=base.xattrs,
        manifest_id=base.manifest_id,
        manifest_size=base.manifest_size,
        sha256=base.sha256,
        split=None,
        rev=0,
        content_rev=0,
    )


_LOST = (
    "SELECT 1 FROM (SELECT parent, name, rev FROM entry_base WHERE ino IS NOT NULL UNION ALL SELECT parent, name, rev "
    "FROM entry e WHERE NOT EXISTS (SELECT 1 FROM entry_base x WHERE x.parent = e.parent AND x.name = e.name)) b "
    "JOIN identity d ON d.ino = b.parent WHERE d.space = ? AND b.rev > ? "
    "AND NOT EXISTS (SELECT 1 FROM staged_entry s WHERE s.parent = b.parent AND s.name = b.name) LIMIT 1"
)
_TWO_OF_ONE_REVISION = (
    "SELECT 1 FROM staged_entry s LEFT JOIN entry_base b ON b.parent = s.parent AND b.name = s.name "
    "LEFT JOIN entry e ON e.parent = s.parent AND e.name = s.name WHERE s.space = ? AND s.rev > 0 "
    "AND CASE WHEN b.parent IS NULL THEN e.rev = s.rev AND e.ino IS NOT s.ino "
    "ELSE b.rev = s.rev AND b.ino IS NOT s.ino END LIMIT 1"
)
_KIND_CHANGED = "SELECT 1 FROM staged_inode s JOIN inode i ON i.ino = s.ino WHERE s.space = ? AND s.kind <> i.kind LIMIT 1"
_SAME = " AND ".join(f"{{0}}.{column} IS s.{column}" for column in _BASE_COLUMNS)
_KNOWN = (
    "DELETE FROM staged_entry AS s WHERE space = ? AND rev < coalesce("
    "(SELECT rev FROM entry_base b WHERE b.parent = s.parent AND b.name = s.name), "
    "(SELECT rev FROM entry e WHERE e.parent = s.parent AND e.name = s.name), 0)",
    "DELETE FROM staged_entry AS s WHERE space = ? AND CASE "
    "WHEN EXISTS (SELECT 1 FROM entry_base b WHERE b.parent = s.parent AND b.name = s.name) "
    "THEN EXISTS (SELECT 1 FROM entry_base b WHERE b.parent = s.parent AND b.name = s.name AND b.ino IS s.ino AND b.rev = s.rev) "
    "WHEN s.ino IS NULL THEN NOT EXISTS (SELECT 1 FROM entry e WHERE e.parent = s.parent AND e.name = s.name) "
    "ELSE EXISTS (SELECT 1 FROM entry e WHERE e.parent = s.parent AND e.name = s.name AND e.ino = s.ino AND e.rev = s.rev) END",
    "DELETE FROM staged_inode AS s WHERE space = ? AND rev < coalesce((SELECT rev FROM inode i WHERE i.ino = s.ino), 0)",
    "DELETE FROM staged_inode AS s WHERE space = ? AND EXISTS (SELECT 1 FROM inode i LEFT JOIN inode_base b ON b.ino = i.ino "
    "WHERE i.ino = s.ino AND i.rev = s.rev AND i.content_rev = s.content_rev AND CASE WHEN b.ino IS NULL "
    f"THEN {_SAME.format('i')} ELSE b.known = 1 AND {_SAME.format('b')} END)",
)
_DIRTY = (
    "(EXISTS (SELECT 1 FROM inode_base WHERE ino = {0}) OR EXISTS (SELECT 1 FROM draft WHERE ino = {0}) "
    "OR EXISTS (SELECT 1 FROM entry_base WHERE ino = {0}) OR EXISTS (SELECT 1 FROM entry x JOIN entry_base y "
    "ON y.parent = x.parent AND y.name = x.name WHERE x.ino = {0}))"
)
_STAGED_SHADOWED = (
    "SELECT s.parent, s.name FROM staged_entry s CROSS JOIN entry_base b ON b.parent = s.parent AND b.name = s.name "
    "WHERE s.space = ?"
)
_KEYS_NEAR_CHANGES = (
    "SELECT s.parent, s.name FROM staged_entry s LEFT JOIN entry_base b ON b.parent = s.parent AND b.name = s.name "
    "LEFT JOIN entry e ON e.parent = s.parent AND e.name = s.name LEFT JOIN inode i ON i.ino = s.ino "
    "LEFT JOIN inode h ON h.ino = e.ino WHERE s.space = ? AND (b.parent IS NOT NULL OR i.kind = 'directory' "
    "OR h.kind = 'directory' OR (s.ino IS NOT NULL AND NOT EXISTS (SELECT 1 FROM entry p WHERE p.ino = s.parent)) "
    f"OR {_DIRTY.format('s.ino')} OR {_DIRTY.format('e.ino')})"
)
_INODES_NEAR_CHANGES = f"SELECT s.ino FROM staged_inode s WHERE s.space = ? AND {_DIRTY.format('s.ino')}"
_IS_DIRTY = f"SELECT 1 WHERE {_DIRTY.format('?1')}"
