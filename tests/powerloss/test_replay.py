"""What the replayer leaves of a log under each model, and that the recorder logs what was done."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.powerloss.layer import Layer
from tests.powerloss.replay import ROOT, Disk, Log, Model, Operation

FILE, FOLDER = 10, 11
BEGIN = [("mkdir", FOLDER, ROOT, "home", 0o755), ("fsyncdir", ROOT)]


def left(folder: Path, model: Model, *operations: tuple[object, ...], seed: int = 0) -> dict[str, bytes]:
    disk = Disk()
    disk.follow([Operation(str(kind), arguments) for kind, *arguments in (*BEGIN, *operations)])  # type: ignore[arg-type]
    target = folder / f"{model.value} {seed}"
    disk.build(target, {"home": model}, seed)
    return {str(path.relative_to(target / "home")): path.read_bytes() for path in target.rglob("*") if path.is_file()}


CREATE = ("create", FILE, FOLDER, "file", 0o600)
WRITE = ("write", FILE, 0, b"bytes")
SYNC, SYNC_NAMES = ("fsync", FILE), ("fsyncdir", FOLDER)


@pytest.mark.parametrize(
    ("operations", "strict", "latest"),
    [
        ((CREATE, WRITE), {}, {"file": b"bytes"}),
        ((CREATE, WRITE, SYNC), {}, {"file": b"bytes"}),
        ((CREATE, WRITE, SYNC_NAMES), {"file": b""}, {"file": b"bytes"}),
        ((CREATE, WRITE, SYNC, SYNC_NAMES), {"file": b"bytes"}, {"file": b"bytes"}),
        ((CREATE, SYNC_NAMES, WRITE, SYNC, ("write", FILE, 2, b"XX")), {"file": b"bytes"}, {"file": b"byXXs"}),
        ((CREATE, SYNC_NAMES, WRITE, SYNC, ("truncate", FILE, 2)), {"file": b"bytes"}, {"file": b"by"}),
        ((CREATE, WRITE, SYNC, SYNC_NAMES, ("unlink", FOLDER, "file")), {"file": b"bytes"}, {}),
        ((CREATE, WRITE, SYNC, SYNC_NAMES, ("rename", FOLDER, "file", FOLDER, "new")), {"file": b"bytes"}, {"new": b"bytes"}),
        ((CREATE, WRITE, SYNC, ("rename", FOLDER, "file", FOLDER, "new"), SYNC_NAMES), {"new": b"bytes"}, {"new": b"bytes"}),
    ],
)
def test_what_is_left(
    tmp_path: Path, operations: tuple[tuple[object, ...], ...], strict: dict[str, bytes], latest: dict[str, bytes]
) -> None:
    assert left(tmp_path, Model.STRICT, *operations) == strict
    assert left(tmp_path, Model.LATEST, *operations) == latest


def test_an_ordered_disk_keeps_names_in_their_order(tmp_path: Path) -> None:
    second = ("create", 12, FOLDER, "second", 0o600)
    found = [left(tmp_path, Model.ORDERED, CREATE, WRITE, second, seed=seed).keys() for seed in range(30)]
    assert {frozenset(names) for names in found} == {frozenset(), frozenset({"file"}), frozenset({"file", "second"})}


def test_a_mixed_disk_tears_writes_and_forgets_in_any_order(tmp_path: Path) -> None:
    write = ("write", FILE, 0, b"x" * 8192)
    second = ("create", 12, FOLDER, "second", 0o600)
    found = [left(tmp_path, Model.MIXED, CREATE, SYNC_NAMES, write, second, seed=seed) for seed in range(30)]
    assert {"second" in one for one in found} == {True, False}
    torn = {one["file"] for one in found}
    assert any(content.strip(b"x") for content in torn), "no write was torn"
    assert all(len(content) % 512 == 0 for content in torn)


def test_a_forgotten_sync_is_none(tmp_path: Path) -> None:
    disk = Disk(lambda sync, path: (sync, path) == ("fsync", "home/file"))
    disk.follow([Operation(kind, tuple(rest)) for kind, *rest in (*BEGIN, CREATE, WRITE, SYNC, SYNC_NAMES)])
    disk.build(tmp_path / "disk", {"home": Model.STRICT}, 0)
    assert (tmp_path / "disk" / "home" / "file").read_bytes() == b""


def test_the_recorder_logs_what_is_done(tmp_path: Path) -> None:
    layer = Layer(tmp_path)
    try:
        home = layer.point / "home"
        home.mkdir()
        (home / "gone").write_bytes(b"x")
        (home / "gone").unlink()
        with (home / "file").open("wb") as file:
            file.write(b"synced")
            file.flush()
            os.fsync(file.fileno())
        before = layer.position
        (home / "file").rename(home / "moved")
        (home / "linked").hardlink_to(home / "moved")
        with (home / "moved").open("r+b") as file:
            file.truncate(3)
            os.pwrite(file.fileno(), b"new", 10)
        with closing(sqlite3.connect(home / "rows.db")) as one, closing(sqlite3.connect(home / "rows.db")) as two:
            one.execute("PRAGMA journal_mode=WAL")
            one.execute("CREATE TABLE row (number INTEGER)")
            two.execute("INSERT INTO row VALUES (7)")
            two.commit()
            rows = one.execute("SELECT number FROM row").fetchall()
    finally:
        layer.stop()
    assert rows == [(7,)]
    log = Log.read(layer.log)
    disk = Disk()
    disk.follow(log.operations)
    disk.build(tmp_path / "all", {"home": Model.LATEST}, 0)
    built = {path.name: path.read_bytes() for path in (tmp_path / "all" / "home").iterdir()}
    assert built["moved"] == built["linked"] == b"syn" + bytes(7) + b"new"
    assert built.keys() == {"moved", "linked", "rows.db"}
    disk = Disk()
    disk.follow(log.until(before))
    assert ("fsync", "home/file") in disk.syncs
    disk.build(tmp_path / "before", {"home": Model.LATEST}, 0)
    assert (tmp_path / "before" / "home" / "file").read_bytes() == b"synced"
