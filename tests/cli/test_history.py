"""`aloft versions`, `restore` and `trash`, as a person types them."""

from __future__ import annotations

import time
from datetime import datetime


def content(ada, tmp_path, path):
    target = tmp_path / f"got-{time.time_ns()}"
    assert ada("get", path, str(target)).code == 0
    return target.read_text()


def test_former_contents_come_back(ada, put, tmp_path):
    put("/note", "one")
    time.sleep(0.01)
    between = time.time()
    put("/note", "second")
    put("/note", "the third")
    found = ada("versions", "/note", "--json").data
    assert [row["size"] for row in found["versions"]] == [9, 6, 3]
    shown = ada("versions", "note").out
    assert found["versions"][2]["version"][:12] in shown
    assert "now" in shown
    assert ada("restore", "/note").out == "/note has 6 B again\n"
    assert content(ada, tmp_path, "/note") == "second"
    assert ada("restore", "/note", "--version", found["versions"][0]["version"][:12]).code == 0
    assert content(ada, tmp_path, "/note") == "the third"
    assert ada("restore", "/note", "--at", datetime.fromtimestamp(between).isoformat()).out == "/note has 3 B again\n"
    assert "no version is that old" in ada("restore", "/note", "--at", "2020-01-01").err
    assert "there is no such version" in ada("restore", "/note", "--version", "zz").err
    assert ada("restore", "/note", "--at", "yesterday").code == 2
    assert ada("restore", "/note", "--at", "2020-01-01", "--version", "ab").code == 2


def test_what_was_deleted_comes_back_or_goes_for_good(ada, put, tmp_path):
    assert ada("mkdir", "-p", "/d/e").code == 0
    put("/d/e/f", "f")
    put("/g", "g")
    assert "empty" in ada("trash", "ls").out
    assert ada("rm", "-r", "/d", "/g").code == 0
    found = {row["path"]: row["id"] for row in ada("trash", "ls", "--json").data["entries"]}
    assert set(found) == {"/d", "/g"}
    assert "/d/" in ada("trash", "ls").out
    assert ada("trash", "restore", "/d").out == "/d is back, and 2 others with it\n"
    assert content(ada, tmp_path, "/d/e/f") == "f"
    assert ada("trash", "restore", found["/g"][:8], "--to", "/d/g").out == "/d/g is back\n"
    assert "there is no /g in the trash" in ada("trash", "restore", "/g").err
    assert ada("rm", "-r", "/d").code == 0
    put("/h", "h")
    assert ada("rm", "/h").code == 0
    assert ada("trash", "empty", "/h", "--yes", "--json").data == {"removed": 1}
    assert ada("trash", "empty", "--yes").out == "4 files and folders are gone\n"
    assert ada("trash", "ls", "--json").data == {"entries": []}


def test_a_time_for_a_file_to_go_is_chosen_shown_and_forgotten(ada, put):
    put("/f", "f")
    assert ada("expire").out == "nothing expires\n"
    assert ada("expire", "/f").out == "/f does not expire\n"
    assert "/f goes to the trash at 2" in ada("expire", "/f", "30d").out
    (chosen,) = ada("expire", "--json").data["expiries"]
    assert 29 < (chosen["expires_ns"] - time.time_ns()) / (24 * 3600 * 1e9) < 31
    assert "/f" in ada("expire").out
    assert ada("expire", "/f", "2040-12-24", "--json").data["path"] == "/f"
    assert ada("expire", "/f", "never").out == "/f does not expire any more\n"
    assert "does not expire" in ada("expire", "/f", "never").err
    assert ada("expire", "/f", "soon").code == 2
    assert "gone by" in ada("expire", "/f", "2020-01-01").err
