"""Which number an inode has: decided at every reply with an entry, by what the kernel holds and what is open."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cache.model import Node
from cache.store.schema import ROOT
from fs.errors import Superseded
from fs.inodes import Inodes
from remote.protocol import Kind


@dataclass
class Opened:
    ino: int | None


def node(ino: int, mtime_ns: int = 0) -> Node:
    return Node(ino, Kind.FILE, 0o644, None, None, 0, 1, 0, mtime_ns, 0, 0)


@pytest.fixture
def inodes() -> Inodes:
    return Inodes()


def test_a_number_is_the_ino_as_long_as_nothing_happens(inodes: Inodes) -> None:
    assert inodes.remember(node(5)) == 5
    assert inodes.remember(node(5)) == 5
    assert inodes.ino(5) == 5


def test_the_root_is_always_held(inodes: Inodes) -> None:
    assert inodes.forget(ROOT, 1) is None
    assert inodes.ino(ROOT) == ROOT


def test_a_number_is_held_until_every_lookup_is_forgotten(inodes: Inodes) -> None:
    inodes.remember(node(5))
    inodes.remember(node(5))
    assert inodes.forget(5, 1) is None
    assert inodes.is_held(5)
    assert inodes.forget(5, 1) == 5
    assert not inodes.is_held(5)
    with pytest.raises(Superseded):
        inodes.ino(5)


def test_replaced_content_keeps_the_number_if_the_kernel_forgot_it(inodes: Inodes) -> None:
    inodes.remember(node(5))
    inodes.content_replaced(5)
    inodes.forget(5, 1)
    assert inodes.remember(node(5)) == 5


def test_replaced_content_gets_a_new_number_while_the_kernel_holds_the_old(inodes: Inodes) -> None:
    inodes.remember(node(5))
    inodes.content_replaced(5)
    number = inodes.remember(node(5))
    assert number != 5
    assert inodes.remember(node(5)) == number
    assert inodes.held_number(5) == number
    assert inodes.ino(5) == 5, "the old number still answers for attributes"


def test_each_replacement_under_the_kernel_gets_another_number(inodes: Inodes) -> None:
    numbers = []
    for _ in range(3):
        numbers.append(inodes.remember(node(5)))
        inodes.content_replaced(5)
    assert len(set(numbers)) == 3


def test_forgetting_the_old_number_leaves_the_new_one(inodes: Inodes) -> None:
    inodes.remember(node(5))
    inodes.content_replaced(5)
    number = inodes.remember(node(5))
    inodes.forget(5, 1)
    assert inodes.held_number(5) == number
    inodes.forget(number, 1)
    assert inodes.held_number(5) is None
    assert inodes.remember(node(5)) == 5


def test_a_detached_file_keeps_its_number_and_the_inode_gets_a_new_one(inodes: Inodes) -> None:
    file = Opened(5)
    inodes.remember(node(5))
    inodes.opened(5, file)
    file.ino = None
    inodes.content_replaced(5)
    with pytest.raises(Superseded):
        inodes.ino(5)
    assert inodes.held_number(5) is None
    assert inodes.remember(node(5)) != 5


def test_a_conflicted_copy_that_grew_out_of_an_open_file_has_the_number_of_that_file(inodes: Inodes) -> None:
    file = Opened(5)
    inodes.remember(node(5))
    inodes.opened(5, file)
    file.ino = None
    inodes.content_replaced(5)
    file.ino = 9
    inodes.follow_file(5)
    assert inodes.remember(node(9)) == 5, "the kernel's pages of number 5 are the copy's"
    assert inodes.remember(node(5)) not in (5, 9)


def test_a_merge_that_moves_the_drafts_of_an_open_file_moves_its_number(inodes: Inodes) -> None:
    file = Opened(5)
    inodes.remember(node(5))
    inodes.opened(5, file)
    file.ino = 9
    inodes.content_replaced(5)
    assert inodes.held_number(9) == 5
    assert inodes.remember(node(5)) != 5


def test_an_open_file_whose_times_alone_changed_keeps_its_number(inodes: Inodes) -> None:
    inodes.remember(node(5))
    inodes.opened(5, Opened(5))
    inodes.content_replaced(5)
    assert inodes.remember(node(5)) == 5
    inodes.closed(5)
    assert inodes.remember(node(5)) != 5, "once it is closed, the next look-up shows the new times"


def test_a_file_is_followed_until_its_last_handle_is_closed(inodes: Inodes) -> None:
    file = Opened(5)
    inodes.remember(node(5))
    inodes.opened(5, file)
    inodes.opened(5, file)
    inodes.closed(5)
    assert inodes.held(5).file is file
    inodes.closed(5)
    assert inodes.held(5).file is None


def test_the_kernel_believes_the_mtime_of_its_first_look(inodes: Inodes) -> None:
    inodes.remember(node(5, mtime_ns=1))
    inodes.remember(node(5, mtime_ns=2))
    assert inodes.held(5).mtime_ns == 1
