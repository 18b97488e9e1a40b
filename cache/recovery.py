"""Start-up after whatever ended the last run: rows and files are brought together again.

Nothing here decides that bytes are superfluous by guessing. A file in `drafts/` without a row is one of two things, and its
id tells which. A draft's row exists before its file gets a byte, so an id that this replica has given away belongs to a row
that a transaction dropped: the content is acknowledged, or its file deleted, and only the unlinking is missing. Any other
file comes from a row that was lost (power loss before the first fsync; a replica that was moved away because it was damaged,
or replaced by an older one): it is surfaced in a folder of the tree. What rows say that nobody synced is `cache.unsynced`'s.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.clock import Clock
from cache.extents import BadExtents, Extents, Held
from cache.model import Node
from cache.replica import EMPTY_MANIFEST, EMPTY_MANIFEST_ID, EMPTY_SHA256, Replica
from cache.store.content import ContentStore
from cache.store.restart import FileDraft, RestartStore
from cache.store.schema import ROOT
from cache.store.tree import TreeStore
from cache.synced import this_boot
from cache.unsynced import Doubtful, Unsynced
from remote.crashpoints import crash_point
from remote.names import free_name
from remote.protocol import Kind

FOLDER = "Recovered files"
LOST = "what was written to this file is not on this disk any more"


@dataclass(frozen=True, slots=True)
class Recovered:
    """What start-up found to do."""

    surfaced: tuple[str, ...]
    """Paths of files that were made of drafts without a row."""
    damaged: tuple[int, ...]
    """Inodes with a draft whose bytes are gone."""
    published: int
    """New files that were never closed: they are published as empty, so that at least their names are kept."""
    unlinked: int
    """Files of drafts whose rows a transaction had dropped, or whose bytes are in their rows."""
    doubtful: tuple[Doubtful, ...] = ()
    """Files with content that was not synced before the power failed."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Files that this made, for a person to look at."""
        return *self.surfaced, *(one.beside for one in self.doubtful if one.beside is not None)


