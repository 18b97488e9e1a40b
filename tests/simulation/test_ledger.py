"""The ledger itself: it accepts what a right drive does, and finds fault with each thing that a wrong one may do."""

from __future__ import annotations

import pytest

from cache.store.schema import ROOT
from remote.manifest import manifest_id
from tests.simulation.history import EMPTY, History, id_of
from tests.simulation.ledger import Violation
from tests.simulation.toys import File, World
from tests.support.wire import create, entry, file_row, inline, mkdir, move, remove, write

# ------------------------------------------------------------------------------------------------------------- overwriting


def test_an_edit_of_what_was_seen_is_right(world: World) -> None:
    _, there, id_ = world.shared("a", b"first")
    world.bob.write(there, b"second")
    world.bob.send(write(id_, b"second", world.rev(id_)))
    world.ledger.raise_if_wrong()


def test_saved_twice_before_it_is_sent_is_right(world: World) -> None:
    _, there, id_ = world.shared("a", b"first")
    world.bob.write(there, b"second")
    world.bob.write(there, b"third")
    world.bob.send(write(id_, b"third", world.rev(id_)))
    world.ledger.raise_if_wrong()


def test_an_edit_that_did_not_see_another_is_found(world: World) -> None:
    here, there, id_ = world.shared("a", b"first")
    world.ada.write(here, b"ada's")
    world.bob.write(there, b"bob's")
    world.ada.send(write(id_, b"ada's", world.rev(id_)))
    world.bob.send(write(id_, b"bob's", world.rev(id_)))
    assert 'bob overwrote b"ada\'s"' in world.faults


def test_an_edit_that_brought_a_file_back_may_do_so_again_on_a_restored_service(world: World) -> None:
    here, there, id_ = world.shared("a", b"first")
    world.bob.write(there, b"bob's")
    world.ada.write(here, b"ada's")
    world.ada.send(write(id_, b"ada's", world.rev(id_)))
    world.ada.unlink("a")
    for device, edit in ((world.bob, b"bob's"), (world.ada, b"ada's")):
        world.ada.send(remove(world.ada.root, "a", id_, seen=world.rev(id_)))
        device.send({"entries": [entry(device.root, "a", None, id_)], "inodes": [file_row(id_, edit)]})
    world.ledger.wrong.clear()
    world.ledger.service_restored()
    world.bob.send(write(id_, b"bob's", world.rev(id_)))
    world.ledger.raise_if_wrong()
    world.bob.send(write(id_, b"ada's", world.rev(id_)))
    world.ledger.was_restored = False
    world.bob.send(write(id_, b"bob's", world.rev(id_)))
    assert "bob overwrote" in world.faults


def test_what_was_emptied_may_be_emptied_again_on_a_restored_service(world: World) -> None:
    """And what was written into it is sent again, too: an empty content has no descent (seeds 61234, 61808, 67840)."""
    here, there, id_ = world.shared("a", b"first")
    world.bob.write(there, b"")
    world.bob.send(write(id_, b"", world.rev(id_)))
    world.ada.has(here, b"")
    world.ada.write(here, b"second")
    world.ada.send(write(id_, b"second", world.rev(id_)))
    world.ledger.raise_if_wrong()
    for again in (b"", b"second"):
        for restored in (True, False):
            world.ledger.was_restored = True
            world.ada.send(write(id_, b"first", world.rev(id_)))
            world.ledger.was_restored = restored
            world.ledger.wrong.clear()
            world.ada.send(write(id_, again, world.rev(id_)))
            assert ("ada overwrote" in world.faults) != restored


def test_an_emptied_file_remembers_what_was_seen_in_it(world: World) -> None:
    _, there, id_ = world.shared("a", b"first")
    world.bob.write(there, b"")
    world.bob.write(there, b"second")
    world.bob.send(write(id_, b"second", world.rev(id_)))
    world.ledger.raise_if_wrong()


def test_a_write_in_the_middle_is_the_whole_content_after_it(world: World) -> None:
    _, there, id_ = world.shared("a", b"0123456789")
    handle = world.ledger.opened("bob", File(there))
    handle.write(3, b"xyz")
    handle.kept()
    handle.released()
    world.bob.send(write(id_, b"012xyz6789", world.rev(id_)))
    world.ledger.raise_if_wrong()
    world.bob.send(write(id_, b"012xyz", world.rev(id_)))
    assert "which nobody wrote" in world.faults


