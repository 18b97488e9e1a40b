"""Public links: what whoever has the address gets, and what nobody gets any more."""

from __future__ import annotations

import io
import logging
import os
import stat
import zipfile
from base64 import b64encode
from typing import Any

import httpx
import pytest
import trio

from remote.fileapi import MAX_ENTRIES
from remote.server import publiclinks
from remote.server.problems import Refused
from tests.support.wire import PASSWORD, Device, Json, World, create, entry, mkdir, move, new_id, new_row, problem, remove, write

DAY = 24 * 3600


async def make(device: Device, path: str, **more: Any) -> tuple[str, str]:
    """A new link: its id, and the path of its address."""
    made = await device.post("/v1/links", {"path": path, **more})
    return made["link"]["id"], httpx.URL(made["url"]).path


async def visit(world: World, path: str, password: str | None = None, method: str = "GET", **headers: str) -> httpx.Response:
    """As a stranger, who follows a redirection."""
    if password is not None:
        headers["authorization"] = "Basic " + b64encode(f"anybody:{password}".encode()).decode()
    response = await world.http.request(method, path, headers=headers)
    if response.status_code == 303:
        response = await world.http.request(method, str(httpx.URL(path).join(response.headers["location"])))
    return response


async def rewritten(device: Device, inode: str, body: bytes) -> Json:
    return write(inode, body, (await device.listing())[1][inode]["content_rev"])


async def only(device: Device) -> Json:
    (link,) = (await device.get("/v1/links"))["links"]
    return dict(link)


async def test_whoever_has_the_address_gets_the_file(world: World, ada: Device) -> None:
    body = os.urandom(300_000)
    await ada.store(ada.space, "a b.html", inode := new_id(), body)
    made = await ada.post("/v1/links", {"path": "/a b.html"})
    assert made["url"].startswith("http://")
    assert made["link"]["path"] == "/a b.html"
    path = httpx.URL(made["url"]).path
    response = await visit(world, path)
    assert (response.status_code, response.content) == (200, body)
    assert response.headers["content-disposition"].startswith('attachment; filename="a b.html"')
    assert response.headers["content-security-policy"].startswith("sandbox")
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "content-location" not in response.headers
    head = await visit(world, path, method="HEAD")
    assert head.headers["content-length"] == "300000"
    rest = await visit(world, path, range="bytes=299990-", **{"if-range": response.headers["etag"]})
    assert (rest.status_code, rest.content) == (206, body[-10:])
    link = await only(ada)
    assert (link["downloads"], link["inode"], link["kind"], link["has_password"]) == (1, inode, "file", False)


async def test_it_leads_to_the_file_wherever_that_is(world: World, ada: Device) -> None:
    folder, file = new_id(), new_id()
    await ada.accept(mkdir(ada.space, "d", folder), create(ada.space, "f", file, b"one"))
    _, path = await make(ada, "/f")
    await ada.accept(move(file, (ada.space, "f"), (folder, "g")), await rewritten(ada, file, b"two"))
    assert (await visit(world, path)).content == b"two"
    assert (await only(ada))["path"] == "/d/g"
    assert len((await ada.get("/v1/links", params={"path": "/d/g"}))["links"]) == 1
    assert (await ada.get("/v1/links", params={"path": "/d"}))["links"] == []
    await ada.send("DELETE", "/v1/files", params={"path": "/d/g"})
    problem(await visit(world, path), 404, "not-found")
    assert (await only(ada))["path"] is None
    await ada.post("/v1/trash/restore", {"id": file})
    assert (await visit(world, path)).content == b"two"


async def test_whatever_is_wrong_with_a_link_looks_the_same(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "f", gone := new_id(), b"x"), create(ada.space, "g", new_id(), b"y"))
    to_gone = (await make(ada, "/f"))[1]
    revoked, to_revoked = await make(ada, "/g")
    to_expired = (await make(ada, "/g", expires_in_days=1))[1]
    to_used_up = (await make(ada, "/g", downloads_max=1))[1]
    to_never = (await make(ada, "/g", expires_in_days=None))[1]
    for path in (to_gone, to_revoked, to_expired, to_used_up, to_never):
        assert (await visit(world, path)).status_code == 200
    await ada.accept(remove(ada.space, "f", gone, seen=(await ada.listing())[1][gone]["content_rev"]))
    assert (await ada.send("DELETE", f"/v1/links/{revoked}")).status_code == 204
    problem(await ada.send("DELETE", f"/v1/links/{revoked}"), 404, "not-found")
    world.clock.advance(2 * DAY)
    answers = [await visit(world, path) for path in (to_gone, to_revoked, to_expired, to_used_up, "/link/none")]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert (await visit(world, to_never)).content == b"y"


