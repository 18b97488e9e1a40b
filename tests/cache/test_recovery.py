"""What start-up makes of rows and files that do not fit, and what fsck finds and mends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cache import fsck
from cache.chunks import Chunks
from cache.clock import SystemClock, SystemRandomness
from cache.errors import NoEntry
from cache.extents import Extents, Held
from cache.fsck import FsckReport, Problem
from cache.model import Node
from cache.recovery import LOST, Recovered, Recovery
from cache.replica import EMPTY_MANIFEST_ID, Replica
from cache.store.content import ContentStore
from cache.store.database import Database
from cache.store.restart import RestartStore
from cache.store.schema import ROOT
from cache.store.tree import TreeStore
from remote.protocol import Kind


class Home:
    """The stores of one home, without anything that runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.drafts = folder / "drafts"
        self.drafts.mkdir(exist_ok=True)
        self.clock = SystemClock()
        self.database = Database.open(folder / "replica.db")
        self.tree = TreeStore(self.database)
        self.contents = ContentStore(self.database)
        self.replica = Replica(self.database, self.tree, self.clock, SystemRandomness())
        self.replica.drop_drafts = self.drop_drafts
        if self.tree.space_number(b"s" * 16) is None:
            with self.database.transaction():
                self.tree.add_space(b"s" * 16, now_ns=1)

    def drop_drafts(self, ino: int) -> None:
        for draft in self.contents.drop_drafts(ino):
            (self.drafts / str(draft)).unlink(missing_ok=True)

    def file(self, name: str, *, published: bool = True) -> Node:
        return self.replica.create(ROOT, name, Kind.FILE, mode=0o644, uid=None, gid=None, published=published)

    def draft(self, ino: int, data: bytes, *, in_row: bool = False) -> int:
        """A draft as `cache.drafts` leaves it."""
        extents = Extents()
        extents.put(0, len(data), Held.DATA)
        with self.database.transaction():
            id_ = self.contents.add_draft(ino, len(data), 0, extents.pack(), data if in_row else None, 1)
            self.contents.set_size(ino, len(data))
        if not in_row:
            (self.drafts / str(id_)).write_bytes(data)
        return id_

    def recover(self) -> Recovered:
        return Recovery(RestartStore(self.database), self.contents, self.tree, self.replica, self.drafts, self.clock).run()

    async def fsck(self, *, repair: bool = False) -> FsckReport:
        with closing(Chunks(self.folder / "cache", 2**30)) as chunks:
            return await fsck.run(self.database, self.drafts, chunks, repair=repair)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.database.close()


async def test_a_home_in_order_needs_nothing(home: Home) -> None:
    home.draft(home.file("large").ino, b"x" * 100_000)
    home.draft(home.file("small").ino, b"x", in_row=True)
    assert home.recover() == Recovered((), (), 0, 0)
    report = await home.fsck()
    assert report.problems == ()
    assert report.clean
    assert (report.inodes, report.drafts, report.manifests) == (3, 2, 1)


async def test_a_draft_that_lost_its_row_comes_back_as_a_file(home: Home, tmp_path: Path) -> None:
    (home.drafts / "7").write_bytes(b"seven")
    with (home.drafts / "40").open("wb") as sparse:
        sparse.seek(1_000_000)
        sparse.write(b"end")
    (home.drafts / "odd name").write_bytes(b"odd")
    (home.drafts / "9").touch()
    os.truncate(home.drafts / "9", 1_000_000)  # nothing was ever written to it
    (problem, *_) = (await home.fsck()).problems
    assert problem.rule == "files in drafts/ have rows"

    recovered = home.recover()

    assert [path.split("/")[0] for path in recovered.surfaced] == ["Recovered files"] * 3
    assert not (home.drafts / "9").exists()
    node = home.replica.resolve("Recovered files/draft 7")
    assert (node.kind, node.size) == (Kind.FILE, 5)
    (draft,) = home.contents.drafts(node.ino)
    assert (home.drafts / str(draft.id)).read_bytes() == b"seven"
    (large,) = home.contents.drafts(home.replica.resolve("Recovered files/draft 40").ino)
    assert large.size == 1_000_003
    assert Extents.unpack(large.extents).data_bytes < 10_000
    assert (await home.fsck()).problems == ()
    assert home.recover() == Recovered((), (), 0, 0)


async def test_recovered_files_never_take_anothers_place(home: Home) -> None:
    home.file("Recovered files")
    (home.drafts / "1").write_bytes(b"one")
    assert home.recover().surfaced == ("Recovered files 2/draft 1",)
    home.database.sql.execute("DELETE FROM draft")
    home.database.sql.execute("UPDATE sqlite_sequence SET seq = 0 WHERE name = 'draft'")
    assert home.recover().surfaced == ("Recovered files 2/draft 1 (2)",)


async def test_the_file_of_a_draft_that_was_acknowledged_goes(home: Home) -> None:
    """The transaction was committed, and the process ended before the file was unlinked."""
    id_ = home.draft(home.file("a").ino, b"x" * 100_000)
    home.contents.drop_draft(id_)
    kept = home.draft(home.file("b").ino, b"b", in_row=True)
    (home.drafts / str(kept)).write_bytes(b"left by a spill that was interrupted")
    assert home.recover() == Recovered((), (), 0, 2)
    assert list(home.drafts.iterdir()) == []
    assert [row.data for row in home.contents.drafts(home.replica.resolve("b").ino)] == [b"b"]