def test_equal_contents_of_two_devices_are_one(world: World) -> None:
    here, there, id_ = world.shared("a", b"first")
    world.ada.write(here, b"the same")
    world.bob.write(there, b"the same")
    world.ada.send(write(id_, b"the same", world.rev(id_)))
    world.ada.has(here, b"the same")
    world.bob.write(there, b"later")
    world.bob.send(write(id_, b"later", world.rev(id_)))
    world.ledger.raise_if_wrong()


# ---------------------------------------------------------------------------------------------------------------- deleting


def test_a_deletion_of_what_was_seen_is_right(world: World) -> None:
    _, _, id_ = world.shared("a", b"first")
    world.bob.unlink("a")
    world.bob.send(remove(world.bob.root, "a", id_, seen=world.rev(id_)))
    world.ledger.raise_if_wrong()


def test_a_deletion_after_an_edit_that_was_not_sent_is_right(world: World) -> None:
    _, there, id_ = world.shared("a", b"first")
    world.bob.write(there, b"second")
    world.bob.unlink("a")
    world.bob.send(remove(world.bob.root, "a", id_, seen=world.rev(id_)))
    world.ledger.raise_if_wrong()


def test_a_deletion_of_another_content_than_was_seen_is_found(world: World) -> None:
    here, _, id_ = world.shared("a", b"first")
    world.bob.unlink("a")
    world.ada.write(here, b"ada's")
    world.ada.send(write(id_, b"ada's", world.rev(id_)))
    world.bob.send(remove(world.bob.root, "a", id_, seen=world.rev(id_)))
    assert 'bob deleted b"ada\'s"' in world.faults


def test_a_deletion_that_nobody_asked_for_is_found(world: World) -> None:
    _, _, id_ = world.shared("a", b"first")
    world.bob.send(remove(world.bob.root, "a", id_, seen=world.rev(id_)))
    assert "bob deleted b'first'" in world.faults


def test_what_a_rename_replaces_was_seen(world: World) -> None:
    _, _, id_ = world.shared("a", b"first")
    new = world.bob.create("b", b"second")
    world.bob.send(create(world.bob.root, "b", world.bob.id(new), b"second"))
    group = move(world.bob.id(new), (world.bob.root, "b"), (world.bob.root, "a"), replaced=id_)
    group |= {"seen": [{"inode": id_, "content_rev": world.rev(id_)}], "last": [id_]}
    world.ledger.removing("bob", world.bob.replica.lookup(ROOT, "a").ino)
    world.bob.send(group)
    world.ledger.raise_if_wrong()


# ---------------------------------------------------------------------------------------------------------- names and trees


def revived(world: World, id_: str, data: bytes) -> dict[str, object]:
    return {"entries": [entry(world.bob.root, "a", None, id_)], "inodes": [file_row(id_, data)]}


def test_a_revival_by_a_rename_is_right(world: World) -> None:
    here, there, id_ = world.shared("a", b"first")
    world.ledger.touching("bob", there)
    world.ada.unlink("a")
    world.ada.send(remove(world.ada.root, "a", id_, seen=world.rev(id_)))
    world.bob.send(revived(world, id_, b"first"))
    world.ledger.raise_if_wrong()
    assert here


def test_a_revival_by_a_device_where_nobody_did_anything_is_found(world: World) -> None:
    _, _, id_ = world.shared("a", b"first")
    world.ada.unlink("a")
    world.ada.send(remove(world.ada.root, "a", id_, seen=world.rev(id_)))
    world.bob.send(revived(world, id_, b"first"))
    assert "bob revived 'a'" in world.faults


def test_an_operation_that_was_sent_is_no_reason_for_a_revival_any_more(world: World) -> None:
    _, there, id_ = world.shared("a", b"first")
    world.ledger.touching("bob", there)
    with world.bob.database.transaction():  # clean: nothing of bob's is unknown to the service
        for table in ("entry_base", "inode_base"):
            world.bob.database.sql.execute(f"DELETE FROM {table}")
    world.ledger.before_merge("bob")
    world.ada.unlink("a")
    world.ada.send(remove(world.ada.root, "a", id_, seen=world.rev(id_)))
    world.bob.send(revived(world, id_, b"first"))
    assert "bob revived 'a'" in world.faults


