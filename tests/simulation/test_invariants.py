"""The invariants of a healed simulation: they hold where all is well, and each notices what it is there for."""

from __future__ import annotations

import pytest

from cache.recovery import LOST
from cache.store.schema import ROOT
from tests.simulation.coverage import expected, rare
from tests.simulation.invariants import check_contents, check_local, check_same_tree, check_service, unquiet
from tests.simulation.toys import World
from tests.support.wire import remove, write


@pytest.fixture
def level(world: World) -> World:
    """Ada and bob have one file, as the service has it, and nothing to say."""
    world.shared("a", b"first")
    for toy in (world.ada, world.bob):
        settle(world, toy.name)
    return world


def settle(world: World, name: str) -> None:
    """As if everything of the device were acknowledged and merged, and its attributes were the service's."""
    toy = world.ada if name == "ada" else world.bob
    execute = toy.database.sql.execute
    with toy.database.transaction():
        for table in ("entry_base", "inode_base", "draft"):
            execute(f"DELETE FROM {table}")
        execute("UPDATE space SET listing = 0, listed = 1, caught_up = 1, snapshot = ?", (world.ledger.served.revision,))
        for id_, row in world.ledger.served.tree.rows.items():
            where = "WHERE ino = (SELECT ino FROM identity WHERE id = ?)"
            execute(f"UPDATE inode SET mode = ?, mtime_ns = ? {where}", (row.mode, row.mtime_ns, id_))


def change(world: World, statement: str, *values: object) -> None:
    with world.bob.database.transaction():
        world.bob.database.sql.execute(statement, values)


def test_where_all_is_well_nothing_is_found(level: World) -> None:
    for device in ("ada", "bob"):
        check_local(level.ledger, device)
        check_same_tree(level.ledger, device)
        assert unquiet(level.ledger, device) == []
    check_service(level.ledger)
    check_contents(level.ledger, collected=False)
    level.ledger.raise_if_wrong()


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM entry", "missing ['a']"),
        ("UPDATE entry SET name = 'b'", "extra ['b']"),
        ("UPDATE inode SET mode = 1 WHERE kind = 'file'", "bob shows 'a'"),
        ("UPDATE inode SET mtime_ns = 1 WHERE kind = 'file'", "bob shows 'a'"),
        ("UPDATE inode SET manifest_id = NULL WHERE kind = 'file'", "another content in 'a'"),
    ],
)
def test_another_tree_than_the_services_is_found(level: World, statement: str, found: str) -> None:
    change(level, statement)
    check_same_tree(level.ledger, "bob")
    assert found in level.faults


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM inode WHERE kind = 'file'", "points at nothing"),
        ("UPDATE entry SET parent = 77", "lies in what is no folder"),
        ("UPDATE inode SET nlink = 2 WHERE kind = 'file'", "number of links"),
        ("UPDATE inode SET kind = 'directory' WHERE nlink = 1", "cannot be reached"),
    ],
)
def test_local_rows_that_are_no_tree_are_found(level: World, statement: str, found: str) -> None:
    change(level, statement)
    if "cannot" in found:
        change(level, "UPDATE entry SET parent = ino")
    check_local(level.ledger, "bob")
    assert found in level.faults


def test_a_draft_without_its_bytes_is_found(level: World) -> None:
    level.bob.create("b", b"second")
    change(level, "UPDATE draft SET error = ?", LOST)
    check_local(level.ledger, "bob")
    assert "not on the disk any more" in level.faults


def test_a_folder_with_two_names_is_found(level: World) -> None:
    folder = level.bob.create("d", None)
    change(level, "INSERT INTO entry (parent, name, ino) VALUES (?, 'e', ?)", ROOT, folder)
    check_local(level.ledger, "bob")
    assert "a folder has two names" in level.faults


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE space SET commit_body = x'00'", "a commit is outstanding"),
        ("UPDATE space SET caught_up = 0", "the listing is not finished"),
        ("UPDATE space SET snapshot = 0", "the service knows more"),
        ("INSERT INTO staged_entry VALUES (1, 'x', NULL, 9, 1)", "pages are not merged"),
        ("INSERT INTO entry_base VALUES (1, 'a', NULL, 0)", "names are not sent"),
        ("INSERT INTO inode_base (ino, known) SELECT ino, 1 FROM inode WHERE kind = 'file'", "attributes are not sent"),
        (
            "INSERT INTO draft (ino, size, floor, extents, changed_ns) SELECT ino, 0, 0, x'', 0 FROM inode WHERE kind = 'file'",
            "contents are not sent",
        ),
    ],
)
def test_what_still_has_to_be_exchanged_is_not_quiet(level: World, statement: str, found: str) -> None:
    change(level, statement)
    assert unquiet(level.ledger, "bob") == [found]


def test_a_promised_content_that_is_nowhere_is_found(level: World) -> None:
    level.bob.create("b", b"only here")
    check_contents(level.ledger, collected=False)
    assert "lost: b'only here'" in level.faults


def test_a_content_that_the_service_lost_is_found(level: World) -> None:
    ino = level.ada.replica.lookup(ROOT, "a").ino
    level.ada.write(ino, b"second")
    level.ada.send(write(level.ada.id(ino), b"second", level.rev(level.ada.id(ino))))
    versions = level.ledger.served.versions()
    level.ledger.served.versions = dict  # type: ignore[method-assign]
    check_contents(level.ledger, collected=False)
    assert "the service had b'first'" in level.faults
    assert versions


def test_what_was_deleted_may_be_collected(level: World) -> None:
    ino = level.ada.replica.lookup(ROOT, "a").ino
    level.ada.unlink("a")
    level.ada.send(remove(level.ada.root, "a", level.ada.id(ino), seen=level.rev(level.ada.id(ino))))
    level.ledger.served.versions = dict  # type: ignore[method-assign]
    level.ledger.served.tree.rows.clear()
    check_contents(level.ledger, collected=True)
    level.ledger.raise_if_wrong()
    check_contents(level.ledger, collected=False)
    assert "the service had b'first'" in level.faults


def test_what_comes_up_too_rarely_is_said() -> None:
    seen_in = dict.fromkeys(expected(), 20)
    assert rare(seen_in, 2000) == []
    assert rare(seen_in | {"fault: crash": 19}, 2000) == ["fault: crash"]
    del seen_in["merge: fixpoint: a cycle is undone"]
    assert rare(seen_in, 100) == ["merge: fixpoint: a cycle is undone"]
