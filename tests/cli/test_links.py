"""`aloft link`, as a person types it, and what somebody without an account gets."""

from __future__ import annotations

import io
import zipfile

import httpx


def test_a_link_is_made_opened_and_revoked(ada, tmp_path):
    (tmp_path / "f").write_text("hello")
    assert ada("mkdir", "/d").code == 0
    assert ada("put", str(tmp_path / "f"), "/d/f").code == 0
    made = ada("link", "create", "d/f")
    url = made.out.strip()
    assert "nobody can show it again" in made.err
    assert httpx.get(url).text == "hello"
    folder = ada("link", "create", "/d", "--never-expires", "--json").data
    answer = httpx.get(folder["url"])
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.read("d/f") == b"hello"
    listed = ada("link", "list", "--json").data["links"]
    assert [(link["path"], link["downloads"]) for link in listed] == [("/d/f", 1), ("/d", 1)]
    assert "2 of 1000 links" in ada("link", "list").out
    assert url not in ada("link", "list").out
    assert ada("link", "list", "/d/f", "--json").data["links"] == listed[:1]
    assert ada("link", "revoke", listed[0]["id"][:8]).out == "Revoked the link to /d/f.\n"
    assert httpx.get(url).status_code == 404
    assert ada("link", "revoke", "zz").code == 2


def test_a_link_with_a_password_and_a_limit(ada, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("open sesame\n"))
    (tmp_path / "f").write_text("hello")
    assert ada("put", str(tmp_path / "f"), "/f").code == 0
    url = ada("link", "create", "/f", "--password-stdin", "--max-downloads", "1").out.strip()
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, auth=("", "open sesame"), follow_redirects=True).text == "hello"
    assert httpx.get(url, auth=("", "open sesame")).status_code == 404
    assert ada("link", "list", "--json").data["links"] == []


def test_what_is_refused_says_why(ada, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert "There is nothing at /nothing" in ada("link", "create", "/nothing").err
    assert "not to everything" in ada("link", "create", "/").err
    short = ada("link", "create", "/f", "--password-stdin")
    assert (short.code, "password" in short.err) == (2, True)
