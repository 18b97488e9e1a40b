"""After a power loss: what was written to drafts' files and never synced is not taken for good, and not thrown away either.

For each file the lowest draft with unsynced bytes of another boot is looked at. Drafts below it stay as they are. The file goes
on with what was synced of this one, or without it: then it shows what lies below, or is empty if that is nothing. What this
draft and those above it hold now is put beside the file, under a name that says so, if there is anything of it on the disk.
Where the service has the whole content already (the draft is complete), the file goes on with the draft if that has the content's
SHA-256, and else with the manifest, which can be read once it is committed; nothing is put beside it.

Bytes that were overwritten in place since they were synced are what the disk has of them, old or new block by block, as in
any file of a disk's file system.

Runs at a start, before anybody else. Each file is one transaction; what it needs of copies is synced before.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from cache.clock import Clock
from cache.disk import sync_folder
from cache.extents import Extents, Held
from cache.replica import Replica
from cache.store.content import ContentStore, DraftRow
from cache.store.restart import RestartStore
from cache.store.tree import TreeStore
from cache.synced import Shown
from remote.copynames import name_after_power_loss
from remote.protocol import Kind

_STEP = 2**20
_HASHED_MAX = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A file whose latest content is not taken for good. `path` is its own; `beside`: where that content is; None: it is lost."""

    path: str
    beside: str | None


