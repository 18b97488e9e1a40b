"""What it takes to make a folder what it was at a time: names given back, names removed, contents written. Blocking.

A plan is made on a copy of the tree in memory, so each step sees what those before it did, and only what remains of all of them
becomes the group of an edit. Names are given back from the top, so that what a folder was in is in its place before it, and
nothing gets into itself. What was there at that time is never removed, only put where it was, or beside. Folders that were made
since go last, from below, when nothing is in them any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection

from remote.fileapi import MAX_ENTRIES, RewindChange, RewindWhat
from remote.names import free_name
from remote.protocol import ContentChange, Kind
from remote.server.database import contents as content_rows
from remote.server.database import formernames as rows
from remote.server.database.contents import Version
from remote.server.database.tree import InodeRow, Key
from remote.server.edits import COPIED_MANIFESTS_MAX, Changes
from remote.server.past import Past, top_id
from remote.server.paths import Place, place_of
from remote.server.tree import Tree

PAGE = 1000
PATHS_MAX = 100
"""Of each kind, in one answer."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one plan may change, or little more."""

    changes: int
    """Names and contents."""
    manifest_bytes: int


EDIT = Limits(MAX_ENTRIES, COPIED_MANIFESTS_MAX)
DRY_RUN = Limits(20_000, 2**62)


@dataclass(slots=True)
class Counts:
    """What a rewind does, and some of the paths."""

    of: dict[RewindWhat, int] = field(default_factory=lambda: dict.fromkeys(RewindWhat, 0))
    paths: list[RewindChange] = field(default_factory=list)

    def add(self, what: RewindWhat, path: str) -> None:
        self.of[what] += 1
        if self.of[what] <= PATHS_MAX:
            self.paths.append(RewindChange(path=path, what=what))


