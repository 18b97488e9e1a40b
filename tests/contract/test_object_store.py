"""What every object store must do, spoken to as the service and its clients do: links by HTTP, questions by the interface.

It runs on the embedded store, on Swift and on Ceph. A new store joins by a fixture that gives a `Contract`.
"""

from __future__ import annotations

import hashlib
import os
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from remote.api import LinkExpired, NotThere, Rejected, RemoteError
from remote.api import StoreUnavailable as Unavailable
from remote.problems import error_from_store
from remote.protocol import Link
from remote.server.config import S3Config, ServerConfig
from remote.server.keys import Key
from remote.server.objects.endpoint import ObjectEndpoint
from remote.server.objects.opening import open_local
from remote.server.objects.s3 import S3Store
from remote.server.objects.store import (
    BadStoreSettings,
    LinkBase,
    Listed,
    NoSuchObject,
    ObjectStore,
    Stored,
    StoreUnavailable,
    object_key,
)
from tests.support.stores import PATIENCE, RunningStore
from tests.support.wire import Clock

BASE = LinkBase("http://store.test")


@dataclass(frozen=True)
class Contract:
    store: ObjectStore
    http: httpx.AsyncClient
    owner: bytes
    expired: Callable[[str], Awaitable[None]]
    """Wait until a link that was signed for a second is over."""

    def listed(self) -> list[Listed]:
        """All that is kept for this test's owner."""
        found: list[Listed] = []
        after = self.owner.hex()
        while page := self.store.listing(after, 100):
            found += [one for one in page if one.key.startswith(self.owner.hex())]
            after = page[-1].key
        return found


@asynccontextmanager
async def on_a_folder(folder: Path) -> AsyncIterator[Contract]:
    clock = Clock()
    store = open_local(ServerConfig(folder.parent), Key("k", b"s" * 32), clock, os.urandom)

    async def expired(url: str) -> None:
        clock.advance(2)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=ObjectEndpoint(store))) as http:
        yield Contract(store, http, os.urandom(16), expired)


@asynccontextmanager
async def over_s3(server: RunningStore, clients: dict[str, S3Store]) -> AsyncIterator[Contract]:
    if server.name not in clients:
        clients[server.name] = S3Store(server.settings())
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as http:

        async def expired(url: str) -> None:
            with trio.fail_after(PATIENCE):
                while (await http.get(url)).status_code != 403:  # noqa: ASYNC110 (only the store knows)
                    await trio.sleep(0.2)

        yield Contract(clients[server.name], http, os.urandom(16), expired)


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, S3Store]]:
    """One for each real store: making them takes longer than most of the tests."""
    made: dict[str, S3Store] = {}
    yield made
    for each in made.values():
        each.close()


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Contract]:
    async with on_a_folder(tmp_path / "objects") as contract:
        yield contract


@pytest.fixture
async def s3(real: RunningStore, clients: dict[str, S3Store]) -> AsyncIterator[Contract]:
    async with over_s3(real, clients) as contract:
        yield contract


@pytest.fixture(params=["local", "swift", "ceph"])
async def contract(request: pytest.FixtureRequest, tmp_path: Path, clients: dict[str, S3Store]) -> AsyncIterator[Contract]:
    if request.param == "local":
        opened = on_a_folder(tmp_path / "objects")
    else:
        opened = over_s3(request.getfixturevalue(request.param), clients)
    async with opened as contract:
        yield contract


def put_link(contract: Contract, body: bytes, generation: int = 0, expires_in: int = 300) -> tuple[str, Link]:
    object_id = hashlib.sha256(body).digest()
    key = object_key(contract.owner, object_id, generation)
    return key, contract.store.sign_put(BASE, key, object_id, len(body), expires_in)


def put(contract: Contract, link: Link, body: bytes, **changed: str) -> Awaitable[httpx.Response]:
    """Send the body by the link; `changed` headers with underscores."""
    other = {name.replace("_", "-"): value for name, value in changed.items()}
    return contract.http.put(link.url, content=body, headers=link.headers | {"Content-Length": str(len(body))} | other)