class Unsynced:
    def __init__(
        self, rows: RestartStore, contents: ContentStore, tree: TreeStore, replica: Replica, drafts: Path, clock: Clock, boot: str
    ) -> None:
        self._rows = rows
        self._contents = contents
        self._tree = tree
        self._replica = replica
        self._drafts = drafts
        self._clock = clock
        self._boot = boot

    def run(self) -> list[Doubtful]:
        found = [self._settle(ino) for ino in self._rows.unsynced_before(self._boot)]
        return [doubtful for doubtful in found if doubtful is not None]

    def _settle(self, ino: int) -> Doubtful | None:
        """Bring one file to what can be believed. None: nothing of it was lost."""
        with self._contents.database.transaction():
            layers = self._contents.drafts(ino) if self._tree.names(ino) else []
            while True:
                at = next((at for at, row in enumerate(layers) if row.unsynced not in (None, self._boot)), None)
                if at is None:
                    return None
                row = layers[at]
                on_service = self._is_on_service(row)
                if on_service and not self._is_whole(row):
                    self._take_from_service(ino, layers[: at + 1])
                    layers = layers[at + 1 :]
                elif on_service or _written(row) == _synced(row):  # where only bytes in place changed, there is no way back
                    self._contents.all_synced(row.id)
                    layers[at] = replace(row, unsynced=None)
                else:
                    return self._go_back(ino, layers, at)

    def _is_on_service(self, row: DraftRow) -> bool:
        return row.complete and row.manifest_id is not None and self._contents.manifest(row.manifest_id) is not None

    def _is_whole(self, row: DraftRow) -> bool:
        """Whether the draft holds the content that the service has, as far as that can be told here."""
        extents = Extents.unpack(row.extents)
        pieces = list(extents.pieces(0, row.size))
        if row.sha256 is None or row.size > _HASHED_MAX or any(piece.held is Held.NOTHING for piece in pieces):
            return False
        found = hashlib.sha256()
        try:
            with (self._drafts / str(row.id)).open("rb") as file:
                for piece in pieces:
                    file.seek(piece.start)
                    length = piece.end - piece.start
                    found.update(file.read(length) if piece.held is Held.DATA else bytes(length))
        except FileNotFoundError:
            return False
        return found.digest() == row.sha256

    def _take_from_service(self, ino: int, layers: list[DraftRow]) -> None:
        """All bytes of the topmost of these are there: their manifest is the file's content, and waits for its commit so."""
        top = layers[-1]
        self._tree.update_inode(ino, manifest_id=top.manifest_id, manifest_size=top.size, sha256=top.sha256)
        for row in layers:
            self._contents.drop_draft(row.id)
        self._rows.set_shown_size(ino)

    def _go_back(self, ino: int, layers: list[DraftRow], at: int) -> Doubtful:
        row, synced = layers[at], _synced(layers[at])
        left = self._left(layers[at:])
        beside = None
        if any(_written(one).extents.data_bytes for one in left) and [_written(one) for one in left] != [synced]:
            beside = self._make_beside(ino)
            if at == 0 and synced is None:
                for one in left:
                    self._rows.go_back(one.id, _written(one))
                self._contents.move_drafts(ino, beside)
                layers = []
            else:
                self._copy([*layers[:at], *left], beside)
            self._rows.set_shown_size(beside)
        for dropped in layers[at:] if synced is None else layers[at + 1 :]:
            self._contents.drop_draft(dropped.id)
        if synced is not None:
            self._rows.go_back(row.id, synced)
        self._rows.set_shown_size(ino)
        return Doubtful(self._replica.path_of(ino) or "", None if beside is None else self._replica.path_of(beside))

    def _left(self, layers: list[DraftRow]) -> list[DraftRow]:
        """These drafts, as far as their files go now. One that became shorter shows through the one above only so far."""
        left: list[DraftRow] = []
        for row in layers:
            shown = self._shown(row)
            if left:
                shown = replace(shown, floor=min(shown.floor, left[-1].size))
            if shown.extents.data_end < _written(row).extents.data_end:
                shown = replace(shown, size=min(row.size, max(shown.extents.data_end, shown.floor)))
            left.append(_with(row, shown))
        return left

    def _shown(self, row: DraftRow) -> Shown:
        """What a row says, with nothing that lies beyond its file."""
        written = _written(row)
        if row.data is not None:
            return written
        try:
            end = (self._drafts / str(row.id)).stat().st_size
        except FileNotFoundError:
            end = 0
        if end >= written.extents.data_end:
            return written
        extents = written.extents.copy()
        extents.cut(end)
        return replace(written, extents=extents)

    def _make_beside(self, ino: int) -> int:
        """A new file over the same content, without drafts."""
        row = self._tree.inode(ino)
        assert row is not None
        parent, name = self._tree.names(ino)[0]
        day = datetime.fromtimestamp(self._clock.wall_ns() / 1e9).date().isoformat()
        name = name_after_power_loss(name, day, lambda taken: self._is_taken(parent, taken))
        node = self._replica.create(parent, name, Kind.FILE, mode=row.mode, uid=row.uid, gid=row.gid)
        below = {"manifest_id": row.manifest_id, "manifest_size": row.manifest_size, "sha256": row.sha256}
        self._tree.update_inode(node.ino, mtime_ns=row.mtime_ns, **below)
        return node.ino

    def _is_taken(self, parent: int, name: str) -> bool:
        return self._tree.child(parent, name) is not None or self._tree.base_entry(parent, name) is not None

    def _copy(self, layers: list[DraftRow], ino: int) -> None:
        for row in layers:
            id_ = self._contents.add_draft(ino, row.size, row.floor, row.extents, row.data, row.changed_ns)
            if row is not layers[-1]:
                self._contents.seal(id_)
            if row.data is None:
                _copy_file(self._drafts / str(row.id), self._drafts / str(id_), Extents.unpack(row.extents))
        sync_folder(self._drafts)


def _written(row: DraftRow) -> Shown:
    return Shown(row.size, row.floor, Extents.unpack(row.extents))


def _synced(row: DraftRow) -> Shown | None:
    return None if row.synced is None else Shown.unpack(row.synced)


def _with(row: DraftRow, shown: Shown) -> DraftRow:
    return replace(row, size=shown.size, floor=shown.floor, extents=shown.extents.pack())


def _copy_file(source: Path, target: Path, extents: Extents) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        target.chmod(0o600)
        for extent in extents:
            if extent.held is not Held.DATA:
                continue
            for at in range(extent.start, extent.end, _STEP):
                length = min(_STEP, extent.end - at)
                os.pwrite(writer.fileno(), os.pread(reader.fileno(), length, at), at)
        os.fsync(writer.fileno())
