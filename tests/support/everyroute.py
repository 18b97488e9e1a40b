"""A request to every route that the account that makes it may make, in a world where there is something of each kind."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

from tests.support.wire import PASSWORD, Device, Json, World, create, inline, mkdir, move, new_id, remove

BOB = "bob@example.org"
NEW = "another password for ada"
BODY = os.urandom(5000)
BODY_ID = hashlib.sha256(BODY).hexdigest()


@dataclass(frozen=True, slots=True)
class Call:
    """`who` is `ada`, `bob` (the one with whom things are shared) or nobody."""

    who: str
    method: str
    pattern: str
    names: Json = field(default_factory=dict)
    query: Json = field(default_factory=dict)
    json: Json | None = None

    @property
    def route(self) -> tuple[str, str]:
        return self.method, self.pattern

    def __str__(self) -> str:
        return f"{self.method} {self.pattern}"


@dataclass
class Everything:
    world: World
    ada: Device
    bob: Device
    calls: list[Call]

    async def send(self, call: Call):  # type: ignore[no-untyped-def]
        path = call.pattern.format(**call.names)
        if call.who == "nobody":
            return await self.world.http.request(call.method, path, json=call.json, params=call.query)
        device: Device = getattr(self, call.who)
        return await device.send(call.method, path, call.json, params=call.query)


async def everything(world: World) -> Everything:
    """Made through the API."""
    ada = await world.device()
    await world.register(BOB)
    bob = await world.device(BOB)
    inode, small, gone, conflict, second = (new_id() for _ in range(5))
    secret = os.urandom(3000)
    await ada.store(ada.space, "secret", inode, secret)
    await ada.accept(create(ada.space, "small", small, b"x"), create(ada.space, "gone", gone, b"gone"))
    await ada.accept(create(ada.space, "single", new_id(), b"single"))
    _, rows = await ada.listing()
    await ada.accept(remove(ada.space, "gone", gone, seen=rows[gone]["content_rev"]))
    await ada.accept(create(ada.space, "small (conflicted copy, x, 2026-11-20)", conflict, b"y"))
    world.clock.advance(60)
    before = world.clock()
    world.clock.advance(60)
    await ada.accept(move(small, (ada.space, "small"), (ada.space, "tiny")))
    for name in ("ours", "theirs", "asked", "refused", "left"):
        await ada.accept(mkdir(ada.space, name, folder := new_id()), create(folder, "in it", new_id(), b"in it"))
    shares = {
        name: (await ada.post("/v1/shares", {"path": f"/{name}", "email": BOB}))["space"]
        for name in ("ours", "theirs", "asked", "refused", "left")
    }
    for name in ("ours", "theirs", "left"):
        await bob.post("/v1/invitations/accept", {"space": shares[name]})
    token = (await ada.post("/v1/personal-tokens", {"name": "t", "scopes": ["files:read"]}))["personal_token"]["id"]
    made = await ada.post("/v1/links", {"path": "/secret"})
    await ada.post("/v1/files/expiry", {"path": "/secret", "after_seconds": 10**6})
    other = await world.device(installation=new_id())
    begun = {"path": "/up", "size": 5000, "fingerprint": BODY_ID, "chunks": [{"id": BODY_ID, "size": 5000}]}
    upload = (await ada.post("/v1/files/upload", begun))["id"]
    (link,) = (await ada.get(f"/v1/files/upload/{upload}"))["missing"]
    await ada.put(link, BODY)
    secret_id, manifest = hashlib.sha256(secret).hexdigest(), hashlib.sha256(inline(b"x")).hexdigest()
    names = {"upload": upload, "chunk": BODY_ID, "device": other.id, "token": token, "link": made["link"]["id"]}
    space = {"space": ada.space, "inode": small}
    public = {"token": made["url"].rpartition("/")[2]}
    new_body = {"path": "/new", "size": 3, "fingerprint": second * 2, "chunks": [{"id": second * 2, "size": 3}]}
    group = create(ada.space, "committed", new_id(), b"committed")
    login = {"email": "ada@example.org", "password": PASSWORD, "device": {"installation": new_id(), "name": "new"}}
    token_login = {"email": "ada@example.org", "password": PASSWORD, "name": "t", "scopes": ["files:read"]}
    commit = {"number": ada.number + 1, "replica": ada.replica, "epoch": world.epoch, "groups": [group]}
    a, b, nobody = "ada", "bob", "nobody"
    calls = [
        Call(nobody, "POST", "/v1/accounts", json={"email": "new@example.org", "password": PASSWORD}),
        Call(nobody, "POST", "/v1/sessions", json=login),
        Call(nobody, "POST", "/v1/sessions/token", json=token_login),
        Call(nobody, "POST", "/v1/tokens", json={"refresh_token": other.tokens["refresh_token"]}),
        Call(a, "GET", "/v1/account"),
        Call(a, "PATCH", "/v1/account", json={"name": "Ada"}),
        Call(a, "GET", "/v1/devices"),
        Call(a, "DELETE", "/v1/devices/{device}", names),
        Call(a, "DELETE", "/v1/devices", query={"keep_current": True}),
        Call(a, "GET", "/v1/personal-tokens"),
        Call(a, "POST", "/v1/personal-tokens", json={"name": "u", "scopes": ["files:read"]}),
        Call(a, "DELETE", "/v1/personal-tokens/{token}", names),
        Call(a, "GET", "/v1/audit"),
        Call(a, "GET", "/v1/users/tier"),
        Call(a, "POST", "/v1/users/tier", json={"tier": "plus"}),
        Call(a, "POST", "/v1/spaces/{space}/commit", space, json=commit),
        Call(a, "GET", "/v1/spaces/{space}/folders/{inode}", {"space": ada.space, "inode": ada.space}),
        Call(a, "POST", "/v1/spaces/{space}/uploads", space, json={"objects": [{"id": new_id() * 2, "length": 5}]}),
        Call(a, "POST", "/v1/spaces/{space}/downloads", space, json={"objects": [secret_id]}),
        Call(a, "POST", "/v1/spaces/{space}/manifests", space, json={"wanted": [{"inode": small, "manifest_id": manifest}]}),
        Call(a, "GET", "/v1/spaces/{space}/versions/{inode}", space),
        Call(a, "GET", "/v1/spaces/{space}/trash", space),
        Call(a, "GET", "/v1/changes", query={"cursor": ""}),
        Call(a, "GET", "/v1/files", query={"path": "/"}),
        Call(a, "GET", "/v1/files/metadata", query={"path": "/secret", "replicas": True}),
        Call(a, "POST", "/v1/files/folder", json={"path": "/a/b/c", "parents": True}),
        Call(a, "POST", "/v1/files/move", json={"source": "/tiny", "target": "/moved"}),
        Call(a, "POST", "/v1/files/copy", json={"source": "/secret", "target": "/copy"}),
        Call(a, "GET", "/v1/files/expiry", query={"path": "/secret"}),
        Call(a, "POST", "/v1/files/expiry", json={"path": "/moved", "after_seconds": 10**6}),
        Call(a, "DELETE", "/v1/files/expiry", query={"path": "/secret"}),
        Call(a, "GET", "/v1/files/upload"),
        Call(a, "POST", "/v1/files/upload", json=new_body),
        Call(a, "GET", "/v1/files/upload/{upload}", names),
        Call(a, "POST", "/v1/files/upload/{upload}/chunks/{chunk}", names, json={}),
        Call(a, "PATCH", "/v1/files/upload/{upload}/chunks/{chunk}", names, json={"status": "uploaded"}),
        Call(a, "POST", "/v1/files/upload/{upload}/complete", names, json={}),
        Call(a, "DELETE", "/v1/files/upload/{upload}", names),
        Call(a, "GET", "/v1/files/download", query={"path": "/secret"}),
        Call(a, "GET", "/v1/files/download/chunks/{chunk}", {"chunk": secret_id}, query={"path": "/secret"}),
        Call(a, "GET", "/v1/files/content", query={"path": "/secret"}),
        Call(a, "HEAD", "/v1/files/content", query={"path": "/secret"}),
        Call(a, "GET", "/v1/files/versions", query={"path": "/secret"}),
        Call(a, "POST", "/v1/trash/restore", json={"id": gone}),
        Call(a, "POST", "/v1/files/versions/restore", json={"id": small, "version": manifest}),
        Call(a, "POST", "/v1/files/rewind", json={"path": "/", "to_ns": before}),
        Call(a, "GET", "/v1/trash"),
        Call(a, "DELETE", "/v1/trash"),
        Call(a, "GET", "/v1/links"),
        Call(a, "POST", "/v1/links", json={"path": "/secret"}),
        Call(nobody, "GET", "/link/{token}", public),
        Call(nobody, "HEAD", "/link/{token}", public),
        Call(a, "DELETE", "/v1/links/{link}", names),
        Call(a, "GET", "/v1/shares"),
        Call(a, "POST", "/v1/shares/role", json={"path": "/ours", "email": BOB, "role": "viewer"}),
        Call(a, "POST", "/v1/shares/remove", json={"path": "/ours", "email": BOB}),
        Call(b, "POST", "/v1/shares/leave", json={"path": "/left"}),
        Call(a, "POST", "/v1/shares/unshare", json={"path": "/theirs"}),
        Call(b, "GET", "/v1/invitations"),
        Call(b, "POST", "/v1/invitations/accept", json={"space": shares["asked"]}),
        Call(b, "POST", "/v1/invitations/decline", json={"space": shares["refused"]}),
        Call(a, "POST", "/v1/shares", json={"path": "/single", "email": BOB}),
        Call(a, "GET", "/v1/sync/status", query={"path": "/secret"}),
        Call(a, "POST", "/v1/sync/status", json={"files": 1, "bytes": 1, "changes": 0, "first": [{"path": "/w", "size": 1}]}),
        Call(a, "GET", "/v1/sync/conflicts"),
        Call(a, "POST", "/v1/sync/conflict/resolve", json={"id": conflict, "keep": "copy"}),
        Call(a, "GET", "/v1/sync", query={"since": "2026-01-01T00:00:00Z"}),
        Call(a, "GET", "/v1/changes/files/{inode}", space),
        Call(a, "GET", "/v1/notifications"),
        Call(a, "POST", "/v1/notifications/read", json={"up_to": 10**6}),
        Call(a, "GET", "/v1/notifications/preferences"),
        Call(a, "POST", "/v1/notifications/preferences", json={"digest": True}),
        Call(a, "GET", "/v1/search", query={"q": "secret"}),
        Call(a, "DELETE", "/v1/files", query={"path": "/secret"}),
        Call(a, "POST", "/v1/account/password", json={"password": PASSWORD, "new_password": NEW}),
        Call(b, "DELETE", "/v1/sessions/current"),
        Call(a, "POST", "/v1/account/close", json={"password": NEW}),
    ]
    return Everything(world, ada, bob, calls)
