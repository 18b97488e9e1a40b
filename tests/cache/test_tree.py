"""Shadows, link counts and purging: the bookkeeping of the tree store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cache.store import check
from cache.store.database import Database
from cache.store.schema import ROOT
from cache.store.tree import BaseRow, InodeRow, TreeStore, decode_xattrs, encode_xattrs
from remote.protocol import Kind

SPACE_ID = b"s" * 16


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[TreeStore]:
    database = Database.open(tmp_path / "replica.db")
    tree = TreeStore(database)
    with database.transaction():
        tree.add_space(SPACE_ID, now_ns=1)
    yield tree
    assert list(check.find(database.sql)) == []
    database.close()


def make(tree: TreeStore, id_: str, kind: Kind = Kind.FIFO, *, at: tuple[int, str] | None = None) -> int:
    with tree.database.transaction():
        return tree.insert_inode(id_.encode().ljust(16), 1, kind, mode=0o644, uid=None, gid=None, now_ns=5, name=at)


def put(tree: TreeStore, parent: int, name: str, ino: int | None) -> None:
    with tree.database.transaction():
        tree.put_entry(parent, name, ino)


def base_of(row: InodeRow) -> BaseRow:
    return BaseRow(row.mode, row.uid, row.gid, row.mtime_ns, row.xattrs, row.manifest_id, row.manifest_size, row.sha256)


def row_of(tree: TreeStore, ino: int) -> InodeRow:
    row = tree.inode(ino)
    assert row is not None
    return row


def acknowledge(tree: TreeStore, rev: int) -> None:
    """What an accepted push does: the base becomes the local state."""
    with tree.database.transaction():
        for entry in tree.dirty_entries(1):
            tree.set_entry_states(entry.parent, entry.name, base=entry.local, rev=rev, local=entry.local)
        for ino in tree.dirty_inodes(1):
            row = row_of(tree, ino)
            tree.set_inode_states(ino, base=base_of(row), rev=rev, content_rev=rev, local=row)


def test_the_root_is_there_and_clean(tree: TreeStore) -> None:
    assert row_of(tree, ROOT).kind is Kind.DIRECTORY
    assert tree.id_of(ROOT) == SPACE_ID
    assert tree.space_of(ROOT) == 1
    assert tree.is_root(ROOT)
    assert tree.dirty_entries(1) == []
    assert tree.dirty_inodes(1) == []


def test_a_new_name_is_dirty_until_it_is_acknowledged(tree: TreeStore) -> None:
    ino = make(tree, "a", at=(ROOT, "a"))
    assert [(e.parent, e.name, e.base, e.local) for e in tree.dirty_entries(1)] == [(ROOT, "a", None, ino)]
    assert tree.dirty_inodes(1) == [ino]
    assert tree.base_entry(ROOT, "a") is None
    assert tree.base_inode(ino) is None
    acknowledge(tree, 7)
    assert tree.dirty_entries(1) == []
    assert tree.dirty_inodes(1) == []
    assert tree.base_entry(ROOT, "a") == ino
    assert tree.entry_rev(ROOT, "a") == 7
    assert row_of(tree, ino).rev == 7
    assert tree.base_inode(ino) == base_of(row_of(tree, ino))


def test_what_comes_and_goes_between_pushes_leaves_nothing(tree: TreeStore) -> None:
    ino = make(tree, "a", at=(ROOT, "a"))
    put(tree, ROOT, "a", None)
    assert tree.dirty_entries(1) == []
    assert tree.nameless(0, 10) == [ino]
    with tree.database.transaction():
        assert tree.purge(ino)
    assert tree.inode(ino) is None
    assert tree.ino_of(b"a".ljust(16)) is None


def test_a_name_that_goes_and_comes_back_is_clean_and_keeps_its_revision(tree: TreeStore) -> None:
    ino = make(tree, "a", at=(ROOT, "a"))
    acknowledge(tree, 3)
    put(tree, ROOT, "a", None)
    assert [(e.base, e.local, e.rev) for e in tree.dirty_entries(1)] == [(ino, None, 3)]
    assert tree.base_names(ino) == [(ROOT, "a")]
    put(tree, ROOT, "a", ino)
    assert tree.dirty_entries(1) == []
    assert tree.entry_rev(ROOT, "a") == 3


def test_base_and_local_are_two_trees(tree: TreeStore) -> None:
    folder = make(tree, "d", Kind.DIRECTORY, at=(ROOT, "d"))
    a, b = make(tree, "a", at=(ROOT, "a")), make(tree, "b", at=(ROOT, "b"))
    acknowledge(tree, 1)
    put(tree, folder, "a", a)
    put(tree, ROOT, "a", b)
    put(tree, ROOT, "b", None)
    assert sorted(tree.children(ROOT)) == [("a", b), ("d", folder)]
    assert sorted(tree.base_children(ROOT)) == [("a", a), ("b", b), ("d", folder)]
    assert tree.base_children(folder) == []
    assert (tree.names(a), tree.base_names(a)) == ([(folder, "a")], [(ROOT, "a")])
    assert (tree.names(b), tree.base_names(b)) == ([(ROOT, "a")], [(ROOT, "b")])


def test_attributes_have_a_base_and_times_of_this_machine_have_none(tree: TreeStore) -> None:
    ino = make(tree, "a", at=(ROOT, "a"))
    acknowledge(tree, 1)
    before = tree.base_inode(ino)
    with tree.database.transaction():
        tree.update_inode(ino, ctime_ns=99, atime_ns=98)
    assert tree.dirty_inodes(1) == []
    with tree.database.transaction():
        tree.update_inode(ino, mode=0o600)
    assert tree.dirty_inodes(1) == [ino]
    assert tree.base_inode(ino) == before
    with tree.database.transaction():
        tree.update_inode(ino, mode=0o644)
    assert tree.dirty_inodes(1) == []


def test_an_edit_during_a_push_stays_dirty(tree: TreeStore) -> None:
    ino = make(tree, "a", at=(ROOT, "a"))
    sent = base_of(row_of(tree, ino))
    with tree.database.transaction():
        tree.update_inode(ino, mode=0o600)
        tree.set_inode_states(ino, base=sent, rev=4, content_rev=4, local=row_of(tree, ino))
    assert tree.dirty_inodes(1) == [ino]
    base = tree.base_inode(ino)
    assert base is not None
    assert base.mode == 0o644


def test_rows_of_a_listing_may_come_in_any_order(tree: TreeStore) -> None:
    with tree.database.transaction():
        folder, child, file = (tree.adopt(1, id_.encode().ljust(16)) for id_ in ("d", "c", "f"))
        assert tree.adopt(1, b"d".ljust(16)) == folder
        tree.set_entry_states(folder, "c", base=child, rev=2, local=child)
        tree.set_entry_states(folder, "f", base=file, rev=2, local=file)
        like = row_of(tree, ROOT)
        for ino, kind in ((child, Kind.DIRECTORY), (file, Kind.SYMLINK), (folder, Kind.DIRECTORY)):
            local = replace(like, ino=ino, kind=kind, target="t" if kind is Kind.SYMLINK else None)
            tree.set_inode_states(ino, base=base_of(local), rev=2, content_rev=0, local=local)
        tree.set_entry_states(ROOT, "d", base=folder, rev=2, local=folder)
    assert [row_of(tree, ino).nlink for ino in (ROOT, folder, child, file)] == [3, 3, 2, 1]
    assert tree.dirty_entries(1) == []
    assert tree.dirty_inodes(1) == []


def test_links_are_counted_through_moves(tree: TreeStore) -> None:
    a, b = (make(tree, name, Kind.DIRECTORY, at=(ROOT, name)) for name in "ab")
    inner = make(tree, "i", Kind.DIRECTORY, at=(a, "i"))
    file = make(tree, "f", at=(a, "f"))
    put(tree, b, "f", file)
    assert row_of(tree, file).nlink == 2
    put(tree, a, "i", None)  # as a merge may do it: nameless for a moment
    assert [row_of(tree, ino).nlink for ino in (a, b, inner)] == [2, 2, 0]
    put(tree, b, "i", inner)
    assert [row_of(tree, ino).nlink for ino in (ROOT, a, b, inner)] == [4, 2, 3, 2]
    put(tree, a, "f", None)
    assert row_of(tree, file).nlink == 1


def test_a_replaced_name_keeps_its_place_in_the_listing(tree: TreeStore) -> None:
    a, b, c = (make(tree, name, at=(ROOT, name)) for name in "abc")
    put(tree, ROOT, "a", c)
    assert tree.children(ROOT) == [("a", c), ("b", b), ("c", c)]
    assert row_of(tree, a).nlink == 0
    assert row_of(tree, c).nlink == 2


def test_nothing_that_is_still_spoken_of_is_purged(tree: TreeStore) -> None:
    ino = make(tree, "a", at=(ROOT, "a"))
    acknowledge(tree, 1)
    execute = tree.database.sql.execute
    with tree.database.transaction():
        assert not tree.purge(ROOT)
        assert not tree.purge(ino)
        tree.put_entry(ROOT, "a", None)
        assert not tree.purge(ino)  # the service still names it
        assert tree.nameless(0, 10) == []
        tree.set_entry_states(ROOT, "a", base=None, rev=2, local=None)
        assert tree.nameless(0, 10) == [ino]
        execute("UPDATE space SET commit_body = x'00'")
        assert not tree.purge(ino)  # an outstanding commit may speak of it
        execute("UPDATE space SET commit_body = NULL")
        assert tree.purge(ino)


def test_attributes_of_one_set_are_spelt_one_way() -> None:
    assert encode_xattrs({}) is None
    assert encode_xattrs({"user.b": b"\x00", "user.a": b"1"}) == encode_xattrs({"user.a": b"1", "user.b": b"\x00"})
    assert decode_xattrs(encode_xattrs({"user.a": b"\xff"})) == {"user.a": b"\xff"}
    assert decode_xattrs(None) == {}
