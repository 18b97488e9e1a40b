"""The ledger of the crash matrix refuses what it is there for."""

from __future__ import annotations

import pytest

from tests.crash.ledger import PAGE, Broken, Content, Died, Ledger, pages_of

OLD, NEW = b"o" * 3 * PAGE, b"n" * 3 * PAGE


def cut_off(ledger: Ledger) -> Ledger:
    """While `file` is written in its place."""
    with pytest.raises(Died), ledger.doing("write", {"file": NEW}, partly={"file": pages_of(OLD, NEW)}):
        raise OSError("it died")
    return ledger


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (OLD, "in write: as before it"),
        (NEW, "in write: as after it"),
        (OLD[:PAGE] + NEW[PAGE:], "in write: a part of it"),
        (NEW[:PAGE], "in write: a part of it"),
        (NEW[:PAGE] + bytes(PAGE) + OLD[2 * PAGE :], "in write: a part of it"),
    ],
)
def test_what_a_call_that_was_cut_off_may_leave(content: bytes, outcome: str) -> None:
    assert cut_off(Ledger({"file": OLD, "other": b"x"})).check({"file": content, "other": b"x"}) == outcome


@pytest.mark.parametrize(
    "seen",
    [
        {"file": OLD[:5] + NEW[5:], "other": b"x"},
        {"file": NEW + b"n", "other": b"x"},
        {"file": None, "other": b"x"},
        {"other": b"x"},
        {"file": NEW, "other": b"y"},
        {"file": NEW},
        {"file": OLD, "other": b"x", "a copy": NEW},
        {"file": OLD[:PAGE] + NEW[PAGE:], "other": b"x", "a copy": NEW},
    ],
)
def test_what_it_may_not_leave(seen: dict[str, Content]) -> None:
    with pytest.raises(Broken):
        cut_off(Ledger({"file": OLD, "other": b"x"})).check(seen)


@pytest.mark.parametrize("seen", [{}, {"file": OLD}, {"file": NEW, "new": b""}])
def test_what_returned_is_there_and_nothing_else(seen: dict[str, Content]) -> None:
    ledger = Ledger({"file": OLD})
    with ledger.doing("write", {"file": NEW}):
        pass
    with pytest.raises(Broken):
        ledger.check(seen)


def test_a_rename_is_whole_or_not_at_all() -> None:
    ledger = Ledger({"new": NEW, "file": OLD})
    with pytest.raises(Died), ledger.doing("rename", {"file": NEW}, gone=("new",)):
        raise OSError("it died")
    for seen in ({"new": NEW, "file": NEW}, {"file": OLD}, {"new": NEW}, {}):
        with pytest.raises(Broken):
            Ledger(dict(ledger.state), ledger.step).check(seen)
    assert ledger.check({"file": NEW}) == "in rename: as after it"