def get_link(contract: Contract, key: str, body: bytes, expires_in: int = 300) -> str:
    return contract.store.sign_get(BASE, key, hashlib.sha256(body).digest(), expires_in).url


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
    absent = object_key(contract.owner, bytes(32), 0)
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
    key, link = put_link(contract, b"right")
    response = await put(contract, link, wrong)
    assert 400 <= response.status_code < 500
    assert contract.store.stat([key]) == {}
    assert contract.listed() == []


async def test_a_wrong_body_does_not_harm_the_right_one(contract: Contract) -> None:
    key, link = put_link(contract, b"right")
    await put(contract, link, b"right")
    await put(contract, link, b"wrong")
    assert (await contract.http.get(get_link(contract, key, b"right"))).content == b"right"


async def test_links_expire(contract: Contract) -> None:
    key, link = put_link(contract, b"late")
    await put(contract, link, b"late")
    _, short = put_link(contract, b"late", expires_in=1)
    await contract.expired(get_link(contract, key, b"late", expires_in=1))
    assert (await put(contract, short, b"late")).status_code == 403


async def test_links_are_for_one_method_and_one_key(contract: Contract) -> None:
    key, link = put_link(contract, b"one")
    other_key, _ = put_link(contract, b"two")
    await put(contract, link, b"one")
    assert (await contract.http.get(link.url)).status_code == 403
    assert (await contract.http.put(get_link(contract, key, b"one"), content=b"one")).status_code == 403
    assert (await put(contract, link.model_copy(update={"url": link.url.replace(key, other_key)}), b"one")).status_code == 403
    assert (await contract.http.get(link.url.partition("?")[0])).status_code in (400, 403)
    assert contract.store.stat([other_key]) == {}


async def test_what_is_deleted_is_gone(contract: Contract) -> None:
    keys = []
    for body in (b"first", b"second", b"third"):
        key, link = put_link(contract, body)
        await put(contract, link, body)
        keys.append(key)
    contract.store.delete([*keys[:2], object_key(contract.owner, bytes(32), 0)])
    assert list(contract.store.stat(keys)) == keys[2:]
    assert [one.key for one in contract.listed()] == keys[2:]
    assert (await contract.http.get(get_link(contract, keys[0], b"first"))).status_code == 404


async def test_a_listing_goes_on_where_the_last_one_ended(contract: Contract) -> None:
    keys = []
    for generation in range(3):
        for body in (b"a", b"bb", b"ccc"):
            key, link = put_link(contract, body, generation)
            await put(contract, link, body)
            keys.append(key)
    found: list[Listed] = []
    after = contract.owner.hex()
    while len(page := contract.store.listing(after, 2)) == 2 and page[0].key.startswith(contract.owner.hex()):
        found += page
        after = page[-1].key
    found += page
    mine = [one for one in found if one.key.startswith(contract.owner.hex())]
    assert [one.key for one in mine] == sorted(keys)
    assert {one.length for one in mine} == {1, 2, 3}
    assert all(one.modified_ns > 1_700_000_000 * 10**9 for one in mine)


async def test_what_is_not_there_is_not_found(contract: Contract) -> None:
    key, _ = put_link(contract, b"nothing")
    assert (await contract.http.get(get_link(contract, key, b"nothing"))).status_code == 404


async def test_parts_can_be_fetched(contract: Contract) -> None:
    body = bytes(range(200))
    key, link = put_link(contract, body)
    await put(contract, link, body)
    response = await contract.http.get(get_link(contract, key, body), headers={"Range": "bytes=50-99"})
    assert (response.status_code, response.content) == (206, body[50:100])


# ------------------------------------------------------------------------------------------------ the S3 stores' own


