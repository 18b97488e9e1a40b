"""`aloft devices status`, `aloft conflicts` and `aloft changes`, as a person types them."""

from __future__ import annotations

COPY = "report (conflicted copy, laptop, 2026-11-20).txt"


def test_a_conflict_is_listed_and_resolved(ada, put, tmp_path):
    assert ada("conflicts").out == "there is no conflicted copy\n"
    put("/report.txt", "mine")
    put(f"/{COPY}", "theirs!")
    assert "laptop" in ada("conflicts").out
    (conflict,) = ada("conflicts", "list", "--json").data["conflicts"]
    assert (conflict["copied"]["path"], conflict["original"]["path"]) == (f"/{COPY}", "/report.txt")
    assert "is no conflicted copy" in ada("conflicts", "resolve", "/report.txt", "--keep", "copy").err
    assert ada("conflicts", "resolve", COPY, "--keep", "neither").code == 2
    assert ada("conflicts", "resolve", COPY, "--keep", "copy").out == "Kept /report.txt\n"
    assert ada("get", "/report.txt", str(tmp_path / "got")).code == 0
    assert (tmp_path / "got").read_text() == "theirs!"
    assert ada("conflicts", "--json").data["conflicts"] == []


def test_changes_are_listed_by_time_by_cursor_and_for_one_file(ada, put):
    put("/f", "one")
    first = ada("changes", "--since", "2020-01-01", "--json").data
    assert "/f" in {change["path"] for change in first["changes"]}
    assert ada("changes", "--cursor", first["cursor"]).out == "nothing has changed\n"
    put("/f", "second")
    put("/g", "g")
    assert ada("rm", "/g").code == 0
    assert {"changed /f", "removed /g"} <= set(ada("changes", "--cursor", first["cursor"]).out.splitlines())
    assert "changed /f" in ada("changes").out.splitlines()
    events = ada("changes", "/f", "--json").data["events"]
    assert [event["size"] for event in events] == [6, 3]
    assert "written" in ada("changes", "/f").out
    assert ada("changes", "--since", "yesterday").code == 2
    assert "There is nothing at /none" in ada("changes", "/none").err


def test_the_devices_are_listed_with_what_they_have(ada, put):
    put("/f", "one")
    (device,) = ada("devices", "status", "/f", "--json").data["devices"]
    assert (device["current"], device["file"], device["waiting_files"]) == (True, "in-progress", 0)
    assert "this one" in ada("devices", "status").out
