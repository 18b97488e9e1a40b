"""Contents on an origin of their own: they are there, nothing else is, and nobody gets further than to one content."""

from __future__ import annotations

import os
import zipfile
from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from typing import Any

import httpx
import jwt
import pytest

from remote.server.contentorigin import CONTENT_TICKET_SECONDS
from tests.support.wire import BASE, PASSWORD, Device, World, mkdir, new_id, problem, remove

ORIGIN = "https://files.example.org"


@pytest.fixture
def apart(open_world: Callable[..., World]) -> World:
    return open_world(public_url=BASE, content_origin=ORIGIN)


@pytest.fixture
async def bob(apart: World) -> Device:
    return await apart.device()


async def stored(device: Device, name: str = "page.html") -> tuple[bytes, str]:
    """A content, and its inode."""
    body = os.urandom(5000)
    await device.store(device.space, name, inode := new_id(), body)
    return body, inode


async def ask(device: Device, path: str = "/page.html", method: str = "GET", **query: Any) -> str:
    """The address to which the service sends whoever wants the content."""
    response = await device.send(method, "/v1/files/content", params={"path": path, **query})
    assert (response.status_code, response.content) == (307, b"")
    assert response.headers["cache-control"] == "no-store"
    location = response.headers["location"]
    assert location.startswith(f"{ORIGIN}/content?ticket=")
    return str(location)


async def test_contents_are_on_their_own_host_only(apart: World, bob: Device) -> None:
    body, inode = await stored(bob)
    address = await ask(bob)
    got = await apart.http.get(address)
    assert (got.status_code, got.content) == (200, body)
    assert got.headers["content-disposition"].startswith('attachment; filename="page.html"')
    assert got.headers["content-security-policy"].startswith("sandbox")
    assert got.headers["referrer-policy"] == "no-referrer"
    looked = await apart.http.head(await ask(bob, method="HEAD"))
    assert (looked.status_code, looked.headers["content-length"], looked.content) == (200, "5000", b"")
    problem(await apart.http.get(address.replace(ORIGIN, BASE)), 404, "not-found")
    problem(await apart.http.get(address.replace(ORIGIN, "https://service.test")), 404, "not-found")
    refused = await bob.send("GET", f"{ORIGIN}/v1/files/content", params={"id": inode})
    problem(refused, 404, "not-found")


async def test_ranges_and_etags_go_on_there(apart: World, bob: Device) -> None:
    body, _ = await stored(bob)
    address = await ask(bob)
    first = await apart.http.get(address, headers={"Range": "bytes=0-99"})
    assert (first.status_code, first.content) == (206, body[:100])
    blind = await apart.http.get(address, headers={"Range": "bytes=100-"})
    assert (blind.status_code, blind.content) == (200, body), (
        "who does not say of which version it has the beginning gets the whole"
    )
    known = await apart.http.get(address, headers={"Range": "bytes=100-", "If-Range": first.headers["etag"]})
    assert (known.status_code, known.content) == (206, body[100:])
    version = first.headers["etag"].strip('"')
    pinned = await apart.http.get(await ask(bob, version=version), headers={"Range": "bytes=100-"})
    assert (pinned.status_code, pinned.content) == (206, body[100:])
    unchanged = await apart.http.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert unchanged.status_code == 304
    shown = await apart.http.get(await ask(bob, inline="true"))
    assert shown.headers["content-disposition"].startswith("attachment"), "a page is never shown"


async def test_nothing_else_is_there(apart: World, bob: Device) -> None:
    await stored(bob)
    url = (await bob.get("/v1/files/download", params={"path": "/page.html"}))["links"][0]["url"]
    assert url.startswith(BASE), "objects are no contents"
    for host in (ORIGIN, "https://files.example.org:443", "https://FILES.example.org"):
        for path in (
            "/",
            "/v1/account",
            "/v1/files/content?path=/page.html",
            "/openapi.json",
            "/healthz",
            "/readyz",
            "/content/",
            "/contents",
        ):
            problem(await bob.send("GET", host + path), 404, "not-found")
        problem(await apart.http.get(url.replace(BASE, host)), 404, "not-found")
        login = {"email": bob.account["email"], "password": PASSWORD, "device": {"installation": new_id(), "name": "x"}}
        problem(await apart.http.post(f"{host}/v1/sessions", json=login), 404, "not-found")
    assert (await bob.send("GET", "/v1/account")).status_code == 200


