"""Random work on real replicas with a link that breaks, a service that collects, and devices that restart: when all is quiet,
everybody has the same tree, the replicas are sound, and no closed content is lost.

What the rules allow is tried by the ten thousand in `test_merge_property`; here it is the rows. `ALOFT_EXCHANGE_SEEDS=1000`
runs more. The order of tasks is not fixed, so a seed repeats the work, not the interleaving.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from cache.errors import CacheError
from cache.model import AttributeUpdate, RenameMode
from cache.store.schema import ROOT
from remote.manifest import decode_manifest
from remote.protocol import Kind
from tests.support.exchange_device import ExchangeDevice
from tests.support.wire_service import WireService, unflattened

SEEDS = int(os.environ.get("ALOFT_EXCHANGE_SEEDS", "25"))
NAMES = ["a", "b", "c.txt", "d"]
PATIENCE = 60.0


class Life:
    """One service, a few devices, and what must come out of it."""

    def __init__(self, seed: int, folder: Path, nursery: trio.Nursery) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.nursery = nursery
        self.service = WireService()
        self.texts = 0
        self.closed: set[str] = set()
        self.excused: set[str] = set()
        self.unfinished: dict[str, list[tuple[int, str]]] = {}
        self.running: dict[str, tuple[ExchangeDevice, trio.CancelScope, trio.Event]] = {}
        for name in ("laptop", "desk", "phone")[: self.chance.choice([2, 2, 3])]:
            self.start(name)

    def start(self, name: str) -> None:
        link = self.service.link(name)
        link.page_limit = self.chance.choice([None, 1, 3])
        device = ExchangeDevice(self.folder / name, link)
        scope, ended = trio.CancelScope(), trio.Event()

        async def run() -> None:
            with scope:
                await device.run()
            ended.set()

        self.nursery.start_soon(run)
        self.running[name] = device, scope, ended
        self.unfinished.setdefault(name, [])

    async def stop(self, name: str) -> None:
        device, scope, ended = self.running.pop(name)
        scope.cancel()
        await ended.wait()
        device.close()

    async def live(self) -> None:
        for _ in range(self.chance.choice([30, 60, 120])):
            name = self.chance.choice(list(self.running))
            if self.chance.random() < 0.25:
                await self.disturb(name)
            else:
                self.work(self.running[name][0], name)
            for _ in range(self.chance.choice([0, 0, 1, 5, 40])):
                await trio.lowlevel.checkpoint()
            if self.chance.random() < 0.15:
                await trio.sleep(0.03)

    async def disturb(self, name: str) -> None:
        device = self.running[name][0]
        what = self.chance.choice(["down", "down", "up", "up", "lose", "restart", "collect", "finish", "finish", "quiet"])
        if what in ("down", "up"):
            device.link.set_down(what == "down")
        elif what == "lose":
            device.link.answers_to_lose = self.chance.choice([1, 2])
        elif what == "restart":
            await self.stop(name)
            self.start(name)
        elif what == "collect":
            self.service.tree.collect()
        elif what == "finish":
            self.finish(name)
        elif not any(device.link.down for device, _, _ in self.running.values()):
            await self.quiet()

    def finish(self, name: str) -> None:
        for draft, text in self.unfinished[name]:
            self.running[name][0].complete(draft, text)
        self.unfinished[name] = []

    async def quiet(self) -> None:
        def is_quiet() -> bool:
            for name in self.running:
                self.finish(name)
            return all(device.is_quiet() for device, _, _ in self.running.values())

        with trio.move_on_after(PATIENCE) as waited:
            while not is_quiet():  # noqa: ASYNC110 (what is waited for is spread over devices and the service)
                await trio.sleep(0.005)
        assert not waited.cancelled_caught, [
            (d.link.device, d.connection.stopped_because, d.exchange.push.status, d.tree.dirty_entries(1), d.tree.dirty_inodes(1))
            for d, _, _ in self.running.values()
        ]

    # ------------------------------------------------------------------------------------------------------------- work

    def work(self, device: ExchangeDevice, name: str) -> None:
        operations: list[Callable[[ExchangeDevice, str], None]] = [
            *[self.create] * 4, *[self.make_folder] * 3, *[self.write] * 4, *[self.move] * 6, self.exchange_names, self.link,
            *[self.unlink] * 2, self.remove_tree, self.set_attributes, self.save_by_rename,
        ]  # fmt: skip
        with suppress(CacheError):  # as the kernel would tell an application: there is something in the way
            self.chance.choice(operations)(device, name)

    def entries(self, device: ExchangeDevice, kind: Kind | None = None) -> list[tuple[int, str, int]]:
        found, folders = [], [ROOT]
        while folders:
            folder = folders.pop()
            for name, ino in device.tree.children(folder):
                row = device.tree.inode(ino)
                assert row is not None
                if row.kind is Kind.DIRECTORY:
                    folders.append(ino)
                if kind is None or row.kind is kind:
                    found.append((folder, name, ino))
        return sorted(found)

    def place(self, device: ExchangeDevice) -> tuple[int, str]:
        folders = [ROOT, *(ino for _, _, ino in self.entries(device, Kind.DIRECTORY))]
        return self.chance.choice(folders), self.chance.choice(NAMES)

    def pick(self, device: ExchangeDevice, kind: Kind | None = None) -> tuple[int, str, int]:
        entries = self.entries(device, kind)
        if not entries:
            raise CacheError("nothing there")
        return self.chance.choice(entries)

    def put_text(self, device: ExchangeDevice, name: str, ino: int) -> None:
        self.texts += 1
        text = self.chance.choice(["same", f"text {self.texts}", f"text {self.texts}"])
        complete = self.chance.random() < 0.6
        draft = device.write_ino(ino, text, complete=complete)
        if not complete:
            self.unfinished[name].append((draft, text))
        self.closed.add(text)

    def lose(self, device: ExchangeDevice, ino: int) -> None:
        """The person overwrites or deletes what they see."""
        text = device.text(ino)
        if text is not None:
            self.excused.add(text)

    def create(self, device: ExchangeDevice, name: str) -> None:
        node = device.replica.create(*self.place(device), Kind.FILE, mode=0o644, uid=None, gid=None)
        self.put_text(device, name, node.ino)

    def make_folder(self, device: ExchangeDevice, name: str) -> None:
        kind = self.chance.choice([Kind.DIRECTORY, Kind.DIRECTORY, Kind.DIRECTORY, Kind.SYMLINK])
        target = self.chance.choice("xy") if kind is Kind.SYMLINK else None
        device.replica.create(*self.place(device), kind, mode=0o755, uid=None, gid=None, target=target)

    def write(self, device: ExchangeDevice, name: str) -> None:
        ino = self.pick(device, Kind.FILE)[2]
        self.lose(device, ino)
        self.put_text(device, name, ino)

    def save_by_rename(self, device: ExchangeDevice, name: str) -> None:
        parent, old, ino = self.pick(device, Kind.FILE)
        node = device.replica.create(parent, "tmp", Kind.FILE, mode=0o644, uid=None, gid=None)
        self.put_text(device, name, node.ino)
        if device.is_last_name(ino):
            self.lose(device, ino)
        device.replica.rename(parent, "tmp", parent, old, RenameMode.REPLACE)

    def move(self, device: ExchangeDevice, name: str) -> None:
        parent, old, _ = self.pick(device)
        target = self.place(device)
        held = device.tree.child(*target)
        text = device.text(held) if held is not None and device.is_last_name(held) else None
        if device.replica.rename(parent, old, *target, RenameMode.REPLACE) is not None and text is not None:
            self.excused.add(text)

    def exchange_names(self, device: ExchangeDevice, name: str) -> None:
        (a, b, _), (c, d, _) = self.pick(device), self.pick(device)
        device.replica.rename(a, b, c, d, RenameMode.EXCHANGE)

    def link(self, device: ExchangeDevice, name: str) -> None:
        device.replica.link(self.pick(device, Kind.FILE)[2], *self.place(device))

    def unlink(self, device: ExchangeDevice, name: str) -> None:
        parent, old, ino = self.pick(device, Kind.FILE)
        if device.is_last_name(ino):
            self.lose(device, ino)
        device.replica.unlink(parent, old)

    def remove_tree(self, device: ExchangeDevice, name: str) -> None:
        parent, old, ino = self.pick(device, Kind.DIRECTORY)
        self.empty(device, ino)
        device.replica.rmdir(parent, old)

    def empty(self, device: ExchangeDevice, folder: int) -> None:
        for name, ino in device.tree.children(folder):
            row = device.tree.inode(ino)
            assert row is not None
            if row.kind is Kind.DIRECTORY:
                self.empty(device, ino)
                device.replica.rmdir(folder, name)
            else:
                if row.kind is Kind.FILE and device.is_last_name(ino):
                    self.lose(device, ino)
                device.replica.unlink(folder, name)

    def set_attributes(self, device: ExchangeDevice, name: str) -> None:
        ino = self.pick(device)[2]
        if self.chance.random() < 0.5:
            device.replica.set_attributes(ino, AttributeUpdate(mode=self.chance.randrange(0o1000)))
        else:
            device.replica.set_xattr(ino, f"user.{self.chance.choice('ab')}", self.chance.randbytes(2))

    # ------------------------------------------------------------------------------------------------------------ checks

    def check(self) -> None:
        shown = [device.paths() for device, _, _ in self.running.values()]
        assert all(one == shown[0] for one in shown), shown
        tree = self.service.tree
        assert len(shown[0]) == len([ino for ino, _ in tree.entries.values() if ino is not None])
        for device, _, _ in self.running.values():
            assert device.problems() == []
            for ino in [ROOT, *(ino for _, _, ino in self.entries(device))]:
                row, held = device.tree.inode(ino), tree.rows[device.tree.id_of(ino)]
                assert row is not None
                attributes = unflattened(held.attributes)
                assert (row.mode, row.mtime_ns, row.rev) == (attributes.mode, attributes.mtime_ns, held.rev)
                assert row.xattrs is not None or not attributes.xattrs
        kept = {
            (decode_manifest(held.manifest).inline or b"").decode()
            for contents in tree.contents.values()
            for held in contents
            if held is not None
        }
        assert self.closed - self.excused - kept == set()


@pytest.mark.timeout(24 * 3600)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_random_work_ends_in_one_tree(seed: int, tmp_path: Path, nursery: trio.Nursery) -> None:
    life = Life(seed, tmp_path, nursery)
    await life.live()
    for device, _, _ in life.running.values():
        device.link.answers_to_lose = 0
        device.link.set_down(False)
    await life.quiet()
    life.check()
    for name in list(life.running):
        await life.stop(name)
