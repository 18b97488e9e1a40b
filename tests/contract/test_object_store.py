"""What every object store must do, spoken to as the service and its clients do: links by HTTP, questions by the interface.

A new store joins by a fixture that gives a `Contract`; the embedded store is the first.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from remote.protocol import Link
from remote.server.folder import Key
from remote.server.objects.endpoint import ObjectEndpoint
from remote.server.objects.local import LocalStore
from remote.server.objects.store import ObjectStore, Stored, object_key
from tests.support.wire import Clock

BASE = "http://store.test"
OWNER = bytes(16)


@dataclass(frozen=True)
class Contract:
    store: ObjectStore
    http: httpx.AsyncClient
    expire: Callable[[], None]
    """Let so much time pass that links of five minutes are over."""
    stored_files: Callable[[], int]
    """How many files the store keeps, of whole and of half objects."""


@pytest.fixture
async def local(tmp_path: Path) -> Contract:
    clock = Clock()
    store = LocalStore(tmp_path / "objects", Key("k", b"s" * 32), clock, os.urandom)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app=ObjectEndpoint(store)))

    def stored_files() -> int:
        return sum(file.is_file() for file in (tmp_path / "objects").rglob("*"))

    return Contract(store, http, lambda: clock.advance(301), stored_files)


@pytest.fixture(params=["local"])
async def contract(request: pytest.FixtureRequest, local: Contract) -> Contract:
    return {"local": local}[request.param]


def put_link(contract: Contract, body: bytes, generation: int = 0) -> tuple[str, Link]:
    object_id = hashlib.sha256(body).digest()
    key = object_key(OWNER, object_id, generation)
    return key, contract.store.sign_put(BASE, key, object_id, len(body), 300)


def put(contract: Contract, link: Link, body: bytes) -> Awaitable[httpx.Response]:
    return contract.http.put(link.url, content=body, headers=link.headers)


def get_link(contract: Contract, key: str, body: bytes) -> str:
    return contract.store.sign_get(BASE, key, hashlib.sha256(body).digest(), 300).url


async def test_what_was_put_is_there_and_comes_back(contract: Contract) -> None:
    body = os.urandom(2_500_000)
    key, link = put_link(contract, body)
    assert contract.store.stat([key]) == {}
    assert (await put(contract, link, body)).status_code == 200
    stored = contract.store.stat([key])[key]
    assert stored.length == len(body)
    assert stored.sha256 in (None, hashlib.sha256(body).digest())
    assert (await contract.http.get(get_link(contract, key, body))).content == body


async def test_many_are_asked_for_at_once(contract: Contract) -> None:
    bodies = [os.urandom(n + 1) for n in range(5)]
    keys = []
    for body in bodies:
        key, link = put_link(contract, body)
        keys.append(key)
        await put(contract, link, body)
    absent = object_key(OWNER, bytes(32), 0)
    found = contract.store.stat([*keys, absent])
    assert {key: stored.length for key, stored in found.items()} == {
        key: len(body) for key, body in zip(keys, bodies, strict=True)
    }


async def test_putting_again_is_harmless(contract: Contract) -> None:
    key, link = put_link(contract, b"again")
    assert {(await put(contract, link, b"again")).status_code for _ in range(3)} == {200}
    assert contract.store.stat([key])[key].length == 5


async def test_generations_are_different_objects(contract: Contract) -> None:
    _, first = put_link(contract, b"same", 0)
    second_key, _ = put_link(contract, b"same", 1)
    await put(contract, first, b"same")
    assert contract.store.stat([second_key]) == {}


@pytest.mark.parametrize("wrong", [b"wrong", b"righ", b"rights", b""])
async def test_a_wrong_body_is_refused_and_leaves_nothing(contract: Contract, wrong: bytes) -> None:
    before = contract.stored_files()
    key, link = put_link(contract, b"right")
    response = await contract.http.put(link.url, content=wrong)
    assert 400 <= response.status_code < 500
    assert contract.store.stat([key]) == {}
    assert contract.stored_files() == before


async def test_a_wrong_body_does_not_harm_the_right_one(contract: Contract) -> None:
    key, link = put_link(contract, b"right")
    await put(contract, link, b"right")
    await put(contract, link, b"wrong")
    assert (await contract.http.get(get_link(contract, key, b"right"))).content == b"right"


async def test_links_expire(contract: Contract) -> None:
    key, link = put_link(contract, b"late")
    await put(contract, link, b"late")
    url = get_link(contract, key, b"late")
    contract.expire()
    assert (await put(contract, link, b"late")).status_code == 403
    assert (await contract.http.get(url)).status_code == 403


async def test_links_are_for_one_method_and_one_key(contract: Contract) -> None:
    key, link = put_link(contract, b"one")
    other_key, _ = put_link(contract, b"two")
    await put(contract, link, b"one")
    assert (await contract.http.get(link.url)).status_code == 403
    assert (await contract.http.put(get_link(contract, key, b"one"), content=b"one")).status_code == 403
    assert (await put(contract, link.model_copy(update={"url": link.url.replace(key, other_key)}), b"one")).status_code == 403
    assert (await contract.http.get(f"{BASE}/objects/{key}")).status_code == 403
    assert contract.store.stat([other_key]) == {}


async def test_what_is_not_there_is_not_found(contract: Contract) -> None:
    key, _ = put_link(contract, b"nothing")
    assert (await contract.http.get(get_link(contract, key, b"nothing"))).status_code == 404


async def test_parts_can_be_fetched(contract: Contract) -> None:
    body = bytes(range(200))
    key, link = put_link(contract, body)
    await put(contract, link, body)
    response = await contract.http.get(get_link(contract, key, body), headers={"Range": "bytes=50-99"})
    assert (response.status_code, response.content) == (206, body[50:100])


# -------------------------------------------------------------------------------------------- the embedded store's own


async def test_a_damaged_file_is_not_taken_for_an_object(local: Contract, tmp_path: Path) -> None:
    body = os.urandom(1000)
    key, link = put_link(local, body)
    await put(local, link, body)
    (file,) = (file for file in (tmp_path / "objects").rglob("*.0"))
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:500], b"", whole + b"x"):
        file.write_bytes(damaged)
        assert local.store.stat([key]) == {}
        assert (await local.http.get(get_link(local, key, body))).status_code == 404
    file.write_bytes(whole)
    assert local.store.stat([key]) == {key: Stored(1000, hashlib.sha256(body).digest())}


async def test_a_full_disk_is_said_and_leaves_nothing(local: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> int:
        raise OSError(28, "No space left on device")

    before = local.stored_files()
    key, link = put_link(local, b"x" * 1000)
    for call in ("write", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(f"remote.server.objects.local.os.{call}", no_room)
            response = await put(local, link, b"x" * 1000)
        assert (response.status_code, response.json()["type"]) == (503, "unavailable")
        assert "retry-after" in response.headers
        assert local.stored_files() == before
    assert (await put(local, link, b"x" * 1000)).status_code == 200
    assert key in local.store.stat([key])


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "a/b.0", f"{'0' * 32}/{'0' * 64}.0/../x", f"{'0' * 32}/{'0' * 64}"])
async def test_keys_that_are_none_reach_no_file(local: Contract, key: str) -> None:
    assert local.store.stat([key]) == {}
    assert (await local.http.get(local.store.sign_get(BASE, key, bytes(32), 300).url)).status_code in (403, 404)
