"""A log that is damaged after a kill is noticed before SQLite forgets what it held; one that a power loss cut is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.store.database import DamagedDatabase, Database

VALUES = 40


def overwritten(at: Callable[[int], int], length: int = 3000) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        size = file.stat().st_size
        with file.open("r+b") as stream:
            stream.seek(at(size))
            stream.write(os.urandom(length))

    return damage


def cut(keep: Callable[[int], int]) -> Callable[[Path], None]:
    return lambda file: os.truncate(file, keep(file.stat().st_size))


DAMAGE = {
    "noise in its header": overwritten(lambda _: 0, 32),
    "noise in the middle": overwritten(lambda size: size // 2),
    "noise at its end": overwritten(lambda size: size - 1000, 1000),
    "half of it": cut(lambda size: size // 2),
    "nothing": cut(lambda _: 0),
}


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The replica of a process that was killed: its files as they were while it ran."""
    database = Database.open(tmp_path / "replica.db")
    for number in range(VALUES):
        database.set_meta(f"key {number}", "x" * 3000)
    (tmp_path / "killed").mkdir()
    for file in tmp_path.glob("replica.db*"):
        shutil.copyfile(file, tmp_path / "killed" / file.name)
    database.close()
    return tmp_path / "killed" / "replica.db"


def of(replica: Path, suffix: str) -> Path:
    return replica.with_name(replica.name + suffix)


def test_a_sound_log_is_read(killed: Path) -> None:
    database = Database.open(killed)
    assert database.meta(f"key {VALUES - 1}") == "x" * 3000
    database.close()


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_log_is_refused_and_left_alone(killed: Path, name: str) -> None:
    DAMAGE[name](of(killed, "-wal"))
    before = {file: file.read_bytes() for file in killed.parent.iterdir()}
    for _ in range(2):
        with pytest.raises(DamagedDatabase, match=r"the latest changes cannot be read from replica\.db-wal"):
            Database.open(killed)
    assert {file: file.read_bytes() for file in killed.parent.iterdir()} == before


@pytest.mark.parametrize("name", DAMAGE)
def test_after_a_power_loss_a_log_may_end_anywhere(killed: Path, name: str) -> None:
    """What nobody synced may be gone, whatever the wal-index says that came to the disk by itself."""
    of(killed, "-boot").write_text("another boot")
    DAMAGE[name](of(killed, "-wal"))
    Database.open(killed).close()


@pytest.mark.parametrize("damage", [overwritten(lambda _: 0), overwritten(lambda _: 20, 8), cut(lambda _: 0), cut(lambda _: 50)])
def test_a_damaged_index_costs_nothing(killed: Path, damage: Callable[[Path], None]) -> None:
    damage(of(killed, "-shm"))
    database = Database.open(killed)
    assert database.meta(f"key {VALUES - 1}") == "x" * 3000
    database.close()


def test_what_was_moved_into_the_database_is_not_missed(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "replica.db")
    database.set_meta("key", 1)
    database.checkpoint()
    (tmp_path / "killed").mkdir()
    for file in tmp_path.glob("replica.db*"):
        shutil.copyfile(file, tmp_path / "killed" / file.name)
    database.close()
    replica = tmp_path / "killed" / "replica.db"
    os.truncate(of(replica, "-wal"), 0)
    database = Database.open(replica)
    assert database.meta("key") == 1
    database.close()