async def test_drafts_survive_a_new_replica(home: Home, tmp_path: Path) -> None:
    """The person moved a damaged replica away, as the message says."""
    home.draft(home.file("a").ino, b"a" * 100_000)
    home.database.close()
    (tmp_path / "replica.db").rename(tmp_path / "damaged")
    again = Home(tmp_path)
    assert len(again.recover().surfaced) == 1
    assert again.replica.resolve("Recovered files/draft 1").size == 100_000
    home.database = again.database


@pytest.mark.parametrize("keep", [None, 10])
async def test_a_draft_that_lost_its_bytes_is_an_error_that_is_shown(home: Home, keep: int | None) -> None:
    node = home.file("a")
    path = home.drafts / str(home.draft(node.ino, b"x" * 100_000))
    if keep is None:
        path.unlink()
    else:
        os.truncate(path, keep)
    assert home.recover().damaged == (node.ino,)
    assert [row.error for row in home.contents.drafts(node.ino)] == [LOST]
    report = await home.fsck(repair=True)
    assert [problem.rule for problem in report.problems] == ["drafts have their files"]
    assert not report.clean


async def test_a_file_that_was_never_closed_keeps_its_name(home: Home) -> None:
    node = home.file("created, then a crash", published=False)
    assert home.recover().published == 1
    content = home.contents.content(node.ino)
    assert content is not None
    assert content.manifest_id == EMPTY_MANIFEST_ID
    assert home.recover().published == 0
    assert (await home.fsck()).problems == ()


async def test_what_was_deleted_while_open_is_swept(home: Home) -> None:
    node = home.file("a")
    home.draft(node.ino, b"x" * 100_000)
    home.replica.unlink(ROOT, "a")
    home.recover()
    with pytest.raises(NoEntry):
        home.replica.node(node.ino)
    assert list(home.drafts.iterdir()) == []
    assert (await home.fsck()).problems == ()


@pytest.mark.parametrize(
    ("damage", "rule", "repaired"),
    [
        ("UPDATE inode SET nlink = 5 WHERE kind = 'file'", "link counts are right", True),
        ("UPDATE inode SET size = 5 WHERE kind = 'file'", "sizes are those of the content", True),
        ("INSERT OR REPLACE INTO entry_base SELECT parent, name, ino, 0 FROM entry", "no shadow equals its name", True),
        ("INSERT INTO entry (parent, name, ino) VALUES (1, 'ghost', 99)", "every name points at an inode", True),
        ("INSERT INTO entry (parent, name, ino) VALUES (3, 'x', 2)", None, False),
        ("UPDATE entry SET parent = 2 WHERE name = 'd'", "every folder with a name hangs below a root", False),
        ("INSERT INTO entry (parent, name, ino) VALUES (1, 'd2', 2)", "a folder has one name", False),
        ("UPDATE entry SET name = 'a/b' WHERE name = 'f'", "names are names", False),
        ("UPDATE inode SET xattrs = '{]' WHERE kind = 'file'", "extended attributes can be read", False),
        ("UPDATE manifest SET data = x'0102'", "manifests can be read", False),
        ("UPDATE manifest SET data = x'0100010000000000000041'", "manifests have their hash", False),
        ("INSERT INTO inode_base (ino, known) VALUES (50, 0)", "every shadow has its inode", True),
        ("INSERT INTO pin VALUES (77)", "pins are on inodes", True),
        ("UPDATE space SET commit_number = 3, commit_body = '{'", "the outstanding commit can be read", False),
        ("INSERT INTO staged_entry VALUES (1, 'n', 88, 1, 1)", "staged rows speak of known inodes", False),
        (
            "INSERT INTO draft (ino, size, floor, extents, data, changed_ns) VALUES (1, 0, 0, x'', x'', 1)",
            "drafts belong to files",
            False,
        ),
        (
            "INSERT INTO draft (ino, size, floor, extents, data, changed_ns) VALUES (3, 0, 0, x'00', x'', 1)",
            "drafts can be read",
            False,
        ),
    ],
)
async def test_fsck_finds_what_is_wrong(home: Home, damage: str, rule: str | None, repaired: bool) -> None:
    folder = home.replica.create(ROOT, "d", Kind.DIRECTORY, mode=0o755, uid=None, gid=None)
    file = home.file("f")
    assert (folder.ino, file.ino) == (2, 3)
    assert (await home.fsck()).problems == ()
    home.database.sql.execute(damage)
    found = (await home.fsck()).problems
    assert found
    if rule is not None:
        assert rule in [problem.rule for problem in found]
    mended = await home.fsck(repair=True)
    assert mended.clean is repaired
    if repaired:
        assert (await home.fsck()).problems == ()


async def test_damage_of_the_file_itself_is_found(home: Home, tmp_path: Path) -> None:
    for number in range(300):
        home.file(f"file {number}")
    home.database.checkpoint()
    with (tmp_path / "replica.db").open("r+b") as file:
        file.seek(2048 * 12)
        file.write(os.urandom(4096))
    report = await home.fsck(repair=True)
    assert [problem.rule for problem in report.problems] == ["the replica's file is sound"]
    assert not report.clean
    assert isinstance(report.problems[0], Problem)
