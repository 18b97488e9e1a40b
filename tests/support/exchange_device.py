"""A device for tests of push and pull: real replica, real rows, real exchange; contents are inline manifests.

Contents are complete as soon as they are written, unless the test says otherwise: uploading is not what is tested here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import trio

from cache.clock import SystemClock, SystemRandomness
from cache.connection import Connection
from cache.exchange import Exchange
from cache.extents import Extents
from cache.model import Change, Node, RenameMode
from cache.replica import Replica
from cache.store.check import find
from cache.store.content import ContentStore
from cache.store.database import Database
from cache.store.schema import ROOT
from cache.store.tree import TreeStore
from remote.copynames import CopyNames
from remote.manifest import Manifest, decode_manifest, manifest_id
from remote.protocol import Kind
from tests.support.wire_service import SPACE, DeviceLink


class Told:
    """Stands for open files and uploads: keeps what they are told."""

    def __init__(self) -> None:
        self.unlinked: list[int] = []
        self.moved: list[tuple[int, int]] = []
        self.replaced: list[int] = []
        self.lost: list[tuple[int, tuple[int, str]]] = []
        self.missing: list[tuple[int, frozenset[bytes]]] = []

    def acknowledged(self, ino: int, draft_ids: list[int]) -> None:
        self.unlinked += draft_ids

    def content_moved(self, from_ino: int, to_ino: int) -> None:
        self.moved.append((from_ino, to_ino))

    def content_replaced(self, ino: int) -> None:
        self.replaced.append(ino)

    def name_lost(self, ino: int, name: tuple[int, str]) -> None:
        self.lost.append((ino, name))

    def objects_missing(self, ino: int, object_ids: Iterable[bytes]) -> None:
        self.missing.append((ino, frozenset(object_ids)))


class ExchangeDevice:
    def __init__(self, folder: Path, link: DeviceLink) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.link = link
        self.clock = SystemClock()
        self.database = Database.open(folder / "replica.db")
        self.tree = TreeStore(self.database)
        if self.tree.space_number(SPACE) is None:
            with self.database.transaction():
                self.tree.add_space(SPACE, now_ns=self.clock.wall_ns())
        self.contents = ContentStore(self.database)
        self.replica = Replica(self.database, self.tree, self.clock, SystemRandomness())
        self.connection = Connection(self.database, self.clock)
        self.told = Told()
        self.changes: list[Change] = []
        self.exchange = Exchange(
            self.database,
            self.tree,
            self.contents,
            link,
            self.connection,
            self.told,
            self.told,
            self.clock,
            SystemRandomness(),
            lambda: CopyNames(link.device, "2026-11-20"),
            self.changes.extend,
            lambda: self.sweep(),
        )
        self.replica.on_local_change = self.exchange.push.wake
        self.replica.is_fetched = self.exchange.pull.first.is_fetched
        self.replica.drop_drafts = lambda ino: self.told.unlinked.extend(self.contents.drop_drafts(ino))

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.exchange.pull.run)
            nursery.start_soon(self.exchange.push.run)

    def close(self) -> None:
        assert self.problems() == []
        self.database.close()

    def sweep(self) -> None:
        """Purge what nobody needs any more, as the drive does now and then."""
        if not self.database.transaction().active:
            self.replica.sweep()

    def problems(self) -> list[str]:
        """What is wrong between the replica's rows."""
        return [f"{found.invariant.name}: {found.detail}" for found in find(self.database.sql)]

    # -------------------------------------------------------------------------------------------------- what a person does

    def node(self, path: str) -> Node:
        return self.replica.resolve(path)

    def split(self, path: str) -> tuple[int, str]:
        folder, _, name = path.rpartition("/")
        return self.node(folder).ino, name

    def make_folder(self, path: str) -> int:
        return self.replica.create(*self.split(path), Kind.DIRECTORY, mode=0o755, uid=None, gid=None).ino

    def create(self, path: str, text: str | None) -> int:
        """A new file; without a text it is not closed yet."""
        ino = self.replica.create(*self.split(path), Kind.FILE, mode=0o644, uid=None, gid=None).ino
        if text is not None:
            self.write_ino(ino, text)
        return ino

    def write(self, path: str, text: str, *, complete: bool = True) -> int:
        ino = self.node(path).ino
        self.write_ino(ino, text, complete=complete)
        return ino

    def write_ino(self, ino: int, text: str, *, complete: bool = True) -> int:
        content = text.encode()
        with self.database.transaction():
            draft = self.contents.add_draft(ino, len(content), 0, Extents().pack(), content, self.clock.wall_ns())
            self.tree.update_inode(ino, mtime_ns=self.clock.wall_ns(), size=len(content))
            self.contents.seal(draft)
            if complete:
                self.complete(draft, text)
        self.exchange.push.wake()
        return draft

    def complete(self, draft: int, text: str) -> None:
        encoded = Manifest.from_inline(text.encode()).encode()
        self.contents.complete(draft, manifest_id(encoded), encoded, hashlib.sha256(text.encode()).digest())
        self.exchange.push.wake()

    def save_by_rename(self, path: str, text: str) -> None:
        self.create(f"{path}.tmp", text)
        self.rename(f"{path}.tmp", path)

    def remove(self, path: str) -> None:
        parent, name = self.split(path)
        node = self.replica.lookup(parent, name)
        (self.replica.rmdir if node.kind is Kind.DIRECTORY else self.replica.unlink)(parent, name)

    def rename(self, old: str, new: str, mode: RenameMode = RenameMode.REPLACE) -> None:
        self.replica.rename(*self.split(old), *self.split(new), mode)

    def link_to(self, path: str, new: str) -> None:
        self.replica.link(self.node(path).ino, *self.split(new))

    # ------------------------------------------------------------------------------------------------------ what it shows

    def is_last_name(self, ino: int) -> bool:
        row = self.tree.inode(ino)
        return row is not None and row.kind is Kind.FILE and row.nlink == 1

    def text(self, ino: int) -> str | None:
        """The content of a file; None: it has none yet."""
        drafts = self.contents.drafts(ino)
        if drafts:
            assert drafts[-1].data is not None
            return drafts[-1].data.decode()
        row = self.tree.inode(ino)
        assert row is not None
        if row.manifest_id is None:
            return None
        encoded = self.contents.manifest(row.manifest_id)
        assert encoded is not None, "a manifest of the test's small contents did not ride along"
        content = decode_manifest(encoded).inline
        assert content is not None
        return content.decode()

    def paths(self) -> dict[str, str | None]:
        """Every path, folders with a slash behind, and the text of files."""
        found: dict[str, str | None] = {}
        folders = [("", ROOT)]
        while folders:
            prefix, folder = folders.pop()
            for name, ino in self.tree.children(folder):
                row = self.tree.inode(ino)
                assert row is not None
                if row.kind is Kind.DIRECTORY:
                    found[f"{prefix}{name}/"] = None
                    folders.append((f"{prefix}{name}/", ino))
                else:
                    found[prefix + name] = self.text(ino) if row.kind is Kind.FILE else row.target
        return found

    def is_quiet(self) -> bool:
        """Nothing to push, nothing outstanding, nothing staged."""
        space = self.exchange.store.space(1)
        return (
            space.listed
            and space.snapshot == self.link.service.tree.revision
            and not self.exchange.store.has_staged(1)
            and self.exchange.push.is_idle()
            and not self.tree.dirty_entries(1)
            and not self.tree.dirty_inodes(1)
            and not self.contents.draft_ids()
        )
