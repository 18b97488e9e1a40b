"""What is stored is encrypted: the format, the master key, and the command that replaces it beside a running service."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote.server.config import ObjectsConfig, ServerConfig
from remote.server.folder import DataFolderError
from remote.server.keys import Key
from remote.server.objects.folders import path_of
from remote.server.objects.local import LocalStore
from remote.server.objects.opening import open_local
from remote.server.objects.rewrapping import KEPT_NS, Rewrapped, Rewrapping
from remote.server.objects.sealing import SEGMENT
from remote.server.objects.store import LinkBase, NoSuchObject, StoreUnavailable, object_key
from tests.support.wire import Clock, Device, World, new_id

OWNER = bytes(16)
BASE = LinkBase("http://store.test")


class Place:
    """A store in a folder, opened again and again."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.clock = Clock()

    def open(self, **objects: object) -> LocalStore:
        config = ServerConfig(self.data, objects=ObjectsConfig(**objects))  # type: ignore[arg-type]
        return open_local(config, Key("k", b"s" * 32), self.clock, os.urandom)

    def rewrap(self, *, finish: bool = False, dry_run: bool = False) -> Rewrapped:
        return Rewrapping(self.open(), self.data, self.clock, os.urandom).run(finish=finish, dry_run=dry_run)

    def file(self, key: str) -> Path:
        return path_of(self.data / "objects", key)

    def keys(self) -> list[str]:
        return [each["id"] for each in json.loads((self.data / "master.key").read_bytes())["keys"]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "data")


def stored(store: LocalStore, body: bytes) -> str:
    id_ = hashlib.sha256(body).digest()
    store.write(key := object_key(OWNER, id_, 0), id_, body)
    return key


# --------------------------------------------------------------------------------------------------------------- format


