"""Which changes become one group, which group goes first, and what is held back."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from cache.groups import GroupPlan, keeps_name, plan_groups
from cache.merge import Content, Key, State
from remote.protocol import Kind
from tests.support.replicas import ROOT, Tree

FOLDER = State(Kind.DIRECTORY)
FILE = State(Kind.FILE, content=Content(b"m", 1), content_rev=7)


class Changes:
    root = ROOT

    def __init__(self, base: dict[Key, int], local: dict[Key, int], states: dict[int, State], new: Iterable[int] = ()) -> None:
        known = {ino: state for ino, state in states.items() if ino not in set(new)}
        self.base = Tree(base, {ROOT: FOLDER, **known})
        self.local = Tree(local, {ROOT: FOLDER, **states})
        self.incomplete: set[int] = set()
        self.held: set[Key] = set()

    def is_complete(self, ino: int) -> bool:
        return ino not in self.incomplete

    def is_held(self, key: Key) -> bool:
        return key in self.held

    def dirty_keys_in(self, folder: int) -> list[Key]:
        return [key for key in self.dirty() if key[0] == folder]

    def dirty(self) -> list[Key]:
        keys = self.base.entries.keys() | self.local.entries.keys()
        return sorted(key for key in keys if self.base.holder(key) != self.local.holder(key))

    def plan(self) -> list[GroupPlan]:
        return list(plan_groups(self, self.dirty()))


def keys(plan: list[GroupPlan]) -> list[set[Key]]:
    return [{step.key for step in group.entries} for group in plan]


def test_independent_changes_are_groups_of_their_own() -> None:
    changes = Changes({}, {(ROOT, "a"): 2, (ROOT, "b"): 3}, {2: FILE, 3: FILE}, new=[2, 3])
    assert keys(changes.plan()) == [{(ROOT, "a")}, {(ROOT, "b")}]
    assert [group.full for group in changes.plan()] == [(2,), (3,)]


def test_entries_that_share_an_inode_are_one_group() -> None:
    moved = Changes({(ROOT, "a"): 2}, {(ROOT, "b"): 2}, {2: FILE})
    assert keys(moved.plan()) == [{(ROOT, "a"), (ROOT, "b")}]
    saved = Changes({(ROOT, "f"): 2}, {(ROOT, "f"): 3}, {2: FILE, 3: FILE}, new=[3])
    (group,) = saved.plan()
    assert group.full == (3,)
    assert group.seen == ((2, 7),)
    assert group.last == (2,)


def test_a_name_that_is_not_the_last_is_seen_but_not_last() -> None:
    changes = Changes({(ROOT, "a"): 2, (ROOT, "b"): 2}, {(ROOT, "a"): 2}, {2: FILE})
    (group,) = changes.plan()
    assert (group.seen, group.last) == (((2, 7),), ())


def test_a_new_folder_goes_before_what_is_in_it() -> None:
    local = {(ROOT, "z"): 9, (9, "y"): 8, (8, "f"): 2}
    changes = Changes({}, local, {9: FOLDER, 8: FOLDER, 2: FILE}, new=[9, 8, 2])
    assert keys(changes.plan()) == [{(ROOT, "z")}, {(9, "y")}, {(8, "f")}]


def test_an_emptied_folder_goes_after_what_was_in_it() -> None:
    base = {(ROOT, "p"): 2, (2, "q"): 3, (3, "f"): 4}
    changes = Changes(base, {}, {2: FOLDER, 3: FOLDER, 4: FILE})
    assert keys(changes.plan()) == [{(3, "f")}, {(2, "q")}, {(ROOT, "p")}]


def test_a_folder_moves_after_the_ancestor_that_it_moves_below() -> None:
    base = {(ROOT, "a"): 2, (2, "b"): 3, (ROOT, "c"): 4}
    local = {(ROOT, "x"): 4, (4, "a"): 2, (2, "b"): 3}
    changes = Changes(base, local, {2: FOLDER, 3: FOLDER, 4: FOLDER})
    assert keys(changes.plan()) == [{(ROOT, "c"), (ROOT, "x")}, {(ROOT, "a"), (4, "a")}]


def test_moves_that_need_each_other_are_one_group() -> None:
    """a/b becomes b/a: b leaves a, and a goes into b."""
    changes = Changes({(ROOT, "a"): 2, (2, "b"): 3}, {(ROOT, "b"): 3, (3, "a"): 2}, {2: FOLDER, 3: FOLDER})
    plan = changes.plan()
    assert [group for group in keys(plan) if (3, "a") in group]
    order = keys(plan)
    assert order.index(next(g for g in order if (ROOT, "b") in g)) <= order.index(next(g for g in order if (3, "a") in g))


def test_exchange_of_a_folder_with_its_grandchild_is_one_group() -> None:
    base = {(ROOT, "a"): 2, (2, "b"): 3, (3, "c"): 4, (ROOT, "d"): 5}
    local = {(ROOT, "a"): 4, (4, "x"): 2, (2, "b"): 3, (ROOT, "d"): 5, (3, "d"): 6}
    changes = Changes(base, local, {2: FOLDER, 3: FOLDER, 4: FOLDER, 5: FOLDER, 6: FOLDER}, new=[6])
    assert {(ROOT, "a"), (4, "x"), (3, "c")} in keys(changes.plan())


def test_new_files_without_their_bytes_are_held_with_all_that_depends_on_them() -> None:
    base = {(ROOT, "p"): 2, (2, "old"): 3}
    local = {(ROOT, "new"): 2, (2, "old"): 4, (ROOT, "other"): 5}
    changes = Changes(base, local, {2: FOLDER, 3: FILE, 4: FILE, 5: FILE}, new=[4, 5])
    changes.incomplete = {4}
    assert keys(changes.plan()) == [{(ROOT, "p"), (ROOT, "new")}, {(ROOT, "other")}]

    removed = Changes({(ROOT, "p"): 2, (2, "f"): 3}, {(ROOT, "f"): 4, (ROOT, "g"): 3}, {2: FOLDER, 3: FILE, 4: FILE}, new=[4])
    removed.incomplete = {4}
    assert keys(removed.plan()) == [{(2, "f"), (ROOT, "g")}, {(ROOT, "p")}]


def test_what_waits_for_a_held_group_is_held() -> None:
    """A folder cannot go while the file that leaves it is held in one group with an unfinished new one."""
    base = {(ROOT, "p"): 2, (2, "f"): 3, (ROOT, "x"): 4}
    local = {(ROOT, "x"): 3, (ROOT, "y"): 4, (ROOT, "z"): 5}
    base[ROOT, "z"] = 6
    local[ROOT, "w"] = 6
    changes = Changes(base, local, {2: FOLDER, 3: FILE, 4: FILE, 5: FILE, 6: FILE}, new=[5])
    changes.incomplete = {5}
    assert keys(changes.plan()) == [{(2, "f"), (ROOT, "x"), (ROOT, "y")}, {(ROOT, "p")}]


def test_what_a_guard_holds_back_stays_with_all_that_depends_on_it() -> None:
    base = {(ROOT, "p"): 2, (2, "f"): 3, (ROOT, "g"): 4}
    changes = Changes(base, {}, {2: FOLDER, 3: FILE, 4: FILE})
    changes.held = {(2, "f")}
    assert keys(changes.plan()) == [{(ROOT, "g")}]


def test_a_renamed_file_with_unfinished_content_is_not_held() -> None:
    changes = Changes({(ROOT, "a"): 2}, {(ROOT, "b"): 2}, {2: FILE})
    changes.incomplete = {2}
    assert keys(changes.plan()) == [{(ROOT, "a"), (ROOT, "b")}]
    assert keeps_name(changes, 2)


def test_a_file_kept_in_a_folder_that_the_service_removed_revives_the_folder_first() -> None:
    """The service has no name for the folder any more; the file's bytes are not there yet."""
    changes = Changes({}, {(ROOT, "p"): 2, (2, "f"): 3}, {2: FOLDER, 3: FILE}, new=[3])
    changes.incomplete = {3}
    (group,) = changes.plan()
    assert {step.key for step in group.entries} == {(ROOT, "p")}
    assert group.full == (2,)


