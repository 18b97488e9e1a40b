"""The audit log: what was done, by whom, from where, with which result; and who may read it."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from remote.server.service import audit_page, create_password_code
from tests.support.wire import PASSWORD, Device, Json, World, new_id, problem

ADA = "ada@example.org"


@pytest.fixture
def world(world: World) -> World:
    """Time passes with every request, so that events have an order."""

    async def tick(_request: httpx.Request) -> None:
        world.clock.advance(0.001)

    world.http.event_hooks["request"].append(tick)
    return world


async def events(device: Device, **query: object) -> list[Json]:
    found: list[Json] = (await device.get("/v1/audit", params=query))["events"]
    return found


async def told(device: Device) -> list[tuple[str, str, str]]:
    """(action, result, who) of all events, the oldest first."""
    return [(event["action"], event["result"], event["caller_name"]) for event in reversed(await events(device))]


async def test_what_was_done_by_whom_and_how_it_ended(world: World, ada: Device, other: Device) -> None:
    await world.try_login(ADA, new_id(), password="wrong password")
    token = await ada.post("/v1/personal-tokens", {"name": "script", "scopes": ["account:write"]})
    await ada.send("PATCH", "/v1/account", {"name": "Ada"}, token=token["token"])
    await ada.send("DELETE", f"/v1/devices/{other.id}")
    removed_ns = world.clock.now_ns
    await ada.send("DELETE", f"/v1/devices/{other.id}")
    await ada.send("POST", "/v1/account/password", {"password": "wrong", "new_password": "another password"})
    await ada.send("DELETE", f"/v1/personal-tokens/{token['personal_token']['id']}")
    here, there = ada.device["name"], other.device["name"]
    assert await told(ada) == [
        ("account.register", "done", ""),
        ("device.login", "done", here),
        ("device.login", "done", there),
        ("device.login", "unauthenticated", ""),
        ("token.create", "done", here),
        ("account.change", "done", "script"),
        ("device.remove", "done", here),
        ("device.remove", "not-found", here),
        ("password.change", "forbidden", here),
        ("token.revoke", "done", here),
    ]
    removed = (await events(ada))[3]
    assert (removed["subject"], removed["account"], removed["caller"]) == (other.id, ada.account["id"], ada.id)
    assert (removed["address"], removed["at_ns"]) == ("127.0.0.1", removed_ns)


async def test_an_event_and_its_answer_have_one_id(ada: Device) -> None:
    answer = await ada.send("PATCH", "/v1/account", {"name": "Ada"})
    assert (await events(ada))[0]["request_id"] == answer.headers["x-request-id"]
    assert (await ada.send("GET", "/v1/account")).headers["x-request-id"] != answer.headers["x-request-id"]


async def test_nobody_sees_the_log_of_another(world: World, ada: Device, eve: Device) -> None:
    await world.try_login("nobody@example.org", new_id())
    assert {event["account"] for event in await events(eve)} == {eve.account["id"]}
    assert [action for action, _, _ in await told(eve)] == ["account.register", "device.login"]
    token = (await ada.post("/v1/personal-tokens", {"name": "t", "scopes": ["files:read"]}))["token"]
    problem(await ada.send("GET", "/v1/audit", token=token), 403, "forbidden")


async def test_the_administrator_sees_all(world: World, ada: Device, eve: Device) -> None:
    await world.try_login("nobody@example.org", new_id())
    assert create_password_code(world.service.config, ADA) is not None
    page = audit_page(world.service.config)
    assert page is not None
    assert [event.action for event in page.events if event.address == "administrator"] == ["admin.reset-password"]
    assert sorted((event.email, event.action, event.result) for event in page.events) == [
        ("", "device.login", "unauthenticated"),
        (ADA, "account.register", "done"),
        (ADA, "admin.reset-password", "done"),
        (ADA, "device.login", "done"),
        ("eve@example.org", "account.register", "done"),
        ("eve@example.org", "device.login", "done"),
    ]
    of_eve = audit_page(world.service.config, email="Eve@example.org", action="device.login")
    assert of_eve is not None
    assert [event.caller_name for event in of_eve.events] == [eve.device["name"]]
    assert audit_page(world.service.config, email="nobody@example.org") is None


async def test_the_log_is_read_in_pages(world: World, ada: Device) -> None:
    for number in range(6):
        world.clock.advance(number % 2)
        await ada.send("PATCH", "/v1/account", {"name": f"{number}"})
    whole, read, point = await events(ada), [], None
    while True:
        page = await ada.get("/v1/audit", params={"limit": 3} | ({} if point is None else {"before": point}))
        read += page["events"]
        point = page["next"]
        if point is None:
            break
    assert read == whole
    assert len(whole) == 8
    assert problem(await ada.send("GET", "/v1/audit", params={"before": "x"}), 400, "invalid")["field"] == "before"


async def test_a_reused_token_is_noted_with_its_device(world: World, ada: Device, other: Device) -> None:
    first = ada.tokens["refresh_token"]
    await ada.refresh()
    await ada.refresh()
    problem(await world.refresh(first), 401, "unauthenticated")
    assert (await told(other))[-1] == ("device.token-reused", "unauthenticated", ada.device["name"])


async def test_a_closed_account_stays_in_the_log(world: World, ada: Device) -> None:
    await ada.send("POST", "/v1/account/close", {"password": PASSWORD})
    page = audit_page(world.service.config, action="account.close")
    assert page is not None
    assert [(event.email, event.result) for event in page.events] == [(ADA, "done")]


async def test_attempts_that_meet_a_limit_do_not_fill_the_log(world: World, ada: Device) -> None:
    for _ in range(15):
        await world.try_login(ADA, new_id(), password="wrong password")
    assert [result for _, result, _ in await told(ada)][2:] == ["unauthenticated"] * 10


@pytest.mark.parametrize("statement", ["UPDATE audit SET result = 'done'", "DELETE FROM audit"])
async def test_nobody_changes_what_was_noted(world: World, ada: Device, statement: str) -> None:
    before = await events(ada)
    with pytest.raises(DBAPIError, match="append-only"), world.service.database.write() as connection:
        connection.execute(text(statement))
    assert await events(ada) == before


async def test_what_was_typed_is_not_kept(world: World, ada: Device) -> None:
    secret = "typed into the wrong field"
    await world.try_login(secret, new_id())
    await world.try_login(ADA, new_id(), password=secret)
    page = audit_page(world.service.config)
    assert page is not None
    assert secret not in page.model_dump_json()


async def test_a_failure_of_the_service_is_noted_too(world: World, ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("by the test")

    monkeypatch.setattr(world.service.accounts, "change", fail)
    broken = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=world.app, raise_app_exceptions=False), base_url="http://service.test"
    )
    world.clock.advance(1)
    async with broken:
        headers = {"Authorization": f"Bearer {ada.tokens['access_token']}"}
        problem(await broken.patch("/v1/account", json={"name": "x"}, headers=headers), 500, "internal")
    assert (await told(ada))[-1][:2] == ("account.change", "internal")
