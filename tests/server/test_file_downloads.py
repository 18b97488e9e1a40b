"""Downloads of plain clients: by chunks, and as one body that is never made of two versions."""

from __future__ import annotations

import hashlib
import os
from base64 import b64decode
from typing import Any

import httpx
import pytest
import zstandard

from remote.manifest import ChunkRef, Encoding, Manifest, Split, manifest_id
from remote.server import filedownloads
from remote.server.streams import STREAMS_OF_ACCOUNT
from tests.support.wire import Device, Json, content, create, entry, new_id, new_row, problem, write

TEXT = b"the same again and again " * 4000
PLAIN = [os.urandom(5000), TEXT, bytes(3_000_000), os.urandom(100)]
STORED = [PLAIN[0], zstandard.compress(TEXT), b"", b"before" + PLAIN[3] + b"after"]
WHOLE = b"".join(PLAIN)


def object_id(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


MANIFEST = Manifest.from_chunks(
    Split(0, 0, 0),
    (
        ChunkRef.whole(object_id(STORED[0]), 5000, 5000, Encoding.RAW),
        ChunkRef.whole(object_id(STORED[1]), len(TEXT), len(STORED[1]), Encoding.ZSTD),
        ChunkRef.zeros(len(PLAIN[2])),
        ChunkRef(object_id(STORED[3]), len(STORED[3]), len(STORED[3]), Encoding.RAW, 6, 100),
    ),
).encode()
"""One of each: a raw chunk, a compressed one, zeros, and a slice of a pack."""
VERSION = manifest_id(MANIFEST).hex()


@pytest.fixture
async def file(ada: Device) -> str:
    """`/f.bin`; its inode."""
    inode = new_id()
    await ada.upload(STORED[0], STORED[1], STORED[3])
    row = new_row(inode, "file", content=content(MANIFEST, sha256=object_id(WHOLE)))
    await ada.accept({"entries": [entry(ada.space, "f.bin", None, inode)], "inodes": [row]})
    return inode


async def fetch(device: Device, path: str | None = "/f.bin", method: str = "GET", **more: Any) -> httpx.Response:
    """The content; `more`: headers, with underscores, and of the query what is no header."""
    query = {key: more.pop(key) for key in ("id", "version", "inline") if key in more} | ({"path": path} if path else {})
    headers = {"Authorization": f"Bearer {device.tokens['access_token']}", **{k.replace("_", "-"): v for k, v in more.items()}}
    return await device.http.request(method, "/v1/files/content", params=query, headers=headers)


# -------------------------------------------------------------------------------------------------------------- chunks


async def put_together(device: Device, **query: Any) -> bytes:
    """What a client makes of a download: all pages, each object by its link."""
    found = b""
    while True:
        page: Json = await device.get("/v1/files/download", params=query)
        if page["content"] is not None:
            return b64decode(page["content"])
        stored = {link["id"]: (await device.http.get(link["url"], headers=link["headers"])).content for link in page["links"]}
        for chunk in page["chunks"]:
            if chunk["encoding"] == "zeros":
                found += bytes(chunk["size"])
                continue
            assert hashlib.sha256(stored[chunk["id"]]).hexdigest() == chunk["id"]
            assert len(stored[chunk["id"]]) == chunk["stored_size"]
            plain = stored[chunk["id"]] if chunk["encoding"] == "raw" else zstandard.decompress(stored[chunk["id"]])
            found += plain[chunk["start"] : chunk["start"] + chunk["size"]]
        if page["next"] is None:
            return found
        query |= {"start": page["next"], "version": page["version"]}


async def test_a_file_is_put_together_from_its_chunks(ada: Device, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = await ada.get("/v1/files/download", params={"path": "/f.bin"})
    assert (page["id"], page["version"], page["size"]) == (file, VERSION, len(WHOLE))
    assert page["sha256"] == hashlib.sha256(WHOLE).hexdigest()
    assert await put_together(ada, path="/f.bin") == WHOLE
    monkeypatch.setattr(filedownloads, "LINKS_MAX", 1)
    assert await put_together(ada, id=file) == WHOLE


async def test_a_range_has_the_chunks_that_it_needs(ada: Device, file: str) -> None:
    async def offsets(**query: Any) -> list[int]:
        page = await ada.get("/v1/files/download", params={"path": "/f.bin", **query})
        return [chunk["offset"] for chunk in page["chunks"]]

    text = 5000 + len(TEXT)
    assert await offsets(start=0, end=5000) == [0]
    assert await offsets(start=4999, end=5001) == [0, 5000]
    assert await offsets(start=5000, end=text) == [5000]
    assert await offsets(start=text + 10) == [text, text + 3_000_000]
    assert await offsets(start=len(WHOLE)) == []
    assert await offsets(start=7, end=7) == []


async def test_a_version_stays_what_it_is(ada: Device, file: str) -> None:
    await ada.accept(write(file, b"new", 2))
    assert await put_together(ada, path="/f.bin") == b"new"
    assert await put_together(ada, path="/f.bin", version=VERSION) == WHOLE
    await ada.send("DELETE", "/v1/files", params={"path": "/f.bin"})
    page = await ada.get("/v1/files/download", params={"id": file, "version": VERSION})
    assert (page["path"], page["size"]) == (None, len(WHOLE))


async def test_a_fresh_link_for_a_chunk_of_the_file(ada: Device, eve: Device, file: str) -> None:
    path = f"/v1/files/download/chunks/{object_id(STORED[0]).hex()}"
    link = await ada.get(path, params={"path": "/f.bin"})
    assert (await ada.http.get(link["url"])).content == STORED[0]
    await ada.accept(create(ada.space, "other", new_id(), b"x"))
    problem(await ada.send("GET", path, params={"path": "/other"}), 404, "not-found")
    for route in (path, "/v1/files/download", "/v1/files/content"):
        problem(await eve.send("GET", route, params={"id": file}), 404, "not-found")
        problem(await ada.send("GET", route, params={"path": "/f.bin", "version": "00" * 32}), 404, "not-found")
        problem(await ada.send("GET", route, params={"path": "/f.bin", "id": file}), 400, "invalid")
        problem(await ada.send("GET", route), 400, "invalid")
        problem(await ada.send("GET", route, params={"path": "/"}), 400, "invalid")


# --------------------------------------------------------------------------------------------------------------- bytes


async def test_the_bytes_in_one_body(ada: Device, file: str) -> None:
    whole = await fetch(ada)
    assert (whole.status_code, whole.content == WHOLE) == (200, True)
    assert whole.headers["etag"] == f'"{VERSION}"'
    assert whole.headers["accept-ranges"] == "bytes"
    head = await fetch(ada, method="HEAD")
    assert (head.content, head.headers["content-length"], head.headers["etag"]) == (b"", str(len(WHOLE)), whole.headers["etag"])
    assert (await fetch(ada, path=None, id=file)).content == WHOLE
    await ada.accept(create(ada.space, "small", new_id(), b"hello"), create(ada.space, "empty", new_id(), b""))
    assert (await fetch(ada, "/small", range="bytes=1-2")).content == b"el"
    assert (await fetch(ada, "/empty")).content == b""
    assert ada.world.service.streams.under_way == 0


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=4990-5009", 4990, 5010),
        ("bytes=0-", 0, len(WHOLE)),
        ("bytes=-150", len(WHOLE) - 150, len(WHOLE)),
        (f"bytes=5001-{len(WHOLE) + 5}", 5001, len(WHOLE)),
    ],
)
@pytest.mark.parametrize("database_of", ["sqlite"], indirect=True)
async def test_ranges(ada: Device, file: str, asked: str, start: int, end: int) -> None:
    part = await fetch(ada, range=asked)
    assert (part.status_code, part.content == WHOLE[start:end]) == (206, True)
    assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(WHOLE)}"
    assert part.headers["content-length"] == str(end - start)


