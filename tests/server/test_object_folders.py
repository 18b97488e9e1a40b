"""Several folders, and copies of each object in some of them: disks that fail, fill up, come and go."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from remote.server.config import ObjectsConfig, ServerConfig
from remote.server.folder import DataFolderError
from remote.server.keys import Key
from remote.server.objects.folders import path_of, ranked
from remote.server.objects.local import LocalStore
from remote.server.objects.opening import open_local
from remote.server.objects.store import Checked, NoSuchObject, StoreUnavailable, object_key
from remote.server.scrub import Scrubber
from tests.support.wire import Clock, Device, World, new_id, problem

OWNER = bytes(16)


class Disks:
    def __init__(self, folder: Path, number: int) -> None:
        self.data = folder / "data"
        self.paths = [folder / f"disk {n}" for n in range(number)]
        self.clock = Clock()

    def config(self, copies: int, paths: Sequence[Path] | None = None) -> ServerConfig:
        return ServerConfig(self.data, objects=ObjectsConfig(folders=tuple(paths or self.paths), copies=copies))

    def open(self, copies: int, paths: Sequence[Path] | None = None) -> LocalStore:
        return open_local(self.config(copies, paths), Key("k", b"s" * 32), self.clock, os.urandom)

    def holding(self, key: str) -> list[Path]:
        return [path for path in self.paths if path_of(path, key).exists()]

    def pull(self, path: Path) -> None:
        """As a disk that is not there: its mount point is empty."""
        path.rename(path.with_name(f"{path.name}, pulled"))
        path.mkdir()

    def plug(self, path: Path) -> None:
        path.rmdir()
        path.with_name(f"{path.name}, pulled").rename(path)


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    return Disks(tmp_path, 3)


def stored(store: LocalStore, body: bytes) -> str:
    id_ = hashlib.sha256(body).digest()
    store.write(key := object_key(OWNER, id_, 0), id_, body)
    return key


def check(store: LocalStore, key: str, body: bytes, *, mend: bool = True) -> Checked:
    return store.check(key, hashlib.sha256(body).digest(), len(body), mend=mend)


def bodies(number: int) -> list[bytes]:
    return [os.urandom(1000 + each) for each in range(number)]


# ------------------------------------------------------------------------------------------------------------- placement


def test_objects_are_spread_evenly_and_few_of_them_move() -> None:
    keys = [object_key(OWNER, os.urandom(32), 0) for _ in range(3000)]
    before = {key: ranked({"a", "b", "c"}, key)[0] for key in keys}
    assert all(800 < list(before.values()).count(id_) < 1200 for id_ in "abc")
    after = {key: ranked({"a", "b", "c", "d"}, key)[0] for key in keys}
    assert {after[key] for key in keys if after[key] != before[key]} == {"d"}, "a new folder takes; the others exchange nothing"


def test_as_many_copies_lie_in_different_folders(disks: Disks) -> None:
    store = disks.open(2)
    keys = {stored(store, body): body for body in bodies(30)}
    assert all(len(disks.holding(key)) == 2 for key in keys)
    assert all(any(path in disks.holding(key) for key in keys) for path in disks.paths)
    assert all(store.read(key, 5000) == body for key, body in keys.items())
    assert [listed.key for listed in store.listing()] == sorted(keys), "each is listed once"
    assert all(len(held) == 2 for held in store.replicas(list(keys)).values())
    store.delete(list(keys))
    assert not any(disks.holding(key) for key in keys)


# ----------------------------------------------------------------------------------------------------- disks that fail


def test_any_good_copy_is_read(disks: Disks) -> None:
    store, body = disks.open(2), os.urandom(200_000)
    key = stored(store, body)
    first, second = (path_of(path, key) for path in disks.holding(key))
    for file in (first, second):
        with store.open(key) as opened:
            assert opened.read(0, 70_000) == body[:70_000]
            damaged = bytearray(whole := file.read_bytes())
            damaged[100_000] ^= 1
            file.write_bytes(damaged)
            assert opened.read(70_000, 130_000) == body[70_000:], "also in the middle"
            file.write_bytes(whole)
    first.unlink()
    assert store.read(key, len(body)) == body
    second.write_bytes(b"short")
    with pytest.raises(NoSuchObject):
        store.read(key, len(body))


def test_a_scrub_replaces_what_lacks_or_is_damaged(disks: Disks) -> None:
    store, body = disks.open(2), os.urandom(100_000)
    key = stored(store, body)
    one, other = disks.holding(key)
    path_of(one, key).unlink()
    assert check(store, key, body, mend=False) == Checked(lacking=1)
    assert check(store, key, body) == Checked(lacking=1, mended=True)
    assert disks.holding(key) == [one, other]
    damaged = bytearray(path_of(other, key).read_bytes())
    damaged[5] ^= 1
    path_of(other, key).write_bytes(damaged)
    assert check(store, key, body) == Checked(lacking=1, mended=True)
    assert check(store, key, body) == Checked(mended=True)
    for path in (one, other):
        path_of(path, key).unlink()
    assert check(store, key, body).wrong == "it is not there"


def test_a_folder_that_is_away_is_not_empty(disks: Disks) -> None:
    store = disks.open(1)
    keys = {stored(store, body): body for body in bodies(20)}
    away = disks.paths[0]
    gone = [key for key in keys if disks.holding(key) == [away]]
    disks.pull(away)
    assert gone
    for again in (store, disks.open(1)):
        for key in gone:
            with pytest.raises(StoreUnavailable):
                again.read(key, 5000)
            with pytest.raises(StoreUnavailable):
                again.stat([key])
            with pytest.raises(StoreUnavailable):
                check(again, key, keys[key])
        with pytest.raises(StoreUnavailable):
            again.listing()
        with pytest.raises(StoreUnavailable):
            again.delete(gone)
        new = stored(again, os.urandom(3000))
        assert disks.holding(new), "what is new goes to the others"
    assert list(away.iterdir()) == [], "nothing is written where a disk is not mounted"
    disks.plug(away)
    assert all(store.read(key, 5000) == body for key, body in keys.items())


def test_with_copies_a_lost_disk_loses_nothing_and_a_scrub_makes_the_copies_again(disks: Disks) -> None:
    store = disks.open(2)
    keys = {stored(store, body): body for body in bodies(20)}
    disks.pull(disks.paths[1])
    assert all(store.read(key, 5000) == body for key, body in keys.items())
    late = os.urandom(3000)
    assert store.stat([key_of(late)]) == {}, "what is on neither of the others was never stored"
    keys[stored(store, late)] = late
    for key, body in keys.items():
        assert check(store, key, body).wrong is None
        assert disks.holding(key) == [disks.paths[0], disks.paths[2]]
    disks.plug(disks.paths[1])
    for key, body in keys.items():
        check(store, key, body)
        assert len(disks.holding(key)) == 2, "what the disk still had, and what it took, is one copy each"
        assert check(store, key, body) == Checked(mended=True)


def test_too_few_folders_for_the_copies_take_nothing(disks: Disks) -> None:
    store = disks.open(2)
    for path in disks.paths[:2]:
        disks.pull(path)
    with pytest.raises(StoreUnavailable, match="2 copies are to be kept, and 1"):
        stored(store, b"body")
    assert not list(disks.paths[2].rglob("*.0"))


def test_a_full_disk_is_passed_over(disks: Disks, monkeypatch: pytest.MonkeyPatch) -> None:
    store = disks.open(2)
    full = disks.paths[0] / "incoming"
    original = os.open

    def open_(path: object, *rest: object, **more: object) -> int:
        if str(path).startswith(str(full)):
            raise OSError(28, "No space left on device")
        return original(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("remote.server.objects.files.os.open", open_)
    body = next(body for body in bodies(50) if store.folders[0].id in ranked([f.id for f in store.folders], key_of(body))[:2])
    with pytest.raises(StoreUnavailable, match="no room"):
        stored(store, body)
    assert not any(disks.holding(key_of(body))), "nothing half-done remains"
    assert disks.holding(stored(store, body)) == disks.paths[1:], "who asks again gets the others"


def key_of(body: bytes) -> str:
    return object_key(OWNER, hashlib.sha256(body).digest(), 0)


# ------------------------------------------------------------------------------------------------- folders come and go


def test_a_folder_that_is_added_gets_its_share(disks: Disks) -> None:
    store = disks.open(2, disks.paths[:2])
    keys = {stored(store, body): body for body in bodies(30)}
    store = disks.open(2)
    assert all(store.read(key, 5000) == body for key, body in keys.items())
    found = [check(store, key, body) for key, body in keys.items()]
    assert any(each.lacking for each in found)
    assert all(each.lacking == each.surplus for each in found)
    assert all(len(disks.holding(key)) == 2 for key in keys)
    assert any(disks.paths[2] in disks.holding(key) for key in keys)


def test_a_folder_is_known_wherever_it_is_mounted(disks: Disks) -> None:
    store = disks.open(1)
    keys = {stored(store, body): body for body in bodies(20)}
    one, two, _ = disks.paths
    one.rename(one.with_name("x"))
    two.rename(one)
    one.with_name("x").rename(two)
    again = disks.open(1)
    assert all(check(again, key, body) == Checked(mended=True) for key, body in keys.items()), "nothing has to move"


def test_a_folder_is_taken_out_by_its_line(disks: Disks) -> None:
    store = disks.open(2)
    keys = {stored(store, body): body for body in bodies(20)}
    file = disks.data / "folders.json"
    file.write_text(json.dumps({path: id_ for path, id_ in json.loads(file.read_bytes()).items() if "disk 2" not in path}))
    store = disks.open(2, disks.paths[:2])
    for key, body in keys.items():
        assert check(store, key, body).wrong is None
        assert {*disks.holding(key)} >= {*disks.paths[:2]}, "the second copy is made anew"


def test_a_folder_of_which_only_objects_were_copied_is_used(disks: Disks) -> None:
    key = stored(disks.open(1), b"body")
    for path in disks.paths:
        (path / "incoming").rmdir()
    store = disks.open(1)
    assert store.read(key, 4) == b"body"
    stored(store, b"another")


def test_one_folder_under_two_names_is_refused(disks: Disks, tmp_path: Path) -> None:
    disks.open(1)
    (tmp_path / "link").symlink_to(disks.paths[0])
    with pytest.raises(DataFolderError, match="one and the same"):
        disks.open(1, [disks.paths[0], tmp_path / "link"])


def test_whoever_names_other_folders_than_the_service_has_is_told(disks: Disks, tmp_path: Path) -> None:
    key = stored(disks.open(2), b"body")
    with pytest.raises(DataFolderError, match=r"objects in .*disk 0.*, too: .*--config"):
        open_local(ServerConfig(disks.data), Key("k", b"s" * 32), disks.clock, os.urandom)
    assert not (disks.data / "objects").exists()
    for some in (disks.paths[:2], disks.paths[1:]):
        with pytest.raises(DataFolderError, match=r"take its line out of .*folders\.json"):
            disks.open(2, some)
    moved = [path.rename(tmp_path / f"moved {number}") for number, path in enumerate(disks.paths)]
    assert disks.open(2, moved).read(key, 4) == b"body"


@pytest.mark.parametrize(("folders", "copies"), [(("a",), 2), (("a", "b"), 0), (("a", "a"), 1), ((), 2)])
def test_what_cannot_be_is_said(folders: tuple[str, ...], copies: int) -> None:
    with pytest.raises(ValueError, match=r"objects\.(copies|folders)"):
        ObjectsConfig(folders=tuple(map(Path, folders)), copies=copies)


# ------------------------------------------------------------------------------------------------------- the whole service


async def test_the_service_says_where_a_file_lies_and_serves_it_without_a_disk(tmp_path: Path) -> None:
    disks = Disks(tmp_path, 3)
    world = World.open(disks.data, objects=ObjectsConfig(folders=tuple(disks.paths), copies=2))
    try:
        ada = await world.device()
        body = os.urandom(50_000)
        await ada.store(ada.space, "file", new_id(), body)
        where = (await replicas(ada))["replicas"]
        assert (where["objects"], sorted(where["places"].values())) == (1, [1, 1])
        assert (await ada.get("/v1/files/metadata", params={"path": "/file"}))["replicas"] is None
        assert (await ada.get("/v1/files/metadata", params={"path": "/", "replicas": True}))["replicas"] is None
        held = [path for path in disks.paths if list(path.glob("*/*/*.0"))]
        disks.pull(held[0])
        assert (await ada.send("GET", "/v1/files/content", params={"path": "/file"})).content == body
        scrubbed = Scrubber(world.service.database, world.service.store, world.clock).run()
        assert (scrubbed.copied, scrubbed.left) == (1, 0)
        assert sum(bool(list(path.glob("*/*/*.0"))) for path in disks.paths) == 2
        disks.pull(held[1])
        disks.plug(held[0])
        assert (await ada.send("GET", "/v1/files/content", params={"path": "/file"})).content == body
        others = [path for path in disks.paths if path != held[1]]
        for path in others:
            disks.pull(path)
        problem(await ada.send("GET", "/v1/files/content", params={"path": "/file"}), 503, "unavailable")
    finally:
        await world.close()
        shutil.rmtree(disks.data)


async def replicas(device: Device) -> dict[str, object]:
    return dict(await device.get("/v1/files/metadata", params={"path": "/file", "replicas": True}))