async def test_what_an_account_closes_with_it(world: World, ada: Device, eve: Device) -> None:
    await ada.accept(create(ada.space, "f", new_id(), b"x"))
    _, path = await make(ada, "/f")
    assert (await eve.get("/v1/links"))["links"] == []
    assert (await ada.send("POST", "/v1/account/close", {"password": PASSWORD})).is_success
    problem(await visit(world, path), 404, "not-found")


async def test_a_password_is_asked_for_and_guesses_are_counted(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "f", new_id(), b"secret"))
    _, path = await make(ada, "/f", password="näher dran")
    asked = await visit(world, path)
    problem(asked, 401, "unauthenticated")
    assert asked.headers["www-authenticate"].startswith("Basic ")
    problem(await visit(world, path, method="GET", authorization="Basic ???"), 401, "unauthenticated")
    problem(await visit(world, path, "wrong one"), 401, "unauthenticated")
    assert (await visit(world, path, "näher dran")).content == b"secret"
    assert (await visit(world, path, "näher dran", method="HEAD")).headers["content-length"] == "6"
    link = await only(ada)
    assert (link["has_password"], link["downloads"]) == (True, 1)
    statuses = [(await visit(world, path, f"guess {number}")).status_code for number in range(25)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert (await visit(world, path, "näher dran")).status_code == 429, "the right one too: else guesses would tell"
    world.clock.advance(3600)
    await ada.refresh()
    assert (await visit(world, path, "näher dran")).content == b"secret"
    events = (await ada.get("/v1/audit", params={"action": "link.open"}))["events"]
    assert {event["result"] for event in events} >= {"done", "unauthenticated"}


async def test_a_download_is_counted_once_however_often_it_is_resumed(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "f", file := new_id(), b"0123456789"))
    _, path = await make(ada, "/f", downloads_max=2)
    assert (await world.http.head(path)).status_code == 200
    assert (await only(ada))["downloads"] == 0, "a look is no download"
    first = await world.http.get(path)
    assert (first.status_code, (await only(ada))["downloads"]) == (303, 1)
    ticketed = str(httpx.URL(path).join(first.headers["location"]))
    await ada.accept(await rewritten(ada, file, b"abcdefghij"))
    rest = await world.http.get(ticketed, headers={"range": "bytes=6-"})
    assert (rest.status_code, rest.content) == (206, b"6789"), "of the version that it began with"
    assert (await visit(world, path)).content == b"abcdefghij"
    problem(await visit(world, path), 404, "not-found")
    assert (await world.http.get(ticketed)).content == b"0123456789", "nor does its end cut off who is under way"
    assert (await ada.get("/v1/links"))["links"] == []
    world.clock.advance(publiclinks.TICKET_SECONDS)
    problem(await world.http.get(ticketed), 404, "not-found")


async def test_of_many_for_the_last_download_one_gets_it(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "f", new_id(), b"x"))
    _, path = await make(ada, "/f", downloads_max=1)
    links = world.service.public_links
    opened = links.open(path.removeprefix("/link/"), None)
    results: list[bool] = []

    def count() -> None:
        try:
            world.service.database.repeat(links.count, opened)
            results.append(True)
        except Refused:
            results.append(False)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(trio.to_thread.run_sync, count)
    assert sorted(results) == [False] * 7 + [True]


async def test_a_ticket_opens_its_own_link_only(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "f", new_id(), b"x"), create(ada.space, "g", new_id(), b"y"))
    _, to_f = await make(ada, "/f", downloads_max=5)
    id_, to_g = await make(ada, "/g", password="very secret")
    ticket = (await world.http.get(to_f)).headers["location"]
    assert (await world.http.get(to_f + ticket)).content == b"x"
    forged = (ada.tokens["access_token"], "x.y.z", "", "0" * 1000, ticket.removeprefix("?ticket=")[:-2] + "AA")
    for wrong in (ticket, *(f"?ticket={text}" for text in forged)):
        problem(await world.http.get(to_g + wrong), 404, "not-found")
    problem(await ada.send("GET", "/v1/account", token=ticket.removeprefix("?ticket=")), 401, "unauthenticated")
    good = await world.http.get(to_g, headers={"authorization": "Basic " + b64encode(b":very secret").decode()})
    await ada.send("DELETE", f"/v1/links/{id_}")
    problem(await world.http.get(to_g + good.headers["location"]), 404, "not-found")


async def folder_with_all_kinds(ada: Device) -> dict[str, bytes]:
    """`/photos` with files, folders and a symlink; the files as an archive should have them."""
    top, inner, big = new_id(), new_id(), os.urandom(400_000)
    await ada.accept(mkdir(ada.space, "photos", top), mkdir(top, "ä", inner), mkdir(top, "empty", new_id()))
    await ada.accept(create(top, "a.txt", new_id(), b"small"), create(inner, "none", new_id(), b""))
    await ada.store(inner, "big.bin", new_id(), big[:200_000], big[200_000:])
    link = new_id()
    row = new_row(link, "symlink", full={"target": "/etc/passwd"})
    await ada.accept({"entries": [entry(top, "way out", None, link)], "inodes": [row]})
    return {"photos/a.txt": b"small", "photos/ä/none": b"", "photos/ä/big.bin": big}