async def test_ranges_that_are_none(ada: Device, file: str) -> None:
    for asked in ("bytes=0-1,5-6", "lines=1-2", "bytes=5-4", "bytes=-"):
        assert (await fetch(ada, range=asked)).status_code == 200, asked
    outside = await fetch(ada, range=f"bytes={len(WHOLE)}-", version=VERSION)
    problem(outside, 416, "invalid")
    assert outside.headers["content-range"] == f"bytes */{len(WHOLE)}"


async def test_the_rest_of_a_file_is_of_the_version_that_was_begun(ada: Device, file: str) -> None:
    tag = f'"{VERSION}"'
    assert (await fetch(ada, range="bytes=5000-")).status_code == 200, "who knows of which version the client has a beginning?"
    for pinned in ({"version": VERSION}, {"if_range": tag}, {"if_match": tag}):
        rest = await fetch(ada, range="bytes=5000-", **pinned)
        assert (rest.status_code, rest.content == WHOLE[5000:]) == (206, True)
    await ada.accept(write(file, b"n" * 4000, 2))
    replaced = await fetch(ada, range="bytes=5000-", if_range=tag)
    assert (replaced.status_code, replaced.content) == (200, b"n" * 4000)
    assert (await fetch(ada, range="bytes=5000-", if_range="Thu, 26 Nov 2026 00:00:00 GMT")).status_code == 200
    problem(await fetch(ada, range="bytes=5000-", if_match=tag), 412, "precondition-failed")
    assert (await fetch(ada, range="bytes=5000-", version=VERSION)).content == WHOLE[5000:]