async def test_what_was_signed_must_be_sent(s3: Contract) -> None:
    """Whoever has the link can change nothing of it: not the sums that the store compares with, and not leave them away."""
    key, link = put_link(s3, b"right")
    digest = hashlib.sha256(b"wrong")
    other = {"x_amz_content_sha256": digest.hexdigest(), "x_amz_checksum_sha256": b64encode(digest.digest()).decode()}
    assert (await put(s3, link, b"wrong", **other)).status_code in (400, 403)
    for name in ("x-amz-content-sha256", "x-amz-checksum-sha256"):
        headers = {key: value for key, value in link.headers.items() if key != name}
        assert (await put(s3, link.model_copy(update={"headers": headers}), b"right")).status_code in (400, 403)
    assert s3.store.stat([key]) == {}
    assert (await put(s3, link, b"right")).status_code == 200


async def test_a_body_that_is_cut_short_leaves_nothing(s3: Contract) -> None:
    body = os.urandom(300_000)
    key, link = put_link(s3, body)
    parts = urlsplit(link.url)
    assert parts.hostname is not None
    head = [f"PUT {parts.path}?{parts.query} HTTP/1.1", f"Host: {parts.netloc}", *(f"{n}: {v}" for n, v in link.headers.items())]
    with socket.create_connection((parts.hostname, parts.port or 80), PATIENCE) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body[:150_000])
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(PATIENCE)
        while connection.recv(4096):  # until the store has ended it
            pass
    assert s3.store.stat([key]) == {}
    assert (await put(s3, link, body)).status_code == 200
    assert s3.store.stat([key])[key].length == len(body)


async def test_what_a_store_answers_is_understood_by_devices(s3: Contract) -> None:
    key, link = put_link(s3, b"right")
    elsewhere = link.url.replace("/objects/", "/nowhere/")

    async def understood(method: str, url: str, body: bytes = b"") -> type[RemoteError]:
        headers = link.headers if method == "PUT" else {}
        answer = await s3.http.request(method, url, content=body, headers=headers)
        return type(error_from_store(answer.status_code, answer.headers, answer.content, "the store"))

    assert await understood("PUT", link.url, b"wrong") is Rejected
    assert await understood("GET", get_link(s3, key, b"right")) is NotThere
    assert await understood("GET", link.url) is LinkExpired
    assert await understood("PUT", elsewhere, b"right") in (LinkExpired, Unavailable)


async def test_the_md5_can_be_signed_for_a_store_that_compares_nothing_else(s3: Contract) -> None:
    body = b"right"
    object_id, other = hashlib.sha256(body).digest(), hashlib.md5(b"wrong", usedforsecurity=False).digest()
    key = object_key(s3.owner, object_id, 0)
    link = s3.store.sign_put(BASE, key, object_id, len(body), 300, other)
    assert (await put(s3, link, body)).status_code == 400
    plain = {name: value for name, value in link.headers.items() if name != "Content-MD5"}
    assert (await put(s3, link.model_copy(update={"headers": plain}), body)).status_code == 403
    assert s3.store.stat([key]) == {}
    link = s3.store.sign_put(BASE, key, object_id, len(body), 300, hashlib.md5(body, usedforsecurity=False).digest())
    assert (await put(s3, link, body)).status_code == 200


async def test_encryption_at_rest_is_asked_for_in_the_link(ceph: RunningStore) -> None:
    """Ceph has a key called testkey."""
    store = S3Store(ceph.settings(sse="aws:kms", sse_kms_key="testkey"))
    body = os.urandom(70_000)
    object_id = hashlib.sha256(body).digest()
    key = object_key(os.urandom(16), object_id, 0)
    link = store.sign_put(BASE, key, object_id, len(body), 300)
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as http:
        plain = {name: value for name, value in link.headers.items() if "encryption" not in name}
        assert (await http.put(link.url, content=body, headers=plain)).status_code == 403
        assert (await http.put(link.url, content=body[::-1], headers=link.headers)).status_code == 400
        assert store.stat([key]) == {}
        assert (await http.put(link.url, content=body, headers=link.headers)).status_code == 200
        assert store.stat([key])[key].length == len(body)
        answer = await http.get(store.sign_get(BASE, key, object_id, 300).url)
    assert answer.content == body
    assert answer.headers["x-amz-server-side-encryption"] == "aws:kms"
    store.close()


