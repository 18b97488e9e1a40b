"""While the very first listing loads: folders that are opened come by themselves, and nothing of them stays that is not there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from cache.errors import Offline
from cache.pull import PAGE_ROWS
from cache.store.schema import ROOT
from remote.api import NotThere, Overloaded
from remote.protocol import FolderPage, Kind
from tests.support.exchange_device import ExchangeDevice
from tests.support.reference_service import Row
from tests.support.wire_service import SPACE, DeviceLink, WireService

PATIENCE = 60.0
FOLDERS, FILES = 10, 300
"""In each folder, and so many in the root: 3,310 entries."""


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 (what is waited for is spread over the device and the service)
            await trio.sleep(0.002)


class Tree:
    """What another device does on the service. Each change is a revision of its own."""

    def __init__(self, service: WireService) -> None:
        self.service = service
        self.tree = service.tree
        self.ids: dict[str, bytes] = {"": SPACE}

    def make(self, path: str, kind: Kind = Kind.FIFO) -> None:
        self.tree.revision += 1
        id_ = self.ids[path] = (10**9 + self.tree.revision).to_bytes(16, "big")
        attributes = {"mode": 0o755, "uid": None, "gid": None, "mtime_ns": self.tree.revision}
        self.tree.rows[id_] = Row(kind, attributes, None, self.tree.revision, self.tree.revision)
        self.tree.put(self._key(path), id_)

    def touch(self, path: str) -> None:
        self.tree.revision += 1
        self.tree.rows[self.ids[path]].rev = self.tree.revision

    def remove(self, path: str) -> None:
        self.tree.revision += 1
        self.tree.put(self._key(path), None)
        del self.ids[path]

    def rename(self, old: str, new: str) -> None:
        self.tree.revision += 1
        id_ = self.ids[old]
        self.tree.put(self._key(old), None)
        self.tree.put(self._key(new), id_)
        for path in [path for path in self.ids if path == old or path.startswith(f"{old}/")]:
            self.ids[new + path.removeprefix(old)] = self.ids.pop(path)

    def names(self, folder: str) -> set[str]:
        return {key[1] for key, (ino, _) in self.tree.entries.items() if key[0] == self.ids[folder] and ino is not None}

    def paths(self) -> set[str]:
        return {f"{path}/" if self.tree.rows[id_].kind is Kind.DIRECTORY else path for path, id_ in self.ids.items() if path}

    def _key(self, path: str) -> tuple[bytes, str]:
        folder, _, name = path.rpartition("/")
        return self.ids[folder], name


@pytest.fixture
def service() -> WireService:
    return WireService()


@pytest.fixture
def elsewhere(service: WireService) -> Tree:
    """A tree whose folders were all changed last, so that the feed names them last, as it is where files are made in them."""
    tree = Tree(service)
    for folder in range(FOLDERS):
        tree.make(f"d{folder}", Kind.DIRECTORY)
    for number in range(FILES):
        tree.make(f"f{number}")
        for folder in range(FOLDERS):
            tree.make(f"d{folder}/f{number}")
    for folder in range(FOLDERS):
        tree.touch(f"d{folder}")
    return tree


@pytest.fixture
async def phone(service: WireService, elsewhere: Tree, tmp_path: Path, nursery: trio.Nursery) -> ExchangeDevice:
    """A new device; of the feed it gets the first page, and no other."""
    link = service.link("phone")
    link.feed_ends_after = 1
    device = ExchangeDevice(tmp_path / "phone", link)
    nursery.start_soon(device.run)
    return device


async def list_first(device: ExchangeDevice, path: str) -> int:
    ino = device.node(path).ino
    with trio.fail_after(PATIENCE):
        await device.exchange.pull.list_first(ino)
    assert device.replica.is_listed(ino)
    return ino


def names(device: ExchangeDevice, path: str) -> set[str]:
    return {name for name, _ in device.tree.children(device.node(path).ino)}


async def let_the_feed_go(device: ExchangeDevice) -> None:
    device.link.let_go.set()
    await until(device.is_quiet)
    assert device.connection.stopped_because is None
    assert device.problems() == []


async def test_folders_are_whole_while_the_feed_is_stuck(phone: ExchangeDevice, elsewhere: Tree) -> None:
    await list_first(phone, "")
    assert names(phone, "") == elsewhere.names("")
    folder = phone.node("d3").ino
    assert not phone.replica.is_listed(folder)
    await list_first(phone, "d3")
    assert names(phone, "d3") == elsewhere.names("d3")
    assert not phone.exchange.store.space(1).listed
    assert phone.link.polls == 1
    assert phone.link.folders == [SPACE, elsewhere.ids["d3"]]
    await let_the_feed_go(phone)
    assert phone.paths().keys() == elsewhere.paths()
    assert len(phone.paths()) == FOLDERS + (FOLDERS + 1) * FILES > 3 * PAGE_ROWS


async def test_a_folder_may_take_many_pages(phone: ExchangeDevice, elsewhere: Tree) -> None:
    phone.link.page_limit = 7
    await list_first(phone, "")
    await list_first(phone, "d3")
    assert names(phone, "d3") == elsewhere.names("d3")
    assert phone.link.folders.count(elsewhere.ids["d3"]) == -(-FILES // 7)
    phone.link.page_limit = None
    await let_the_feed_go(phone)
    assert phone.paths().keys() == elsewhere.paths()


async def test_a_folder_is_asked_for_once_however_many_wait(phone: ExchangeDevice, elsewhere: Tree) -> None:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(phone.exchange.pull.list_first, ROOT)
    await list_first(phone, "")
    assert phone.link.folders == [SPACE]


async def test_who_waits_goes_on_when_the_first_one_gives_up(
    phone: ExchangeDevice, elsewhere: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang, first = trio.Event(), trio.CancelScope()
    real = phone.link.folder

    async def folder(space: bytes, inode: bytes, *, after: str, limit: int) -> FolderPage:
        if not hang.is_set():
            hang.set()
            await trio.sleep_forever()
        return await real(space, inode, after=after, limit=limit)

    async def give_up() -> None:
        with first:
            await phone.exchange.pull.list_first(ROOT)

    monkeypatch.setattr(phone.link, "folder", folder)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
            await hang.wait()
            nursery.start_soon(phone.exchange.pull.list_first, ROOT)
            await trio.testing.wait_all_tasks_blocked()
            assert phone.link.folders == []
            first.cancel()
    assert names(phone, "") == elsewhere.names("")


# ------------------------------------------------------------------------------------------- what changes in the meantime


def remove_and_rename(tree: Tree) -> None:
    tree.remove("d3/f7")
    tree.rename("d3/f8", "d3/renamed")
    tree.rename("d3/f9", "moved out")
    tree.rename("f9", "d3/moved in")
    tree.rename("d4", "d3/folder moved in")
    tree.remove("f10")
    tree.make("f10", Kind.DIRECTORY)
    tree.make("f10/below")
    tree.remove("d3/f11")
    tree.make("d3/f11")
    tree.make("d3/new")


@pytest.mark.parametrize("when", ["before the listing", "before the folder", "after the folder", "after and asked again"])
async def test_what_is_removed_and_renamed_meanwhile_does_not_linger(phone: ExchangeDevice, elsewhere: Tree, when: str) -> None:
    if when == "before the listing":
        remove_and_rename(elsewhere)
    await until(lambda: phone.link.polls == 1 and phone.exchange.store.space(1).snapshot)
    if when == "before the folder":
        remove_and_rename(elsewhere)
    await list_first(phone, "")
    await list_first(phone, "d3")
    if when.startswith("before"):
        assert elsewhere.names("d3") <= names(phone, "d3"), "the feed may have shown more, before it was removed"
    if when.startswith("after"):
        remove_and_rename(elsewhere)
    if when == "after and asked again":
        phone.exchange.pull.first.begin()  # as after a restart: nothing is remembered
        await list_first(phone, "")
        await list_first(phone, "d3")
        assert elsewhere.names("d3") <= names(phone, "d3") | {"folder moved in"}, "a folder that is here moves with the merge"
    await let_the_feed_go(phone)
    assert phone.paths().keys() == elsewhere.paths()


async def test_no_merge_before_the_feed_is_as_new_as_a_folder_page(
    phone: ExchangeDevice, service: WireService, elsewhere: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feed's last page was read before a folder moved, the folder pages after: together they name it twice."""
    await until(lambda: phone.exchange.store.cursor())
    elsewhere.make("late", Kind.DIRECTORY)
    last = service.page(phone.exchange.store.cursor(), 1_000_000)
    assert not last.has_more
    elsewhere.rename("late", "d3/late")
    await list_first(phone, "")
    await list_first(phone, "d3")
    assert names(phone, "d3") == elsewhere.names("d3")
    real, stale = service.page, [last]
    monkeypatch.setattr(service, "page", lambda cursor, limit, **_: stale.pop() if stale else real(cursor, limit))
    await let_the_feed_go(phone)
    assert stale == []
    assert phone.paths().keys() == elsewhere.paths()