def test_a_second_name_needs_a_link(world: World) -> None:
    _, there, id_ = world.shared("a", b"first")
    world.ledger.linking("bob", there)
    world.ledger.naming("bob", "b")
    world.bob.send({"entries": [entry(world.bob.root, "b", None, id_)]})
    world.ledger.raise_if_wrong()
    world.ledger.naming("bob", "c")
    world.bob.send({"entries": [entry(world.bob.root, "c", None, id_)]})
    assert "nobody linked it" in world.faults


def test_a_name_that_nobody_gave_is_found(world: World) -> None:
    _, _, id_ = world.shared("a", b"first")
    world.ledger.touching("bob", world.bob.replica.lookup(ROOT, "a").ino)
    world.bob.send(move(id_, (world.bob.root, "a"), (world.bob.root, "a (conflicted copy, bob, 2026-11-25)")))
    world.ledger.raise_if_wrong()
    world.bob.send(create(world.bob.root, "odd", "0f" * 16, b"first"))
    assert "the name 'odd', which nobody asked for" in world.faults


def test_a_content_that_nobody_wrote_is_found(world: World) -> None:
    world.ledger.naming("bob", "a")
    world.bob.send(create(world.bob.root, "a", "0f" * 16, b"out of nowhere"))
    assert "the service holds b'out of nowhere'" in world.faults


def test_what_is_no_tree_is_found(world: World) -> None:
    """The service would refuse it, so its rows are written by hand."""
    folder = world.ada.create("d", None)
    world.ada.send(mkdir(world.ada.root, "d", world.ada.id(folder)))
    world.ledger.raise_if_wrong()
    rows, names = world.ledger.served.news()
    world.ledger.served.take(rows, names | {(bytes.fromhex(world.ada.id(folder)), "e"): bytes.fromhex(world.ada.id(folder))})
    assert world.ledger.served.tree.faults()


def test_a_sound_service_is_sound(world: World) -> None:
    world.shared("a", b"first")
    assert world.ledger.served.tree.faults() == []
    assert world.ledger.served.problems() == []


# -------------------------------------------------------------------------------------------------------- what is promised


def found(world: World) -> set[bytes]:
    return {world.ledger.content(m) for manifests in world.ledger.served.versions().values() for m in manifests}


def test_what_was_closed_must_be_found(world: World) -> None:
    ino, _, _ = world.shared("a", b"first")
    world.ada.write(ino, b"second")
    assert world.ledger.history.lost(found(world)) == [id_of(b"second")]


def test_what_was_replaced_before_it_was_sent_need_not_be_found(world: World) -> None:
    ino, _, id_ = world.shared("a", b"first")
    world.ada.write(ino, b"second")
    world.ada.write(ino, b"third")
    assert world.ledger.history.lost(found(world)) == [id_of(b"third")]
    world.ada.send(write(id_, b"third", world.rev(id_)))
    assert world.ledger.history.lost(found(world)) == []


def test_what_was_deleted_before_it_was_sent_need_not_be_found(world: World) -> None:
    world.ada.create("a", b"first")
    world.ada.unlink("a")
    assert world.ledger.history.lost(set()) == []


def test_what_was_not_closed_need_not_be_found(world: World) -> None:
    ino, _, _ = world.shared("a", b"first")
    world.ada.write(ino, b"second", closed=False)
    assert world.ledger.history.lost(found(world)) == []


def test_what_was_deleted_here_goes_with_its_handle_also_if_another_edit_brought_the_file_back(world: World) -> None:
    """The service's content took the inode over, and the handle has a file that nobody sees (seed 64909)."""
    for name, deleted in (("a", True), ("b", False)):
        _, there, _ = world.shared(name, b"first")
        file = File(there)
        handle = world.ledger.opened("bob", file)
        if deleted:
            world.bob.unlink(name)
        data = f"bob's {name}".encode()
        handle.write(0, data)
        file.ino = None
        handle.kept()
        handle.released()
        assert (id_of(data) in world.ledger.history.lost(found(world))) != deleted


def test_a_crash_leaves_what_was_closed_or_something_written_since(world: World) -> None:
    ino, _, id_ = world.shared("a", b"first")
    world.ada.write(ino, b"second")
    world.ada.write(ino, b"3RD", closed=False)
    world.ledger.device_crashed("ada")
    world.ledger.device_started("ada", world.ada.path)
    assert world.ledger.sees("ada", ino) == {id_of(b"second"), EMPTY, id_of(b"3RD")}
    world.ada.send(write(id_, b"3RDond", world.rev(id_)))  # overwritten in its place, and the new size not yet recorded
    world.ledger.raise_if_wrong()
    assert world.ledger.history.lost(found(world)) == []
    world.ada.send(write(id_, b"3RDxnd", world.rev(id_)))
    assert "which nobody wrote" in world.faults


