"""`aloft search`, as a person types it."""

from __future__ import annotations

from tests.support.waiting import wait_until


def search(ada, *words):
    """The paths, when the index has followed."""
    wait_until(lambda: ada("search", *words, "--json").data["up_to_date"])
    return [hit["path"] for hit in ada("search", *words, "--json").data["hits"]]


def test_files_are_found_by_name_and_by_what_they_are(ada, tmp_path):
    (tmp_path / "f").write_text("hello")
    assert ada("mkdir", "/Letters").code == 0
    assert ada("put", str(tmp_path / "f"), "/Letters/to Ada.txt").code == 0
    assert ada("put", str(tmp_path / "f"), "/to Bob.txt").code == 0
    assert search(ada, "ada", "to") == ["/Letters/to Ada.txt"]
    assert search(ada, "letters") == ["/Letters"]
    assert search(ada, "--type", "folder") == ["/Letters"]
    assert search(ada, "--type", "txt", "--in", "Letters") == ["/Letters/to Ada.txt"]
    assert search(ada, "--larger", "6") == []
    assert search(ada, "to", "--smaller", "5", "--after", "2020-01-01", "--before", "2200-01-01T12:00", "--limit", "1") != []
    assert "/Letters/to Ada.txt" in ada("search", "ada").out
    assert ada("search", "nowhere").out == "nothing fits\n"
    assert "these are the best 1" in ada("search", "to", "--limit", "1").err


def test_what_is_refused_says_why(ada):
    assert ada("search").code == 2
    assert "--larger" in ada("search", "x", "--larger", "big").err
    assert "--after" in ada("search", "x", "--after", "soon").err
    assert "There is nothing at /nowhere" in ada("search", "x", "--in", "nowhere").err
