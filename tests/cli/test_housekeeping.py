"""aloft admin gc, recount, users, backup and restore, as an administrator types them, beside a running service."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest

from tests.support.service import start_service


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def registered(aloft, data, email):
    with start_service(data) as running:
        assert aloft("register", "--server", running.url, "--email", email).code == 0
        yield email


def change(data, statement):
    with closing(sqlite3.connect(data / "aloft.db", timeout=60)) as sql, sql:
        return sql.execute(statement).fetchall()


def test_garbage_is_shown_and_removed(aloft, registered, data, tmp_path):
    file = tmp_path / "file"
    for size in (100_000, 90_000):
        file.write_bytes(os.urandom(size))
        assert aloft("put", str(file), "/file").code == 0
    assert aloft("admin", "gc", "--data", str(data), "--json").data["manifests"] == 0
    change(data, "DELETE FROM versions WHERE content_rev < (SELECT max(content_rev) FROM versions)")
    would = aloft("admin", "gc", "--dry-run", "--data", str(data))
    assert "1 manifest would be removed" in would.out
    assert "1 object without a name (97.7 KiB)" in would.out
    report = aloft("admin", "gc", "--data", str(data), "--json").data
    assert (report["manifests"], report["dead"], report["deleted"], report["waiting"]) == (1, 1, 0, 1)
    change(data, "UPDATE dead_objects SET since_ns = 0")
    assert "1 object deleted from the store (97.7 KiB)" in aloft("admin", "gc", "--data", str(data)).out
    assert aloft("get", "/file", str(tmp_path / "again")).code == 0
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_usage_is_recounted_and_accounts_are_listed(aloft, registered, data):
    assert aloft("admin", "recount", "--data", str(data)).out.strip() == "all accounts are right"
    change(data, "UPDATE accounts SET used_bytes = 2048")
    assert "2.0 KiB was written down, should be 0 B" in aloft("admin", "recount", "--dry-run", "--data", str(data)).out
    (line,) = aloft("admin", "users", "--data", str(data), "--json").data["accounts"]
    assert (line["email"], line["used_bytes"], line["devices"]) == (registered, 2048, 1)
    assert aloft("admin", "recount", "--data", str(data), "--json").data["wrong"] == [
        {"email": registered, "told": 2048, "found": 0}
    ]
    shown = aloft("admin", "users", "--data", str(data)).out
    assert "last log-in" in shown
    assert "never" not in shown


def test_a_backup_is_restored(aloft, registered, data, tmp_path):
    (file := tmp_path / "file").write_bytes(os.urandom(100_000))
    assert aloft("put", str(file), "/file").code == 0
    done = aloft("admin", "backup", str(tmp_path / "backup"), "--data", str(data))
    assert done.out.startswith("1 object, 1 of them new (97.7 KiB), backed up to")
    assert aloft("admin", "backup", str(tmp_path / "backup"), "--data", str(data), "--json").data["copied"] == 0
    assert "another disk" in aloft("admin", "backup", str(data / "backup"), "--data", str(data)).err
    again = tmp_path / "again"
    assert aloft("admin", "restore", str(tmp_path / "backup"), "--data", str(again), "--json").data["objects"] == 1
    (line,) = aloft("admin", "users", "--data", str(again), "--json").data["accounts"]
    assert line["email"] == registered
    assert "already" in aloft("admin", "restore", str(tmp_path / "backup"), "--data", str(again)).err
    nowhere = aloft("admin", "restore", str(tmp_path / "backup"))
    assert (nowhere.code, "--data DIR" in nowhere.err) == (2, True)


def test_what_is_damaged_is_found_and_mended_from_a_backup(aloft, registered, data, tmp_path):
    (tmp_path / "file").write_bytes(content := os.urandom(100_000))
    assert aloft("put", str(tmp_path / "file"), "/file").code == 0
    backup = tmp_path / "backup"
    assert aloft("admin", "backup", str(backup), "--data", str(data)).code == 0
    assert aloft("admin", "scrub", "--data", str(data)).out.endswith("(97.7 KiB) read, 0 damaged\n")
    (lies,) = (file for file in (data / "objects").rglob("*") if file.is_file() and file.stat().st_size >= 100_000)
    lies.write_bytes(b"?" + lies.read_bytes()[1:])
    found = aloft("admin", "scrub", "--data", str(data), "--json")
    assert (found.code, found.data["left"]) == (1, 1)
    assert aloft("get", "/file", str(tmp_path / "got")).code != 0
    assert aloft("admin", "scrub", "--data", str(data), "--from", str(tmp_path)).code == 2
    assert aloft("admin", "scrub", "--data", str(data), "--rate", "fast").code == 2
    mended = aloft("admin", "scrub", "--data", str(data), "--from", str(backup), "--rate", "50M")
    assert (mended.code, "(mended)" in mended.out) == (0, True)
    assert aloft("get", "/file", str(tmp_path / "got")).code == 0
    assert (tmp_path / "got").read_bytes() == content


def test_keys_are_rotated_beside_the_service_and_nobody_is_logged_out(aloft, registered, data, tmp_path):
    def kids():
        return set(change(data, "SELECT name, kid FROM keys"))

    before = kids()
    would = aloft("admin", "rotate-keys", "--dry-run", "--data", str(data))
    assert "tokens: a new key would sign from" in would.out
    assert kids() == before
    report = aloft("admin", "rotate-keys", "--name", "tokens", "--data", str(data), "--json").data
    assert (report["at_once"], [key["name"] for key in report["keys"]]) == (False, ["tokens"])
    assert kids() == before | {("tokens", report["keys"][0]["kid"])}
    assert aloft("ls", "/").code == 0
    assert "is refused from now on" in aloft("admin", "rotate-keys", "--at-once", "--data", str(data)).out
    assert len(kids()) == 2
    assert not kids() & before
    assert aloft("ls", "/").code == 0
    file = tmp_path / "file"
    file.write_bytes(os.urandom(100_000))
    assert aloft("put", str(file), "/file").code == 0
    events = aloft("admin", "audit", "--data", str(data), "--action", "admin.rotate-keys", "--json").data["events"]
    assert [event["subject"] for event in events] == ["tokens, at once", "objects, at once", "tokens"]
    wrong = aloft("admin", "rotate-keys", "--name", "cookies", "--data", str(data))
    assert (wrong.code, "tokens and objects are the names" in wrong.err) == (2, True)