def test_what_a_crash_left_is_written_over_by_who_was_interrupted(world: World) -> None:
    ino, _, id_ = world.shared("a", b"first")
    world.ada.write(ino, b"second")
    world.ada.write(ino, b"3RD", closed=False)
    world.ledger.device_crashed("ada")
    world.ledger.device_started("ada", world.ada.path)
    world.ada.write(ino, b"new")  # without a look at it
    world.ada.send(write(id_, b"3RDond", world.rev(id_)))  # from a draft of before the crash
    world.ada.send(write(id_, b"new", world.rev(id_)))
    world.ledger.raise_if_wrong()


def test_a_read_shows_what_was_written(world: World) -> None:
    ino, _, _ = world.shared("a", b"first")
    handle = world.ledger.opened("ada", File(ino))
    world.ledger.check_read(handle, b"first")
    world.ledger.raise_if_wrong()
    world.ledger.check_read(handle, b"firsT")
    with pytest.raises(Violation):
        world.ledger.raise_if_wrong()


def test_a_read_after_a_crash_settles_what_it_is(world: World) -> None:
    ino, _, _ = world.shared("a", b"first")
    world.ada.write(ino, b"second")
    world.ada.write(ino, b"third", closed=False)
    world.ledger.device_crashed("ada")
    world.ledger.device_started("ada", world.ada.path)
    handle = world.ledger.opened("ada", File(ino))
    assert handle.uncertain
    world.ledger.check_read(handle, b"second")
    assert not handle.uncertain
    world.ledger.check_read(handle, b"third")
    assert world.faults


def test_a_name_that_was_not_sent_when_the_home_was_backed_up_may_be_given_twice(world: World) -> None:
    """It is given again, though it was moved meanwhile (seed 61711)."""
    here, _, id_ = world.shared("a", b"first")
    for name in ("b", "c"):
        world.ledger.naming("ada", name)
    world.ledger.linking("ada", here)
    world.ada.replica.link(here, ROOT, "b")
    backup = world.ledger.device_backed_up("ada")
    root = world.ada.root
    for group in ({"entries": [entry(root, "b", None, id_)]}, move(id_, (root, "b"), (root, "c"))):
        world.ada.send(group)
    world.ledger.device_restored("ada", backup)
    world.ada.send({"entries": [entry(root, "b", None, id_)]})
    world.ledger.raise_if_wrong()
    for name in ("d", "e"):
        world.ledger.naming("ada", name)
        world.ada.send({"entries": [entry(root, name, None, id_)]})
    assert "nobody linked it" in world.faults


def test_a_restored_home_loses_only_what_it_wrote_since(world: World) -> None:
    ino, _, _ = world.shared("a", b"first")
    world.ada.write(ino, b"before")
    backup = world.ledger.device_backed_up("ada")
    world.ada.create("b", b"after")
    world.bob.create("c", b"bob's")
    world.ledger.device_restored("ada", backup)
    assert world.ledger.history.lost(found(world)) == [id_of(b"before"), id_of(b"bob's")]


def test_a_backup_of_a_home_with_an_open_file_holds_what_a_crash_would_leave(world: World) -> None:
    ino, _, _ = world.shared("a", b"first")
    world.ada.write(ino, b"second")
    world.ada.write(ino, b"third", closed=False)
    backup = world.ledger.device_backed_up("ada")
    world.ledger.device_crashed("ada")
    world.ledger.device_restored("ada", backup)
    world.ledger.device_started("ada", world.ada.path)
    handle = world.ledger.opened("ada", File(ino))
    assert handle.uncertain
    world.ledger.check_read(handle, b"second")
    world.ledger.raise_if_wrong()


def test_a_deletion_that_was_under_way_when_the_home_was_restored_is_right(world: World) -> None:
    _, _, id_ = world.shared("a", b"first")
    backup = world.ledger.device_backed_up("ada")
    world.ada.unlink("a")
    world.ledger.device_restored("ada", backup)
    world.ada.send(remove(world.ada.root, "a", id_, seen=world.rev(id_)))
    assert world.faults == ""


# ------------------------------------------------------------------------------------------------------------------ copies


