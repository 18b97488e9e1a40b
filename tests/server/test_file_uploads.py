"""Resumable uploads: only what is missing is sent, the store's word counts, and the file is there at once when nothing is."""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from tests.support.wire import (
    Device,
    Json,
    World,
    chunked,
    content,
    create,
    entry,
    inline,
    mkdir,
    new_id,
    new_row,
    problem,
    write,
)

CHUNKS = [os.urandom(1000), os.urandom(2000), os.urandom(3000)]


def object_id(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def plan(path: str, *chunks: bytes, **more: Any) -> Json:
    """A file of raw chunks."""
    return {
        "path": path,
        "size": sum(map(len, chunks)),
        "fingerprint": hashlib.sha256(b"".join(chunks)).hexdigest(),
        "chunks": [{"id": object_id(chunk), "size": len(chunk)} for chunk in chunks],
        **more,
    }


async def begin(device: Device, path: str, *chunks: bytes, **more: Any) -> Json:
    return await device.post("/v1/files/upload", plan(path, *chunks, **more))


async def send(device: Device, upload: Json, *chunks: bytes) -> None:
    links = {link["id"]: link for link in upload["missing"]}
    for chunk in chunks:
        response = await device.put(links[object_id(chunk)], chunk)
        assert response.status_code == 200, response.text


def missing(upload: Json) -> list[str]:
    assert upload["missing_chunks"] == len(upload["missing"])
    return [link["id"] for link in upload["missing"]]


async def complete(device: Device, upload: Json, **body: Any) -> Json:
    return await device.post(f"/v1/files/upload/{upload['id']}/complete", body)


async def test_a_file_comes_in_chunks_and_is_there_for_devices(ada: Device, other: Device) -> None:
    upload = await begin(ada, "/f.bin", *CHUNKS, type="text/html", mtime_ns=7)
    assert (upload["state"], upload["chunks"], missing(upload)) == ("open", 3, [object_id(chunk) for chunk in CHUNKS])
    await send(ada, upload, *CHUNKS)
    done = await complete(ada, upload)
    assert (done["state"], done["file"]["path"], done["file"]["size"]) == ("complete", "/f.bin", 6000)
    assert done["file"]["sha256"] == object_id(b"".join(CHUNKS))
    entries, inodes = await other.listing()
    inode = entries[other.space, "f.bin"]["inode"]
    assert inodes[inode]["content"]["manifest_id"] == hashlib.sha256(chunked(*CHUNKS)).hexdigest(), (
        "as a device would have made it"
    )
    assert inodes[inode]["attributes"]["mtime_ns"] == 7
    assert (await other.try_download(*map(object_id, CHUNKS))).status_code == 200


async def test_only_what_is_missing_is_sent_after_a_restart_and_from_another_machine(
    open_world: Callable[..., World],
) -> None:
    world = open_world()
    ada = await world.device()
    first = await begin(ada, "/f", *CHUNKS)
    await send(ada, first, CHUNKS[1])
    await world.close()
    again = open_world()
    again.accounts.update(world.accounts)
    other = await again.device()
    heads = await other.get("/v1/files/upload", params={"fingerprint": first["fingerprint"]})
    assert [head["id"] for head in heads["uploads"]] == [first["id"]]
    assert (await other.get("/v1/files/upload", params={"fingerprint": object_id(b"")}))["uploads"] == []
    expected = [object_id(CHUNKS[0]), object_id(CHUNKS[2])]
    assert missing(await other.get(f"/v1/files/upload/{first['id']}")) == expected
    second = await begin(other, "/f", *CHUNKS)
    assert (second["id"], missing(second)) == (first["id"], expected)
    elsewhere = await begin(other, "/g", *CHUNKS)
    assert (elsewhere["id"] != first["id"], missing(elsewhere)) == (True, expected), "another file of the same chunks"
    await send(other, second, CHUNKS[0], CHUNKS[2])
    assert (await complete(other, second))["file"]["path"] == "/f"
    assert (await complete(other, elsewhere))["file"]["path"] == "/g"


async def test_incomplete_says_what_is_missing(ada: Device) -> None:
    upload = await begin(ada, "/f", *CHUNKS)
    await send(ada, upload, CHUNKS[0])
    document = problem(await ada.send("POST", f"/v1/files/upload/{upload['id']}/complete", {}), 409, "incomplete")
    assert document["missing"] == [object_id(CHUNKS[1]), object_id(CHUNKS[2])]
    problem(await ada.send("GET", "/v1/files/metadata", params={"path": "/f"}), 404, "not-found")


async def test_a_chunk_is_uploaded_when_the_store_says_so(ada: Device) -> None:
    upload = await begin(ada, "/f", *CHUNKS)
    place = f"/v1/files/upload/{upload['id']}/chunks/{object_id(CHUNKS[0])}"
    claimed = (await ada.send("PATCH", place, {"status": "uploaded", "etag": '"x"'})).json()
    assert (claimed["state"], claimed["link"]["method"]) == ("missing", "PUT"), "a client's word is not enough"
    put = await ada.put(claimed["link"], CHUNKS[0])
    problem(await ada.send("PATCH", place, {"status": "uploaded", "etag": '"x"'}), 400, "invalid")
    told = (await ada.send("PATCH", place, {"status": "uploaded", "etag": put.headers["etag"]})).json()
    assert (told["state"], told["link"]) == ("uploaded", None)
    assert (await ada.post(place, {}))["state"] == "uploaded"
    fresh = await ada.post(place.replace(object_id(CHUNKS[0]), object_id(CHUNKS[1])), {})
    assert (await ada.put(fresh["link"], CHUNKS[1])).status_code == 200
    failed = await ada.send("PATCH", place.replace(object_id(CHUNKS[0]), object_id(CHUNKS[2])), {"status": "failed"})
    assert (await ada.put(failed.json()["link"], CHUNKS[2])).status_code == 200
    assert (await complete(ada, upload))["state"] == "complete"
    for chunk in (object_id(b"another"), "x", new_id()):
        problem(await ada.send("POST", f"/v1/files/upload/{upload['id']}/chunks/{chunk}", {}), 404, "not-found")


async def test_equal_content_is_complete_at_once(ada: Device, eve: Device) -> None:
    whole = b"".join(CHUNKS)
    await ada.upload(whole)
    row = new_row(new_id(), "file", content=content(chunked(whole), sha256=hashlib.sha256(whole).digest()))
    await ada.accept({"entries": [entry(ada.space, "old", None, row["id"])], "inodes": [row]})
    done = await begin(ada, "/new", *CHUNKS)
    assert (done["state"], done["file"]["sha256"]) == ("complete", object_id(whole)), "though it is cut otherwise"
    theirs = await begin(eve, "/new", *CHUNKS)
    assert theirs["missing_chunks"] == 3, "a hash is not enough to get at what others have"


async def test_small_and_empty_files_need_no_chunks(ada: Device) -> None:
    small = plan("/small", content=b64encode(b"hello").decode(), chunks=[]) | {"size": 5, "fingerprint": object_id(b"hello")}
    assert (await ada.post("/v1/files/upload", small))["file"]["version"] == hashlib.sha256(inline(b"hello")).hexdigest()
    assert (await begin(ada, "/empty"))["file"]["size"] == 0
    problem(await ada.send("POST", "/v1/files/upload", {**small, "path": "/x", "size": 4}), 400, "invalid")
    problem(await ada.send("POST", "/v1/files/upload", {**small, "path": "/x", "fingerprint": object_id(b"")}), 400, "invalid")


async def test_chunks_may_be_encoded_and_zeros_are_not_sent(ada: Device) -> None:
    plain = b"a" * 100_000
    stored = zstandard.compress(plain)
    chunks = [
        {"id": object_id(stored), "size": len(plain), "stored_size": len(stored), "encoding": "zstd"},
        {"size": 2**40, "encoding": "zeros"},
    ]
    split = {"minimum": 1, "average": 2, "maximum": 3}
    request = plan("/sparse") | {"size": 2**40 + 100_000, "fingerprint": "00" * 32, "chunks": chunks, "split": split}
    upload = await ada.post("/v1/files/upload", request)
    await send(ada, upload, stored)
    assert (await complete(ada, upload))["file"]["size"] == 2**40 + 100_000


async def test_a_name_that_is_taken(ada: Device) -> None:
    file = new_id()
    await ada.accept(create(ada.space, "f", file, b"old"), mkdir(ada.space, "d", new_id()))
    problem(await ada.send("POST", "/v1/files/upload", plan("/f", *CHUNKS)), 409, "exists")
    for policy in ("fail", "replace"):
        problem(await ada.send("POST", "/v1/files/upload", plan("/d", *CHUNKS, on_conflict=policy)), 409, "exists")
    replacing = await begin(ada, "/f", *CHUNKS, on_conflict="replace")
    await send(ada, replacing, *CHUNKS)
    done = await complete(ada, replacing)
    assert (done["file"]["id"], done["file"]["path"]) == (file, "/f"), "its history goes on"
    assert await ada.manifest(file, inline(b"old")) is not None
    renamed = await begin(ada, "/f", *CHUNKS, on_conflict="rename")
    assert (renamed["state"], renamed["file"]["path"]) == ("complete", "/f (2)")
    upload = await begin(ada, "/late", b"late")
    await send(ada, upload, b"late")
    await ada.accept(create(ada.space, "late", new_id(), b"was quicker"))
    problem(await ada.send("POST", f"/v1/files/upload/{upload['id']}/complete", {}), 409, "exists")
    assert (await complete(ada, upload, path="/other"))["file"]["path"] == "/other"


async def test_what_it_replaces_may_be_said(ada: Device) -> None:
    file = new_id()
    await ada.accept(create(ada.space, "f", file, b"one"))
    upload = await begin(ada, "/f", *CHUNKS, on_conflict="replace")
    await send(ada, upload, *CHUNKS)
    await ada.accept(write(file, b"two", 2))
    path = f"/v1/files/upload/{upload['id']}/complete"
    headers = {"Authorization": f"Bearer {ada.tokens['access_token']}"}
    tags = [f'"{hashlib.sha256(inline(body)).hexdigest()}"' for body in (b"one", b"two")]
    problem(await ada.http.post(path, json={}, headers={**headers, "If-Match": tags[0]}), 412, "precondition-failed")
    assert (await ada.http.post(path, json={}, headers={**headers, "If-Match": tags[1]})).status_code == 200


async def test_completing_again_says_the_same(ada: Device) -> None:
    upload = await begin(ada, "/f", *CHUNKS)
    await send(ada, upload, *CHUNKS)
    done = await complete(ada, upload)
    await ada.post("/v1/files/move", {"source": "/f", "target": "/moved"})
    again = await complete(ada, upload)
    assert again["file"]["path"] == "/moved"
    assert again["file"]["version"] == done["file"]["version"]
    await ada.send("DELETE", "/v1/files", params={"path": "/moved"})
    assert (await ada.get(f"/v1/files/upload/{upload['id']}"))["file"] is None
    assert (await ada.get("/v1/files/upload"))["uploads"] == []


async def test_there_must_be_room_before_anything_is_sent(open_world: Callable[..., World]) -> None:
    ada = await open_world(quota_bytes=5000).device()
    document = problem(await ada.send("POST", "/v1/files/upload", plan("/f", *CHUNKS)), 507, "quota")
    assert document["needed_bytes"] == 6000
    assert (await ada.get("/v1/files/upload"))["uploads"] == []
    upload = await begin(ada, "/f", *CHUNKS[:2])
    problem(await ada.send("POST", "/v1/files/upload", plan("/g", CHUNKS[2])), 507, "quota")
    await send(ada, upload, *CHUNKS[:2])
    await complete(ada, upload)


async def test_a_session_that_is_over_is_begun_again(ada: Device) -> None:
    upload = await begin(ada, "/f", *CHUNKS)
    await send(ada, upload, CHUNKS[0])
    ada.world.clock.advance(25 * 3600)
    await ada.refresh()
    again = await begin(ada, "/f", *CHUNKS)
    assert (again["id"] != upload["id"], again["missing_chunks"]) == (True, 3)
    await send(ada, again, *CHUNKS)
    assert (await complete(ada, again))["state"] == "complete"


async def test_an_upload_is_its_accounts_own(ada: Device, eve: Device) -> None:
    upload = await begin(ada, "/f", *CHUNKS)
    place = f"/v1/files/upload/{upload['id']}"
    for method, path, body in (
        ("GET", place, None),
        ("DELETE", place, None),
        ("POST", f"{place}/complete", {}),
        ("POST", f"{place}/chunks/{object_id(CHUNKS[0])}", {}),
        ("PATCH", f"{place}/chunks/{object_id(CHUNKS[0])}", {"status": "uploaded"}),
    ):
        problem(await eve.send(method, path, body), 404, "not-found")
    assert (await eve.get("/v1/files/upload"))["uploads"] == []
    assert (await ada.send("DELETE", place)).status_code == 204
    problem(await ada.send("GET", place), 404, "not-found")


async def test_what_the_store_lost_is_missing(ada: Device) -> None:
    upload = await begin(ada, "/f", *CHUNKS)
    await send(ada, upload, *CHUNKS)
    store = ada.world.service.store
    store.delete([row.key for row in store.listing() if object_id(CHUNKS[1]) in row.key])
    assert missing(await ada.get(f"/v1/files/upload/{upload['id']}")) == [object_id(CHUNKS[1])]
    problem(await ada.send("POST", f"/v1/files/upload/{upload['id']}/complete", {}), 409, "incomplete")


@pytest.mark.parametrize(
    "change",
    [
        {"size": 6001},
        {"path": "/"},
        {"path": "f"},
        {"fingerprint": "00"},
        {"chunks": [{"size": 6000}]},
        {"chunks": [{"id": "00" * 32, "size": 6000, "encoding": "zeros"}]},
        {"chunks": [{"id": "00" * 32, "size": 6000, "stored_size": 5000}]},
        {"chunks": [{"id": "00" * 32, "size": 17 * 2**20, "stored_size": 5000, "encoding": "zstd"}]},
        {"chunks": [{"id": "00" * 32, "size": 3000}, {"id": "00" * 32, "size": 3000, "stored_size": 1, "encoding": "zstd"}]},
        {"content": "AA=="},
        {"surprise": 1},
    ],
)
@pytest.mark.parametrize("database_of", ["sqlite"], indirect=True)
async def test_plans_are_checked(ada: Device, change: Json) -> None:
    response = await ada.send("POST", "/v1/files/upload", plan("/f", *CHUNKS) | change)
    problem(response, 409 if change == {"path": "/"} else 400, "exists" if change == {"path": "/"} else "invalid")