class RewindPlan:
    def __init__(
        self, connection: Connection, tree: Tree, past: Past, top: Place, at_ns: int, since_rev: int, limits: Limits
    ) -> None:
        """`since_rev`: a revision that the space had then."""
        self._connection = connection
        self._now = tree
        self._planned = Tree(connection, tree.root)
        self._past = past
        self._top = top_id(tree, top)
        self._above = {*top.above, self._top}
        self._at_ns = at_ns
        self._since_rev = since_rev
        self._limits = limits
        self._changed: dict[Key, None] = {}
        self._aside: list[tuple[Key, bytes, Key]] = []  # what had to make room: where it is, what, and where it had been
        self._placed = {self._top}  # folders that are where they were, as all above them are
        self._kept: set[bytes] = set()  # what is counted as left
        self._gone: set[Key] = set()
        self._strangers: dict[Key, tuple[bytes, Key]] = {}  # what was in a folder that is not ours, and how it is called
        self._made: dict[bytes, Key] = {}  # folders that were not there, and how they are called
        self._contents: list[tuple[InodeRow, Version]] = []
        self.counts = Counts()
        self.complete = False

    def run(self) -> None:
        """Plan as much as may change in one request; `complete` says whether that is all."""
        self.complete = self._names() and self._move_out() and self._folders() and self._files()

    def write(self, changes: Changes) -> None:
        """Put what was planned into a group."""
        for key in self._changed:
            held, planned = self._now.entry(key).inode, self._planned.entry(key).inode
            if held == planned:
                continue
            place = Place("", key, None if held is None else self._now.inode(held), ())
            touch = bool(self._planned.names(key[0]))
            if planned is None:
                changes.unname(place, touch=touch)
            else:
                changes.name(place, planned, touch=touch)
        bodies = content_rows.manifest_bodies(
            self._connection, self._now.root, {version.manifest_id for _, version in self._contents}
        )
        for row, version in self._contents:
            content = ContentChange(manifest=bodies[version.manifest_id], sha256=version.sha256, base=row.content_rev)
            changes.write(row, content, version.mtime_ns)

    # ---------------------------------------------------------------------------------------------------------- names

    def _names(self) -> bool:
        """Every name that differs, but those of folders that were made since; whether all are planned."""
        for keys in (self._differing(), self._made_since()):
            for key, wanted in keys:
                if wanted is not None:
                    self._give(wanted, key)
                if wanted is None or self._planned.inode(wanted) is None:
                    self._clear(key, key)
                while self._aside:
                    beside, id_, shown = self._aside.pop()
                    if self._planned.entry(beside).inode == id_:
                        self._clear(beside, shown)
                if len(self._changed) >= self._limits.changes:
                    return False
        return True

    def _differing(self) -> Iterator[tuple[Key, bytes | None]]:
        """Keys of ours, with the inode that each held."""
        after = rows.START
        while True:
            page = rows.differing(self._connection, self._now.root, self._at_ns, after, PAGE)
            self._prefetch([former.key for _, former in page], [former.inode for _, former in page if former.inode is not None])
            for _, former in page:
                known = former.inode is None or former.key in self._past.homes(former.inode)
                if known and self._past.is_ours(former.key[0]):
                    yield former.key, former.inode
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def _made_since(self) -> Iterator[tuple[Key, None]]:
        after = rows.START
        while True:
            page = rows.made_since(self._connection, self._now.root, self._at_ns, self._since_rev, after, PAGE)
            self._prefetch([key for _, key, _ in page], [])
            for _, key, _ in page:
                if self._past.is_ours(key[0]):
                    yield key, None
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def _prefetch(self, keys: list[Key], ids: list[bytes]) -> None:
        self._now.prefetch(keys, ids)
        self._planned.prefetch(keys, ids)
        held = [inode for key in keys if (inode := self._now.entry(key).inode) is not None]
        self._past.prefetch({*ids, *held, *(key[0] for key in keys)})

    def _give(self, id_: bytes, key: Key) -> bool:
        """Let the inode have the name again that it had; the folders above, too. Whether it has."""
        way = [(id_, key)]
        while way[-1][1][0] not in self._placed:
            folder = way[-1][1][0]
            home = min(self._past.homes(folder), default=None)
            if home is None:
                return self._cannot(id_, key)
            way.append((folder, home))
        for each, its_key in reversed(way):
            if not self._place(each, its_key):
                return self._cannot(id_, key)
            self._placed.add(each)
        return True

    def _cannot(self, id_: bytes, key: Key) -> bool:
        """What has a name stays there; what has none cannot come back."""
        if self._planned.inode(id_) is not None and self._planned.names(id_):
            self._leave(id_, key)
        elif key not in self._gone:
            self._gone.add(key)
            self.counts.add(RewindWhat.GONE, self._past.path(key))
        return False

    def _leave(self, id_: bytes, key: Key) -> None:
        if id_ not in self._kept:
            self._kept.add(id_)
            self.counts.add(RewindWhat.LEFT, self._past.path(key))

    def _place(self, id_: bytes, key: Key) -> bool:
        """The folder of the key is in its place."""
        held = self._planned.entry(key).inode
        if held == id_:
            return True
        row = self._planned.inode(id_)
        if row is None or id_ in self._above or (row.kind is Kind.MOUNT and not self._planned.names(id_)):
            return False  # sharing that ended does not begin again
        if held is not None:
            self._make_room(key, held)
        names, homes = set(self._planned.names(id_)), self._past.homes(id_)
        for other in names if row.kind is Kind.DIRECTORY else names - homes:
            self._put(other, None)
        self._put(key, id_)
        self.counts.add(RewindWhat.MOVED if names else RewindWhat.RESTORED, self._past.path(key))
        return True

    def _make_room(self, key: Key, held: bytes) -> None:
        folder, name = key
        beside = (folder, free_name(name, lambda name: self._planned.entry((folder, name)).inode is not None))
        self._put(key, None)
        self._put(beside, held)
        if beside in self._past.homes(held):
            self.counts.add(RewindWhat.MOVED, self._past.path(beside))
        else:
            self._aside.append((beside, held, key))

    def _clear(self, key: Key, shown: Key) -> None:
        """The name held nothing: what has it goes where it was, or to the trash if it was not there. `shown`: the name that it
        has until the plan is applied."""
        id_ = self._planned.entry(key).inode
        row = None if id_ is None else self._planned.inode(id_)
        if id_ is None or row is None:
            return
        homes = self._past.homes(id_)
        ours = sorted(home for home in homes if self._past.is_ours(home[0]))
        if id_ in self._above or row.kind is Kind.MOUNT:
            self._leave(id_, shown)
        elif self._is_home(id_) or not (homes or row.kind is Kind.DIRECTORY):
            self._put(key, None)
            self.counts.add(RewindWhat.REMOVED, self._past.path(shown))
        elif ours:
            given = [self._give(id_, home) for home in ours]
            if not any(given):
                self._leave(id_, shown)
        elif homes:
            self._strangers[key] = id_, shown
        else:
            self._made[id_] = shown

    def _move_out(self) -> bool:
        """What was in other folders goes back there, if it can: one may make room for the next. Whether all are planned."""
        waiting = {key: each for key, each in self._strangers.items() if self._planned.entry(key).inode == each[0]}
        moved = True
        while moved:
            moved = False
            for key, (id_, shown) in list(waiting.items()):
                if len(self._changed) >= self._limits.changes:
                    return False
                back = self._is_home(id_)
                home = None if back else self._free_home(id_)
                if back or home is not None:
                    self._put(key, None)
                    self.counts.add(RewindWhat.REMOVED if back else RewindWhat.MOVED, self._past.path(shown))
                    del waiting[key]
                    moved = True
                if home is not None:
                    self._put(home, id_)
        for id_, shown in waiting.values():
            self._leave(id_, shown)
        return True

    def _is_home(self, id_: bytes) -> bool:
        """Whether the inode has a name that it had."""
        return any(self._planned.entry(home).inode == id_ for home in self._past.homes(id_))

    def _free_home(self, id_: bytes) -> Key | None:
        """Where the inode was, if that folder is there, and the name is free."""
        for home in sorted(self._past.homes(id_)):
            place = place_of(self._planned, home[0])
            if place is not None and self._planned.entry(home).inode is None and id_ not in (*place.above, home[0]):
                return home
        return None

    def _put(self, key: Key, inode: bytes | None) -> None:
        self._planned.put_entry(key, inode, 1)
        self._changed[key] = None

    # -------------------------------------------------------------------------------------------------------- folders

    def _folders(self) -> bool:
        """Folders that were made since, those in others first; whether all are planned."""
        for id_ in sorted(self._made, key=self._depth, reverse=True):
            if len(self._changed) >= self._limits.changes:
                return False
            if self._planned.has_child_besides(id_, ()):
                self._leave(id_, self._made[id_])
                continue
            for key in set(self._planned.names(id_)):
                self._put(key, None)
            self.counts.add(RewindWhat.REMOVED, self._past.path(self._made[id_]))
        return True

    def _depth(self, id_: bytes) -> int:
        place = place_of(self._planned, id_)
        return 0 if place is None else len(place.above)

    # ----------------------------------------------------------------------------------------------------------- files

    def _files(self) -> bool:
        """Contents of files that are where they were; whether all are planned."""
        room = self._limits.manifest_bytes
        for page in self._written():
            self._now.prefetch([], page)
            self._past.prefetch(page)
            ours = {id_: key for id_ in page if (key := self._in_place(id_)) is not None}
            former = rows.contents_at(self._connection, self._now.root, self._at_ns, ours)
            sizes = content_rows.manifest_sizes(
                self._connection, self._now.root, {version.manifest_id for version in former.values()}
            )
            for id_, key in ours.items():
                row, version = self._now.inode(id_), former.get(id_)
                if row is None or (version is not None and _is_same(row, version)):
                    continue
                if version is None or version.manifest_id not in sizes:
                    self.counts.add(RewindWhat.GONE, self._past.path(key))
                    continue
                if len(self._changed) + len(self._contents) >= self._limits.changes or sizes[version.manifest_id] > room:
                    return False
                room -= sizes[version.manifest_id]
                self._contents.append((row, version))
                self.counts.add(RewindWhat.CONTENT, self._past.path(key))
        return True

    def _written(self) -> Iterator[list[bytes]]:
        """Files that were there, and got a content since, in pages."""
        after = (0, b"")
        while True:
            page = rows.written_since(self._connection, self._now.root, self._at_ns, self._since_rev, after, PAGE)
            yield [id_ for _, id_ in page]
            if len(page) < PAGE:
                return
            after = page[-1]

    def _in_place(self, id_: bytes) -> Key | None:
        """A name of ours that the file had then, and has."""
        homes = (home for home in self._past.homes(id_) if self._past.is_ours(home[0]))
        return min((home for home in homes if self._planned.entry(home).inode == id_), default=None)


def _is_same(row: InodeRow, version: Version) -> bool:
    return row.manifest_id == version.manifest_id or (row.sha256 is not None and row.sha256 == version.sha256)
