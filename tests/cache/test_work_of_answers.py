"""What is answered again and again on the event loop does not take the longer the more files there are.

Counted in steps of SQLite's machine, so that nothing depends on time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cache.clock import SystemClock, SystemRandomness
from cache.replica import Replica
from cache.store.database import Database
from cache.store.pending import PendingFile, PendingStore
from cache.store.tree import TreeStore
from remote.protocol import Kind

STEP = 10
"""SQLite's instructions that are counted as one."""


class Tree:
    """A replica with files that wait, written as rows."""

    def __init__(self, folder: Path) -> None:
        self.database = Database.open(folder / "replica.db")
        self.tree = TreeStore(self.database)
        self.tree.add_space(bytes(16), now_ns=1)
        self.replica = Replica(self.database, self.tree, SystemClock(), SystemRandomness())
        self.pending = PendingStore(self.database)
        self._made = 0

    def add(self, files: int, *, error: str | None = None) -> list[int]:
        inos = []
        with self.database.transaction():
            for number in range(self._made, self._made + files):
                ino = self.replica.create(1, f"file {number}", Kind.FILE, mode=0o644, uid=None, gid=None).ino
                self.database.sql.execute(
                    "INSERT INTO draft (ino, size, floor, extents, changed_ns, error) VALUES (?, ?, 0, x'', 0, ?)",
                    (ino, number, error),
                )
                inos.append(ino)
        self._made += files
        return inos

    def steps(self, work: Callable[[], object]) -> int:
        taken = 0

        def count() -> int:
            nonlocal taken
            taken += 1
            return 0

        self.database.sql.set_progress_handler(count, STEP)
        work()
        self.database.sql.set_progress_handler(None, 0)
        return taken


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path)
    yield tree
    tree.database.close()


@pytest.mark.parametrize("what", ["statfs", "the files that wait", "whether there are many"])
def test_it_does_not_grow_with_the_tree(tree: Tree, what: str) -> None:
    work: dict[str, Callable[[], object]] = {
        "statfs": tree.replica.usage,
        "the files that wait": lambda: tree.pending.files(20),
        "whether there are many": lambda: tree.pending.is_long(100),
    }
    tree.add(200)
    before = tree.steps(work[what])
    tree.add(4000)
    assert tree.steps(work[what]) <= before * 1.5 + 5


def test_files_with_errors_are_said_first(tree: Tree) -> None:
    first, *others = tree.add(3)
    failed = tree.add(2, error="no room")
    tree.database.sql.execute("INSERT INTO draft (ino, size, floor, extents, changed_ns) VALUES (?, 1000, 0, x'', 0)", (first,))
    wanted = [PendingFile(ino, size, "no room") for ino, size in zip(failed, (3, 4), strict=True)]
    wanted += [PendingFile(first, 1000, None), *(PendingFile(ino, size, None) for ino, size in zip(others, (1, 2), strict=True))]
    assert tree.pending.files(10) == wanted
    assert tree.pending.files(3) == wanted[:3]


def test_files_without_a_name_are_not_said(tree: Tree) -> None:
    tree.add(2)
    tree.replica.unlink(1, "file 0")
    assert [file.size for file in tree.pending.files(10)] == [1]
