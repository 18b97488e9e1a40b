"""The real service in this process, and devices that speak to it in plain JSON: what the service's own tests are made of.

Nothing here uses the client's code: what is tested is the wire.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from remote.manifest import ChunkRef, Encoding, Manifest, Split, manifest_id
from remote.server.app import create_app
from remote.server.config import ServerConfig
from remote.server.service import Service

Json = dict[str, Any]
BASE = "http://service.test"
PASSWORD = "correct horse"


def new_id() -> str:
    return os.urandom(16).hex()


# ---------------------------------------------------------------------------------------------------------- what is sent


def inline(content: bytes) -> bytes:
    return Manifest.from_inline(content).encode()


def chunked(*objects: bytes) -> bytes:
    """The manifest of a content whose chunks are whole, raw objects."""
    refs = tuple(ChunkRef.whole(hashlib.sha256(body).digest(), len(body), len(body), Encoding.RAW) for body in objects)
    return Manifest.from_chunks(Split(0, 0, 0), refs).encode()


def content(manifest: bytes, *, base: int = 0, sha256: bytes | None = None) -> Json:
    change: Json = {"manifest": b64encode(manifest).decode(), "base": base}
    return change if sha256 is None else change | {"sha256": sha256.hex()}


def entry(parent: str, name: str, base: str | None, inode: str | None) -> Json:
    return {"parent": parent, "name": name, "base": base, "inode": inode}


def file_row(inode: str, body: bytes = b"", **attributes: Any) -> Json:
    return new_row(inode, "file", content=content(inline(body)), **attributes)


def new_row(
    inode: str, kind: str = "directory", *, content: Json | None = None, full: Json | None = None, **attributes: Any
) -> Json:
    row: Json = {"id": inode, "full": {"kind": kind, **(full or {})}, "attributes": {"mode": 0o644, **attributes}}
    return row if content is None else row | {"content": content}


def create(parent: str, name: str, inode: str, body: bytes = b"") -> Json:
    """The group of a new file."""
    return {"entries": [entry(parent, name, None, inode)], "inodes": [file_row(inode, body)]}


def mkdir(parent: str, name: str, inode: str) -> Json:
    return {"entries": [entry(parent, name, None, inode)], "inodes": [new_row(inode, mode=0o755)]}


def write(inode: str, body: bytes, base: int, *, sha256: bytes | None = None) -> Json:
    return {"inodes": [{"id": inode, "content": content(inline(body), base=base, sha256=sha256)}]}


def remove(parent: str, name: str, inode: str, *, seen: int | None = None, last: bool = True) -> Json:
    group: Json = {"entries": [entry(parent, name, inode, None)], "last": [inode] if last else []}
    return group if seen is None else group | {"seen": [{"inode": inode, "content_rev": seen}]}


def move(inode: str, old: tuple[str, str], new: tuple[str, str], replaced: str | None = None) -> Json:
    return {"entries": [entry(*old, inode, None), entry(*new, replaced, inode)]}


# ----------------------------------------------------------------------------------------------------------------- who


@dataclass
class Clock:
    """Nanoseconds since 1970, moved by the test."""

    now_ns: int = 1_800_000_000 * 10**9

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * 10**9)


@dataclass
class Device:
    """A logged-in device; `space` is its account's personal space, whose root folder has the same id."""

    world: World
    account: Json
    device: Json
    tokens: Json
    installation: str
    number: int = 0
    cursor: str = ""
    replica: str = field(default_factory=new_id)

    @property
    def http(self) -> httpx.AsyncClient:
        return self.world.http

    @property
    def space(self) -> str:
        return str(self.account["space"])

    @property
    def id(self) -> str:
        return str(self.device["id"])

    async def send(self, method: str, path: str, json: Any = None, *, token: str | None = None, **rest: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.tokens['access_token']}"}
        return await self.http.request(method, path, json=json, headers=headers, **rest)

    async def get(self, path: str, **rest: Any) -> Json:
        return _ok(await self.send("GET", path, **rest))

    async def post(self, path: str, json: Any) -> Json:
        return _ok(await self.send("POST", path, json))

    async def try_commit(
        self, *groups: Json, number: int | None = None, space: str | None = None, **fields: Any
    ) -> httpx.Response:
        self.number = self.number + 1 if number is None else number
        body = {"number": self.number, "replica": self.replica, "epoch": self.world.epoch, "groups": list(groups), **fields}
        return await self.send("POST", f"/v1/spaces/{space or self.space}/commit", body)

    async def commit(self, *groups: Json, number: int | None = None) -> Json:
        return _ok(await self.try_commit(*groups, number=number))

    async def outcome(self, group: Json) -> Json:
        """What becomes of one group."""
        outcome: Json = (await self.commit(group))["outcomes"][0]
        return outcome

    async def accept(self, *groups: Json) -> Json:
        """The answer to groups that must all be accepted."""
        answer = await self.commit(*groups)
        assert [outcome["result"] for outcome in answer["outcomes"]] == ["ok"] * len(groups), answer
        return answer

    async def changes(self, cursor: str | None = None, **query: Any) -> Json:
        """One page after `cursor`, or after the last page that this device read."""
        page = await self.get("/v1/changes", params={"cursor": self.cursor if cursor is None else cursor, **query})
        if cursor is None:
            self.cursor = page["cursor"]
        return page

    async def listing(self, limit: int = 1000, cursor: str = "") -> tuple[dict[tuple[str, str], Json], dict[str, Json]]:
        """All entries and inodes of the personal space after the cursor, read page by page."""
        entries: dict[tuple[str, str], Json] = {}
        inodes: dict[str, Json] = {}
        while True:
            page = await self.changes(cursor, limit=limit)
            for changed in page["spaces"]:
                entries.update({(row["parent"], row["name"]): row for row in changed["entries"]})
                inodes.update({row["id"]: row for row in changed["inodes"]})
            cursor = page["cursor"]
            if not page["has_more"]:
                return entries, inodes

    async def plan(self, *objects: bytes, space: str | None = None) -> list[Json]:
        """The links by which the objects that are missing have to be sent."""
        wanted = [{"id": hashlib.sha256(body).hexdigest(), "length": len(body)} for body in objects]
        answer = await self.post(f"/v1/spaces/{space or self.space}/uploads", {"objects": wanted})
        links: list[Json] = answer["missing"]
        return links

    async def upload(self, *objects: bytes) -> None:
        bodies = {hashlib.sha256(body).hexdigest(): body for body in objects}
        for link in await self.plan(*objects):
            response = await self.put(link, bodies[link["id"]])
            assert response.status_code == 200, response.text

    async def refresh(self) -> None:
        """Go on with new tokens."""
        self.tokens = _ok(await self.world.refresh(self.tokens["refresh_token"]))

    async def put(self, link: Json, body: bytes) -> httpx.Response:
        return await self.http.put(link["url"], content=body, headers=link["headers"])

    async def store(self, parent: str, name: str, inode: str, *objects: bytes) -> Json:
        """Upload the objects and commit a new file of them."""
        await self.upload(*objects)
        row = new_row(inode, "file", content=content(chunked(*objects)))
        return await self.accept({"entries": [entry(parent, name, None, inode)], "inodes": [row]})

    async def try_download(self, *ids: str, space: str | None = None) -> httpx.Response:
        return await self.send("POST", f"/v1/spaces/{space or self.space}/downloads", {"objects": list(ids)})

    async def manifest(self, inode: str, manifest: bytes, space: str | None = None) -> str | None:
        wanted = [{"inode": inode, "manifest_id": manifest_id(manifest).hex()}]
        answer = await self.post(f"/v1/spaces/{space or self.space}/manifests", {"wanted": wanted})
        found: str | None = answer["manifests"][0]
        return found


