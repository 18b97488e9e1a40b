"""Names and attributes: POSIX's rules case by case, and the replica held against a plain tree of dicts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from cache.errors import (
    AttributeTooLarge,
    CacheError,
    DirectoryNotEmpty,
    EntryExists,
    InvalidMove,
    InvalidName,
    IsADirectory,
    NameTooLong,
    NoEntry,
    NoSuchAttribute,
    NotADirectory,
)
from cache.model import AttributeUpdate, Node, RenameMode
from cache.replica import EMPTY_MANIFEST_ID, Replica, unpushed_changes
from cache.store import check
from cache.store.content import ContentStore, pack_split
from cache.store.database import Database
from cache.store.schema import ROOT
from cache.store.tree import BaseRow, TreeStore
from remote.manifest import Split
from remote.protocol import Kind


class StepClock:
    """Every look at it is a new moment."""

    def __init__(self) -> None:
        self.now = 1000

    def wall_ns(self) -> int:
        self.now += 1
        return self.now

    def monotonic(self) -> float:
        return self.now / 1e9


class CountingRandomness:
    def __init__(self) -> None:
        self.count = 0

    def bytes(self, count: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(count, "big")

    def float(self) -> float:
        return 0.5


class Home:
    def __init__(self, folder: Path) -> None:
        self.database = Database.open(folder / "replica.db")
        self.tree = TreeStore(self.database)
        self.clock = StepClock()
        with self.database.transaction():
            self.tree.add_space(b"s" * 16, now_ns=self.clock.wall_ns())
        self.replica = Replica(self.database, self.tree, self.clock, CountingRandomness())

    def acknowledge(self) -> None:
        """What accepted pushes do: every base becomes the local state."""
        with self.database.transaction():
            for entry in self.tree.dirty_entries(1):
                self.tree.set_entry_states(entry.parent, entry.name, base=entry.local, rev=1, local=entry.local)
            for ino in self.tree.dirty_inodes(1):
                row = self.tree.inode(ino)
                assert row is not None
                columns = (row.mode, row.uid, row.gid, row.mtime_ns, row.xattrs, row.manifest_id, row.manifest_size, row.sha256)
                base = BaseRow(*columns)
                self.tree.set_inode_states(ino, base=base, rev=1, content_rev=1, local=row)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    assert list(check.find(home.database.sql)) == []
    home.database.close()


@pytest.fixture
def replica(home: Home) -> Replica:
    return home.replica


def make(replica: Replica, parent: int, name: str, kind: Kind = Kind.FILE, **more: object) -> Node:
    mode = 0o755 if kind is Kind.DIRECTORY else 0o644
    published = kind is Kind.FILE
    return replica.create(parent, name, kind, **{"mode": mode, "uid": None, "gid": None, "published": published, **more})  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------------- case by case


def test_what_was_created_is_found(replica: Replica) -> None:
    node = make(replica, ROOT, "file")
    assert replica.lookup(ROOT, "file") == replica.node(node.ino) == node
    assert (node.kind, node.mode, node.size, node.nlink) == (Kind.FILE, 0o644, 0, 1)
    assert node.atime_ns == node.mtime_ns == node.ctime_ns == replica.node(ROOT).mtime_ns
    assert replica.resolve("/file") == node
    assert replica.path_of(node.ino) == "file"
    assert replica.path_of(ROOT) == ""


def test_names_that_no_folder_may_hold(replica: Replica) -> None:
    for bad in ("", ".", "..", "a/b", "a\0b", "\ud800"):
        with pytest.raises(InvalidName):
            make(replica, ROOT, bad)
    for long in ("x" * 256, "ü" * 128):
        with pytest.raises(NameTooLong):
            make(replica, ROOT, long)
        with pytest.raises(NameTooLong):
            replica.lookup(ROOT, long)
    longest = make(replica, ROOT, "ü" * 127 + "x")
    assert replica.lookup(ROOT, "ü" * 127 + "x") == longest


def test_a_new_file_has_no_content_unless_it_is_published(home: Home, replica: Replica) -> None:
    created, made = make(replica, ROOT, "created", published=False), make(replica, ROOT, "made")
    contents = ContentStore(home.database)
    rows = [contents.content(node.ino) for node in (created, made)]
    assert [row and row.manifest_id for row in rows] == [None, EMPTY_MANIFEST_ID]
    assert contents.manifest(EMPTY_MANIFEST_ID) is not None


def test_symbolic_links_and_devices(replica: Replica) -> None:
    link = make(replica, ROOT, "link", Kind.SYMLINK, target="zü")
    assert (replica.read_link(link.ino), link.size) == ("zü", 3)
    device = make(replica, ROOT, "dev", Kind.CHARACTER, device_number=0x102)
    assert device.device_number == 0x102
    with pytest.raises(InvalidName):
        replica.read_link(device.ino)


def test_a_set_gid_folder_gives_its_group_away(replica: Replica) -> None:
    folder = make(replica, ROOT, "d", Kind.DIRECTORY, mode=0o2775, gid=50)
    assert make(replica, folder.ino, "f", gid=7).gid == 50
    inner = make(replica, folder.ino, "d", Kind.DIRECTORY, gid=7)
    assert (inner.gid, inner.mode) == (50, 0o2755)


def test_hard_links(replica: Replica) -> None:
    node = make(replica, ROOT, "a")
    linked = replica.link(node.ino, ROOT, "b")
    assert (linked.ino, linked.nlink) == (node.ino, 2)
    assert linked.ctime_ns > node.ctime_ns
    with pytest.raises(EntryExists):
        replica.link(node.ino, ROOT, "b")
    assert replica.unlink(ROOT, "a") == node.ino
    assert replica.node(node.ino).nlink == 1
    replica.unlink(ROOT, "b")
    assert replica.node(node.ino).nlink == 0
    with pytest.raises(NoEntry):
        replica.link(node.ino, ROOT, "c")


def test_a_rename_between_names_of_one_file_does_nothing(replica: Replica) -> None:
    node = make(replica, ROOT, "a")
    replica.link(node.ino, ROOT, "b")
    before = replica.node(ROOT)
    assert replica.rename(ROOT, "a", ROOT, "b", RenameMode.REPLACE) is None
    assert [listed.name for listed in replica.list_entries(ROOT, 0, 10)] == ["a", "b"]
    assert replica.node(ROOT) == before


def test_nothing_is_made_in_a_deleted_folder(replica: Replica) -> None:
    folder = make(replica, ROOT, "d", Kind.DIRECTORY)
    file = make(replica, ROOT, "f")
    replica.rmdir(ROOT, "d")
    for refused in (
        lambda: make(replica, folder.ino, "x"),
        lambda: replica.link(file.ino, folder.ino, "x"),
        lambda: replica.rename(ROOT, "f", folder.ino, "x", RenameMode.REPLACE),
        lambda: replica.unlink(folder.ino, "x"),
    ):
        with pytest.raises(NoEntry):
            refused()
    with pytest.raises(NotADirectory):
        make(replica, file.ino, "x")


def test_a_save_by_rename_keeps_the_split_of_what_it_replaces(home: Home, replica: Replica) -> None:
    old, new = make(replica, ROOT, "report"), make(replica, ROOT, "report.tmp")
    with home.database.transaction():
        home.tree.update_inode(old.ino, split=pack_split(Split(1, 2, 3)))
    assert replica.rename(ROOT, "report.tmp", ROOT, "report", RenameMode.REPLACE) == old.ino
    content = ContentStore(home.database).content(new.ino)
    assert content is not None
    assert content.split == Split(1, 2, 3)


def test_times_of_a_move(replica: Replica) -> None:
    a, b = (make(replica, ROOT, name, Kind.DIRECTORY) for name in "ab")
    moved, replaced = make(replica, a.ino, "x"), make(replica, b.ino, "y")
    replica.rename(a.ino, "x", b.ino, "y", RenameMode.REPLACE)
    now = replica.node(moved.ino).ctime_ns
    assert now > moved.ctime_ns
    assert replica.node(moved.ino).mtime_ns == moved.mtime_ns
    assert replica.node(replaced.ino).ctime_ns == now
    assert {replica.node(folder.ino).mtime_ns for folder in (a, b)} == {now}
    assert replica.node(ROOT).mtime_ns < now


def test_setting_attributes(replica: Replica) -> None:
    node = make(replica, ROOT, "a")
    assert replica.set_attributes(node.ino, AttributeUpdate()) == node
    changed = replica.set_attributes(node.ino, AttributeUpdate(mode=0o600, uid=7, gid=8, atime_ns=1, mtime_ns=-5))
    assert (changed.mode, changed.uid, changed.gid, changed.atime_ns, changed.mtime_ns) == (0o600, 7, 8, 1, -5)
    assert changed.ctime_ns > node.ctime_ns
    assert replica.set_attributes(node.ino, AttributeUpdate(uid=None, ctime_ns=3)).ctime_ns == 3
    with pytest.raises(NoEntry):
        replica.set_attributes(999, AttributeUpdate(mode=0))


def test_extended_attributes(replica: Replica) -> None:
    ino = make(replica, ROOT, "a").ino
    replica.set_xattr(ino, "user.a", b"\x00\xff", False, False)
    assert replica.get_xattr(ino, "user.a") == b"\x00\xff"
    with pytest.raises(EntryExists):
        replica.set_xattr(ino, "user.a", b"", create=True)
    with pytest.raises(NoSuchAttribute):
        replica.set_xattr(ino, "user.b", b"", replace=True)
    with pytest.raises(AttributeTooLarge):
        replica.set_xattr(ino, "user.b", bytes(64 * 1024))
    assert replica.list_xattrs(ino) == ["user.a"]
    replica.remove_xattr(ino, "user.a")
    for absent in (replica.get_xattr, replica.remove_xattr):
        with pytest.raises(NoSuchAttribute):
            absent(ino, "user.a")


def test_a_pass_over_a_changing_folder_sees_what_stays_once(replica: Replica) -> None:
    for number in range(300):
        make(replica, ROOT, f"old {number}")
    seen: list[str] = []
    cookie, step = 0, 0
    while page := replica.list_entries(ROOT, cookie, 7):
        cookie = page[-1].cookie
        seen += [listed.name for listed in page]
        step += 1
        if step < 30:
            make(replica, ROOT, f"new {step}")
            if step % 3 == 0:
                replica.unlink(ROOT, f"old {299 - step}")
            replica.rename(ROOT, f"new {step}", ROOT, f"old {step}", RenameMode.REPLACE)
    stays = [f"old {number}" for number in range(300) if number < 250]
    assert all(seen.count(name) == 1 for name in stays if name.startswith("old"))
    assert len(seen) == len(set(seen))


def test_what_nobody_names_or_holds_is_swept(home: Home, replica: Replica) -> None:
    held, gone = make(replica, ROOT, "held"), make(replica, ROOT, "gone")
    known = make(replica, ROOT, "known")
    dropped: list[int] = []
    replica.drop_drafts = dropped.append
    replica.is_held = lambda ino: ino == held.ino
    home.acknowledge()
    temporary = make(replica, ROOT, "temporary")
    for name in ("held", "gone", "known", "temporary"):
        replica.unlink(ROOT, name)
    with home.database.transaction():
        for name in ("held", "gone"):
            home.tree.set_entry_states(ROOT, name, base=None, rev=2, local=None)
    assert replica.sweep() is None
    assert dropped == [gone.ino, temporary.ino]
    assert replica.node(held.ino).nlink == replica.node(known.ino).nlink == 0
    for ino in dropped:
        with pytest.raises(NoEntry):
            replica.node(ino)


def test_every_change_wakes_the_push(replica: Replica) -> None:
    woken: list[int] = []
    replica.on_local_change = woken.append
    make(replica, ROOT, "a")
    replica.rename(ROOT, "a", ROOT, "b", RenameMode.REPLACE)
    replica.unlink(ROOT, "b")
    assert woken == [1, 1, 1]


def test_changes_that_exist_only_here_are_counted(home: Home, replica: Replica, tmp_path: Path) -> None:
    assert unpushed_changes(tmp_path) == 0
    assert unpushed_changes(tmp_path / "no such home") == 0
    make(replica, ROOT, "a")
    assert unpushed_changes(tmp_path) == 2  # the file, and the folder whose mtime changed
    home.acknowledge()
    assert unpushed_changes(tmp_path) == 0
    ContentStore(home.database).add_draft(replica.lookup(ROOT, "a").ino, 0, 0, b"", b"", 1)
    assert unpushed_changes(tmp_path) == 1


# ------------------------------------------------------------------------------------------------- held against a model


@dataclass
class Thing:
    """An inode of the model."""

    kind: Kind
    mode: int
    children: dict[str, int] = field(default_factory=dict)


NAMES = st.sampled_from(["a", "b", "c", "ü"])
Dump = dict[str, tuple[str, int, int]]


class ReplicaAgainstModel(RuleBasedStateMachine):
    """The model answers first: with a result or the class of an error. The replica must do the same, and afterwards hold the
    same tree, with every invariant of its rows; and its base must be the tree as it was when it was last acknowledged."""

    inodes = Bundle("inodes")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.home = Home(Path(self.folder.name))
        self.replica = self.home.replica
        self.things = {ROOT: Thing(Kind.DIRECTORY, 0o755)}
        self.base: dict[tuple[int, str], int] = {}

    def teardown(self) -> None:
        self.home.database.close()
        self.folder.cleanup()

    @initialize(target=inodes)
    def root(self) -> int:
        return ROOT

    # ------------------------------------------------------------------------------------------- what the model knows

    def entries(self) -> dict[tuple[int, str], int]:
        return {(ino, name): child for ino, thing in self.things.items() for name, child in thing.children.items()}

    def links(self, ino: int) -> int:
        thing = self.things[ino]
        names = sum(child == ino for child in self.entries().values())
        if thing.kind is not Kind.DIRECTORY:
            return names
        return (
            2 + sum(self.things[child].kind is Kind.DIRECTORY for child in thing.children.values()) if names or ino == ROOT else 0
        )

    def refused_parent(self, parent: int) -> type[CacheError] | None:
        if self.things[parent].kind is not Kind.DIRECTORY:
            return NotADirectory
        return NoEntry if self.links(parent) == 0 else None

    def is_above(self, folder: int, below: int) -> bool:
        while below != ROOT:
            if below == folder:
                return True
            parents = [parent for (parent, _), child in self.entries().items() if child == below]
            if not parents:
                return False
            below = parents[0]
        return folder == ROOT

    # ----------------------------------------------------------------------------------------------------------- rules

    @rule(target=inodes, parent=inodes, name=NAMES, kind=st.sampled_from([Kind.FILE, Kind.DIRECTORY, Kind.DIRECTORY, Kind.FIFO]))
    def create(self, parent: int, name: str, kind: Kind) -> object:
        error = self.refused_parent(parent) or (EntryExists if name in self.things[parent].children else None)
        if error:
            with pytest.raises(error):
                make(self.replica, parent, name, kind)
            return multiple()
        node = make(self.replica, parent, name, kind, mode=0o700)
        assert node.ino not in self.things
        self.things[node.ino] = Thing(kind, 0o700)
        self.things[parent].children[name] = node.ino
        return node.ino

    @rule(ino=inodes, parent=inodes, name=NAMES)
    def link(self, ino: int, parent: int, name: str) -> None:
        error = self.refused_parent(parent)
        if error is None and self.things[ino].kind is Kind.DIRECTORY:
            error = IsADirectory
        if error is None and self.links(ino) == 0:
            error = NoEntry
        if error is None and name in self.things[parent].children:
            error = EntryExists
        if error:
            with pytest.raises(error):
                self.replica.link(ino, parent, name)
            return
        assert self.replica.link(ino, parent, name).ino == ino
        self.things[parent].children[name] = ino

    @rule(parent=inodes, name=NAMES, as_folder=st.booleans())
    def remove(self, parent: int, name: str, as_folder: bool) -> None:
        remove = self.replica.rmdir if as_folder else self.replica.unlink
        child = self.things[parent].children.get(name)
        error = self.refused_parent(parent) or (NoEntry if child is None else None)
        if error is None:
            assert child is not None
            is_folder = self.things[child].kind is Kind.DIRECTORY
            if is_folder != as_folder:
                error = NotADirectory if as_folder else IsADirectory
            elif self.things[child].children:
                error = DirectoryNotEmpty
        if error:
            with pytest.raises(error):
                remove(parent, name)
            return
        assert remove(parent, name) == child
        del self.things[parent].children[name]

    @rule(old=st.tuples(inodes, NAMES), new=st.tuples(inodes, NAMES), mode=st.sampled_from(list(RenameMode)))
    def rename(self, old: tuple[int, str], new: tuple[int, str], mode: RenameMode) -> None:
        moved, target = (self.things[parent].children.get(name) for parent, name in (old, new))
        error = self.refused_parent(old[0]) or (NoEntry if moved is None else None) or self.refused_parent(new[0])
        if error is None and moved != target:
            assert moved is not None
            error = self.refused_move(old[0], new[0], moved, target, mode)
        elif error is None and mode is RenameMode.NO_REPLACE:
            error = EntryExists
        if error:
            with pytest.raises(error):
                self.replica.rename(*old, *new, mode)
            return
        lost = self.replica.rename(*old, *new, mode)
        if moved == target:
            assert lost is None
            return
        assert moved is not None
        assert lost == (None if mode is RenameMode.EXCHANGE else target)
        del self.things[old[0]].children[old[1]]
        self.things[new[0]].children[new[1]] = moved
        if mode is RenameMode.EXCHANGE:
            assert target is not None
            self.things[old[0]].children[old[1]] = target

    def refused_move(self, old: int, new: int, moved: int, target: int | None, mode: RenameMode) -> type[CacheError] | None:
        thing = self.things[moved]
        if target is not None and mode is RenameMode.NO_REPLACE:
            return EntryExists
        if thing.kind is Kind.DIRECTORY and self.is_above(moved, new):
            return InvalidMove
        if mode is RenameMode.EXCHANGE:
            if target is None:
                return NoEntry
            return InvalidMove if self.things[target].kind is Kind.DIRECTORY and self.is_above(target, old) else None
        if target is None:
            return None
        if self.things[target].kind is Kind.DIRECTORY:
            if thing.kind is not Kind.DIRECTORY:
                return IsADirectory
            return DirectoryNotEmpty if self.things[target].children else None
        return NotADirectory if thing.kind is Kind.DIRECTORY else None

    @rule(ino=inodes, mode=st.sampled_from([0o600, 0o755]))
    def change_mode(self, ino: int, mode: int) -> None:
        if self.links(ino):
            assert self.replica.set_attributes(ino, AttributeUpdate(mode=mode)).mode == mode
            self.things[ino].mode = mode

    @rule()
    def acknowledge(self) -> None:
        self.home.acknowledge()
        self.base = self.entries()

    # ------------------------------------------------------------------------------------------------------ invariants

    @invariant()
    def local_is_the_model(self) -> None:
        for ino, thing in self.things.items():
            node = self.replica.node(ino)
            assert (node.kind, node.mode, node.nlink) == (thing.kind, thing.mode, self.links(ino))
            assert {listed.name: listed.node.ino for listed in self.replica.list_entries(ino, 0, 100)} == thing.children

    @invariant()
    def base_is_what_was_acknowledged(self) -> None:
        tree = self.home.tree
        for ino in self.things:
            names = {name: child for (parent, name), child in self.base.items() if parent == ino}
            assert dict(tree.base_children(ino)) == names
            assert set(tree.base_names(ino)) == {key for key, child in self.base.items() if child == ino}
        local = self.entries()
        dirty = {key for key in local.keys() | self.base.keys() if local.get(key) != self.base.get(key)}
        assert {(entry.parent, entry.name) for entry in tree.dirty_entries(1)} == dirty

    @invariant()
    def rows_are_consistent(self) -> None:
        assert list(check.find(self.home.database.sql)) == []


TestReplicaAgainstModel = ReplicaAgainstModel.TestCase
TestReplicaAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
