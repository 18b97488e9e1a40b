"""What the long run compares with: its models, its ledger of shared contents, its judgement of growth."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.load import figures, ledger, verdict
from tests.load.board import Board, Device, Progress, State, Wish
from tests.load.ledger import Ledger, Line
from tests.load.models import FileModel, Refused, TreeModel
from tests.load.trees import walk

# ------------------------------------------------------------------------------------------------------------------ files


def test_a_file_model_does_what_a_file_does(tmp_path: Path) -> None:
    model, path = FileModel(), tmp_path / "file"
    with path.open("w+b", buffering=0) as file:
        model.write(10, b"abc")
        file.seek(10)
        file.write(b"abc")
        model.truncate(12)
        file.truncate(12)
        model.append(b"end")
        file.seek(0, 2)
        file.write(b"end")
        model.truncate(20)
        file.truncate(20)
        model.punch(1, 10)
        file.seek(1)
        file.write(bytes(10))
        model.write(5, b"")
    assert path.read_bytes() == model.content


def test_a_mixture_of_what_was_written_since_close_is_explained_and_nothing_else() -> None:
    model = FileModel()
    model.write(0, b"a" * 10_000)
    model.closed()
    model.write(0, b"b" * 5000)
    model.write(4000, b"c" * 3000)
    assert not model.is_closed
    assert model.explains(b"a" * 10_000)
    assert model.explains(b"b" * 4000 + b"c" * 3000 + b"a" * 3000)
    assert model.explains(b"a" * 4096 + b"b" * 904 + b"a" * 5000)
    assert not model.explains(b"b" * 10_000)
    assert not model.explains(bytes(10_000))
    assert not model.explains(b"a" * 9999)


def test_after_close_nothing_older_is_explained() -> None:
    model = FileModel()
    model.write(0, b"old")
    model.closed()
    model.write(0, b"new")
    model.closed()
    assert model.is_closed
    assert not model.explains(b"old")


def test_a_mixture_that_grew_may_have_zeros_where_it_was_shorter() -> None:
    model = FileModel()
    model.closed()
    model.write(0, b"x" * 5000)
    assert model.explains(bytes(4096) + b"x" * 904)


# ------------------------------------------------------------------------------------------------------------------ trees


def a_tree() -> TreeModel:
    tree = TreeModel()
    tree.mkdir("a", 0o755)
    tree.mkdir("a/b", 0o700)
    tree.create("a/f", 0o644, b"one")
    tree.link("a/f", "a/b/g")
    tree.symlink("l", "a/f")
    return tree


def test_a_tree_model_is_what_a_walk_finds(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a").chmod(0o755)
    (tmp_path / "a" / "b").chmod(0o700)
    (tmp_path / "a" / "f").write_bytes(b"one")
    (tmp_path / "a" / "f").chmod(0o644)
    (tmp_path / "a" / "b" / "g").hardlink_to(tmp_path / "a" / "f")
    (tmp_path / "l").symlink_to("a/f")
    assert walk(tmp_path, lambda: None) == a_tree().describe()


def test_links_share_what_is_written_and_renaming_a_folder_takes_along_what_is_below() -> None:
    tree = a_tree()
    tree.rename("a", "z")
    tree.write("z/b/g", b"two")
    assert tree.describe()["z/f"] == tree.describe()["z/b/g"]
    assert sorted(tree.nodes) == ["l", "z", "z/b", "z/b/g", "z/f"]
    copy = tree.copy()
    copy.write("z/f", b"three")
    assert copy.describe()["z/b/g"][2] != tree.describe()["z/b/g"][2] == tree.describe()["z/f"][2]


@pytest.mark.parametrize(
    ("act", "number"),
    [
        (lambda tree: tree.create("a", 0o644, b""), errno.EEXIST),
        (lambda tree: tree.create("n/a", 0o644, b""), errno.ENOENT),
        (lambda tree: tree.mkdir("a/f/x", 0o755), errno.ENOTDIR),
        (lambda tree: tree.rmdir("a"), errno.ENOTEMPTY),
        (lambda tree: tree.rmdir("l"), errno.ENOTDIR),
        (lambda tree: tree.unlink("a/b"), errno.EISDIR),
        (lambda tree: tree.link("a/b", "x"), errno.EPERM),
        (lambda tree: tree.rename("a", "a/b/c"), errno.EINVAL),
        (lambda tree: tree.rename("a/b", "a"), errno.ENOTEMPTY),
        (lambda tree: tree.rename("l", "a/b"), errno.EISDIR),
        (lambda tree: tree.rename("a/b", "l"), errno.ENOTDIR),
    ],
)
def test_a_tree_model_refuses_as_a_file_system_does(act: Callable[[TreeModel], None], number: int) -> None:
    tree = a_tree()
    with pytest.raises(Refused) as refused:
        act(tree)
    assert refused.value.errno == number
    assert tree.describe() == a_tree().describe()


# ----------------------------------------------------------------------------------------------------------------- ledger


def test_a_content_bears_its_token_and_is_recognised_only_whole() -> None:
    content = ledger.content("one-7", 1000)
    assert ledger.token_of(content) == "one-7"
    assert ledger.token_of(content[:-1]) is None
    assert ledger.token_of(content[:500] + b"x" + content[501:]) is None
    assert ledger.token_of(b"") is None


def test_a_closed_content_may_be_missing_only_if_somebody_who_saw_it_wrote_over_it() -> None:
    one = [Line("intended", "a"), Line("closed", "a"), Line("intended", "b", "a"), Line("closed", "b")]
    two = [Line("intended", "c", "a"), Line("closed", "c"), Line("removed", "d")]
    assert ledger.lost([one, two], ["b", "c"]) == []
    assert ledger.lost([one, two], ["b"]) == ["c"]
    assert ledger.lost([one, [*two, Line("closed", "d")]], ["b", "c"]) == []


def test_only_as_many_broken_contents_as_writings_that_were_interrupted() -> None:
    lines = [Line("intended", "a"), Line("intended", "b"), Line("closed", "b")]
    assert ledger.torn([lines], {"x": None, "y": "b"}) == []
    assert ledger.torn([lines], {"x": None, "y": None}) == ["x", "y"]


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = Ledger(tmp_path / "ledger")
    written.say("intended", "a", "b")
    written.say("closed", "a")
    assert ledger.read(tmp_path / "ledger") == [Line("intended", "a", "b"), Line("closed", "a")]


# ------------------------------------------------------------------------------------------------------ board and verdict


def test_the_board_carries_what_is_put_on_it(tmp_path: Path) -> None:
    board = Board.create(tmp_path / "board")
    other = Board(tmp_path / "board")
    board.wish = Wish.BE_QUIET
    board.set_device(1, Device(True, 3, 4, 5))
    progress = Progress(other, 2)
    progress.become(State.WORKING)
    with progress.operation("write"):
        assert board.slot(2).operation == "write"
        assert board.slot(2).since > 0
    progress.checked(2)
    progress.become(State.QUIET)
    assert other.wish is Wish.BE_QUIET
    assert other.device(1) == Device(True, 3, 4, 5)
    slot = board.slot(2)
    assert (slot.state, slot.since, slot.done, slot.checked) == (State.QUIET, 0, 1, 2)


def test_growth_beyond_its_slack_is_said() -> None:
    half = {"one rss": 100 * figures.MIB, "one descriptors": 30, "service data": 5}
    assert figures.growth(half, half | {"service data": 5 * 10**9, "one descriptors": 40}) == []
    assert [line.split(" grew")[0] for line in figures.growth(half, half | {"one rss": 130 * figures.MIB})] == ["one rss"]
    assert [line.split(" grew")[0] for line in figures.growth(half, half | {"one descriptors": 900})] == ["one descriptors"]


def test_a_figure_above_its_limit_is_said() -> None:
    assert figures.beyond({"one cache": 105}, {"one cache": 100}) == []
    assert figures.beyond({"one cache": 111}, {"one cache": 100}) == ["one cache is 111, its limit 100"]


def test_trees_that_differ_are_said_to(tmp_path: Path) -> None:
    for name, content in (("one", "x"), ("two", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(content)
    trees = [verdict.describe(tmp_path / name) for name in ("one", "two")]
    assert verdict.differences("one", "one", trees[0], trees[0]) == []
    assert "file: " in verdict.differences("one", "two", *trees)[0]