async def test_what_a_client_has_is_not_sent_again(ada: Device, file: str) -> None:
    same = await fetch(ada, if_none_match=f'W/"x", "{VERSION}"')
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", f'"{VERSION}"')
    assert (await fetch(ada, if_none_match='"x"')).status_code == 200


@pytest.mark.parametrize(
    ("name", "inline", "kind", "disposition"),
    [
        ("page.html", True, "application/octet-stream", "attachment"),
        ("drawing.svg", True, "application/octet-stream", "attachment"),
        ("script.js", True, "application/octet-stream", "attachment"),
        ("photo.JPG", True, "image/jpeg", "inline"),
        ("photo.jpg", False, "image/jpeg", "attachment"),
        ("notes.txt", True, "text/plain; charset=utf-8", "inline"),
        ("page.html.gz", True, "application/octet-stream", "attachment"),
        ("nothing", True, "application/octet-stream", "attachment"),
        ('a"b\\c\r\n.txt', False, "text/plain; charset=utf-8", "attachment"),
        ("übung.txt", False, "text/plain; charset=utf-8", "attachment"),
    ],
)
@pytest.mark.parametrize("database_of", ["sqlite"], indirect=True)
async def test_nothing_runs_as_a_page_of_the_service(ada: Device, name: str, inline: bool, kind: str, disposition: str) -> None:
    await ada.accept(create(ada.space, name, new_id(), b"<script>"))
    headers = (await fetch(ada, f"/{name}", inline=inline)).headers
    assert headers["content-type"] == kind
    assert headers["content-disposition"].startswith(f'{disposition}; filename="')
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("sandbox")
    plain = headers["content-disposition"].split('"')[1]
    assert all(character.isascii() and character not in "\\%\r\n" for character in plain)


async def test_wrong_bytes_are_not_passed_on(ada: Device, file: str) -> None:
    store = ada.world.service.store
    key = next(row.key for row in store.listing() if object_id(STORED[0]).hex() in row.key)
    stored = next((ada.world.service.config.data / "objects").rglob(key.partition("/")[2]))
    body = bytearray(stored.read_bytes())
    body[17] ^= 1
    stored.write_bytes(body)
    problem(await fetch(ada), 503, "unavailable")
    assert (await fetch(ada, range="bytes=5000-5099", version=VERSION)).content == TEXT[:100]


async def test_so_many_contents_at_a_time(ada: Device, eve: Device, file: str) -> None:
    streams, account = ada.world.service.streams, bytes.fromhex(ada.account["id"])
    slots = [streams.one(account) for _ in range(STREAMS_OF_ACCOUNT)]
    for slot in slots:
        slot.__enter__()
    refused = await fetch(ada)
    problem(refused, 429, "rate-limited")
    assert refused.headers["retry-after"] == "5"
    for slot in slots:
        slot.__exit__(None, None, None)
    assert (await fetch(ada)).status_code == 200