@dataclass
class World:
    """The service in this process, with its clock."""

    app: FastAPI
    http: httpx.AsyncClient
    clock: Clock
    accounts: dict[str, Json] = field(default_factory=dict)

    @classmethod
    def open(cls, data: Path, **options: Any) -> World:
        clock = Clock()
        app = create_app(ServerConfig(data=data, **{"password_memory_kib": 64, **options}), clock=clock)
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=BASE, timeout=60)
        return cls(app, http, clock)

    @property
    def service(self) -> Service:
        service: Service = self.app.state.service
        return service

    @property
    def epoch(self) -> str:
        return self.service.epoch

    async def close(self) -> None:
        await self.http.aclose()
        self.service.close()

    async def register(self, email: str = "ada@example.org") -> Json:
        if email not in self.accounts:
            self.accounts[email] = _ok(await self.http.post("/v1/accounts", json={"email": email, "password": PASSWORD}))
        return self.accounts[email]

    async def try_login(self, email: str, installation: str, *, password: str = PASSWORD, **more: Any) -> httpx.Response:
        device = {"installation": installation, "name": f"device {installation[:4]}"}
        return await self.http.post("/v1/sessions", json={"email": email, "password": password, "device": device, **more})

    async def device(self, email: str = "ada@example.org", installation: str | None = None, **more: Any) -> Device:
        """A device of the account, which is registered if there is none."""
        await self.register(email)
        installation = installation or new_id()
        login = _ok(await self.try_login(email, installation, **more))
        return Device(self, login["account"], login["device"], login["tokens"], installation)

    async def refresh(self, refresh_token: str) -> httpx.Response:
        return await self.http.post("/v1/tokens", json={"refresh_token": refresh_token})


def _ok(response: httpx.Response) -> Json:
    assert response.is_success, f"{response.status_code} {response.text}"
    answer: Json = response.json()
    return answer


def problem(response: httpx.Response, status: int, type_: str) -> Json:
    """The problem document that the response must be."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), response.text
    document: Json = response.json()
    assert (document["status"], document["type"]) == (status, type_), document
    return document