async def test_a_store_that_hangs_or_is_gone_is_unavailable(real: RunningStore) -> None:
    key = object_key(bytes(16), bytes(32), 0)
    store = S3Store(real.settings(timeout_seconds=0.2))
    with real.servers.hanging(), pytest.raises(StoreUnavailable):
        store.stat([key])
    store.close()
    nowhere = S3Store(real.settings(endpoint="http://127.0.0.1:9"))
    with pytest.raises(StoreUnavailable):
        nowhere.stat([key])
    nowhere.close()


async def test_a_store_that_does_not_know_us_is_unavailable(real: RunningStore, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n")
    store = S3Store(real.settings(credentials_file=file))
    with pytest.raises(StoreUnavailable):
        store.stat([object_key(bytes(16), bytes(32), 0)])
    store.close()


def test_credentials_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(BadStoreSettings, match="credentials"):
        S3Store(S3Config("bucket", endpoint="http://127.0.0.1:9", credentials_file=tmp_path / "nothing"))


async def test_what_is_stored_is_checked(contract: Contract) -> None:
    body = os.urandom(100_000)
    key, link = put_link(contract, body)
    id_ = hashlib.sha256(body).digest()
    assert contract.store.check(key, id_, len(body), mend=True).wrong == "it is not there"
    await put(contract, link, body)
    assert contract.store.check(key, id_, len(body), mend=True).wrong is None
    assert contract.store.check(key, bytes(32), len(body), mend=False).wrong == "its bytes are not those that its name says"
    assert contract.store.check(key, id_, len(body) + 1, mend=False).wrong == "its bytes are not those that its name says"
    assert set(contract.store.replicas([key])) <= {key}


async def test_the_service_reads_what_was_stored_and_knows_its_etag(contract: Contract) -> None:
    body = os.urandom(100_000)
    key, link = put_link(contract, body)
    with pytest.raises(NoSuchObject):
        contract.store.read(key, len(body))
    etag = (await put(contract, link, body)).headers["etag"]
    assert contract.store.read(key, len(body)) == body
    assert contract.store.read(key, 1000) == body[:1000]
    assert contract.store.stat([key])[key].etag == etag.strip('"')


async def test_the_service_puts_right_what_is_damaged(contract: Contract) -> None:
    body = os.urandom(50_000)
    key, link = put_link(contract, body)
    contract.store.write(key, hashlib.sha256(body).digest(), body)
    assert contract.store.read(key, len(body)) == body
    assert contract.store.stat([key])[key].length == len(body)
    assert (await put(contract, link, body)).is_success
    contract.store.write(key, hashlib.sha256(body).digest(), body)
    assert contract.store.read(key, len(body)) == body


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
    assert local.store.stat([key]) == {key: Stored(1000, hashlib.sha256(body).digest(), hashlib.sha256(body).hexdigest())}


async def test_a_full_disk_is_said_and_leaves_nothing(local: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> int:
        raise OSError(28, "No space left on device")

    def files() -> int:
        return sum(file.is_file() and file.name != "about.json" for file in (tmp_path / "objects").rglob("*"))

    key, link = put_link(local, b"x" * 1000)
    for call in ("write", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(f"remote.server.objects.files.os.{call}", no_room)
            response = await put(local, link, b"x" * 1000)
        assert (response.status_code, response.json()["type"]) == (503, "unavailable")
        assert "retry-after" in response.headers
        assert files() == 0
    assert (await put(local, link, b"x" * 1000)).status_code == 200
    assert key in local.store.stat([key])


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "a/b.0", f"{'0' * 32}/{'0' * 64}.0/../x", f"{'0' * 32}/{'0' * 64}"])
async def test_keys_that_are_none_reach_no_file(local: Contract, key: str) -> None:
    assert local.store.stat([key]) == {}
    assert (await local.http.get(local.store.sign_get(BASE, key, bytes(32), 300).url)).status_code in (403, 404)
