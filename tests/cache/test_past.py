"""What the service keeps of the past: asked once for all who look, kept a short while, never waited for too long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from cache import past as past_module
from cache.chunks import Chunks
from cache.downloads import Downloads
from cache.errors import CorruptData, NoEntry, Offline, TimedOut, Unavailable
from cache.link import LinkDecisions
from cache.manifests import Manifests
from cache.past import ANSWER_SECONDS, ASKED_AT_ONCE, PAGE, WAITING_MAX, Past
from cache.pastnames import named, stamped
from cache.store.content import ContentStore
from cache.store.database import Database
from cache.store.tree import TreeStore
from cache.waits import Waits
from remote.api import Overloaded, Unreachable
from remote.historyapi import PastVersion, TrashedInode
from remote.manifest import Manifest
from remote.protocol import Kind
from tests.support.memory_service import MemoryService, Switch

SPACE, INODE = bytes(range(16)), os.urandom(16)
SECOND = 10**9
NOON = 1_795_608_000 * SECOND  # 2026-11-25 12:00 UTC
TIMEOUT = 30.0


class World:
    def __init__(self, folder: Path) -> None:
        self.service, self.switch, self.waits = MemoryService(), Switch(), Waits()
        self.database = Database.open(folder / "replica.db")
        self.tree, self.store = TreeStore(self.database), ContentStore(self.database)
        self.space = self.tree.add_space(SPACE, now_ns=NOON)
        self.chunks = Chunks(folder / "cache", 2**24)
        decisions = LinkDecisions()
        downloads = Downloads(
            self.service, self.chunks, self.switch, decisions, lambda: 0.5, io_timeout=TIMEOUT, waits=self.waits
        )
        manifests = Manifests(self.store, self.service, self.switch, self.waits)
        self.past = Past(self.service, self.switch, self.store, manifests, self.chunks, downloads, decisions, self.waits, SPACE)
        self.asked: list[str] = []
        self.service.before = self._note
        self.hold: trio.Event | None = None
        self.fails: list[Exception] = []

    async def _note(self, name: str) -> None:
        self.asked.append(name)
        if self.hold is not None:
            await self.hold.wait()
        if self.fails:
            raise self.fails.pop()

    def file(self, name: str = "report.odt", inode: bytes = INODE) -> int:
        """A file of the tree."""
        return self.tree.insert_inode(inode, self.space, Kind.FILE, mode=0o644, uid=None, gid=None, now_ns=NOON, name=(1, name))

    def close(self) -> None:
        self.chunks.close()
        self.database.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def version(revision: int, content: bytes = b"", created_ns: int = NOON) -> PastVersion:
    id_ = Manifest.from_inline(content)
    return PastVersion(
        revision=revision, version=bytes(31) + bytes([revision % 256]), size=id_.size, mtime_ns=1, created_ns=created_ns
    )


def trashed(name: str, kind: Kind = Kind.FILE, id_: bytes | None = None, deleted_ns: int = NOON) -> TrashedInode:
    return TrashedInode(
        id=id_ or os.urandom(16),
        name=name,
        kind=kind,
        mode=0o644,
        size=0,
        mtime_ns=0,
        deleted_ns=deleted_ns,
        version=bytes(32) if kind is Kind.FILE else None,
    )


# -------------------------------------------------------------------------------------------------------------- names


def test_names_sort_by_time_and_keep_their_suffix() -> None:
    assert stamped("report.odt", NOON + 250 * 10**6) == "2026-11-25 12.00.00.250Z report.odt"
    times = [NOON - 1, NOON, NOON + 10**6, NOON + SECOND, NOON + 3600 * SECOND]
    assert sorted(times) == sorted(times, key=lambda at: stamped("f", at))
    assert stamped("f", -1) == "1969-12-31 23.59.59.999Z f"


def test_names_are_different_and_not_too_long() -> None:
    long = "ü" * 125 + ".tar.gz"
    found = named([(stamped(long, NOON), 1), (stamped(long, NOON), 2), (".aloft", 3), (".aloft", 4), ("a.b", 5)])
    assert list(found.values()) == [1, 2, 3, 4, 5]
    assert all(len(name.encode()) <= 255 for name in found)
    assert [name.endswith(".tar.gz") for name in found] == [True, True, False, False, False]
    assert list(found)[2:] == [".aloft", ".aloft (2)", "a.b"]


# ------------------------------------------------------------------------------------------------------------ answers


async def test_versions_have_names_of_their_times_in_pages(world: World) -> None:
    ino, count = world.file(), PAGE + 5
    world.service.versions_of[INODE] = [version(rev, created_ns=NOON + rev * SECOND) for rev in range(count, 0, -1)]
    found = await world.past.versions(ino, "report.odt")
    assert [each.revision for each in found.values()] == list(range(1, count + 1))
    assert list(found) == sorted(found)
    assert next(iter(found)) == "2026-11-25 12.00.01.000Z report.odt"
    assert world.asked == ["versions", "versions"]


async def test_the_trash_and_what_is_in_its_folders(world: World) -> None:
    folder = trashed("d", Kind.DIRECTORY)
    world.service.trash_in = {None: [folder, trashed("f", deleted_ns=NOON - SECOND)], folder.id: [trashed("x"), trashed("x")]}
    found = await world.past.trash()
    assert list(found) == ["2026-11-25 11.59.59.000Z f", "2026-11-25 12.00.00.000Z d"]
    assert list(await world.past.trash_in(found["2026-11-25 12.00.00.000Z d"])) == ["x", "x (2)"]
    with pytest.raises(NoEntry):
        await world.past.trash_in(found["2026-11-25 11.59.59.000Z f"])


async def test_what_the_service_does_not_know_has_no_versions(world: World) -> None:
    assert await world.past.versions(world.file(), "report.odt") == {}
    with pytest.raises(NoEntry):
        await world.past.versions(1, "the root")
    with pytest.raises(NoEntry):
        await world.past.versions(999, "nothing")


async def test_an_answer_is_good_for_some_seconds(world: World, autojump_clock: MockClock) -> None:
    for _ in range(5):
        await world.past.trash()
    assert world.asked == ["trash"]
    await trio.sleep(ANSWER_SECONDS + 0.1)
    world.service.trash_in[None] = [trashed("f")]
    assert len(await world.past.trash()) == 1
    assert world.asked == ["trash", "trash"]


async def test_a_content_that_was_sent_from_here_is_a_new_question(world: World) -> None:
    ino = world.file()
    world.service.versions_of[INODE] = [version(1)]
    assert len(await world.past.versions(ino, "f")) == 1
    world.service.versions_of[INODE] = [version(2), version(1)]
    world.tree.update_inode(ino, manifest_id=bytes(32))
    assert len(await world.past.versions(ino, "f")) == 2


async def test_all_who_look_at_the_same_share_one_request(world: World) -> None:
    world.hold = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(world.past.trash)
        await wait_all_tasks_blocked()
        assert world.asked == ["trash"]
        world.hold.set()
    assert world.asked == ["trash"]


async def test_who_goes_away_leaves_the_question_to_the_others(world: World) -> None:
    world.hold, scope = trio.Event(), trio.CancelScope()

    async def look_and_go() -> None:
        with scope:
            await world.past.trash()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_and_go)
        await wait_all_tasks_blocked()
        nursery.start_soon(world.past.trash)
        await wait_all_tasks_blocked()
        assert world.asked == ["trash"]
        scope.cancel()
        await wait_all_tasks_blocked()
        assert world.asked == ["trash", "trash"]
        world.hold.set()


async def test_only_so_many_are_asked_at_once_and_wait_at_once(world: World) -> None:
    files = [world.file(f"f{number}", os.urandom(16)) for number in range(WAITING_MAX + 1)]
    world.hold = trio.Event()
    async with trio.open_nursery() as nursery:
        for ino in files[:WAITING_MAX]:
            nursery.start_soon(world.past.versions, ino, "f")
        await wait_all_tasks_blocked()
        assert len(world.asked) == ASKED_AT_ONCE
        with pytest.raises(TimedOut):
            await world.past.versions(files[-1], "f")
        world.hold.set()
    assert len(world.asked) == WAITING_MAX
    assert await world.past.versions(files[-1], "f") == {}, "there is room again"


async def test_few_answers_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_module, "ANSWERS_MAX", 2)
    inos = [world.file(f"f{number}", os.urandom(16)) for number in range(4)]
    for ino in (*inos, inos[3], inos[0]):
        await world.past.versions(ino, "f")
    assert len(world.asked) == 5


# ------------------------------------------------------------------------------------------------- what goes wrong


async def test_offline_is_said_at_once(world: World) -> None:
    world.switch.turn(on=False)
    with pytest.raises(Offline):
        await world.past.trash()
    assert world.asked == []


async def test_a_service_that_says_nothing_is_waited_for_within_the_budget(world: World, autojump_clock: MockClock) -> None:
    world.hold = trio.Event()
    began = trio.current_time()
    with pytest.raises(TimedOut):
        await world.past.trash()
    assert trio.current_time() - began == pytest.approx(TIMEOUT)


async def test_going_offline_lets_those_go_who_wait(world: World) -> None:
    world.hold = trio.Event()

    async def look() -> None:
        with pytest.raises(Offline):
            await world.past.trash()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await wait_all_tasks_blocked()
        world.switch.turn(on=False)
        world.waits.end()


async def test_what_fails_is_not_kept(world: World) -> None:
    world.fails = [Overloaded("later"), Unreachable("no answer")]
    for _ in range(2):
        with pytest.raises(Unavailable):
            await world.past.trash()
    assert await world.past.trash() == {}
    assert [type(error) for error in world.switch.failures] == [Unreachable, Overloaded]


# --------------------------------------------------------------------------------------------------------------- bytes


async def test_a_version_is_read_by_its_manifest_which_the_replica_does_not_keep(world: World) -> None:
    encoded = Manifest.from_inline(b"as it was").encode()
    id_ = world.service.keep_manifest(INODE, encoded)
    world.service.versions_of[INODE] = [version(1, b"as it was").model_copy(update={"version": id_})]
    (found,) = (await world.past.versions(world.file(), "f")).values()
    content = world.past.content(found)
    assert (await content.read(0, 100), await content.read(3, 2), await content.read(9, 5)) == (b"as it was", b"it", b"")
    assert world.asked == ["versions", "manifests"]
    assert world.store.manifest(id_) is None


async def test_a_version_that_is_gone_or_not_what_it_should_be(world: World) -> None:
    encoded = Manifest.from_inline(b"as it was").encode()
    id_ = world.service.keep_manifest(INODE, encoded)
    world.service.versions_of[INODE] = [
        version(2, b"another size").model_copy(update={"version": id_}),
        version(1, b"gone"),
    ]
    gone, wrong = (await world.past.versions(world.file(), "f")).values()
    with pytest.raises(Unavailable):
        await world.past.content(gone).read(0, 10)
    with pytest.raises(CorruptData):
        await world.past.content(wrong).read(0, 10)
    world.switch.turn(on=False)
    with pytest.raises(Offline):
        await world.past.content(gone).read(0, 10)
