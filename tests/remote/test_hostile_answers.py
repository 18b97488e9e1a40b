"""Answers that no service gives: each is nonsense, said so, and nothing of it reaches whoever asked."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from remote.accounts import Accounts
from remote.api import Nonsense, RemoteError
from remote.calls import Timeouts
from remote.endpoint import Endpoint
from remote.http import HttpService
from remote.manifest import Manifest, manifest_id
from remote.protocol import Link, ObjectToUpload, WantedManifest

SPACE, INODE, OTHER = "00" * 16, "22" * 16, "33" * 16
HASH, BODY = "ab" * 32, b"the bytes"
HUGE = 10**400
MANIFEST = Manifest.from_inline(b"text").encode()
CONTENT = {"manifest_id": manifest_id(MANIFEST).hex(), "size": 4, "manifest": base64.b64encode(MANIFEST).decode()}
FILE = {"id": INODE, "rev": 1, "kind": "file", "attributes": {"mode": 0o644}, "content": CONTENT, "content_rev": 1}
LINK_ROW = {"kind": "symlink", "content": None}
ENTRY = {"parent": SPACE, "name": "name", "inode": INODE, "rev": 1}
CHANGES = {"space": SPACE, "revision": 1, "has_more": False, "full": True, "inodes": [FILE], "entries": [ENTRY]}
PAGE = {"epoch": "e", "cursor": "c", "has_more": False, "spaces": [CHANGES]}


class NoTokens:
    async def current(self) -> str:
        return "token"

    async def after_rejection(self, rejected: str) -> str:
        raise AssertionError("not asked for")


def service_for(url: str) -> HttpService:
    return HttpService(Endpoint.parse(url), NoTokens(), timeouts=Timeouts(connect=5.0, progress=20.0))


def page(**changed: Any) -> Any:
    return {**PAGE, **changed}


def rows(*, inode: Any = None, entry: Any = None, **changed: Any) -> Any:
    changes = {**CHANGES, "inodes": [{**FILE, **(inode or {})}], "entries": [{**ENTRY, **(entry or {})}], **changed}
    return {**PAGE, "spaces": [changes]}


async def ask_changes(service: HttpService) -> object:
    return await service.changes("", wait_seconds=0, limit=10)


async def ask_account(service: HttpService) -> object:
    return await service.account()


async def ask_commit(service: HttpService) -> object:
    return await service.commit(bytes(16), b"{}")


async def ask_upload(service: HttpService) -> object:
    return await service.plan_uploads(bytes(16), [ObjectToUpload(id=bytes.fromhex(HASH), length=3)])


async def ask_download(service: HttpService) -> object:
    return await service.plan_downloads(bytes(16), [bytes.fromhex(HASH)])


async def ask_manifests(service: HttpService) -> object:
    return await service.manifests(bytes(16), [WantedManifest(inode=bytes(16), manifest_id=bytes(32))])


Ask = Callable[[HttpService], Awaitable[object]]
LINK = {"id": HASH, "method": "GET", "url": "http://127.0.0.1:1/o", "headers": {}}
ANOTHER = {"id": "cd" * 32}
ACCOUNT = {"id": INODE, "email": "e", "name": "n", "space": SPACE}
INFO = {
    "account": ACCOUNT,
    "device": {"id": INODE, "name": "n", "created_ns": 1, "last_seen_ns": 1},
    "quota_bytes": 10,
    "used_bytes": 1,
}

NONSENSE: dict[str, tuple[Ask, Any]] = {
    "no JSON": (ask_changes, b"<html>"),
    "a list": (ask_changes, []),
    "null": (ask_changes, None),
    "deeply nested": (ask_changes, b"[" * 100_000),
    "a number for a flag": (ask_changes, page(has_more=7)),
    "text for a list": (ask_changes, page(spaces="none")),
    "no cursor": (ask_changes, {key: value for key, value in PAGE.items() if key != "cursor"}),
    "an endless cursor": (ask_changes, page(cursor="c" * 100_000)),
    "an endless epoch": (ask_changes, page(epoch="e" * 1000)),
    "a negative revision": (ask_changes, rows(revision=-1)),
    "a revision that no database holds": (ask_changes, rows(revision=2**63)),
    "a number of entries that no database holds": (ask_changes, rows(total_entries=2**63)),
    "a size that no file has": (ask_changes, rows(inode={"content": {**CONTENT, "size": 2**63}})),
    "a size of many digits": (ask_changes, rows(inode={"content": {**CONTENT, "size": HUGE}})),
    "a device number that no database holds": (
        ask_changes,
        rows(inode={"kind": "block", "content": None, "device_number": 2**63}),
    ),
    "a kind that there is not": (ask_changes, rows(inode={"kind": "door"})),
    "a time that no clock shows": (ask_changes, rows(inode={"attributes": {"mtime_ns": 2**63}})),
    "a mode with a kind in it": (ask_changes, rows(inode={"attributes": {"mode": 0o100644}})),
    "an id that is too short": (ask_changes, rows(inode={"id": "22"})),
    "an id that is not hexadecimal": (ask_changes, rows(inode={"id": "zz" * 16})),
    "a manifest that is not base64": (ask_changes, rows(inode={"content": {**CONTENT, "manifest": "§"}})),
    "an attribute with a NUL in its name": (ask_changes, rows(inode={"attributes": {"xattrs": {"user.\0": "AA=="}}})),
    "a target with a NUL": (ask_changes, rows(inode={**LINK_ROW, "target": "a\0b"})),
    "a target without end": (ask_changes, rows(inode={**LINK_ROW, "target": "a" * 5000})),
    "half a character in a target": (
        ask_changes,
        json.dumps(rows(inode={**LINK_ROW, "target": "SURROGATE"})).replace("SURROGATE", "\\ud800").encode(),
    ),
    "half a character in a name": (
        ask_changes,
        json.dumps(rows(entry={"name": "SURROGATE"})).replace("SURROGATE", "a\\udc80").encode(),
    ),
    **{
        f"the name {name[:9]!r}": (ask_changes, rows(entry={"name": name}))
        for name in ("", ".", "..", "a/b", "/", "a\0", "n" * 256, "é" * 128)
    },
    "an account with text for its quota": (ask_account, {**INFO, "quota_bytes": "much"}),
    "an account with a quota of many digits": (ask_account, {**INFO, "quota_bytes": HUGE}),
    "an account that uses less than nothing": (ask_account, {**INFO, "used_bytes": -1}),
    "an outcome that there is not": (ask_commit, {"epoch": "e", "number": 1, "revision": 1, "outcomes": [{"result": "perhaps"}]}),
    "a plan to upload what was not named": (
        ask_upload,
        {"missing": [{**LINK, "method": "PUT", "id": "cd" * 32}], "expires_in": 1},
    ),
    "a plan to upload by fetching": (ask_upload, {"missing": [LINK], "expires_in": 1}),
    "a plan that was too late already": (ask_upload, {"missing": [], "expires_in": -5}),
    "a plan for ever": (ask_upload, {"missing": [], "expires_in": HUGE}),
    "a plan that wants the MD5 of another object": (ask_upload, {"missing": [], "unsigned": [ANOTHER["id"]], "expires_in": 1}),
    "a plan to fetch another object": (ask_download, {"links": [{**LINK, **ANOTHER}], "expires_in": 1}),
    "a plan to fetch nothing": (ask_download, {"links": [], "expires_in": 1}),
    "a plan to fetch it twice": (ask_download, {"links": [LINK, LINK], "expires_in": 1}),
    "too many manifests": (ask_manifests, {"manifests": [None, None]}),
    "no manifests": (ask_manifests, {"manifests": []}),
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_nonsense_is_called_so(wire, reply, what: str) -> None:
    ask, answer = NONSENSE[what]
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    wire.reply = lambda _: reply(200, body, {"Content-Type": "application/json"})
    async with service_for(wire.url) as service:
        with pytest.raises(Nonsense):
            await ask(service)
    assert len(wire.received) == 1, "it is not asked again at once"


async def test_the_table_begins_from_a_page_that_makes_sense(wire, reply) -> None:
    wire.reply = lambda _: reply(200, json.dumps(PAGE).encode())
    async with service_for(wire.url) as service:
        assert (await service.changes("", wait_seconds=0, limit=10)).spaces[0].entries[0].name == "name"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/object",
        "http://192.0.2.1/object",
        "https://user:password@192.0.2.1/object",
        "//127.0.0.1/object",
        "http://127.0.0.1:99999999/object",
        "http://127.0.0.1:1/\r\nX-Injected: 1",
        "",
    ],
)
async def test_links_lead_nowhere_else(wire, reply, url: str) -> None:
    link = Link(id=bytes.fromhex(HASH), method="PUT", url=url)
    async with service_for(wire.url) as service:
        with pytest.raises(RemoteError):
            await service.put_object(link, BODY)
    assert wire.received == []


@pytest.mark.parametrize("headers", [{"x": "a\r\nX-Injected: 1"}, {"x\r\nX-Injected": "1"}, {"x": "\ud800"}])
async def test_headers_of_links_smuggle_nothing(wire, reply, headers: dict[str, str]) -> None:
    link = Link.model_construct(id=bytes.fromhex(HASH), method="PUT", url=f"{wire.url}/o", headers=headers)
    async with service_for(wire.url) as service:
        with pytest.raises(RemoteError):
            await service.put_object(link, BODY)
    assert all("x-injected" not in received.headers for received in wire.received)


@pytest.mark.parametrize(
    "changed",
    [
        {"access_token": "two\r\nlines"},
        {"access_token": "ünï"},
        {"access_token": ""},
        {"access_token": None},
        {"access_token": "a" * 100_000},
        {"expires_in": "soon"},
        {"expires_in": HUGE},
        {"expires_in": -1},
        {"refresh_token": 7},
    ],
)
async def test_tokens_that_are_none_are_not_kept(wire, reply, changed: dict[str, Any]) -> None:
    tokens = {"access_token": "a", "expires_in": 600, "refresh_token": "r", **changed}
    wire.reply = lambda _: reply(200, json.dumps(tokens).encode())
    with pytest.raises(Nonsense):
        await Accounts(Endpoint.parse(wire.url)).refresh("r")
