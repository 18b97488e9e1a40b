"""Names are durable before anything relies on them: folders that are made, objects that are found, a replica's log."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

import pytest

from cache.store.database import Database
from fs.home import open_home
from remote.server.config import ServerConfig
from remote.server.folder import DataFolder
from remote.server.keys import Key
from remote.server.objects.local import LocalStore
from remote.server.objects.names import DurableNames
from remote.server.objects.opening import open_local
from remote.server.objects.signing import Grant

BODY = b"an object"
ID = hashlib.sha256(BODY).digest()
KEY = f"{'0' * 32}/{ID.hex()}.0"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were synced, in their order."""
    found: list[Path] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            found.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return found


def store(folder: Path) -> LocalStore:
    return open_local(ServerConfig(folder.parent), Key("k", b"s" * 32), time.time_ns, os.urandom)


def put(objects: LocalStore) -> None:
    incoming = objects.incoming(Grant("PUT", KEY, 0, len(BODY), ID))
    incoming.write(BODY)
    incoming.finish()
    incoming.discard()


def test_a_new_home_has_names_that_stay(tmp_path: Path, synced: list[Path]) -> None:
    home = open_home(tmp_path / "new" / "home")
    assert synced == [tmp_path, tmp_path / "new", home.path, home.path, home.path]
    synced.clear()
    open_home(home.path)
    assert synced == []
    home.installation()
    assert synced == [home.path]


def test_a_new_data_folder_has_a_name_that_stays(tmp_path: Path, synced: list[Path]) -> None:
    DataFolder(tmp_path / "new" / "data").close()
    assert synced == [tmp_path, tmp_path / "new"]


def test_an_object_has_names_that_stay_from_the_root_down(tmp_path: Path, synced: list[Path]) -> None:
    objects = store(tmp_path / "objects")
    synced.clear()
    put(objects)
    owner = tmp_path / "objects" / ("0" * 32)
    assert synced == [tmp_path / "objects", owner, owner / ID.hex()[:3]]
    synced.clear()
    put(objects)
    assert synced == [owner / ID.hex()[:3]], "folders are synced once"
    synced.clear()
    assert KEY in objects.stat([KEY])
    assert synced == [], "what this process has put there is known to stay"


def test_what_a_killed_service_left_is_synced_before_a_commit_counts_on_it(tmp_path: Path, synced: list[Path]) -> None:
    put(store(tmp_path / "objects"))
    objects = store(tmp_path / "objects")
    synced.clear()
    assert KEY in objects.stat([KEY])
    owner = tmp_path / "objects" / ("0" * 32)
    assert synced == [tmp_path / "objects", owner, owner / ID.hex()[:3]]
    synced.clear()
    assert KEY in objects.stat([KEY])
    assert synced == []


def test_an_object_that_is_just_being_put_is_synced_by_who_finds_it(tmp_path: Path, synced: list[Path]) -> None:
    names, shard = DurableNames(), tmp_path / "owner" / "shard"
    names.make(shard)
    names.settle(shard)
    synced.clear()
    with names.coming(shard):
        names.settle(shard)
        assert synced == [shard]
    assert synced == [shard, shard]


def test_a_new_replica_never_meets_the_log_of_one_that_was_moved_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "replica.db-wal").write_bytes(b"of another one")
    order: list[str] = []
    rename, fsync = Path.rename, os.fsync

    def noted_rename(self: Path, target: Path | str) -> Path:
        order.append(f"{self.name} renamed")
        return rename(self, target)

    def noted_fsync(descriptor: int) -> None:
        order.append("synced")
        fsync(descriptor)

    monkeypatch.setattr(Path, "rename", noted_rename)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    Database.open(tmp_path / "replica.db").close()
    assert order[:4] == ["replica.db-wal renamed", "synced", "replica.db.new renamed", "synced"]
