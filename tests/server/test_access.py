"""Nobody gets through a route without a token, or into somebody else's space: every route, found in the application itself."""

from __future__ import annotations

import hashlib
import os
import re

from fastapi.routing import APIRoute

from remote.server.app import WIRE
from tests.support.wire import Device, Json, World, create, entry, inline, mkdir, new_id, problem, remove

PUBLIC = {
    ("POST", "/v1/accounts"),
    ("POST", "/v1/sessions"),
    ("POST", "/v1/sessions/token"),
    ("POST", "/v1/tokens"),
    ("POST", "/v1/password/forgotten"),
    ("POST", "/v1/password/new"),
    ("GET", "/link/{token}"),
    ("HEAD", "/link/{token}"),
    ("GET", "/content"),
    ("HEAD", "/content"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
}


def routes(world: World) -> list[tuple[str, str]]:
    """(method, path pattern) of every route that the description knows."""
    described = world.app.openapi()["paths"]
    return sorted((method.upper(), path) for path, methods in described.items() for method in methods)


async def test_the_routes_are_those_of_the_protocol(world: World) -> None:
    promised = {
        (method, re.sub(r"\?.*", "", path))
        for module in WIRE
        for method, path in re.findall(r"^    (POST|GET|HEAD|PATCH|DELETE) +(\S+)", module.__doc__ or "", re.MULTILINE)
    }
    assert promised | {("GET", "/healthz"), ("GET", "/readyz")} == set(routes(world))


async def test_every_route_but_the_public_ones_wants_a_token(world: World, ada: Device) -> None:
    for method, pattern in routes(world):
        if (method, pattern) in PUBLIC:
            continue
        path = re.sub(r"\{\w+\}", ada.space, pattern)
        response = await world.http.request(method, path)
        assert response.status_code == 401
        if method != "HEAD":
            problem(response, 401, "unauthenticated")


async def test_the_description_says_which_scope_a_route_wants(world: World) -> None:
    described = world.app.openapi()["paths"]
    scopes = {route: described[route[1]][route[0].lower()].get("security") for route in routes(world)}
    assert {route for route, scope in scopes.items() if scope is None} == PUBLIC & set(routes(world))
    assert scopes["POST", "/v1/spaces/{space}/commit"] == [{"access token": ["files:write"]}]
    assert scopes["GET", "/v1/devices"] == [{"access token": ["account:read"]}]


def space_requests(space: str, inode: str, secret: bytes, epoch: str) -> dict[str, Json]:
    """A request to each route of a space that would be answered if the caller were a member."""
    id_ = hashlib.sha256(secret).hexdigest()
    manifest = hashlib.sha256(inline(b"x")).hexdigest()
    return {
        "commit": {
            "number": 100,
            "replica": space,
            "epoch": epoch,
            "groups": [{"inodes": [{"id": space, "attributes": {"mode": 0o777}}]}],
        },
        "folders/{inode}": None,
        "uploads": {"objects": [{"id": id_, "length": len(secret)}]},
        "downloads": {"objects": [id_]},
        "versions/{inode}": None,
        "trash": None,
        "manifests": {"wanted": [{"inode": inode, "manifest_id": manifest}]},
    }


async def test_a_second_account_gets_nowhere_with_the_first_ones_ids(world: World, ada: Device, eve: Device) -> None:
    secret, inode, small = os.urandom(100), new_id(), new_id()
    await ada.store(ada.space, "secret", inode, secret)
    await ada.accept(create(ada.space, "small", small, b"x"))
    before = await ada.listing()
    requests = space_requests(ada.space, small, secret, world.epoch)
    tried = {pattern for _, pattern in routes(world) if "{space}" in pattern}
    assert {f"/v1/spaces/{{space}}/{name}" for name in requests} == tried, "a new route wants a row here"
    for name, body in requests.items():
        method, path = ("GET" if body is None else "POST"), name.format(inode=small if "versions" in name else ada.space)
        assert (await ada.send(method, f"/v1/spaces/{ada.space}/{path}", body)).status_code == 200, "the owner may"
        theirs = await eve.send(method, f"/v1/spaces/{ada.space}/{path}", body)
        nobodys = await eve.send(method, f"/v1/spaces/{new_id()}/{path}", body)
        problem(theirs, 404, "not-found")
        assert theirs.json() == nobodys.json(), "what one may not see looks like what does not exist"
    problem(await eve.send("DELETE", f"/v1/devices/{ada.id}"), 404, "not-found")
    await ada.get("/v1/account")
    assert [space["space"] for space in (await eve.changes(""))["spaces"]] == [eve.space]
    assert set((await ada.listing())[0]) == set(before[0])


OWN_ONLY = {
    *(
        ("GET", path)
        for path in ("/v1/account", "/v1/devices", "/v1/personal-tokens", "/v1/audit", "/v1/users/tier", "/v1/changes")
    ),
    *(("PATCH", "/v1/account"), ("POST", "/v1/account/password"), ("POST", "/v1/account/close"), ("POST", "/v1/users/tier")),
    *(("DELETE", "/v1/sessions/current"), ("DELETE", "/v1/devices"), ("POST", "/v1/personal-tokens")),
    ("GET", "/v1/trash"),
    *(("GET", "/v1/links"), ("GET", "/v1/shares"), ("GET", "/v1/invitations")),
    *(("GET", "/v1/sync"), ("GET", "/v1/sync/conflicts"), ("POST", "/v1/sync/status")),
    *((method, f"/v1/notifications{path}") for method, path in (("GET", ""), ("GET", "/stream"), ("POST", "/read"))),
    *((method, "/v1/notifications/preferences") for method in ("GET", "POST")),
}
"""Routes that name nothing: they are about the caller's own account, whoever that is."""


async def test_no_route_leads_the_second_account_to_what_the_first_one_has(world: World, ada: Device, eve: Device) -> None:
    """Every route that names anything, with what the first account has: by id, and by a path that the second has not."""
    secret, small, gone = os.urandom(100), new_id(), new_id()
    await ada.store(ada.space, "secret", inode := new_id(), secret)
    await ada.accept(create(ada.space, "small", small, b"x"), create(ada.space, "gone", gone, b"gone"))
    _, rows = await ada.listing()
    await ada.accept(remove(ada.space, "gone", gone, seen=rows[gone]["content_rev"]))
    token = (await ada.post("/v1/personal-tokens", {"name": "t", "scopes": ["files:read"]}))["personal_token"]
    link = (await ada.post("/v1/links", {"path": "/secret"}))["link"]["id"]
    conflict = new_id()
    await ada.accept(create(ada.space, "small (conflicted copy, x, 2026-11-20)", conflict, b"y"))
    await ada.send("POST", "/v1/sync/status", {"files": 1, "bytes": 1, "changes": 0, "first": [{"path": "/waits", "size": 1}]})
    await ada.accept(mkdir(ada.space, "ours", new_id()))
    shared = (await ada.post("/v1/shares", {"path": "/ours", "email": "carol@example.org"}))["space"]
    chunk, version = hashlib.sha256(secret).hexdigest(), hashlib.sha256(inline(b"x")).hexdigest()
    body = os.urandom(5000)
    begun = {"path": "/up", "size": 5000, "fingerprint": (other := hashlib.sha256(body).hexdigest())}
    upload = (await ada.post("/v1/files/upload", begun | {"chunks": [{"id": other, "size": 5000}]}))["id"]
    here = {"upload": upload, "chunk": other, "device": ada.id, "token": token["id"], "link": link, "inode": small}
    sent: dict[tuple[str, str], list[tuple[Json, Json | None]]] = {
        ("DELETE", "/v1/devices/{device}"): [({}, None)],
        ("DELETE", "/v1/personal-tokens/{token}"): [({}, None)],
        ("GET", "/v1/files"): [({"path": "/secret"}, None)],
        ("DELETE", "/v1/files"): [({"path": "/secret"}, None)],
        ("GET", "/v1/files/metadata"): [({"path": "/secret"}, None)],
        ("POST", "/v1/files/folder"): [({}, {"path": "/small/d"})],
        ("POST", "/v1/files/move"): [({}, {"source": "/secret", "target": "/mine"})],
        ("POST", "/v1/files/copy"): [({}, {"source": "/secret", "target": "/mine"})],
        ("GET", "/v1/files/upload/{upload}"): [({}, None)],
        ("DELETE", "/v1/files/upload/{upload}"): [({}, None)],
        ("POST", "/v1/files/upload/{upload}/chunks/{chunk}"): [({}, {})],
        ("PATCH", "/v1/files/upload/{upload}/chunks/{chunk}"): [({}, {"status": "uploaded"})],
        ("POST", "/v1/files/upload/{upload}/complete"): [({}, {})],
        ("GET", "/v1/files/download"): [({"id": inode}, None), ({"path": "/secret"}, None)],
        ("GET", "/v1/files/download/chunks/{chunk}"): [({"id": inode}, None), ({"path": "/secret"}, None)],
        ("GET", "/v1/files/content"): [({"id": inode}, None), ({"id": small, "version": version}, None)],
        ("HEAD", "/v1/files/content"): [({"id": inode}, None)],
        ("GET", "/v1/files/versions"): [({"id": small}, None), ({"id": gone}, None)],
        ("POST", "/v1/files/versions/restore"): [({}, {"id": small, "version": version})],
        ("DELETE", "/v1/trash"): [({"id": gone}, None)],
        ("GET", "/v1/files/expiry"): [({"path": "/secret"}, None)],
        ("POST", "/v1/files/expiry"): [({}, {"path": "/secret", "after_seconds": 1})],
        ("DELETE", "/v1/files/expiry"): [({"path": "/secret"}, None)],
        ("GET", "/v1/sync/status"): [({"id": inode}, None), ({"path": "/secret"}, None)],
        ("POST", "/v1/sync/conflict/resolve"): [({}, {"id": conflict, "keep": "copy"})],
        ("GET", "/v1/changes/files/{inode}"): [({}, None)],
        ("GET", "/v1/search"): [({"q": "secret", "under": "/secret"}, None)],
        ("POST", "/v1/links"): [({}, {"path": "/secret"})],
        ("DELETE", "/v1/links/{link}"): [({}, None)],
        ("POST", "/v1/trash/restore"): [({}, {"id": gone})],
        ("POST", "/v1/shares"): [({}, {"path": "/ours", "email": "x@example.org"})],
        ("POST", "/v1/shares/role"): [({}, {"path": "/ours", "email": "carol@example.org", "role": "viewer"})],
        ("POST", "/v1/shares/remove"): [({}, {"path": "/ours", "email": "carol@example.org"})],
        ("POST", "/v1/shares/leave"): [({}, {"path": "/ours"})],
        ("POST", "/v1/shares/unshare"): [({}, {"path": "/ours"})],
        ("POST", "/v1/invitations/accept"): [({}, {"space": shared})],
        ("POST", "/v1/invitations/decline"): [({}, {"space": shared})],
        ("POST", "/v1/files/rewind"): [({}, {"path": "/d", "to_ns": world.clock()})],
    }
    elsewhere = {("GET", "/v1/files/upload"), ("POST", "/v1/files/upload")}  # below
    of_spaces = {(method, path) for method, path in routes(world) if "{space}" in path}  # above
    assert {*sent, *OWN_ONLY, *PUBLIC, *elsewhere, *of_spaces} >= {*routes(world)}, "a new route wants a row here"
    known = {
        conflict,
        shared,
        "waits",
        inode,
        small,
        gone,
        ada.space,
        ada.id,
        upload,
        token["id"],
        link,
        ada.account["id"],
        chunk,
        other,
        version,
    }
    for method, path in sorted(OWN_ONLY):
        if method == "GET" and not path.endswith("/stream"):
            assert not {id_ for id_ in known if id_ in (await eve.send(method, path)).text}, path
    nobody = dict.fromkeys(here, new_id()) | {"chunk": chunk}
    for (method, pattern), requests in sent.items():
        for query, json in requests:
            theirs = await eve.send(method, pattern.format(**here), json, params=query)
            assert theirs.status_code == 404, (method, pattern, theirs.text)
            if "{" in pattern and "chunk" not in pattern:
                nothing = await eve.send(method, pattern.format(**nobody), json, params=query)
                assert nothing.content == theirs.content, "what one may not see looks like what does not exist"
    assert (await eve.get("/v1/files/upload", params={"fingerprint": other}))["uploads"] == []
    mine = await eve.post("/v1/files/upload", begun | {"chunks": [{"id": other, "size": 5000}]})
    assert (mine["id"] != upload, len(mine["missing"])) == (True, 1), "nor does it learn that somebody sends the same"
    again = begun | {"path": "/same", "fingerprint": chunk, "size": 100, "chunks": [{"id": chunk, "size": 100}]}
    assert len((await eve.post("/v1/files/upload", again))["missing"]) == 1, "or has it"
    assert (await ada.send("GET", "/v1/files/content", params={"path": "/secret"})).content == secret
    assert (await ada.get("/v1/files/upload", params={"fingerprint": other}))["uploads"][0]["id"] == upload


async def test_a_token_gets_no_further_than_its_scopes(world: World, ada: Device) -> None:
    """Every route, with a token that has all scopes but the one that the description names."""
    described = world.app.openapi()["paths"]
    scopes = ("files:read", "files:write", "account:read", "account:write")
    tokens = {}
    for scope in scopes:
        others = [other for other in scopes if other != scope]
        tokens[scope] = (await ada.post("/v1/personal-tokens", {"name": f"not {scope}", "scopes": others}))["token"]
    tried = set()
    for method, pattern in routes(world):
        for security in described[pattern][method.lower()].get("security") or []:
            for scope in security["access token"]:
                path = re.sub(r"\{\w+\}", ada.space, pattern)
                response = await ada.send(method, path, token=tokens[scope])
                assert response.status_code == 403, (method, pattern, response.status_code)
                tried.add(scope)
    assert tried == {*scopes}


async def test_ids_of_the_first_in_the_space_of_the_second_mean_nothing(ada: Device, eve: Device) -> None:
    folder, file = new_id(), new_id()
    await ada.accept(mkdir(ada.space, "d", folder), create(folder, "f", file, b"x"))
    for group, conflict in (
        (create(folder, "x", new_id()), "no parent"),
        ({"entries": [entry(eve.space, "f", None, file)]}, "unknown"),
        ({"inodes": [{"id": file, "attributes": {"mode": 0}}]}, "unknown"),
    ):
        assert (await eve.outcome(group))["conflict"] == conflict
    assert await eve.manifest(file, inline(b"x")) is None


async def test_paths_that_are_none(ada: Device) -> None:
    for path in ("/v1/spaces/nonsense/commit", f"/v1/spaces/{ada.space.upper()}/commit", f"/v1/spaces/{ada.space}00/commit"):
        problem(await ada.send("POST", path, {"number": 1, "groups": [{}]}), 404, "not-found")
    problem(await ada.send("GET", "/v1/nothing"), 404, "not-found")
    problem(await ada.send("GET", f"/v1/spaces/{ada.space}/commit"), 405, "invalid")


async def test_bodies_are_limited(ada: Device, world: World) -> None:
    long = b'{"email":"' + b"a" * (64 * 1024) + b'"}'
    problem(await world.http.post("/v1/accounts", content=long), 413, "too-large")
    path = f"/v1/spaces/{ada.space}/commit"
    too_long = {"Content-Length": str(33 * 2**20)}
    response = await world.http.post(
        path, content=b"{}", headers={"Authorization": f"Bearer {ada.tokens['access_token']}", **too_long}
    )
    problem(response, 413, "too-large")


async def test_links_begin_with_the_address_that_the_caller_used(world: World, ada: Device) -> None:
    (link,) = await ada.plan(b"x")
    assert link["url"].startswith("http://service.test/objects/")
    wanted = {"objects": [{"id": "00" * 32, "length": 1}]}
    headers = {"Authorization": f"Bearer {ada.tokens['access_token']}"}
    path = f"http://service.test/v1/spaces/{ada.space}/uploads"
    elsewhere = await world.http.post(path, json=wanted, headers=headers | {"Host": "10.0.0.1:8427"})
    assert elsewhere.json()["missing"][0]["url"].startswith("http://10.0.0.1:8427/objects/")
    nonsense = await world.http.post(path, json=wanted, headers=headers | {"Host": "a b"})
    assert problem(nonsense, 400, "invalid")["field"] == "Host"


async def test_the_description_names_the_models(world: World) -> None:
    document = (await world.http.get("/openapi.json")).json()
    commit = document["paths"]["/v1/spaces/{space}/commit"]["post"]
    assert commit["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/CommitRequest"}
    assert commit["responses"]["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/CommitAnswer"}
    text = str(document)
    names = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert names <= document["components"]["schemas"].keys()
    assert {"CommitRequest", "CommitAnswer", "Problem", "Kind"} <= names


async def test_nobody_needs_a_token_to_ask_whether_it_lives(world: World) -> None:
    assert (await world.http.get("/healthz")).json() == {"status": "ok"}


async def test_no_route_is_hidden_from_the_description(world: World) -> None:
    known = {path for _, path in routes(world)}
    assert {route.path for route in world.app.routes if isinstance(route, APIRoute)} <= known