async def test_a_folder_comes_as_an_archive_without_its_symlinks(world: World, ada: Device) -> None:
    files = await folder_with_all_kinds(ada)
    _, path = await make(ada, "/photos")
    response = await visit(world, path)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/zip")
    assert 'filename="photos.zip"' in response.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(response.content)) as zipped:
        assert zipped.testzip() is None
        assert {name: zipped.read(name) for name in zipped.namelist() if not name.endswith("/")} == files
        assert {name for name in zipped.namelist() if name.endswith("/")} == {"photos/", "photos/ä/", "photos/empty/"}
        modes = {info.filename: info.external_attr >> 16 for info in zipped.infolist()}
    assert stat.S_ISREG(modes["photos/a.txt"])
    assert stat.S_ISDIR(modes["photos/"])
    head = await visit(world, path, method="HEAD")
    assert (head.status_code, response.headers.get("content-length"), head.headers.get("content-length")) == (200, None, None)
    _, guarded = await make(ada, "/photos", downloads_max=1, password="open up")
    assert zipfile.ZipFile(io.BytesIO((await visit(world, guarded, "open up")).content)).testzip() is None
    problem(await visit(world, guarded, "open up"), 404, "not-found")


async def test_a_folder_that_is_too_large_is_refused_first(world: World, ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    await folder_with_all_kinds(ada)
    _, path = await make(ada, "/photos")
    monkeypatch.setattr(publiclinks, "ZIP_BYTES_MAX", 400_000)
    problem(await visit(world, path), 413, "too-large")
    monkeypatch.setattr(publiclinks, "ZIP_BYTES_MAX", 2**40)
    monkeypatch.setattr(publiclinks, "ZIP_ENTRIES_MAX", 3)
    problem(await visit(world, path), 413, "too-large")


async def test_all_of_a_large_folder_is_in_its_archive(world: World, ada: Device) -> None:
    folder, count = new_id(), MAX_ENTRIES + 200
    await ada.accept(mkdir(ada.space, "d", folder))
    await ada.accept(*(create(folder, f"f{number}", new_id()) for number in range(count)))
    _, path = await make(ada, "/d")
    with zipfile.ZipFile(io.BytesIO((await visit(world, path)).content)) as zipped:
        assert {*zipped.namelist()} == {"d/", *(f"d/f{number}" for number in range(count))}


async def test_an_object_that_is_lost_cuts_the_archive_short(world: World, ada: Device, caplog: pytest.LogCaptureFixture) -> None:
    await folder_with_all_kinds(ada)
    _, path = await make(ada, "/photos")
    for file in (world.service.folder.path / "objects").rglob("*"):
        if file.is_file() and file.stat().st_size >= 200_000:
            file.unlink()
    with pytest.raises(AssertionError):  # from the transport: the answer began, and never came to its end
        await visit(world, path)
    assert "an answer was cut short" in caplog.text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"path": "/"}, "path"),
        ({"path": "f"}, "path"),
        ({"path": "/way out"}, "path"),
        ({"path": "/f", "password": "short"}, "password"),
        ({"path": "/f", "expires_in_days": 0}, "expires_in_days"),
        ({"path": "/f", "downloads_max": 0}, "downloads_max"),
    ],
)
async def test_what_no_link_is_made_of(ada: Device, body: Json, field: str) -> None:
    link = new_id()
    row = new_row(link, "symlink", full={"target": "f"})
    await ada.accept({"entries": [entry(ada.space, "way out", None, link)], "inodes": [row]}, create(ada.space, "f", new_id()))
    assert problem(await ada.send("POST", "/v1/links", body), 400, "invalid")["field"] == field
    problem(await ada.send("POST", "/v1/links", {"path": "/nothing"}), 404, "not-found")


async def test_an_account_has_so_many_links(world: World, ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publiclinks, "LINKS_MAX", 2)
    await ada.accept(create(ada.space, "f", file := new_id(), b"x"))
    for days in (1, None):
        await make(ada, "/f", expires_in_days=days)
    problem(await ada.send("POST", "/v1/links", {"path": "/f"}), 403, "forbidden")
    world.clock.advance(2 * DAY)
    await ada.refresh()
    await make(ada, "/f")
    assert {link["inode"] for link in (await ada.get("/v1/links"))["links"]} == {file}


async def test_the_token_is_in_no_log(world: World, ada: Device, caplog: pytest.LogCaptureFixture) -> None:
    await ada.accept(create(ada.space, "f", new_id(), b"x"))
    _, path = await make(ada, "/f")
    with caplog.at_level(logging.DEBUG):
        await visit(world, path)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("aloft")]
    assert any("/link/" in message for message in ours)
    assert not any(path.removeprefix("/link/") in message for message in ours)
