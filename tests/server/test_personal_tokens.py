"""Personal access tokens: for what uses the API only."""

from __future__ import annotations

import pytest
import trio
from sqlalchemy import text

from tests.support.devices import until
from tests.support.wire import PASSWORD, Device, Json, World, create, new_id, problem, write

ADA = "ada@example.org"


async def make(device: Device, *scopes: str, **more: object) -> Json:
    made: Json = await device.post("/v1/personal-tokens", {"name": "backup", "scopes": list(scopes), **more})
    return made


async def listed(device: Device) -> list[str]:
    return [token["id"] for token in (await device.get("/v1/personal-tokens"))["tokens"]]


async def test_a_token_is_shown_once_and_is_no_device(world: World, ada: Device) -> None:
    made = await make(ada, "files:read", "account:read")
    assert made["token"].startswith("aloft_pat_")
    assert len(made["token"]) == 53
    answer = await ada.get("/v1/personal-tokens")
    assert answer == {"tokens": [made["personal_token"]], "limit": 50}
    assert made["token"] not in str(answer)
    info = await ada.get("/v1/account", token=made["token"])
    assert (info["account"], info["device"]) == (ada.account, None)
    devices = (await ada.get("/v1/devices", token=made["token"]))["devices"]
    assert [(device["id"], device["current"]) for device in devices] == [(ada.id, False)]


ALLOWED = {
    "files:read": {"changes"},
    "files:write": {"uploads"},
    "account:read": {"account", "personal-tokens"},
    "account:write": {"devices"},
}


@pytest.mark.parametrize("scope", ALLOWED)
async def test_a_token_may_do_what_its_scope_says(ada: Device, scope: str) -> None:
    token = (await make(ada, scope))["token"]
    requests = {
        "changes": ("GET", "/v1/changes"),
        "uploads": ("POST", f"/v1/spaces/{ada.space}/uploads"),
        "account": ("GET", "/v1/account"),
        "personal-tokens": ("GET", "/v1/personal-tokens"),
        "devices": ("DELETE", f"/v1/devices/{new_id()}"),
    }
    body = {"objects": [{"id": "00" * 32, "length": 1}]}
    answers = {name: await ada.send(method, path, body, token=token) for name, (method, path) in requests.items()}
    assert {name for name, answer in answers.items() if answer.status_code in (200, 404)} == ALLOWED[scope]
    for name in answers.keys() - ALLOWED[scope]:
        assert "scope" in problem(answers[name], 403, "forbidden")["detail"]


async def test_what_a_token_commits_names_it_as_its_origin(world: World, ada: Device) -> None:
    made = await make(ada, "files:write")
    inode = new_id()
    for group in (create(ada.space, "f", inode, b"x"), write(inode, b"y", 2)):
        ada.number += 1
        body = {"number": ada.number, "replica": ada.replica, "epoch": world.epoch, "groups": [group]}
        answer = await ada.send("POST", f"/v1/spaces/{ada.space}/commit", body, token=made["token"])
        assert answer.json()["outcomes"][0]["result"] == "ok"
    with world.service.database.read() as connection:
        origins = connection.execute(text("SELECT DISTINCT device_id FROM versions")).scalars().all()
    assert [bytes(origin).hex() for origin in origins] == [made["personal_token"]["id"]]


async def test_a_token_expires(world: World, ada: Device) -> None:
    made = await make(ada, "account:read", expires_in_days=1)
    assert made["personal_token"]["expires_ns"] == world.clock.now_ns + 86400 * 10**9
    by_default, never = await make(ada, "account:read"), await make(ada, "account:read", expires_in_days=None)
    assert by_default["personal_token"]["expires_ns"] == world.clock.now_ns + 90 * 86400 * 10**9
    world.clock.advance(86399)
    await ada.get("/v1/account", token=made["token"])
    world.clock.advance(1)
    problem(await ada.send("GET", "/v1/account", token=made["token"]), 401, "unauthenticated")
    await ada.refresh()
    assert set(await listed(ada)) == {by_default["personal_token"]["id"], never["personal_token"]["id"]}
    world.clock.advance(10 * 365 * 86400)
    await ada.get("/v1/account", token=never["token"])


