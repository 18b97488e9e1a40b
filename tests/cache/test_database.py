"""Opening, transactions, and what happens to a damaged file."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from cache.errors import DiskFull
from cache.store.database import DamagedDatabase, Database, DatabaseUnusable, UnknownSchema


def filled(path: Path, values: int = 3000) -> None:
    database = Database.open(path)
    with database.transaction():
        for number in range(values):
            database.set_meta(f"key {number}", "x" * 50)
    database.checkpoint()
    database.close()


def test_values_survive_closing(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "replica.db")
    database.set_meta("cursor", {"epoch": "a", "page": 3})
    database.close()
    database = Database.open(tmp_path / "replica.db")
    assert database.meta("cursor") == {"epoch": "a", "page": 3}
    assert database.meta("nothing", 7) == 7
    database.close()


def test_an_exception_undoes_the_transaction(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "replica.db")

    def fail() -> None:
        with database.transaction():
            database.set_meta("a", 1)  # a nested transaction joins the outer one
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert database.meta("a") is None
    with database.transaction():
        database.set_meta("a", 2)
    assert database.meta("a") == 2
    database.close()


def test_a_full_disk_is_said_and_changes_nothing(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "replica.db")
    database.set_meta("before", 1)
    pages = database.sql.execute("PRAGMA page_count").fetchone()[0]
    database.sql.execute(f"PRAGMA max_page_count = {pages + 2}")  # SQLite answers as if the disk were full

    def change() -> None:
        with database.transaction():
            database.set_meta("before", 2)
            database.set_meta("large", "x" * 1_000_000)

    with pytest.raises(DiskFull):
        change()
    assert database.meta("before") == 1
    database.sql.execute("PRAGMA max_page_count = 1000000")
    database.set_meta("before", 3)
    assert database.meta("before") == 3
    database.close()


def test_a_sync_that_failed_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says it once: from then on it takes for written what is not, so that all of it is written anew."""

    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    database = Database.open(tmp_path / "replica.db")
    database.set_meta("kept", 1)
    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="Input/output"):
            database.make_durable()
    assert database.wal_state()[0] > 0
    database.make_durable()
    assert database.wal_state()[0] == 0
    assert database.meta("kept") == 1
    database.close()


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "replica.db").mkdir()
    with pytest.raises(DamagedDatabase, match="not a file"):
        Database.open(tmp_path / "replica.db")


def test_commits_are_seen_by_another_connection_while_a_checkpoint_runs(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "replica.db")
    database.set_meta("a", 1)
    database.make_durable()
    wal = tmp_path / "replica.db-wal"
    assert wal.stat().st_size > 0
    database.checkpoint()
    database.set_meta("a", 2)
    database.make_durable()
    other = sqlite3.connect(tmp_path / "replica.db")
    assert other.execute("SELECT value FROM meta").fetchone() == ("2",)
    other.close()
    database.close()


@pytest.mark.parametrize("keep", [0, 50, 4096, 60_000])
def test_a_truncated_file_is_refused_and_left_alone(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "replica.db"
    filled(path)
    os.truncate(path, keep)
    before = path.read_bytes()
    with pytest.raises(DamagedDatabase, match=r"move replica\.db and replica\.db-wal out of"):
        Database.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("offset", [0, 100, 2048 * 20])
def test_noise_is_refused_and_left_alone(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "replica.db"
    filled(path)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes((i * 37) % 251 for i in range(4096)))
    before = path.read_bytes()
    with pytest.raises(DamagedDatabase):
        Database.open(path)
    assert path.read_bytes() == before


def test_the_whole_file_can_be_checked_later(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    filled(path)
    database = Database.open(path)
    database.check_integrity()
    with path.open("r+b") as file:
        file.seek(2048 * 20)
        file.write(bytes(4096))
    with pytest.raises(DamagedDatabase):
        database.check_integrity()
    database.close()


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    filled(path, 1)
    sql = sqlite3.connect(path)
    sql.execute("PRAGMA user_version = 99")
    sql.close()
    with pytest.raises(UnknownSchema, match="version 99"):
        Database.open(path)


def tables(path: Path) -> dict[str, list[object]]:
    """What every table and index consists of."""
    sql = sqlite3.connect(path)
    try:
        found: dict[str, list[object]] = {"version": [sql.execute("PRAGMA user_version").fetchone()[0]]}
        for kind, name in sql.execute("SELECT type, name FROM sqlite_master ORDER BY name").fetchall():
            found[name] = sorted(sql.execute(f"PRAGMA {kind}_info({name})").fetchall())
        return found
    finally:
        sql.close()


DRAFT_1 = """
CREATE TABLE draft (
    id INTEGER PRIMARY KEY AUTOINCREMENT, ino INTEGER NOT NULL, sealed INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL,
    floor INTEGER NOT NULL, extents BLOB NOT NULL, data BLOB, changed_ns INTEGER NOT NULL, manifest_id BLOB, sha256 BLOB,
    complete INTEGER NOT NULL DEFAULT 0, error TEXT
);
CREATE INDEX draft_by_ino ON draft (ino);
CREATE INDEX draft_error ON draft (ino) WHERE error IS NOT NULL;
CREATE INDEX draft_complete ON draft (ino) WHERE complete = 1;
INSERT INTO draft (id, ino, size, floor, extents, data, changed_ns) VALUES (7, 5, 3, 0, x'', x'616263', 0);
"""


def as_version_1(path: Path) -> None:
    """Make a replica what it was before version 2, with a draft in it."""
    sql = sqlite3.connect(path)
    sql.executescript(
        f"DROP TABLE draft; DROP INDEX inode_by_manifest; DROP INDEX inode_mounts; {DRAFT_1} PRAGMA user_version = 1;"
    )
    sql.close()


def test_an_older_version_is_upgraded_with_all_that_is_in_it(tmp_path: Path) -> None:
    path, new = tmp_path / "replica.db", tmp_path / "new.db"
    filled(path)
    Database.open(new).close()
    as_version_1(path)
    assert tables(path) != tables(new)
    database = Database.open(path)
    assert database.meta("key 2999") == "x" * 50
    assert database.sql.execute("SELECT ino, data, unsynced FROM draft").fetchall() == [(5, b"abc", None)]
    database.close()
    assert tables(path) == tables(new)


def test_an_upgrade_that_fails_leaves_the_older_version(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    filled(path, 1)
    as_version_1(path)
    sql = sqlite3.connect(path)
    sql.execute("CREATE TABLE inode_by_manifest (a)")  # the last step of the upgrade is refused
    sql.close()
    before = tables(path)
    with pytest.raises(DatabaseUnusable):
        Database.open(path)
    assert tables(path) == before


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    sql = sqlite3.connect(path)
    sql.execute("CREATE TABLE other (a)")
    sql.close()
    with pytest.raises(DatabaseUnusable):
        Database.open(path)


def test_a_log_that_was_left_behind_is_not_replayed_into_a_new_replica(tmp_path: Path) -> None:
    path = tmp_path / "replica.db"
    old = Database.open(path)
    old.set_meta("a", "old")
    (tmp_path / "kept").write_bytes((tmp_path / "replica.db-wal").read_bytes())
    old.close()
    path.unlink()
    (tmp_path / "kept").rename(tmp_path / "replica.db-wal")
    new = Database.open(path)
    assert new.meta("a") is None
    assert (tmp_path / "replica.db-wal.stray").exists()
    new.close()