async def test_what_was_made_here_meets_what_a_folder_brings(phone: ExchangeDevice, elsewhere: Tree) -> None:
    phone.make_folder("mine")
    phone.make_folder("d3")
    phone.create("d3/f5", "a file that is called like another")
    await list_first(phone, "")
    assert elsewhere.names("") | {"mine"} == names(phone, "")
    await list_first(phone, "mine")
    phone.create("mine/file", "text")
    await let_the_feed_go(phone)
    paths = set(phone.paths())
    assert elsewhere.paths() | {"mine/", "mine/file"} <= paths
    assert len(paths - elsewhere.paths()) == 3, "and a conflicted copy of d3/f5"


# ------------------------------------------------------------------------------------------------------------ failures


async def test_without_a_connection_it_is_said_at_once(phone: ExchangeDevice, elsewhere: Tree) -> None:
    await list_first(phone, "")
    phone.link.down = True
    with trio.fail_after(PATIENCE), pytest.raises(Offline):
        await phone.exchange.pull.list_first(phone.node("d3").ino)
    phone.link.down = False
    await let_the_feed_go(phone)


async def test_another_epoch_stops_the_exchange(phone: ExchangeDevice, service: WireService, elsewhere: Tree) -> None:
    await list_first(phone, "")
    service.epoch = "another"
    folder, before = phone.node("d3").ino, phone.paths()

    async def read() -> None:
        with pytest.raises(Offline):
            await phone.exchange.pull.list_first(folder)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await until(lambda: phone.connection.last_error is not None)
            assert phone.connection.stopped_because is None, "what another epoch means is for the feed to say"
            phone.link.let_go.set()
    assert phone.paths() == before
    assert phone.connection.stopped_because is not None