async def test_a_revoked_token_is_refused_from_the_next_request_on(world: World, ada: Device, eve: Device) -> None:
    made = await make(ada, "files:read", "account:write")
    path = f"/v1/personal-tokens/{made['personal_token']['id']}"
    problem(await eve.send("DELETE", path), 404, "not-found")
    cursor = (await ada.get("/v1/changes", token=made["token"]))["cursor"]
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            waited = await ada.send("GET", "/v1/changes", params={"cursor": cursor, "wait": 60}, token=made["token"])
            problem(waited, 401, "unauthenticated")

        nursery.start_soon(wait)
        await until(lambda: world.service.wake.waiting() == 1)
        assert (await ada.send("DELETE", path)).status_code == 204
    problem(await ada.send("GET", "/v1/changes", token=made["token"]), 401, "unauthenticated")
    problem(await ada.send("DELETE", path), 404, "not-found")
    assert await listed(ada) == []


async def test_when_a_token_was_used_is_known_to_ten_minutes(world: World, ada: Device) -> None:
    made = await make(ada, "account:read")
    seen = []
    for seconds in (60, 60, 600):
        world.clock.advance(seconds)
        await ada.get("/v1/account", token=made["token"])
        seen.append((await ada.get("/v1/personal-tokens"))["tokens"][0]["last_used_ns"])
    assert seen == [world.clock.now_ns - 660 * 10**9] * 2 + [world.clock.now_ns]


async def test_a_token_makes_no_tokens(ada: Device) -> None:
    token = (await make(ada, "account:write", "account:read"))["token"]
    body = {"name": "more", "scopes": ["files:write"]}
    problem(await ada.send("POST", "/v1/personal-tokens", body, token=token), 403, "forbidden")
    assert len(await listed(ada)) == 1


async def test_an_api_login_takes_no_slot(world: World) -> None:
    devices = [await world.device(ADA) for _ in range(5)]
    body = {"email": ADA, "password": PASSWORD, "name": "script", "scopes": ["account:read"]}
    made = (await world.http.post("/v1/sessions/token", json=body)).json()
    info = await devices[0].get("/v1/account", token=made["token"])
    assert (info["account"]["email"], info["last_login_ns"]) == (ADA, world.clock.now_ns)
    assert len((await devices[0].get("/v1/devices"))["devices"]) == 5
    for wrong in ({"password": "wrong password"}, {"email": "nobody@example.org"}):
        problem(await world.http.post("/v1/sessions/token", json=body | wrong), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["everything"]}, "scopes.0"),
        ({"name": "", "scopes": ["files:read"]}, "name"),
        ({"name": "\x1b[2J", "scopes": ["files:read"]}, "name"),
        ({"name": "x", "scopes": ["files:read"], "expires_in_days": 0}, "expires_in_days"),
    ],
)
async def test_what_is_no_token_is_refused(ada: Device, body: Json, field: str) -> None:
    assert problem(await ada.send("POST", "/v1/personal-tokens", body), 400, "invalid")["field"] == field


async def test_tokens_are_limited(world: World, ada: Device) -> None:
    for _ in range(50):
        await make(ada, "files:read")
    refused = await ada.send("POST", "/v1/personal-tokens", {"name": "x", "scopes": ["files:read"]})
    problem(refused, 429, "rate-limited")
    world.clock.advance(86400)
    await ada.refresh()
    refused = await ada.send("POST", "/v1/personal-tokens", {"name": "x", "scopes": ["files:read"]})
    assert "revoke" in problem(refused, 403, "forbidden")["detail"]


async def test_nobody_guesses_a_token(ada: Device) -> None:
    token = (await make(ada, "account:read"))["token"]
    for guess in (token[:-1], token + "A", token.upper(), "aloft_pat_", "aloft_pat_" + "A" * 9000):
        problem(await ada.send("GET", "/v1/account", token=guess), 401, "unauthenticated")