def copy_is_judged(world: World, ino: int, data: bytes) -> str:
    manifest = world.ledger.served.tree.rows[world.ada.tree.id_of(ino)].manifest_id
    world.ledger.check_copy("ada", ino, manifest)
    assert world.ledger.served.read(manifest or b"") == data
    return world.faults


def test_a_copy_beside_another_edit_is_right(world: World) -> None:
    here, there, id_ = world.shared("a", b"first")
    world.ada.write(here, b"ada's")
    world.bob.write(there, b"bob's")
    world.bob.send(write(id_, b"bob's", world.rev(id_)))
    assert copy_is_judged(world, here, b"bob's") == ""


def test_a_copy_of_what_was_edited_further_is_found(world: World) -> None:
    here, _, _ = world.shared("a", b"first")
    world.ada.write(here, b"second")
    assert "though one of them replaced the other" in copy_is_judged(world, here, b"first")


def test_a_copy_of_what_was_made_from_a_lost_content_is_right_beside_that_one(world: World) -> None:
    """Another device sent it again to the restored service, after this one had taken what that has as its base (seed 57619)."""
    here, _, id_ = world.shared("a", b"first")
    world.ada.write(here, b"second")
    world.ada.send(write(id_, b"second", world.rev(id_)))
    world.ada.has(here, b"second")
    world.ada.write(here, b"third")
    base = "INSERT OR REPLACE INTO inode_base (ino, known, manifest_id) VALUES (?, 1, ?)"
    world.ada.database.sql.execute(base, (here, manifest_id(inline(b"first"))))
    world.ledger.service_restored()
    assert copy_is_judged(world, here, b"second") == ""
    world.ada.database.sql.execute(base, (here, manifest_id(inline(b"second"))))
    assert "though one of them replaced the other" in copy_is_judged(world, here, b"second")
    world.ledger.wrong.clear()
    world.ada.database.sql.execute(base, (here, manifest_id(inline(b"first"))))
    world.ledger.was_restored = False
    assert "though one of them replaced the other" in copy_is_judged(world, here, b"second")


def test_a_copy_beside_its_equal_is_found_once_the_drive_has_hashed_what_was_written_last(world: World) -> None:
    here, there, id_ = world.shared("a", b"first")
    world.ada.write(here, b"same")
    hash_drafts = "UPDATE draft SET sealed = 1, sha256 = x'01'"
    with world.ada.database.transaction():
        world.ada.database.sql.execute(hash_drafts)
        world.ada.contents.add_draft(here, len(b"same"), 0, b"", b"same", 0)
    world.bob.write(there, b"same")
    world.bob.send(write(id_, b"same", world.rev(id_)))
    assert copy_is_judged(world, here, b"same") == ""
    world.ada.database.sql.execute(hash_drafts)
    assert "though one of them replaced the other" in copy_is_judged(world, here, b"same")


def test_a_copy_of_an_emptied_file_remembers_what_was_seen_in_it(world: World) -> None:
    """The lower of two drafts went up before the upper one, which was empty since a crash (seed 30193)."""
    _, there, _ = world.shared("a", b"first")
    world.bob.write(there, b"")
    copy = world.bob.create("b", b"first")
    id_ = world.bob.id(copy)
    world.bob.send(create(world.bob.root, "b", id_, b"first"))
    world.ledger.copied("bob", there, copy, frozenset({EMPTY}))
    world.bob.send(write(id_, b"", world.rev(id_)))
    world.ledger.raise_if_wrong()


def test_a_copy_of_equal_contents_proves_nothing(world: World) -> None:
    """Who wrote the same as another device has not seen what that one saw."""
    history = History()
    first = history.write("ada", b"first", ())
    same = history.write("ada", b"same", {first})
    later = history.write("ada", b"later", {same})
    assert history.surely_descends(later, first)
    history.write("bob", b"same", ())
    assert history.descends(later, first)
    assert not history.surely_descends(later, first)


def test_a_crash_may_leave_what_was_there_before_a_patch() -> None:
    """What was written over the patch's bytes, and was cut off by the crash, is what the patch had replaced (seed 14021)."""
    history = History()
    before = history.write("ada", b"text\0\0\0\0", [])
    patched = history.write("ada", b"text, so", [before])
    written = history.write("ada", b"text\0\0\0\0 and more", [patched])
    history.contents[patched].promised = True
    assert history.lost({before}) == [patched]
    history.interrupted("ada", [patched, written])
    assert history.adopt(b"text\0\0\0\0") == before
    assert history.lost({before}) == []