async def test_a_revision_that_goes_backwards_stops_the_exchange(
    phone: ExchangeDevice, service: WireService, elsewhere: Tree
) -> None:
    await list_first(phone, "")
    service.tree.revision -= 1000
    with trio.fail_after(PATIENCE), pytest.raises(Offline):
        await phone.exchange.pull.list_first(phone.node("d3").ino)
    assert phone.connection.stopped_because is not None


def failing(link: DeviceLink, error: Exception) -> Callable[..., Awaitable[FolderPage]]:
    real, failed = link.folder, False

    async def folder(space: bytes, inode: bytes, *, after: str, limit: int) -> FolderPage:
        nonlocal failed
        if not failed:
            failed = True
            raise error
        return await real(space, inode, after=after, limit=limit)

    return folder


async def test_an_overloaded_service_is_asked_again(
    phone: ExchangeDevice, elsewhere: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phone.link, "folder", failing(phone.link, Overloaded("not now", 0.01)))
    await list_first(phone, "")
    assert names(phone, "") == elsewhere.names("")


async def test_a_service_that_cannot_say_it_is_waited_for(
    phone: ExchangeDevice, elsewhere: Tree, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(phone.link, "folder", failing(phone.link, NotThere("no such route")))
    with trio.move_on_after(30) as budget:
        await phone.exchange.pull.list_first(ROOT)
    assert budget.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(phone.exchange.pull.list_first, ROOT)
        phone.link.let_go.set()
    await until(phone.is_quiet)
    assert phone.paths().keys() == elsewhere.paths()
