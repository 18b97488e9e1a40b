"""What the kernel is told of a change, and that only the worker thread tells it."""

from __future__ import annotations

import errno
import threading

import pytest

from cache.model import AttributesChanged, Change, ContentChanged, EntryChanged, Node
from cache.store.schema import ROOT
from fs.inodes import Inodes
from fs.invalidation import Invalidator, InvalidAttributes, InvalidEntry, Notice, notices
from remote.protocol import Kind

FOLDER, FILE, UNKNOWN = 2, 3, 4


@pytest.fixture
def inodes() -> Inodes:
    inodes = Inodes()
    for ino, kind in ((FOLDER, Kind.DIRECTORY), (FILE, Kind.FILE)):
        inodes.remember(Node(ino, kind, 0o755, None, None, 0, 1, 0, 0, 0, 0))
    return inodes


TABLE: list[tuple[str, list[Change], list[Notice]]] = [
    ("a new name", [EntryChanged(ROOT, "new", gone=False)], [InvalidEntry(ROOT, b"new"), InvalidAttributes(ROOT)]),
    (
        "a name that went",
        [EntryChanged(FOLDER, "old", gone=True), AttributesChanged(FILE)],
        [InvalidEntry(FOLDER, b"old"), InvalidAttributes(FOLDER), InvalidAttributes(FILE)],
    ),
    (
        "a move",
        [EntryChanged(ROOT, "a", gone=True), EntryChanged(FOLDER, "b", gone=False)],
        [InvalidEntry(ROOT, b"a"), InvalidEntry(FOLDER, b"b"), InvalidAttributes(ROOT), InvalidAttributes(FOLDER)],
    ),
    ("a mode", [AttributesChanged(FILE)], [InvalidAttributes(FILE)]),
    (
        "a content",
        [ContentChanged(FILE, ((ROOT, "one"), (FOLDER, "two")))],
        [InvalidEntry(ROOT, b"one"), InvalidEntry(FOLDER, b"two"), InvalidAttributes(FILE)],
    ),
    ("a folder that the kernel never saw", [EntryChanged(UNKNOWN, "x", gone=False), AttributesChanged(UNKNOWN)], []),
    (
        "many names in one folder",
        [EntryChanged(ROOT, "a", gone=False), EntryChanged(ROOT, "b", gone=False)],
        [InvalidEntry(ROOT, b"a"), InvalidEntry(ROOT, b"b"), InvalidAttributes(ROOT)],
    ),
]


@pytest.mark.parametrize(("changes", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_the_kernel_is_told(inodes: Inodes, changes: list[Change], expected: list[Notice]) -> None:
    assert notices(changes, inodes) == expected


def test_a_replaced_content_is_known_before_the_next_reply(inodes: Inodes) -> None:
    notices([ContentChanged(FILE, ((ROOT, "one"),))], inodes)
    assert inodes.held(FILE).superseded


class Listener:
    def __init__(self, refuse: int | None = None) -> None:
        self.heard: list[tuple[object, ...]] = []
        self.threads: set[int] = set()
        self._refuse = refuse

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        self._hear(parent, name)

    def invalidate_attributes(self, number: int) -> None:
        self._hear(number)

    def _hear(self, *what: object) -> None:
        self.heard.append(what)
        self.threads.add(threading.get_ident())
        if self._refuse is not None:
            raise OSError(self._refuse, "refused")


@pytest.mark.parametrize("refuse", [None, errno.ENOENT, errno.EIO])
def test_one_thread_tells_everything_in_order(inodes: Inodes, refuse: int | None) -> None:
    kernel = Listener(refuse)
    invalidator = Invalidator(inodes, kernel)
    invalidator.start()
    invalidator.tell([EntryChanged(ROOT, "a", gone=False)])
    invalidator.tell([EntryChanged(ROOT, "b", gone=False)])
    invalidator.stop(10.0)
    assert kernel.heard == [(ROOT, b"a"), (ROOT,), (ROOT, b"b"), (ROOT,)]
    assert len(kernel.threads) == 1
    assert threading.get_ident() not in kernel.threads
