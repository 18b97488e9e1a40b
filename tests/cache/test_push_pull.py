"""Push and pull on real replicas, against the reference service: what arrives, what survives, what stops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cache.errors import Offline
from cache.guards import Direction
from cache.model import AttributesChanged, AttributeUpdate, ContentChanged, EntryChanged, RenameMode
from cache.model import Connection as State
from cache.pull import PAGE_ROWS
from cache.store.schema import ROOT
from remote.api import StaleCommit
from remote.copynames import CopyNames
from remote.protocol import CommitRequest, EntryState, GroupOutcome, Kind
from tests.support.exchange_device import ExchangeDevice
from tests.support.wire_service import WireService

PATIENCE = 200.0


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 (what is waited for is spread over devices and the service)
            await trio.sleep(0.002)


async def quiet(*devices: ExchangeDevice) -> None:
    await until(lambda: all(device.is_quiet() for device in devices))


async def reconnect(device: ExchangeDevice) -> None:
    device.link.set_down(True)
    await until(lambda: device.connection.state is not State.ONLINE)
    device.link.set_down(False)


def copy_of(name: str, device: str = "laptop") -> str:
    return CopyNames(device, "2026-11-20").free_name(name, False, lambda _: False)


@pytest.fixture
def service() -> WireService:
    return WireService()


@pytest.fixture
async def start(service: WireService, tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Callable[[str], ExchangeDevice]]:
    """Starts devices by name; a name that was started before goes on with its home."""
    running: list[tuple[ExchangeDevice, trio.CancelScope, trio.Event]] = []

    def start_(name: str) -> ExchangeDevice:
        device = ExchangeDevice(tmp_path / name, service.link(name))
        scope, ended = trio.CancelScope(), trio.Event()

        async def run() -> None:
            with scope:
                await device.run()
            ended.set()

        nursery.start_soon(run)
        running.append((device, scope, ended))
        return device

    yield start_
    for device, scope, ended in running:
        scope.cancel()
        await ended.wait()
        device.close()


@pytest.fixture
async def laptop(start: Callable[[str], ExchangeDevice]) -> ExchangeDevice:
    device = start("laptop")
    await quiet(device)
    return device


@pytest.fixture
async def desk(start: Callable[[str], ExchangeDevice], laptop: ExchangeDevice) -> ExchangeDevice:
    device = start("desk")
    await quiet(device)
    return device


# ------------------------------------------------------------------------------------------------------ what arrives


async def test_what_one_device_does_the_other_shows(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.make_folder("p")
    laptop.create("p/f.txt", "hello")
    laptop.replica.create(ROOT, "l", Kind.SYMLINK, mode=0o777, uid=None, gid=None, target="p/f.txt")
    laptop.replica.create(ROOT, "n", Kind.CHARACTER, mode=0o600, uid=3, gid=4, device_number=259)
    laptop.replica.set_xattr(laptop.node("p/f.txt").ino, "user.a", b"\0b")
    await quiet(laptop, desk)
    assert desk.paths() == {"p/": None, "p/f.txt": "hello", "l": "p/f.txt", "n": None}
    assert desk.node("n").device_number == 259
    assert (desk.node("n").uid, desk.node("n").gid) == (3, 4)
    assert desk.replica.get_xattr(desk.node("p/f.txt").ino, "user.a") == b"\0b"
    for path in ("p", "p/f.txt", "l", "n"):
        assert desk.node(path).mtime_ns == laptop.node(path).mtime_ns
        assert desk.node(path).nlink == laptop.node(path).nlink
    assert laptop.told.unlinked


async def test_changes_are_told_after_they_were_made(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.changes.clear()
    laptop.make_folder("p")
    laptop.create("p/f", "one")
    await quiet(laptop, desk)
    folder, ino = desk.node("p").ino, desk.node("p/f").ino
    assert {EntryChanged(ROOT, "p", False), EntryChanged(folder, "f", False), AttributesChanged(folder)} <= set(desk.changes)
    desk.changes.clear()
    laptop.write("p/f", "two")
    await quiet(laptop, desk)
    assert ContentChanged(ino, ((folder, "f"),)) in desk.changes
    assert desk.told.replaced == [ino]
    assert desk.node("p/f").size == 3
    desk.changes.clear()
    laptop.replica.set_attributes(laptop.node("p/f").ino, AttributeUpdate(mode=0o600))
    await quiet(laptop, desk)
    assert desk.changes == [AttributesChanged(ino)]
    desk.changes.clear()
    laptop.rename("p/f", "g")
    await quiet(laptop, desk)
    assert {EntryChanged(folder, "f", True), EntryChanged(ROOT, "g", False), AttributesChanged(folder)} <= set(desk.changes)
    desk.changes.clear()
    laptop.remove("g")
    await quiet(laptop, desk)
    assert {EntryChanged(ROOT, "g", True), AttributesChanged(ROOT), AttributesChanged(ino)} <= set(desk.changes)
    assert laptop.changes == []


async def test_a_file_appears_with_its_first_content(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.create("open", None)
    laptop.create("closed", "text")
    await until(lambda: "closed" in desk.paths())
    assert "open" not in desk.paths()
    laptop.write("open", "")
    await quiet(laptop, desk)
    assert desk.paths() == {"open": "", "closed": "text"}


async def test_unfinished_content_sends_no_mtime(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.create("f", "one")
    await quiet(laptop, desk)
    old = desk.node("f").mtime_ns
    draft = laptop.write_ino(laptop.node("f").ino, "two", complete=False)
    laptop.replica.set_attributes(laptop.node("f").ino, AttributeUpdate(mode=0o640))
    laptop.rename("f", "g")
    await until(lambda: "g" in desk.paths() and desk.node("g").mode == 0o640)
    assert desk.paths() == {"g": "one"}
    assert desk.node("g").mtime_ns == old
    laptop.complete(draft, "two")
    await quiet(laptop, desk)
    assert desk.paths() == {"g": "two"}
    assert desk.node("g").mtime_ns == laptop.node("g").mtime_ns != old


async def test_the_lower_of_two_drafts_goes_up_while_the_upper_is_written(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    ino = laptop.create("log", "1")
    laptop.write_ino(ino, "12", complete=False)
    await until(lambda: desk.paths() == {"log": "1"})
    assert laptop.paths() == {"log": "12"}
    assert len(laptop.contents.drafts(ino)) == 1


async def test_a_content_that_the_service_has_already_is_not_sent(laptop: ExchangeDevice, service: WireService) -> None:
    laptop.create("f", "one")
    await quiet(laptop)
    revision = service.tree.revision
    laptop.write("f", "one")
    laptop.replica.set_attributes(laptop.node("f").ino, AttributeUpdate(mtime_ns=5))
    await quiet(laptop)
    assert service.tree.revision == revision + 1
    assert b"content" not in laptop.link.bodies[-1]


async def test_moving_a_folder_of_many_files_is_one_small_group(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.make_folder("a")
    folder = laptop.node("a").ino
    with laptop.database.transaction():
        for number in range(1000):
            laptop.replica.create(folder, f"f{number}", Kind.FILE, mode=0o644, uid=None, gid=None, published=True)
    await quiet(laptop, desk)
    laptop.link.bodies.clear()
    laptop.rename("a", "b")
    await quiet(laptop, desk)
    groups = [group for body in laptop.link.bodies for group in CommitRequest.model_validate_json(body).groups]
    assert sum(len(group.entries) for group in groups) == 2
    assert len(desk.paths()) == 1001


async def test_small_files_go_up_many_in_one_request(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.link.set_down(True)
    for number in range(500):
        laptop.create(f"f{number}", f"text {number}")
    laptop.link.set_down(False)
    await quiet(laptop, desk)
    assert len(laptop.link.bodies) < 100
    assert desk.paths() == laptop.paths()
    assert len(desk.paths()) == 500


# --------------------------------------------------------------------------------------------------------- conflicts


async def test_concurrent_edits_end_with_both_contents(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    ino = laptop.create("report.odt", "old")
    await quiet(laptop, desk)
    laptop.link.set_down(True)
    laptop.write("report.odt", "laptop's")
    desk.write("report.odt", "desk's")
    await quiet(desk)
    laptop.link.set_down(False)
    await quiet(laptop, desk)
    assert laptop.paths() == desk.paths() == {"report.odt": "desk's", copy_of("report.odt"): "laptop's"}
    copied = laptop.node(copy_of("report.odt")).ino
    assert laptop.told.moved == [(ino, copied)]
    assert laptop.exchange.merger.conflicts == 1
    assert laptop.exchange.push.status.conflicts >= 0


async def test_equal_edits_are_no_conflict(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.create("f", "old")
    await quiet(laptop, desk)
    laptop.link.set_down(True)
    laptop.write("f", "same")
    desk.write("f", "same")
    await quiet(desk)
    laptop.link.set_down(False)
    await quiet(laptop, desk)
    assert laptop.paths() == desk.paths() == {"f": "same"}
    assert laptop.told.unlinked


async def test_an_edit_beats_a_deletion_and_revives_the_folder(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.make_folder("p")
    laptop.create("p/f", "old")
    laptop.create("p/g", "old")
    await quiet(laptop, desk)
    laptop.link.set_down(True)
    laptop.write("p/f", "edited")
    for path in ("p/f", "p/g", "p"):
        desk.remove(path)
    await quiet(desk)
    laptop.link.set_down(False)
    await quiet(laptop, desk)
    assert laptop.paths() == desk.paths() == {"p/": None, "p/f": "edited"}


async def test_a_moved_file_that_the_other_deleted_comes_back_with_its_bytes(
    laptop: ExchangeDevice, desk: ExchangeDevice, service: WireService
) -> None:
    """Its manifest is not here any more and has to be fetched for the commit."""
    laptop.create("f", "text")
    await quiet(laptop, desk)
    laptop.link.set_down(True)
    laptop.rename("f", "g")
    with laptop.database.transaction():
        laptop.database.sql.execute("DELETE FROM manifest")
    desk.remove("f")
    await quiet(desk)
    laptop.link.set_down(False)
    await quiet(laptop, desk)
    assert laptop.paths() == desk.paths() == {"g": "text"}


async def test_new_folders_of_one_name_become_one(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.link.set_down(True)
    for device in (laptop, desk):
        device.make_folder("photos")
        device.create(f"photos/{device.link.device}", "x")
        device.create("photos/same", "same")
        device.create("photos/other", f"from {device.link.device}")
    await quiet(desk)
    laptop.link.set_down(False)
    await quiet(laptop, desk)
    expected = {"photos/", "photos/laptop", "photos/desk", "photos/same", "photos/other", f"photos/{copy_of('other')}"}
    assert laptop.paths().keys() == desk.paths().keys() == expected
    assert laptop.paths() == desk.paths()


async def test_saves_by_rename_on_both_sides_keep_both(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.create("f", "old")
    await quiet(laptop, desk)
    laptop.link.set_down(True)
    laptop.save_by_rename("f", "laptop's")
    desk.save_by_rename("f", "desk's")
    await quiet(desk)
    laptop.link.set_down(False)
    await quiet(laptop, desk)
    assert laptop.paths() == desk.paths() == {"f": "desk's", copy_of("f"): "laptop's"}


async def test_exchanges_in_a_deep_tree(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    for path in ("a", "a/b", "a/b/c", "d", "d/e"):
        laptop.make_folder(path)
    await quiet(laptop, desk)
    laptop.link.set_down(True)
    laptop.rename("a/b", "d", RenameMode.EXCHANGE)
    laptop.rename("d/c", "a/d2")
    desk.rename("d/e", "e")
    desk.rename("a", "e/a")
    await quiet(desk)
    laptop.link.set_down(False)
    await quiet(laptop, desk)
    assert laptop.paths() == desk.paths()


# ------------------------------------------------------------------------------------------- lost answers and crashes


async def test_a_commit_whose_answer_was_lost_is_repeated_byte_for_byte(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.create("f", "one")
    await quiet(laptop, desk)
    laptop.link.bodies.clear()
    laptop.link.answers_to_lose = 1
    laptop.write("f", "two")
    await until(lambda: laptop.link.bodies)
    laptop.write("f", "three")
    await quiet(laptop, desk)
    assert laptop.link.bodies[0] == laptop.link.bodies[1]
    assert len(laptop.link.bodies) == 3
    assert laptop.paths() == desk.paths() == {"f": "three"}


async def test_a_crash_between_storing_and_sending_changes_nothing(
    service: WireService, tmp_path: Path, start: Callable[[str], ExchangeDevice], desk: ExchangeDevice
) -> None:
    device = ExchangeDevice(tmp_path / "phone", service.link("phone"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.run)
        await quiet(device)
        device.link.answers_to_lose = 1000
        device.create("f", "text")
        await until(lambda: device.link.bodies)
        nursery.cancel_scope.cancel()
    assert device.exchange.store.outstanding(1) is not None
    sent = device.link.bodies[0]
    device.database.close()
    again = start("phone")
    await quiet(again, desk)
    assert again.link.bodies == [sent]
    assert desk.paths() == {"f": "text"}


async def test_no_merge_while_a_commit_is_outstanding(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.create("f", "one")
    await quiet(laptop, desk)
    laptop.link.answers_to_lose = 1_000_000
    laptop.write("f", "two")
    await until(lambda: desk.paths() == {"f": "two"})
    desk.write("f", "three")
    await until(lambda: laptop.exchange.store.has_staged(1))
    assert laptop.paths() == {"f": "two"}
    laptop.link.answers_to_lose = 0
    await quiet(laptop, desk)
    assert laptop.paths() == desk.paths() == {"f": "three"}


async def test_a_file_deleted_here_that_has_another_name_elsewhere_stays_known(
    service: WireService, laptop: ExchangeDevice, desk: ExchangeDevice
) -> None:
    """Its rows must not be purged before the feed said so: it names the file without describing it again."""
    laptop.create("f", "one")
    await quiet(laptop, desk)
    laptop.link.feed_ends_after = laptop.link.polls
    desk.create("g", "two")  # so that a poll that waits already comes to its end
    await until(lambda: laptop.link.held)
    desk.link_to("f", "linked")
    await quiet(desk)
    laptop.remove("f")
    await until(lambda: laptop.exchange.push.is_idle() and not laptop.tree.dirty_entries(1))
    laptop.sweep()
    laptop.link.let_go.set()
    await quiet(laptop, desk)
    assert laptop.paths() == desk.paths() == {"g": "two", "linked": "one"}
    laptop.remove("linked")
    await quiet(laptop, desk)
    laptop.sweep()
    assert laptop.tree.nameless(0, 10) == []


async def test_an_old_number_stops_the_exchange(service: WireService, laptop: ExchangeDevice) -> None:
    service.tree.last["laptop", laptop.exchange.store.replica()] = (1000, [])
    laptop.create("f", "text")
    await until(lambda: laptop.connection.state is State.STOPPED)
    assert "backup" in (laptop.connection.stopped_because or "")
    assert laptop.paths() == {"f": "text"}
    with pytest.raises(StaleCommit):
        service.commit("laptop", CommitRequest.model_validate_json(laptop.link.bodies[-1]))


# ------------------------------------------------------------------------------------------------------------ listing


def fill(service: WireService, folders: int, files: int) -> None:
    """A tree that is there before the device."""
    from tests.support.reference_service import Row

    number = 0
    for folder in range(folders):
        id_ = (1000 + folder).to_bytes(16, "big")
        service.tree.revision += 1
        service.tree.put((bytes(range(16)), f"d{folder}"), id_)
        rev = service.tree.revision
        for _ in range(files):
            number += 1
            child = (10**6 + number).to_bytes(16, "big")
            service.tree.revision += 1
            service.tree.put((id_, f"f{number}"), child)
            attributes = {"mode": 0o644, "uid": None, "gid": None, "mtime_ns": number}
            service.tree.rows[child] = Row(Kind.FIFO, attributes, None, service.tree.revision, service.tree.revision)
        attributes = {"mode": 0o755, "uid": None, "gid": None, "mtime_ns": folder}
        service.tree.rows[id_] = Row(Kind.DIRECTORY, attributes, None, rev, service.tree.revision)


async def test_the_first_listing_is_shown_as_it_comes(
    service: WireService, tmp_path: Path, start: Callable[[str], ExchangeDevice]
) -> None:
    fill(service, 10, 400)
    device = ExchangeDevice(tmp_path / "phone", service.link("phone"))
    partly = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.run)
        with trio.fail_after(PATIENCE):
            while not partly:
                await trio.lowlevel.checkpoint()
                partly = len(device.tree.children(ROOT))
        assert not device.replica.is_listed(ROOT)
        nursery.cancel_scope.cancel()
    device.close()
    again = start("phone")
    with trio.fail_after(PATIENCE):
        await again.exchange.pull.list_first(ROOT)
    assert again.replica.is_listed(ROOT)
    await quiet(again)
    assert len(again.paths()) == 10 * 401 > PAGE_ROWS
    assert again.is_quiet()


async def test_what_is_made_while_the_first_listing_loads_meets_what_it_brings(
    service: WireService, tmp_path: Path, start: Callable[[str], ExchangeDevice]
) -> None:
    fill(service, 3, 3)
    link = service.link("phone")
    link.down = True
    device = ExchangeDevice(tmp_path / "phone", link)
    device.make_folder("d1")
    device.create("d1/mine", "text")
    device.create("d2", "a file that is called like a folder")
    device.close()
    again = start("phone")
    await quiet(again)
    expected = {"d0/", "d1/", "d2/", "d1/mine", copy_of("d2", "phone"), *(f"d{(n - 1) // 3}/f{n}" for n in range(1, 10))}
    assert again.paths().keys() == expected


async def test_listing_first_says_offline_without_a_connection(
    service: WireService, start: Callable[[str], ExchangeDevice]
) -> None:
    device = start("phone")
    device.link.set_down(True)
    device.connection.set_offline(True)
    with pytest.raises(Offline):
        await device.exchange.pull.list_first(ROOT)


async def test_a_reset_replaces_base_and_keeps_what_is_only_here(
    service: WireService, laptop: ExchangeDevice, desk: ExchangeDevice
) -> None:
    laptop.make_folder("p")
    for name in ("kept", "edited", "gone", "moved"):
        laptop.create(f"p/{name}", "old")
    await quiet(laptop, desk)
    laptop.link.set_down(True)
    laptop.write("p/edited", "mine")
    laptop.create("new", "new")
    desk.remove("p/edited")
    desk.remove("p/gone")
    desk.rename("p/moved", "moved")
    await quiet(desk)
    service.tree.collect()
    laptop.link.page_limit = 2
    laptop.link.set_down(False)
    await quiet(laptop, desk)
    expected = {"p/": None, "p/kept": "old", "p/edited": "mine", "moved": "old", "new": "new"}
    assert laptop.paths() == desk.paths() == expected


async def test_small_pages_give_the_same_tree(service: WireService, laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    desk.link.page_limit = 1
    desk.link.set_down(True)
    for path in ("a", "a/b"):
        laptop.make_folder(path)
    laptop.create("a/b/f", "x")
    await quiet(laptop)
    laptop.rename("a/b", "c")
    laptop.rename("a", "c/a")
    laptop.link_to("c/f", "c/a/g")
    await quiet(laptop)
    desk.link.set_down(False)
    await quiet(desk)
    assert desk.paths() == {"c/": None, "c/f": "x", "c/a/": None, "c/a/g": "x"}
    assert desk.node("c/f").nlink == 2


# ------------------------------------------------------------------------------------- a service that cannot be trusted


async def test_another_epoch_stops_the_exchange_also_after_a_restart(
    service: WireService, laptop: ExchangeDevice, start: Callable[[str], ExchangeDevice], nursery: trio.Nursery
) -> None:
    laptop.create("f", "text")
    await quiet(laptop)
    service.epoch = "another"
    service.tree.entries.clear()
    await reconnect(laptop)
    await until(lambda: laptop.connection.state is State.STOPPED)
    assert "restored" in (laptop.connection.stopped_because or "")
    assert laptop.paths() == {"f": "text"}
    assert start("laptop").connection.state is State.STOPPED


async def test_a_revision_that_goes_backwards_stops_the_exchange(service: WireService, laptop: ExchangeDevice) -> None:
    laptop.create("f", "text")
    await quiet(laptop)
    service.tree.revision -= 1
    await reconnect(laptop)
    await until(lambda: laptop.connection.state is State.STOPPED)
    laptop.create("g", "text")
    assert laptop.paths() == {"f": "text", "g": "text"}


@pytest.mark.parametrize("damage", ["cycle", "unknown inode", "two names", "no parent", "folder gone, content stays"])
async def test_a_service_whose_tree_is_none_stops_the_exchange_and_deletes_nothing(
    service: WireService, laptop: ExchangeDevice, damage: str
) -> None:
    laptop.make_folder("a")
    laptop.make_folder("b")
    laptop.create("a/f", "text")
    await quiet(laptop)
    before, tree = laptop.paths(), service.tree
    root = bytes(range(16))
    a, b = (tree.entries[root, name][0] for name in ("a", "b"))
    tree.revision += 1
    changes = {
        "cycle": {(root, "a"): None, (root, "b"): None, (a, "b"): b, (b, "a"): a},
        "unknown inode": {(root, "x"): bytes(16)},
        "two names": {(b, "a2"): a},
        "no parent": {(b"\7" * 16, "f"): tree.entries[a, "f"][0]},
        "folder gone, content stays": {(root, "a"): None},
    }[damage]
    for key, ino in changes.items():
        tree.put(key, ino)
    service.news.notify()
    await until(lambda: laptop.connection.state is State.STOPPED)
    assert laptop.paths() == before


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "x" * 256, "ü" * 128, "\ud800"])
def test_a_page_with_a_name_that_no_folder_may_hold_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        EntryState(parent=bytes(16), name=name, inode=None, rev=1)


async def test_an_answer_that_makes_no_sense_is_refused_whole_and_asked_for_again(
    service: WireService, laptop: ExchangeDevice, desk: ExchangeDevice
) -> None:
    laptop.create("f", "text")
    await quiet(laptop, desk)
    desk.link.set_down(True)
    laptop.remove("f")
    laptop.create("g", "text")
    await quiet(laptop)
    broken = service.tree.rows[laptop.tree.id_of(laptop.node("g").ino)]
    content, broken.content = broken.content, None
    desk.link.set_down(False)
    await until(lambda: desk.exchange.pull.status.error is not None and "cannot be" in desk.exchange.pull.status.error)
    assert desk.paths() == {"f": "text"}
    assert desk.connection.state is State.ONLINE
    polls = desk.link.polls
    await until(lambda: desk.link.polls > polls)
    assert desk.paths() == {"f": "text"}
    broken.content = content
    await quiet(laptop, desk)
    assert desk.paths() == {"g": "text"}


async def test_an_inode_of_another_space_is_refused(service: WireService, laptop: ExchangeDevice) -> None:
    other = b"\x55" * 16
    with laptop.database.transaction():
        laptop.tree.add_space(b"\x77" * 16, now_ns=0)
        laptop.tree.adopt(2, other)
    service.tree.revision += 1
    service.tree.put((bytes(range(16)), "x"), other)
    service.news.notify()
    await until(lambda: laptop.connection.state is State.STOPPED)
    assert laptop.paths() == {}


# ------------------------------------------------------------------------------------------------ mass deletions


def live(device: ExchangeDevice) -> list[object]:
    """The names that the service has."""
    return [key for key, (ino, _) in device.link.service.tree.entries.items() if ino is not None]


async def with_many_files(laptop: ExchangeDevice, desk: ExchangeDevice, count: int = 600) -> None:
    laptop.make_folder("p")
    folder = laptop.node("p").ino
    with laptop.database.transaction():
        for number in range(count):
            laptop.replica.create(folder, f"f{number}", Kind.FILE, mode=0o644, uid=None, gid=None, published=True)
    laptop.create("other", "text")
    await quiet(laptop, desk)


def remove_all(device: ExchangeDevice) -> None:
    folder = device.node("p").ino
    with device.database.transaction():
        for name, _ in device.tree.children(folder):
            device.replica.unlink(folder, name)
        device.replica.rmdir(ROOT, "p")


async def test_a_mass_deletion_is_not_pushed_until_it_is_confirmed(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    await with_many_files(laptop, desk)
    remove_all(laptop)
    laptop.create("new", "still goes up")
    await until(lambda: laptop.exchange.deletions.tripped() and "new" in desk.paths())
    (tripped,) = laptop.exchange.deletions.tripped()
    assert (tripped.direction, tripped.files, tripped.of) == (Direction.PUSH, 600, 602)
    assert len(desk.paths()) == 603
    assert laptop.exchange.deletions.confirm() == 600
    await quiet(laptop)
    assert len(live(laptop)) == 2
    assert laptop.exchange.deletions.tripped() == []


async def test_a_mass_deletion_here_can_be_undone(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    await with_many_files(laptop, desk)
    before = laptop.paths()
    remove_all(laptop)
    await until(lambda: laptop.exchange.deletions.tripped())
    laptop.changes.clear()
    assert laptop.exchange.deletions.undo() == 600
    assert len([change for change in laptop.changes if isinstance(change, EntryChanged)]) == 601
    await quiet(laptop, desk)
    assert laptop.paths() == desk.paths() == before


async def test_a_confirmation_is_good_only_for_what_was_shown(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    await with_many_files(laptop, desk, 1500)
    folder = laptop.node("p").ino
    names = [name for name, _ in laptop.tree.children(folder)]
    laptop.connection.set_paused(True)
    for name in names[:600]:
        laptop.replica.unlink(folder, name)
    laptop.connection.set_paused(False)
    await until(lambda: laptop.exchange.deletions.tripped())
    laptop.connection.set_paused(True)
    for name in names[600:1300]:
        laptop.replica.unlink(folder, name)
    assert laptop.exchange.deletions.confirm() == 600
    laptop.connection.set_paused(False)
    await until(lambda: laptop.exchange.deletions.tripped())
    assert laptop.exchange.deletions.tripped()[0].files == 700
    await until(lambda: len(live(laptop)) == 1502 - 600)


async def test_what_is_deleted_after_the_breaker_tripped_can_be_shown_and_confirmed(
    laptop: ExchangeDevice, desk: ExchangeDevice
) -> None:
    await with_many_files(laptop, desk, 1500)
    folder = laptop.node("p").ino
    names = [name for name, _ in laptop.tree.children(folder)]
    for name in names[:600]:
        laptop.replica.unlink(folder, name)
    await until(lambda: laptop.exchange.deletions.tripped())
    for name in names[600:1300]:
        laptop.replica.unlink(folder, name)
    laptop.exchange.deletions.show_all()
    assert laptop.exchange.deletions.tripped()[0].files == 1300
    assert laptop.exchange.deletions.confirm() == 1300
    await until(lambda: len(live(laptop)) == 1502 - 1300)


async def test_a_mass_deletion_is_not_applied_until_it_is_confirmed(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    await with_many_files(laptop, desk)
    remove_all(laptop)
    laptop.create("new", "waits with the rest")
    await until(lambda: laptop.exchange.deletions.tripped())
    desk.link.set_down(True)
    laptop.exchange.deletions.confirm()
    await quiet(laptop)
    desk.link.set_down(False)
    await until(lambda: desk.exchange.deletions.tripped())
    (tripped,) = desk.exchange.deletions.tripped()
    assert (tripped.direction, tripped.files) == (Direction.APPLY, 600)
    assert len(desk.paths()) == 602
    assert desk.exchange.deletions.confirm() == 600
    await quiet(laptop, desk)
    assert desk.paths() == laptop.paths() == {"other": "text", "new": "waits with the rest"}


async def test_a_mass_deletion_elsewhere_can_be_undone(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    await with_many_files(laptop, desk)
    before = desk.paths()
    remove_all(laptop)
    await until(lambda: laptop.exchange.deletions.tripped())
    desk.link.set_down(True)
    laptop.exchange.deletions.confirm()
    await quiet(laptop)
    desk.link.set_down(False)
    await until(lambda: desk.exchange.deletions.tripped())
    assert desk.exchange.deletions.undo() == 600
    await quiet(laptop, desk)
    assert desk.paths() == laptop.paths() == before


async def test_many_small_portions_are_stopped_like_a_large_one(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    await with_many_files(laptop, desk, 700)
    folder = laptop.node("p").ino
    names = [name for name, _ in laptop.tree.children(folder)]
    for start in range(0, 700, 100):
        with laptop.database.transaction():
            for name in names[start : start + 100]:
                laptop.replica.unlink(folder, name)
        if start < 500:
            await quiet(laptop)
    await until(lambda: laptop.exchange.deletions.tripped())
    assert laptop.exchange.deletions.tripped()[0].files == 200
    assert len(live(laptop)) == 202


# --------------------------------------------------------------------------------------------- refusals of the service


async def test_missing_objects_go_back_to_the_uploads(service: WireService, laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    from remote.manifest import ChunkRef, Encoding, Manifest, Split, manifest_id

    object_id = b"\x11" * 32
    ino = laptop.create("f", None)
    service.outcomes[laptop.tree.id_of(ino)] = GroupOutcome(result="missing", objects=[object_id, b"\x22" * 32])
    chunk = ChunkRef.whole(object_id, 10_000, 10_000, Encoding.RAW)
    encoded = Manifest.from_chunks(Split(1, 2, 3), (chunk,)).encode()
    draft = laptop.write_ino(ino, "x" * 10_000, complete=False)
    laptop.contents.complete(draft, manifest_id(encoded), encoded, None)
    laptop.exchange.push.wake()
    await until(lambda: laptop.told.missing)
    assert laptop.told.missing[0] == (ino, frozenset({object_id}))
    assert laptop.exchange.push.is_idle() or laptop.link.bodies
    laptop.contents.incomplete(ino)
    del service.outcomes[laptop.tree.id_of(ino)]
    laptop.complete(draft, "x" * 4000)
    await quiet(laptop, desk)


@pytest.mark.parametrize("result", ["quota", "refused"])
async def test_what_the_service_has_no_room_for_stays_and_says_so(
    service: WireService, laptop: ExchangeDevice, desk: ExchangeDevice, result: str, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05  # the replica is made durable in a real thread
    ino = laptop.create("big", None)
    service.outcomes[laptop.tree.id_of(ino)] = GroupOutcome(result=result, detail="no room")  # type: ignore[arg-type]
    laptop.write_ino(ino, "text")
    laptop.create("small", "text")
    await until(lambda: "small" in desk.paths() and laptop.contents.drafts(ino)[0].error == "no room")
    assert laptop.exchange.push.status.problems == ("big: no room",)
    assert "big" not in desk.paths()
    sent = len(laptop.link.bodies)
    await trio.sleep(5)
    assert len(laptop.link.bodies) == sent
    service.outcomes.clear()
    await trio.sleep(60)
    await quiet(laptop, desk)
    assert desk.paths() == {"big": "text", "small": "text"}
    assert laptop.exchange.push.status.problems == ()


async def test_a_group_that_always_conflicts_is_no_busy_loop(
    service: WireService, laptop: ExchangeDevice, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    ino = laptop.create("f", "text")
    from remote.protocol import ConflictKind

    service.outcomes[laptop.tree.id_of(ino)] = GroupOutcome(result="conflict", conflict=ConflictKind.ENTRY)
    await trio.sleep(600)
    assert 3 < len(laptop.link.bodies) < 60
    service.outcomes.clear()
    await trio.sleep(120)
    assert laptop.is_quiet()


# ----------------------------------------------------------------------------------------------------- the connection


async def test_unreachable_and_back_without_a_command(laptop: ExchangeDevice, desk: ExchangeDevice) -> None:
    laptop.link.set_down(True)
    await until(lambda: laptop.connection.state is State.UNREACHABLE)
    laptop.create("f", "text")
    laptop.link.set_down(False)
    await quiet(laptop, desk)
    assert laptop.connection.state is State.ONLINE
    assert desk.paths() == {"f": "text"}


@pytest.mark.parametrize("wish", ["offline", "paused"])
async def test_the_persons_wish_is_obeyed_and_survives_a_restart(
    laptop: ExchangeDevice, desk: ExchangeDevice, wish: str, start: Callable[[str], ExchangeDevice]
) -> None:
    connection = laptop.connection
    (connection.set_offline if wish == "offline" else connection.set_paused)(True)
    laptop.create("f", "text")
    desk.create("g", "text")
    await quiet(desk)
    polls, bodies = laptop.link.polls, len(laptop.link.bodies)
    for _ in range(50):
        await trio.lowlevel.checkpoint()
    assert (laptop.link.polls, len(laptop.link.bodies)) == (polls, bodies)
    assert laptop.paths() == {"f": "text"}
    again = type(connection)(laptop.database, laptop.clock)
    assert again.paused if wish == "paused" else again.state is State.OFFLINE
    (connection.set_offline if wish == "offline" else connection.set_paused)(False)
    await quiet(laptop, desk)
    assert laptop.paths() == desk.paths() == {"f": "text", "g": "text"}