def test_moving_a_folder_of_ten_thousand_files_is_one_small_group() -> None:
    inside = {(2, f"f{number}"): 10 + number for number in range(10_000)}
    states = {2: FOLDER, **{10 + number: FILE for number in range(10_000)}}
    changes = Changes({(ROOT, "a"): 2, **inside}, {(ROOT, "b"): 2, **inside}, states)
    (group,) = changes.plan()
    assert len(group.entries) == 2


def test_groups_are_found_as_far_as_they_are_asked_for() -> None:
    """Of a removed tree, the first groups come without all others being looked at."""
    base = {(ROOT, "p"): 2, **{(2, f"f{number}"): 10 + number for number in range(10_000)}}
    changes = Changes(base, {}, {2: FOLDER, **{10 + number: FILE for number in range(10_000)}})
    looked_at: set[int] = set()
    names = changes.base.names
    changes.base.names = lambda ino: looked_at.add(ino) or names(ino)  # type: ignore[method-assign, func-returns-value]
    assert len(list(islice(plan_groups(changes, [(ROOT, "p")]), 100))) == 100
    assert len(looked_at) < 300


def test_a_deep_chain_of_new_folders_needs_no_deep_stack() -> None:
    depth = 5_000
    local = {(number, "d"): number + 1 for number in range(1, depth)}
    changes = Changes({}, local, {number + 1: FOLDER for number in range(1, depth)}, new=range(2, depth + 1))
    order = [next(iter(group)) for group in keys(list(plan_groups(changes, [(depth - 1, "d")])))]
    assert order == [(number, "d") for number in range(1, depth)]


def test_the_root_keeps_its_name_and_an_unknown_inode_has_none_to_keep() -> None:
    changes = Changes({(ROOT, "a"): 2}, {(ROOT, "b"): 3}, {2: FILE, 3: FILE}, new=[3])
    assert keeps_name(changes, ROOT)
    assert not keeps_name(changes, 2)
    assert not keeps_name(changes, 3)