class Recovery:
    """Runs before anything else does on a home. Synchronous: it waits for the disk, and nobody waits for it but the mount."""

    def __init__(
        self,
        rows: RestartStore,
        contents: ContentStore,
        tree: TreeStore,
        replica: Replica,
        drafts: Path,
        clock: Clock,
        boot: str | None = None,
    ) -> None:
        self._rows = rows
        self._contents = contents
        self._tree = tree
        self._replica = replica
        self._drafts = drafts
        self._clock = clock
        self._boot = boot or this_boot()

    def run(self) -> Recovered:
        unlinked = self._unlink_dropped()
        crash_point("recovery.unlinked")
        surfaced = self._surface_strays()
        crash_point("recovery.surfaced")
        doubtful = Unsynced(self._rows, self._contents, self._tree, self._replica, self._drafts, self._clock, self._boot).run()
        if doubtful:
            unlinked += self._unlink_dropped()
        crash_point("recovery.settled")
        published = self._publish_never_closed()
        crash_point("recovery.published")
        damaged = self._mark_damaged()
        crash_point("recovery.marked")
        after: int | None = 0
        while after is not None:
            after = self._replica.sweep(after)
        crash_point("recovery.finished")
        return Recovered(tuple(surfaced), tuple(damaged), published, unlinked, tuple(doubtful))

    def _unlink_dropped(self) -> int:
        last, known, in_rows = self._rows.last_draft_id(), self._contents.draft_ids(), self._rows.drafts_in_rows()
        dropped = [
            path
            for path in sorted(self._drafts.iterdir())
            if (id_ := draft_id(path)) is not None and id_ <= last and (id_ not in known or id_ in in_rows)
        ]
        if dropped:  # power loss must not bring a row back whose file is gone
            self._contents.database.make_durable()
        for path in dropped:
            crash_point("recovery.unlinking")
            path.unlink()
        return len(dropped)

    def _surface_strays(self) -> list[str]:
        strays = [path for path in sorted(self._drafts.iterdir()) if draft_id(path) not in self._contents.draft_ids()]
        strays = [self._named_by_id(path) for path in strays if path.is_file() and not path.is_symlink()]
        empty = [path for path in strays if data_of(path).data_bytes == 0]
        for path in empty:
            path.unlink()
        # All in one transaction: the first adopted id makes the smaller ones look as if they had been given away.
        with self._contents.database.transaction():
            surfaced = [self._surface(path) for path in strays if path not in empty]
            crash_point("recovery.surfacing")
        return surfaced

    def _named_by_id(self, path: Path) -> Path:
        if draft_id(path) is not None:
            return path
        ids = [id_ for other in self._drafts.iterdir() if (id_ := draft_id(other)) is not None]
        return path.rename(self._drafts / str(max(ids, default=0) + self._rows.last_draft_id() + 1))

    def _surface(self, path: Path) -> str:
        id_ = draft_id(path)
        assert id_ is not None
        folder = recovered_files(self._tree, self._replica)
        name = free_name(f"draft {id_}", lambda name: self._tree.child(folder.ino, name) is not None)
        node = self._replica.create(folder.ino, name, Kind.FILE, mode=0o600, uid=None, gid=None)
        self._rows.adopt_draft(id_, node.ino, path.stat().st_size, data_of(path).pack(), self._clock.wall_ns(), self._boot)
        return f"{self._replica.path_of(folder.ino)}/{name}"

    def _publish_never_closed(self) -> int:
        """A crash between create and the first close. Nothing was promised of the content, but the name stays."""
        inos = self._rows.never_closed()
        with self._contents.database.transaction():
            if inos:
                self._contents.put_manifests([(EMPTY_MANIFEST_ID, EMPTY_MANIFEST)])
            for ino in inos:
                self._tree.update_inode(ino, manifest_id=EMPTY_MANIFEST_ID, manifest_size=0, sha256=EMPTY_SHA256, size=0)
        return len(inos)

    def _mark_damaged(self) -> list[int]:
        damaged = sorted({draft.ino for draft in self._rows.drafts_in_files() if fault_of(self._drafts, draft) is not None})
        for ino in damaged:
            self._contents.set_error(ino, LOST)
        return damaged


def draft_id(path: Path) -> int | None:
    """The id of the draft whose file this is; None for a file that no draft has."""
    return int(path.name) if path.name.isascii() and path.name.isdigit() and str(int(path.name)) == path.name else None


def fault_of(folder: Path, draft: FileDraft) -> str | None:
    """What is wrong with a draft's file, held against its row; None: nothing."""
    try:
        end = Extents.unpack(draft.extents).data_end
    except BadExtents as bad:
        return f"its extents cannot be read: {bad}"
    if end == 0:
        return None
    try:
        size = (folder / str(draft.id)).stat().st_size
    except FileNotFoundError:
        return "its file is not there"
    return f"its file has {size} bytes, and {end} were written" if size < end else None


def data_of(path: Path) -> Extents:
    """Which ranges of a sparse file hold data, as the file system tells."""
    extents = Extents()
    with path.open("rb") as file:
        for start, end in _data_ranges(file.fileno()):
            extents.put(start, end, Held.DATA)
    return extents


def _data_ranges(descriptor: int) -> Iterator[tuple[int, int]]:
    size = os.fstat(descriptor).st_size
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: no data beyond
            return
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, at


def recovered_files(tree: TreeStore, replica: Replica) -> Node:
    """The folder for files that a person should look at; made if there is none."""
    number = 1
    while True:
        name = FOLDER if number == 1 else f"{FOLDER} {number}"
        ino = tree.child(ROOT, name)
        if ino is None:
            return replica.create(ROOT, name, Kind.DIRECTORY, mode=0o700, uid=None, gid=None)
        node = replica.node(ino)
        if node.kind is Kind.DIRECTORY:
            return node
        number += 1
