"""The merge table of sync.md, row by row, and the rules of its fixpoint. Each row names base, service and local."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import pytest

from cache.merge import Content, Fate, Key, Merged, MergeImpossible, State, find_contacts, merge
from remote.copynames import CopyNames, read_copy_name
from remote.protocol import Kind
from tests.support.replicas import ROOT, Tree

COPIES = CopyNames("laptop", "2026-11-20")
FOLDER = State(Kind.DIRECTORY)
P, Q, F, G, H = 2, 3, 4, 5, 6  # folders and files of the examples


def copy_of(name: str) -> str:
    return COPIES.free_name(name, False, lambda _: False)


def content(text: str) -> Content:
    return Content(text.encode(), len(text), b"hash of " + text.encode())


def file(text: str = "old", **fields: object) -> State:
    return State(Kind.FILE, content=content(text), **fields)  # type: ignore[arg-type]


def written(size: int = 3) -> State:
    """A file with a draft that is still open."""
    return State(Kind.FILE, content=Content(None, size))


def tree(*rows: tuple[str | Key | list[Key], int, State], nameless: dict[int, State] | None = None) -> Tree:
    """`(name or key or keys, ino, state)` per inode; a bare name lies in the root."""
    result = Tree({}, {ROOT: FOLDER, **(nameless or {})})
    for keys, ino, state in rows:
        for key in [(ROOT, keys)] if isinstance(keys, str) else keys if isinstance(keys, list) else [keys]:
            result.entries[key] = ino
        result.states[ino] = state
    return result


@dataclass
class Result:
    entries: dict[Key, int]
    states: dict[int, State]
    merged: Merged


def merged_trees(base: Tree, service: Tree, local: Tree) -> Result:
    """Merge, and put the outcome together as the store does. New copies are numbered 100, 101..."""
    inodes = {ino for side in (base, service, local) for ino in side.states}
    keys = base.entries.keys() | service.entries.keys()
    changed_keys = [key for key in keys if base.holder(key) != service.holder(key)]
    changed = [ino for ino in inodes if base.state(ino) != service.state(ino)]

    def is_dirty(ino: int) -> bool:
        return base.state(ino) != local.state(ino) or base.names(ino) != local.names(ino)

    contacts = find_contacts(base, service, local, changed_keys, changed, ROOT, is_dirty)
    merged = merge(base, service, local, contacts, ROOT, COPIES.free_name)
    entries: dict[Key, int] = {}
    states: dict[int, State] = {}
    for ino in inodes:
        left_alone = base.names(ino) == service.names(ino)
        for key in merged.names.get(ino, local.names(ino) if left_alone else service.names(ino)):
            assert entries.setdefault(key, ino) == ino
        state = local.state(ino) if base.state(ino) == service.state(ino) else service.state(ino)
        states[ino] = merged.states.get(ino, state)  # type: ignore[arg-type]
    for number, copied in enumerate(merged.copies, 100):
        assert copied.key not in entries
        entries[copied.key] = number
    return Result(entries, states, merged)


# ----------------------------------------------------------------------------------------------- attributes and content


@pytest.mark.parametrize(
    ("base", "service", "local", "expected"),
    [
        pytest.param({"mode": 1}, {"mode": 2}, {"mode": 1}, {"mode": 2}, id="only the service changed it"),
        pytest.param({"mode": 1}, {"mode": 1}, {"mode": 3}, {"mode": 3}, id="only we changed it"),
        pytest.param({"mode": 1}, {"mode": 2}, {"mode": 3}, {"mode": 3}, id="both changed it: ours, and the last writer wins"),
        pytest.param({"mode": 1, "uid": 7}, {"mode": 2, "uid": 7}, {"mode": 1, "uid": 8}, {"mode": 2, "uid": 8}, id="by field"),
        pytest.param({"uid": 7}, {"uid": 7}, {"uid": None}, {"uid": None}, id="an owner that became the account"),
        pytest.param({"mtime_ns": 1}, {"mtime_ns": 5}, {"mtime_ns": 4}, {"mtime_ns": 4}, id="mtime is a field too"),
        pytest.param(
            {"xattrs": {"a": "1", "b": "1", "c": "1"}},
            {"xattrs": {"a": "2", "b": "1", "c": "1", "d": "1"}},
            {"xattrs": {"a": "1", "b": "3"}},
            {"xattrs": {"a": "2", "b": "3", "d": "1"}},
            id="each extended attribute is a field, and absence is a value",
        ),
    ],
)
def test_attributes(base: dict, service: dict, local: dict, expected: dict) -> None:
    trees = [tree(("f", F, file("old", **fields))) for fields in (base, service, local)]
    result = merged_trees(*trees)
    assert result.states[F] == file("old", **expected)


@pytest.mark.parametrize(
    ("service", "local", "fate", "kept"),
    [
        pytest.param(file("new"), file("old"), Fate.REPLACE, "new", id="L = S: the service's"),
        pytest.param(file("old"), file("mine"), Fate.KEEP, "mine", id="R = S: ours"),
        pytest.param(file("mine"), file("mine"), Fate.SETTLE, "mine", id="R = L: ours, which is the service's"),
        pytest.param(file("new"), file("mine"), Fate.COPY, "new", id="all differ: the service's, and a copy of ours"),
    ],
)
def test_content(service: State, local: State, fate: Fate, kept: str) -> None:
    result = merged_trees(tree(("f.txt", F, file("old"))), tree(("f.txt", F, service)), tree(("f.txt", F, local)))
    undecided = Fate.KEEP if service == file("old") else Fate.REPLACE
    assert result.merged.fates.get(F, undecided) is fate
    assert result.states[F].content == content(kept)
    copies = {copy_of("f.txt")} if fate is Fate.COPY else set()
    assert {name for _, name in result.entries} == {"f.txt"} | copies


def test_content_conflict_takes_the_services_attributes_and_leaves_ours_to_the_copy() -> None:
    base, service = tree(("f", F, file("old", mode=1))), tree(("f", F, file("new", mode=1)))
    result = merged_trees(base, service, tree(("f", F, file("mine", mode=3))))
    assert result.states[F] == file("new", mode=1)
    assert [(c.source, c.key) for c in result.merged.copies] == [(F, (ROOT, copy_of("f")))]


def test_equal_bytes_in_another_manifest_are_no_conflict() -> None:
    ours = State(Kind.FILE, content=replace(content("new"), manifest_id=b"cut in another way"))
    result = merged_trees(tree(("f", F, file("old"))), tree(("f", F, file("new"))), tree(("f", F, ours)))
    assert result.merged.fates[F] is Fate.SETTLE
    assert result.states[F].content == content("new")
    assert not result.merged.copies


def test_an_open_draft_equals_nothing() -> None:
    result = merged_trees(tree(("f", F, file("old"))), tree(("f", F, file("new"))), tree(("f", F, written())))
    assert result.merged.fates[F] is Fate.COPY
    assert not written().same_content(written())


def test_content_when_all_differ_and_the_service_deleted_the_file() -> None:
    service = tree(nameless={F: file("new")})
    result = merged_trees(tree(("f", F, file("old"))), service, tree(("f", F, file("mine"))))
    assert result.states[F].content == content("mine")
    assert result.merged.fates[F] is Fate.KEEP_BASE  # "new" was seen by nobody here, and may get a name again
    assert result.entries == {(ROOT, "f"): F}
    assert not result.merged.copies


def test_no_copy_of_a_content_that_has_no_name_here() -> None:
    result = merged_trees(tree(("f", F, file("old"))), tree(("f", F, file("new"))), tree(nameless={F: file("mine")}))
    assert result.states[F].content == content("new")
    assert result.entries == {(ROOT, "f"): F}
    assert not result.merged.copies


# -------------------------------------------------------------------------------------------------------------- names


def named(*names: str, state: State | None = None) -> Tree:
    state = state or file()
    keys = [(ROOT, name) for name in names]
    return tree((keys, F, state)) if names else tree(nameless={F: state})


@pytest.mark.parametrize(
    ("base", "service", "local", "expected"),
    [
        pytest.param("a", "a", "b", "b", id="moved here"),
        pytest.param("a", "b", "a", "b", id="moved there"),
        pytest.param("a", "a", "", "", id="removed here"),
        pytest.param("a", "", "a", "", id="removed there"),
        pytest.param("a", "ab", "ac", "abc", id="each linked another name"),
        pytest.param("ab", "b", "a", "b", id="each unlinked another name: nobody removed the file"),
        pytest.param("ab", "ab", "a", "a", id="a link removed here"),
        pytest.param("a", "b", "c", "b", id="both moved it: the service's move stays, ours is undone"),
        pytest.param("a", "b", "cd", "bd", id="both moved it, and we linked it: one addition is undone"),
        pytest.param("a", "b", "b", "b", id="both moved it to the same place"),
        pytest.param("", "b", "c", "b", id="both revived it: one name"),
        pytest.param("", "bc", "de", "bc", id="both revived it with its links: the service's names"),
        pytest.param("", "b", "cd", "bd", id="both revived it, and we linked it: one addition is undone"),
        pytest.param("a", "", "b", "b", id="moved here, removed there"),
        pytest.param("a", "b", "", "b", id="moved there, removed here"),
    ],
)
def test_names_of_a_file(base: str, service: str, local: str, expected: str) -> None:
    result = merged_trees(named(*base), named(*service), named(*local))
    assert result.entries == {(ROOT, name): F for name in expected}


def test_a_folder_with_two_names_has_the_services() -> None:
    sides = [tree(((ROOT, name), P, FOLDER)) for name in ("a", "b")]
    local = tree(("c", P, FOLDER))
    assert merged_trees(tree(nameless={P: FOLDER}), sides[0], local).entries == {(ROOT, "a"): P}
    assert merged_trees(sides[0], sides[1], local).entries == {(ROOT, "b"): P}


@pytest.mark.parametrize(
    ("service", "local", "expected"),
    [
        pytest.param(named(), named("a", state=file("mine")), {(ROOT, "a"): F}, id="our edit beats the service's deletion"),
        pytest.param(named(), named("a", state=written()), {(ROOT, "a"): F}, id="so does a draft that is still open"),
        pytest.param(named("a", state=file("new")), named(), {(ROOT, "a"): F}, id="the service's edit beats our deletion"),
        pytest.param(named("a", state=file(mode=0)), named(), {}, id="a change of attributes does not"),
    ],
)
def test_edit_beats_delete(service: Tree, local: Tree, expected: dict[Key, int]) -> None:
    assert merged_trees(named("a"), service, local).entries == expected


# -------------------------------------------------------------------------------------------------------- the fixpoint


def test_a_folder_removed_there_is_revived_for_a_file_made_here() -> None:
    base, service = tree(("p", P, FOLDER)), tree(nameless={P: FOLDER})
    result = merged_trees(base, service, tree(("p", P, FOLDER), ((P, "f"), F, file())))
    assert result.entries == {(ROOT, "p"): P, (P, "f"): F}


def test_all_ancestors_are_revived() -> None:
    base = tree(("p", P, FOLDER), ((P, "q"), Q, FOLDER), ((Q, "f"), F, file()))
    service = tree(nameless={P: FOLDER, Q: FOLDER, F: file()})
    local = tree(("p", P, FOLDER), ((P, "q"), Q, FOLDER), ((Q, "f"), F, file("mine")))
    assert merged_trees(base, service, local).entries == local.entries


def test_a_folder_removed_here_is_kept_for_a_file_made_there() -> None:
    base, local = tree(("p", P, FOLDER)), tree(nameless={P: FOLDER})
    service = tree(("p", P, FOLDER), ((P, "f"), F, file()))
    assert merged_trees(base, service, local).entries == service.entries


def test_a_revived_folder_has_the_services_name_first() -> None:
    base = tree(("p", P, FOLDER))
    service = tree(("moved", P, FOLDER), ((P, "f"), F, file()))
    assert merged_trees(base, service, tree(nameless={P: FOLDER})).entries == service.entries


def test_in_a_cycle_of_folders_our_move_is_undone() -> None:
    base = tree(("p", P, FOLDER), ("q", Q, FOLDER))
    service = tree(("p", P, FOLDER), ((P, "q"), Q, FOLDER))
    local = tree(((Q, "p"), P, FOLDER), ("q", Q, FOLDER))
    assert merged_trees(base, service, local).entries == service.entries


def test_a_folder_is_not_revived_for_a_move_that_is_undone() -> None:
    """Nor are those above it: nothing would lie in them."""
    base = tree(("p", P, FOLDER), ((P, "q"), Q, FOLDER), ((Q, "f"), F, FOLDER), ("g", G, FOLDER))
    service = tree(("g", G, FOLDER), ((G, "p"), P, FOLDER), nameless={Q: FOLDER, F: FOLDER})
    local = tree(("p", P, FOLDER), ((P, "q"), Q, FOLDER), ((Q, "f"), F, FOLDER), ((F, "g"), G, FOLDER))
    assert merged_trees(base, service, local).entries == service.entries


def test_folders_of_one_name_are_merged_all_the_way_down() -> None:
    service = tree(("p", P, FOLDER), ((P, "sub"), Q, FOLDER), ((Q, "theirs"), F, file()))
    local = tree(("p", 10, FOLDER), ((10, "sub"), 11, FOLDER), ((11, "ours"), G, file()))
    result = merged_trees(tree(), service, local)
    assert result.entries == {**service.entries, (Q, "ours"): G}


def test_a_folder_that_is_live_on_the_service_is_renamed_not_merged() -> None:
    base = tree(("p", P, FOLDER))
    service = tree(("p", P, FOLDER), ("q", Q, FOLDER))
    local = tree(("q", P, FOLDER))
    copied = COPIES.free_name("q", True, lambda _: False)
    assert merged_trees(base, service, local).entries == {(ROOT, "q"): Q, (ROOT, copied): P}


def test_an_equal_new_file_of_the_same_name_is_dropped() -> None:
    result = merged_trees(tree(), tree(("f", F, file("same"))), tree(("f", G, file("same"))))
    assert result.entries == {(ROOT, "f"): F}
    assert result.merged.names[G] == frozenset()


def test_equal_links_are_one_and_other_links_are_renamed() -> None:
    def link(target: str) -> State:
        return State(Kind.SYMLINK, target=target)

    assert merged_trees(tree(), tree(("l", F, link("x"))), tree(("l", G, link("x")))).entries == {(ROOT, "l"): F}
    result = merged_trees(tree(), tree(("l", F, link("x"))), tree(("l", G, link("y"))))
    assert result.entries == {(ROOT, "l"): F, (ROOT, copy_of("l")): G}


@pytest.mark.parametrize("mine", [file("mine"), written(), FOLDER], ids=["file", "open file", "folder"])
def test_of_two_inodes_under_one_name_ours_is_renamed(mine: State) -> None:
    result = merged_trees(tree(), tree(("f", F, file("new"))), tree(("f", G, mine)))
    copied = COPIES.free_name("f", mine.is_folder, lambda _: False)
    assert result.entries == {(ROOT, "f"): F, (ROOT, copied): G}


def test_copy_names_are_free_in_base_service_and_local() -> None:
    first, second = copy_of("f"), COPIES.free_name("f", False, lambda name: name == copy_of("f"))
    service = tree(("f", F, file("new")), (first, H, file("another")))
    local = tree(("f", G, file("mine")), (second, 11, file("mine too")))
    result = merged_trees(tree(), service, local)
    assert result.entries[ROOT, COPIES.free_name("f", False, {first, second}.__contains__)] == G


def test_content_copies_are_named_last() -> None:
    """A renamed inode takes its name before a copy of a content that wants the same one."""
    base, service = tree(("f", F, file("old"))), tree(("f", F, file("new")), ("g", H, file("theirs")))
    local = tree(("f", F, file("mine")), (copy_of("f"), G, file("ours")))
    result = merged_trees(base, service, local)
    assert result.entries[ROOT, copy_of("f")] == G
    assert result.merged.copies[0].key == (ROOT, COPIES.free_name("f", False, lambda name: name == copy_of("f")))


def test_a_copy_whose_folder_went_away_lands_where_the_file_is() -> None:
    base = tree(("p", P, FOLDER), ((P, "f"), F, file("old")))
    service = tree(("f", F, file("new")), nameless={P: FOLDER})
    result = merged_trees(base, service, tree(("p", P, FOLDER), ((P, "f"), F, file("mine"))))
    assert result.entries == {(ROOT, "f"): F, (ROOT, copy_of("f")): 100}


def test_a_service_whose_folders_lie_in_each_other_is_refused_without_a_change() -> None:
    broken = tree(((Q, "p"), P, FOLDER), ((P, "q"), Q, FOLDER))
    local = tree(("p", P, FOLDER), ("q", Q, FOLDER), ((Q, "f"), F, FOLDER))
    with pytest.raises(MergeImpossible):
        merged_trees(tree(("p", P, FOLDER), ("q", Q, FOLDER)), broken, local)


def test_ten_thousand_colliding_files_do_not_take_quadratic_time() -> None:
    count = 10_000
    service, local = tree(), tree()
    for number in range(count):
        service.entries[ROOT, f"f{number}"], service.states[10 + number] = 10 + number, file("theirs")
        local.entries[ROOT, f"f{number}"], local.states[10 + count + number] = 10 + count + number, file("ours")
    started = time.process_time()
    result = merged_trees(tree(), service, local)
    assert len(result.entries) == 2 * count
    assert time.process_time() - started < 20  # seconds; quadratic would be hours


# ----------------------------------------------------------------------------------------------------------- copy names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("report.odt", "report (conflicted copy, laptop, 2026-11-20).odt"),
        ("Makefile", "Makefile (conflicted copy, laptop, 2026-11-20)"),
        ("a.tar.gz", "a (conflicted copy, laptop, 2026-11-20).tar.gz"),
        (".profile", ".profile (conflicted copy, laptop, 2026-11-20)"),
        ("v1.2 final", "v1.2 final (conflicted copy, laptop, 2026-11-20)"),
        ("r (conflicted copy, desk, 2025-01-02, 3).odt", "r (conflicted copy, laptop, 2026-11-20).odt"),
    ],
)
def test_copy_name(name: str, expected: str) -> None:
    assert copy_of(name) == expected
    assert read_copy_name(copy_of(name))


def test_folders_have_no_extension() -> None:
    name = COPIES.free_name("photos.2026", True, lambda _: False)
    assert name == "photos.2026 (conflicted copy, laptop, 2026-11-20)"
    assert read_copy_name(name)


def test_copy_names_are_numbered_and_fit_into_an_entry() -> None:
    taken: set[str] = set()
    for _ in range(12):
        taken.add(COPIES.free_name("ü" * 120 + ".docx", False, taken.__contains__))
    assert len(taken) == 12
    for name in taken:
        assert len(name.encode()) <= 255
        assert name.endswith(".docx")
        assert "�" not in name


def test_a_device_name_cannot_break_the_name() -> None:
    strange = CopyNames("a/b\0(c)\n" + "x" * 300, "2026-11-20")
    name = strange.free_name("f.txt", False, lambda _: False)
    assert "/" not in name
    assert "\0" not in name
    assert len(name.encode()) <= 255
    assert strange.free_name(name, False, lambda _: False) == name
    assert read_copy_name(CopyNames("", "2026-11-20").free_name("f", False, lambda _: False))