async def test_a_ticket_is_for_one_content_and_for_five_minutes(apart: World, bob: Device) -> None:
    body, inode = await stored(bob)
    address = await ask(bob)
    rows = (await bob.listing())[1]
    await bob.store(bob.space, "other", new_id(), os.urandom(100))
    apart.clock.advance(CONTENT_TICKET_SECONDS - 1)
    await bob.accept(remove(bob.space, "page.html", inode, seen=rows[inode]["content_rev"]))
    assert (await apart.http.get(address)).content == body, "the version, as long as the space has it"
    apart.clock.advance(1)
    problem(await apart.http.get(address), 404, "not-found")


async def test_a_ticket_ends_with_the_account(apart: World, bob: Device) -> None:
    await stored(bob)
    address = await ask(bob)
    assert (await bob.send("POST", "/v1/account/close", {"password": PASSWORD})).status_code == 204
    problem(await apart.http.get(address), 404, "not-found")


async def test_who_may_not_have_it_gets_no_ticket(apart: World, bob: Device) -> None:
    _, inode = await stored(bob)
    eve = await apart.device("eve@example.org")
    problem(await eve.send("GET", "/v1/files/content", params={"id": inode}), 404, "not-found")
    problem(await apart.http.get("/v1/files/content", params={"id": inode}), 401, "unauthenticated")
    writer = (await bob.post("/v1/personal-tokens", {"name": "t", "scopes": ["files:write"]}))["token"]
    problem(await bob.send("GET", "/v1/files/content", params={"id": inode}, token=writer), 403, "forbidden")


async def test_tickets_and_tokens_do_not_pass_for_each_other(apart: World, bob: Device) -> None:
    await stored(bob)
    ticket = httpx.URL(await ask(bob)).params["ticket"]
    for path in ("/v1/account", "/v1/files"):
        problem(await bob.send("GET", path, token=ticket), 401, "unauthenticated")
    claims = jwt.decode(ticket, options={"verify_signature": False})
    kid = jwt.get_unverified_header(ticket)["kid"]
    made = await bob.post("/v1/links", {"path": "/page.html", "downloads_max": 1})
    of_link = (await apart.http.get(made["url"])).headers["location"].removeprefix("?ticket=")
    for wrong in (
        bob.tokens["access_token"],
        of_link,
        "",
        "x" * 1024,
        ticket[:-4] + "AAAA",
        jwt.encode(claims, b"k" * 32, algorithm="HS256", headers={"kid": kid}),
        jwt.encode(claims, None, algorithm="none", headers={"kid": kid}),
    ):
        problem(await apart.http.get(f"{ORIGIN}/content", params={"ticket": wrong}), 404, "not-found")
    problem(await apart.http.get(f"{ORIGIN}/link/{made['url'].rpartition('/')[2]}?ticket={ticket}"), 404, "not-found")
    problem(await apart.http.get(f"{ORIGIN}/content"), 400, "invalid")


async def test_public_links_are_there_and_others_lead_there(apart: World, bob: Device) -> None:
    body, _ = await stored(bob)
    await bob.accept(mkdir(bob.space, "folder", folder := new_id()))
    await bob.store(folder, "inside", new_id(), body)
    plain = await bob.post("/v1/links", {"path": "/page.html"})
    assert plain["url"].startswith(f"{ORIGIN}/link/")
    assert (await apart.http.get(plain["url"])).content == body
    old = await apart.http.get(plain["url"].replace(ORIGIN, BASE) + "?inline=true")
    assert (old.status_code, old.headers["location"]) == (307, plain["url"] + "?inline=true")
    assert old.headers["referrer-policy"] == "no-referrer"
    assert (await apart.http.head(plain["url"].replace(ORIGIN, BASE))).status_code == 307
    guarded = await bob.post("/v1/links", {"path": "/folder", "password": "open sesame"})
    secret = {"authorization": "Basic " + b64encode(b":open sesame").decode()}
    admitted = await apart.http.get(guarded["url"], headers=secret)
    assert admitted.status_code == 303
    archive = await apart.http.get(str(httpx.URL(guarded["url"]).join(admitted.headers["location"])))
    assert zipfile.ZipFile(BytesIO(archive.content)).read("folder/inside") == body


async def test_by_default_contents_are_beside_the_api(world: World, ada: Device) -> None:
    body, _ = await stored(ada)
    got = await ada.send("GET", "/v1/files/content", params={"path": "/page.html"})
    assert (got.status_code, got.content) == (200, body)
    problem(await world.http.get("/content", params={"ticket": "x"}), 404, "not-found")