@given(
    length=st.integers(0, 3 * SEGMENT + 5),
    cuts=st.lists(st.integers(1, SEGMENT + 100), max_size=8),
    offset=st.integers(0, 4 * SEGMENT),
    wanted=st.integers(0, 4 * SEGMENT),
    encrypt=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_part_is_read_of_what_came_in_any_pieces(
    tmp_path_factory: pytest.TempPathFactory, length: int, cuts: list[int], offset: int, wanted: int, encrypt: bool
) -> None:
    store = Place(tmp_path_factory.mktemp("store")).open(encrypt=encrypt)
    body = os.urandom(length)
    key = object_key(OWNER, hashlib.sha256(body).digest(), 0)
    grant = store.sign_put(BASE, key, hashlib.sha256(body).digest(), length, 60)
    incoming = store.incoming(store.verify("PUT", key, grant.url.partition("?")[2], ""))
    rest = body
    for cut in cuts:
        incoming.write(rest[:cut])
        rest = rest[cut:]
    incoming.write(rest)
    incoming.finish()
    with store.open(key) as opened:
        assert opened.what.length == length
        assert opened.read(offset, wanted) == body[offset : offset + wanted]
    (listed,) = store.listing()
    assert (listed.key, listed.length) == (key, length)


def test_nothing_of_an_object_lies_on_the_disk(place: Place) -> None:
    body = b"a secret that one would find " * 5000
    key = stored(place.open(), body)
    raw = place.file(key).read_bytes()
    assert b"secret" not in raw
    assert json.loads((place.data / "master.key").read_bytes())["keys"][0]["secret"].encode() not in raw
    assert (place.data / "master.key").stat().st_mode & 0o777 == 0o600
    again = stored(place.open(), body)
    assert again == key
    assert place.file(key).read_bytes() != raw, "each file has a key of its own"


@pytest.mark.parametrize("at", ["segment", "last segment", "wrapped key", "length", "another object"])
def test_what_was_changed_does_not_open(place: Place, at: str) -> None:
    store = place.open()
    body = os.urandom(2 * SEGMENT + 100)
    key, other = stored(store, body), stored(store, os.urandom(2 * SEGMENT + 100))
    file = place.file(key)
    raw = bytearray(file.read_bytes())
    if at == "another object":
        file.write_bytes(place.file(other).read_bytes()[:-48] + raw[-48:])
    else:
        where = {"segment": 5, "last segment": 2 * SEGMENT + 40, "wrapped key": -150, "length": -40}[at]
        raw[where] ^= 1
        file.write_bytes(raw)
    with pytest.raises(NoSuchObject, match="damaged"):
        store.read(key, len(body))
    assert store.check(key, hashlib.sha256(body).digest(), len(body), mend=True).wrong is not None


def test_a_store_from_before_encryption_is_read_and_goes_on_encrypted(place: Place) -> None:
    old, new = os.urandom(5000), os.urandom(5000)
    before = stored(place.open(encrypt=False), old)
    store = place.open()
    after = stored(store, new)
    assert old in place.file(before).read_bytes()
    assert new not in place.file(after).read_bytes()
    assert (store.read(before, 5000), store.read(after, 5000)) == (old, new)
    plain = place.open(encrypt=False)
    assert (plain.read(before, 5000), plain.read(after, 5000)) == (old, new), "also when it is switched off again"


# ----------------------------------------------------------------------------------------------------------- master key


def test_without_its_master_key_a_store_is_refused_and_says_what_to_do(place: Place) -> None:
    key = stored(place.open(), b"body")
    (place.data / "master.key").rename(place.data / "kept")
    with pytest.raises(DataFolderError, match=r"need the master key .*put that file back"):
        place.open()
    assert not (place.data / "master.key").exists(), "no new key takes the place of a lost one"
    Place(place.data.parent / "other").open()
    (place.data.parent / "other" / "master.key").rename(place.data / "master.key")
    with pytest.raises(DataFolderError, match="need the master key"):
        place.open()
    (place.data / "kept").rename(place.data / "master.key")
    assert place.open().read(key, 4) == b"body"


def test_a_lost_key_is_not_replaced_while_the_disk_is_away_that_needs_it(place: Place) -> None:
    key = stored(place.open(), b"body")
    (place.data / "master.key").rename(place.data / "kept")
    (place.data / "objects").rename(place.data / "away")
    with pytest.raises(DataFolderError, match="a new key is made only where none was lost"):
        place.open()
    assert not (place.data / "master.key").exists()
    (place.data / "away").rename(place.data / "objects")
    (place.data / "kept").rename(place.data / "master.key")
    assert place.open().read(key, 4) == b"body"


@pytest.mark.parametrize("content", ["", "{}", '{"keys": [{}]}', '{"keys": [{"id": "00", "secret": "00", "created_ns": 0}]}'])
def test_a_damaged_master_key_is_an_error_and_not_a_new_key(place: Place, content: str) -> None:
    place.open()
    (place.data / "master.key").write_text(content)
    with pytest.raises(DataFolderError, match=r"master\.key is damaged: put it back"):
        place.open()


def test_one_bit_of_a_master_key_is_noticed(place: Place) -> None:
    place.open()
    file = place.data / "master.key"
    said = json.loads(file.read_bytes())
    said["keys"][0]["secret"] = ("0" if said["keys"][0]["secret"][0] != "0" else "1") + said["keys"][0]["secret"][1:]
    file.write_text(json.dumps(said))
    with pytest.raises(DataFolderError, match="damaged"):
        place.open()


def test_the_master_key_may_lie_elsewhere(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "usb" / "the.key"
    key = stored(place.open(master_key=elsewhere), b"body")
    assert elsewhere.exists()
    assert not (place.data / "master.key").exists()
    assert place.open(master_key=elsewhere).read(key, 4) == b"body"


async def test_a_service_takes_what_is_encrypted_for_what_it_was(world: World, ada: Device) -> None:
    body = os.urandom(300_000)
    await ada.store(ada.space, "file", new_id(), body)
    (file,) = world.service.folder.objects.glob("*/*/*.0")
    assert body[:100] not in file.read_bytes()
    assert (await ada.send("GET", "/v1/files/content", params={"path": "/file"})).content == body
    link = (await ada.get("/v1/files/download", params={"path": "/file"}))["links"][0]["url"]
    assert (await ada.http.get(link)).content == body
    assert (await ada.http.get(link, headers={"Range": "bytes=131000-"})).content == body[131000:]


# ------------------------------------------------------------------------------------------------------------ rewrapping


def test_a_new_key_wraps_all_and_the_former_one_is_dropped_later(place: Place) -> None:
    store = place.open()
    bodies = [os.urandom(100_000 + number) for number in range(5)]
    keys = [stored(store, body) for body in bodies]
    plain = stored(place.open(encrypt=False), b"plain" * 100)
    (former,) = place.keys()
    times = [place.file(key).stat().st_mtime_ns for key in keys]
    segments = [place.file(key).read_bytes()[:100_000] for key in keys]
    would = place.rewrap(dry_run=True)
    assert (would.key, would.files, would.rewrapped, would.encrypted) == (former, 6, 0, 1)
    report = place.rewrap()
    assert (report.files, report.rewrapped, report.encrypted, report.damaged) == (6, 5, 1, [])
    assert (report.former, place.keys()) == ([former], [report.key, former])
    assert b"plain" not in place.file(plain).read_bytes()
    assert [place.file(key).stat().st_mtime_ns for key in keys] == times
    assert [place.file(key).read_bytes()[:100_000] for key in keys] == segments, "contents are not written again"
    assert place.rewrap(finish=True).dropped == [], "something may be stored under it in this moment"
    place.clock.advance(KEPT_NS / 10**9 + 1)
    assert place.rewrap(finish=True).dropped == [former]
    assert place.keys() == [report.key]
    assert [place.open().read(key, len(body)) for key, body in zip(keys, bodies, strict=True)] == bodies
    assert store.read(keys[0], len(bodies[0])) == bodies[0], "a store that was open reads the new key"


def test_what_a_running_store_takes_after_that_is_wrapped_by_the_new_key(place: Place) -> None:
    running = place.open()
    stored(running, b"before")
    report = place.rewrap()
    stored(running, b"after")
    place.clock.advance(KEPT_NS / 10**9 + 1)
    last = place.rewrap(finish=True)
    assert (last.rewrapped, len(last.dropped), last.former) == (0, 1, [])
    assert running.read(stored(running, b"later"), 5) == b"later"
    assert place.keys() == [report.key]


def test_a_copy_by_hard_links_keeps_its_key(place: Place) -> None:
    key = stored(place.open(), b"body" * 1000)
    copy = place.data.parent / "copy"
    shutil.copytree(place.data, copy, copy_function=os.link)
    report = place.rewrap()
    assert (report.rewrapped, place.open().read(key, 4000)) == (1, b"body" * 1000)
    place.clock.advance(KEPT_NS / 10**9 + 1)
    place.rewrap(finish=True)
    assert Place(copy).open().read(key, 4000) == b"body" * 1000


def test_a_key_that_was_half_written_leaves_the_other_one(place: Place) -> None:
    """As a power cut does: the slot that was free is garbage."""
    store = place.open()
    key = stored(store, b"body" * 1000)
    file = place.file(key)
    raw = file.read_bytes()
    garbage = bytes.fromhex(place.keys()[0]) + os.urandom(60)
    file.write_bytes(raw[: -48 - 68] + garbage + raw[-48:])
    assert store.read(key, 4000) == b"body" * 1000
    assert place.rewrap().rewrapped == 1
    assert place.rewrap(finish=True).damaged == []
    assert place.open().read(key, 4000) == b"body" * 1000


def test_what_does_not_open_is_named_and_keeps_the_former_key(place: Place) -> None:
    key = stored(place.open(), b"body" * 1000)
    raw = bytearray(place.file(key).read_bytes())
    raw[-150] ^= 1
    place.file(key).write_bytes(raw)
    assert place.rewrap().damaged == [key]
    place.clock.advance(KEPT_NS / 10**9 + 1)
    report = place.rewrap(finish=True)
    assert (report.damaged, report.dropped, len(report.former)) == ([key], [], 1)


def test_a_key_that_is_gone_while_the_store_runs_is_said_and_is_no_loss(place: Place) -> None:
    store = place.open()
    key = stored(store, b"body")
    about = place.data / "objects" / "about.json"
    about.write_text(json.dumps(json.loads(about.read_bytes()) | {"master_keys": []}))
    (place.data / "master.key").unlink()
    assert store.read(key, 4) == b"body", "who knows it goes on"
    with pytest.raises(StoreUnavailable, match=r"master key .* is not in"):
        place.open().read(key, 4)
