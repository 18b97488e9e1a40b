"""Everything about contents, wired as the drive wires it, over a service in memory. The push is played by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from cache.chunks import Chunks
from cache.downloads import Downloads
from cache.drafts import DraftFolder
from cache.files import File, Files
from cache.link import LinkDecisions
from cache.manifests import Manifests
from cache.pins import Pins
from cache.sending import Sender
from cache.store.content import ContentStore
from cache.store.database import Database
from cache.store.schema import ROOT
from cache.store.tree import TreeStore
from cache.uploading import ContentUploader
from cache.uploads import Uploads
from remote.manifest import Manifest, decode_manifest
from remote.protocol import Kind
from tests.support.memory_service import MemoryService, Switch


class TrioClock:
    """The run's own clock, so that a mock clock rules both."""

    def wall_ns(self) -> int:
        return 1_700_000_000_000_000_000 + int(trio.current_time() * 1e9)

    def monotonic(self) -> float:
        return trio.current_time()


class Contents:
    """One device."""

    def __init__(
        self,
        home: Path,
        service: MemoryService,
        *,
        cache_size: int = 2**30,
        decisions: LinkDecisions | None = None,
        upload_delay: float = 0.0,
        io_timeout: float = 30.0,
    ) -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        self.service = service
        self.switch = Switch()
        self.clock = TrioClock()
        decisions = decisions or LinkDecisions()
        is_new = not (home / "replica.db").exists()
        self.database = Database.open(home / "replica.db")
        self.tree = TreeStore(self.database)
        self.store = ContentStore(self.database)
        if is_new:
            with self.database.transaction():
                self.tree.add_space(b"S" * 16, now_ns=0)
        self.chunks = Chunks(home / "cache", cache_size, keep_free=0.0)
        self.manifests = Manifests(self.store, service, self.switch)
        self.downloads = Downloads(service, self.chunks, self.switch, decisions, lambda: 0.5, io_timeout=io_timeout)
        self.sender = Sender(service, self.switch, decisions, lambda: 0.5)
        self.folder = DraftFolder(home / "drafts")
        self.files = Files(
            self.store, self.tree, self.folder, self.chunks, self.manifests, self.downloads, decisions, self.clock, self._fork
        )
        self.uploader = ContentUploader(self.store, self.chunks, self.sender, decisions)
        self.uploads = Uploads(
            self.files,
            self.store,
            self.uploader,
            self.sender,
            self.switch,
            self.clock,
            lambda: 0.5,
            upload_delay=upload_delay,
            on_complete=self._complete,
        )
        self.files.queue = self.uploads
        self.pins = Pins(
            self.store, self.tree, self.files, self.chunks, self.manifests, self.downloads, self.switch, self.uploads
        )
        self.completed = trio.Event()
        self.forks: list[int] = []

    @asynccontextmanager
    async def running(self, *, uploads: bool = True) -> AsyncIterator[None]:
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.downloads.run)
                if uploads:
                    nursery.start_soon(self.uploads.run)
                yield
                nursery.cancel_scope.cancel()
        finally:
            self.close()

    def close(self) -> None:
        self.chunks.close()
        self.database.close()

    # -------------------------------------------------------------------------------------------------------- the tree

    def create(self, name: str, parent: int = ROOT, *, kind: Kind = Kind.FILE) -> int:
        with self.database.transaction():
            id_ = (name.encode() + bytes(16))[:16]
            ino = self.tree.insert_inode(id_, 1, kind, mode=0o644, uid=None, gid=None, now_ns=self.clock.wall_ns())
            self.tree.put_entry(parent, name, ino)
        return ino

    def remove(self, name: str, parent: int = ROOT) -> None:
        with self.database.transaction():
            self.tree.put_entry(parent, name, None)

    def receive(self, name: str, manifest: Manifest, *, sha256: bytes | None = None, parent: int = ROOT) -> int:
        """A file that another device made; its manifest is on the service only."""
        ino = self.create(name, parent)
        id_ = self.service.keep_manifest(self.tree.id_of(ino), manifest.encode())
        with self.database.transaction():
            self.tree.update_inode(ino, manifest_id=id_, manifest_size=manifest.size, sha256=sha256, size=manifest.size)
        return ino

    def _fork(self, file: File) -> int:
        ino = self.create(f"copy {len(self.forks)}")
        with self.database.transaction():
            self.tree.update_inode(
                ino, manifest_id=file.base.manifest_id, manifest_size=file.base.size, sha256=file.base.sha256, size=file.size
            )
        self.forks.append(ino)
        return ino

    # -------------------------------------------------------------------------------------------------------- the push

    def _complete(self) -> None:
        self.completed.set()
        self.completed = trio.Event()

    async def wait_complete(self, ino: int) -> Manifest:
        """Wait until a draft of the file is complete; its manifest."""
        with trio.fail_after(60):
            while True:
                event = self.completed
                for draft in self.store.drafts(ino):
                    if draft.complete and draft.manifest_id is not None:
                        encoded = self.store.manifest(draft.manifest_id)
                        assert encoded is not None
                        return decode_manifest(encoded)
                await event.wait()

    def acknowledge(self, ino: int) -> None:
        """As the push does when the service has accepted the complete draft of a file."""
        draft = next(draft for draft in self.store.drafts(ino) if draft.complete)
        assert draft.manifest_id is not None
        encoded = self.store.manifest(draft.manifest_id)
        assert encoded is not None
        self.service.keep_manifest(self.tree.id_of(ino), encoded)
        with self.database.transaction():
            gone = self.store.acknowledge(ino, draft.id, draft.manifest_id, draft.size, draft.sha256)
        self.files.acknowledged(ino, gone)

    async def push(self, ino: int) -> Manifest:
        manifest = await self.wait_complete(ino)
        self.acknowledge(ino)
        return manifest

    # ------------------------------------------------------------------------------------------------------- shorthand

    async def write(self, ino: int, content: bytes, offset: int = 0) -> None:
        """Open, write, close."""
        file = self.files.open(ino, writable=True)
        try:
            for at in range(0, len(content), 2**20):
                await file.write(offset + at, content[at : at + 2**20])
            await file.flush()
        finally:
            file.release()

    async def read(self, ino: int, offset: int = 0, size: int | None = None) -> bytes:
        file = self.files.open(ino, writable=False)
        try:
            end = file.size if size is None else offset + size
            parts = [await file.read(at, min(2**17, end - at)) for at in range(offset, end, 2**17)]
            return b"".join(parts)
        finally:
            file.release()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition that no event announces."""
    with trio.fail_after(60):
        while not holds():  # noqa: ASYNC110
            await trio.sleep(0.005)
