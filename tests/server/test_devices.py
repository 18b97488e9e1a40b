"""Accounts, devices and tokens: who gets in, who stays in, and who does not."""

from __future__ import annotations

import hashlib
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
import trio

from remote.accountapi import Account, LoginRequest
from remote.server.problems import Refused
from tests.support.wire import PASSWORD, Device, Json, World, new_id, problem

ADA = "ada@example.org"


# ------------------------------------------------------------------------------------------------------------ accounts


async def test_registering_makes_an_account_with_a_space(world: World) -> None:
    answer = await world.http.post("/v1/accounts", json={"email": "Ada@Example.org", "password": PASSWORD, "name": " Ada "})
    assert answer.status_code == 201
    account = world.accounts["aDA@example.ORG"] = answer.json()
    assert (account["email"], account["name"]) == ("Ada@Example.org", "Ada")
    device = await world.device("aDA@example.ORG")
    assert device.account == account
    info = await device.get("/v1/account")
    assert (info["account"], info["used_bytes"], info["quota_bytes"]) == (account, 0, 100 * 2**30)
    assert info["device"]["current"]


async def test_one_address_one_account_however_it_is_spelled(world: World) -> None:
    await world.register(ADA)
    again = await world.http.post("/v1/accounts", json={"email": "ADA@example.org ".strip(), "password": PASSWORD})
    assert problem(again, 409, "exists")["field"] == "email"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "ada"),
        ("email", "a@b@c"),
        ("email", "a@" + "b" * 300),
        ("email", "a\0@b"),
        ("password", "short"),
        ("name", "a\nb"),
    ],
)
async def test_bad_registrations_name_the_field(world: World, field: str, value: str) -> None:
    body = {"email": ADA, "password": PASSWORD, field: value}
    document = problem(await world.http.post("/v1/accounts", json=body), 400, "invalid")
    assert document["field"] == field
    assert value not in document["detail"]


async def test_a_closed_service_takes_nobody(open_world: Callable[..., World]) -> None:
    closed = open_world(registration="closed")
    problem(await closed.http.post("/v1/accounts", json={"email": ADA, "password": PASSWORD}), 403, "forbidden")


async def test_an_invitation_is_good_once(open_world: Callable[..., World]) -> None:
    world = open_world(registration="invite")
    code = world.service.accounts.invite()

    async def register(email: str, invitation: str | None) -> httpx.Response:
        body = {"email": email, "password": PASSWORD, "invitation": invitation}
        return await world.http.post("/v1/accounts", json=body)

    problem(await register("a@b.c", None), 403, "forbidden")
    problem(await register("a@b.c", "guess"), 403, "forbidden")
    assert (await register("a@b.c", code)).status_code == 201
    problem(await register("d@e.f", code), 403, "forbidden")


async def test_wrong_passwords_and_unknown_addresses_look_the_same(world: World) -> None:
    await world.register(ADA)
    wrong = problem(await world.try_login(ADA, new_id(), password="wrong password"), 401, "unauthenticated")
    unknown = problem(await world.try_login("nobody@example.org", new_id()), 401, "unauthenticated")
    assert wrong == unknown


async def test_guessing_is_slowed_down_for_the_address_that_guesses(world: World) -> None:
    await world.register(ADA)
    for _ in range(10):
        problem(await world.try_login(ADA, new_id(), password="wrong password"), 401, "unauthenticated")
    refused = await world.try_login(ADA, new_id())
    problem(refused, 429, "rate-limited")
    assert 0 < int(refused.headers["retry-after"]) <= 300
    world.clock.advance(int(refused.headers["retry-after"]))
    assert (await world.try_login(ADA, new_id())).status_code == 200


async def test_successful_logins_are_not_slowed_down(world: World) -> None:
    await world.register(ADA)
    installation = new_id()
    for _ in range(15):
        assert (await world.try_login(ADA, installation)).status_code == 200


# ------------------------------------------------------------------------------------------------------------- devices


async def test_the_same_home_is_the_same_device(world: World) -> None:
    first = await world.device()
    again = await world.device(installation=first.installation)
    assert again.id == first.id
    assert [device["id"] for device in (await again.get("/v1/devices"))["devices"]] == [first.id]
    problem(await first.send("GET", "/v1/account"), 401, "unauthenticated")


async def test_a_device_name_cannot_play_tricks(world: World) -> None:
    await world.register(ADA)
    body = {"email": ADA, "password": PASSWORD, "device": {"installation": new_id(), "name": "\x1b[2J"}}
    assert problem(await world.http.post("/v1/sessions", json=body), 400, "invalid")["field"] == "device.name"


async def test_one_home_in_two_accounts_is_two_devices(world: World, ada: Device) -> None:
    eve = await world.device("eve@example.org", ada.installation)
    assert eve.id != ada.id
    await ada.get("/v1/account")


async def five(world: World) -> list[Device]:
    devices = []
    for _ in range(5):
        devices.append(await world.device())
        world.clock.advance(1)
    return devices


async def test_the_sixth_device_is_refused_with_the_list(world: World) -> None:
    devices = await five(world)
    document = problem(await world.try_login(ADA, new_id()), 409, "too-many-devices")
    assert [device["id"] for device in document["devices"]] == [device.id for device in devices]
    listed = await devices[0].get("/v1/devices")
    assert (len(listed["devices"]), listed["limit"]) == (5, 5)
    assert [device["current"] for device in listed["devices"]] == [True, False, False, False, False]
    await world.device(installation=devices[2].installation)


async def test_replacing_frees_a_slot_and_logs_the_other_out(world: World) -> None:
    devices = await five(world)
    problem(await world.try_login(ADA, new_id(), replace=new_id()), 409, "too-many-devices")
    sixth = await world.device(replace=devices[1].id)
    problem(await devices[1].send("GET", "/v1/account"), 401, "revoked")
    problem(await world.refresh(devices[1].tokens["refresh_token"]), 401, "revoked")
    assert len((await sixth.get("/v1/devices"))["devices"]) == 5


async def test_nothing_is_replaced_when_there_is_room(world: World, ada: Device) -> None:
    await world.device(replace=ada.id)
    await ada.get("/v1/account")


async def test_nobody_replaces_a_device_of_another_account(world: World, eve: Device) -> None:
    await five(world)
    problem(await world.try_login(ADA, new_id(), replace=eve.id), 409, "too-many-devices")
    await eve.get("/v1/account")


async def test_a_removed_device_is_refused_from_the_next_request_on(ada: Device, other: Device) -> None:
    assert (await ada.send("DELETE", f"/v1/devices/{other.id}")).status_code == 204
    for method, path in (("GET", "/v1/account"), ("GET", "/v1/changes"), ("DELETE", "/v1/sessions/current")):
        problem(await other.send(method, path), 401, "revoked")
    problem(await other.world.refresh(other.tokens["refresh_token"]), 401, "revoked")
    problem(await ada.send("DELETE", f"/v1/devices/{other.id}"), 404, "not-found")


async def test_a_device_comes_back_as_itself(world: World, ada: Device) -> None:
    assert (await ada.send("DELETE", "/v1/sessions/current")).status_code == 204
    problem(await ada.send("GET", "/v1/account"), 401, "revoked")
    again = await world.device(installation=ada.installation)
    assert again.id == ada.id
    problem(await ada.send("GET", "/v1/account"), 401, "unauthenticated")
    problem(await world.refresh(ada.tokens["refresh_token"]), 401, "unauthenticated")


async def test_of_many_that_want_the_last_slot_exactly_one_gets_it(world: World) -> None:
    """In threads that start together, straight on the service: as concurrent as it can be."""
    for _ in range(4):
        await world.device()
    account = Account.model_validate(world.accounts[ADA])
    barrier, outcomes = threading.Barrier(8), []

    def log_in() -> None:
        request = login_request()
        barrier.wait()
        try:
            world.service.devices.login(account, request)
        except Refused as refused:
            outcomes.append(refused.type)
        else:
            outcomes.append("in")

    threads = [threading.Thread(target=log_in) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await trio.to_thread.run_sync(thread.join)
    assert sorted(outcomes) == ["in"] + ["too-many-devices"] * 7


async def test_concurrent_fifth_logins_over_http(world: World) -> None:
    for _ in range(4):
        await world.device()
    statuses: list[int] = []

    async def log_in() -> None:
        statuses.append((await world.try_login(ADA, new_id())).status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(log_in)
    assert sorted(statuses) == [200] + [409] * 5


def login_request() -> LoginRequest:
    body: dict[str, Any] = {"email": ADA, "password": PASSWORD, "device": {"installation": new_id(), "name": "x"}}
    return LoginRequest.model_validate(body)


# -------------------------------------------------------------------------------------------------------------- tokens


async def test_access_tokens_live_for_fifteen_minutes(world: World, ada: Device) -> None:
    assert ada.tokens["expires_in"] == 900
    world.clock.advance(899)
    await ada.get("/v1/account")
    world.clock.advance(1)
    problem(await ada.send("GET", "/v1/account"), 401, "unauthenticated")
    await ada.refresh()
    await ada.get("/v1/account")


async def test_a_rotated_token_is_good_until_its_successor_is_used(world: World, ada: Device) -> None:
    first = ada.tokens["refresh_token"]
    lost = (await world.refresh(first)).json()
    lost_too = (await world.refresh(first)).json()
    third = (await world.refresh(first)).json()
    assert len({first, lost["refresh_token"], lost_too["refresh_token"], third["refresh_token"]}) == 4
    fourth = (await world.refresh(third["refresh_token"])).json()
    problem(await world.refresh(first), 401, "unauthenticated")
    problem(await world.refresh(fourth["refresh_token"]), 401, "unauthenticated")


async def test_using_the_access_token_is_using_the_successor(world: World, ada: Device) -> None:
    first = ada.tokens["refresh_token"]
    await ada.refresh()
    await ada.get("/v1/account")
    problem(await world.refresh(first), 401, "unauthenticated")
    problem(await ada.send("GET", "/v1/account"), 401, "unauthenticated")
    problem(await world.refresh(ada.tokens["refresh_token"]), 401, "unauthenticated")


async def test_a_sibling_that_was_overtaken_is_a_copy(world: World, ada: Device) -> None:
    first = ada.tokens["refresh_token"]
    stolen = (await world.refresh(first)).json()
    await ada.refresh()
    await ada.get("/v1/account")
    problem(await world.refresh(stolen["refresh_token"]), 401, "unauthenticated")
    problem(await ada.send("GET", "/v1/account"), 401, "unauthenticated")


async def test_requests_on_the_way_with_the_old_access_token_are_served(ada: Device) -> None:
    old = ada.tokens["access_token"]
    await ada.refresh()
    await ada.get("/v1/account")
    assert (await ada.send("GET", "/v1/account", token=old)).status_code == 200
    await ada.get("/v1/account")


async def test_reuse_logs_out_that_device_only(world: World, ada: Device, other: Device) -> None:
    first = ada.tokens["refresh_token"]
    await ada.refresh()
    await ada.refresh()
    problem(await world.refresh(first), 401, "unauthenticated")
    problem(await ada.send("GET", "/v1/account"), 401, "unauthenticated")
    await other.get("/v1/account")
    again = await world.device(installation=ada.installation)
    assert again.id == ada.id


async def test_tokens_survive_a_restart(open_world: Callable[..., World]) -> None:
    world = open_world()
    ada = await world.device()
    await world.close()
    ada.world = open_world()
    await ada.get("/v1/account")
    await ada.refresh()
    await ada.get("/v1/account")


def forged(tokens: Json) -> list[str]:
    header, claims, signature = tokens["access_token"].split(".")
    payload = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    kid = jwt.get_unverified_header(tokens["access_token"])["kid"]
    none = urlsafe_b64encode(b'{"alg":"none","kid":"%s"}' % kid.encode()).decode().rstrip("=")
    return [
        f"{header}.{claims}.",
        f"{header}.{claims}.{signature[:-4]}AAAA",
        f"{none}.{claims}.",
        jwt.encode(payload, b"k" * 32, algorithm="HS256", headers={"kid": kid}),
        jwt.encode(payload, b"k" * 32, algorithm="HS256"),
        tokens["refresh_token"],
        "x" * 5000,
        "…",
    ]


async def test_forged_tokens_are_refused(ada: Device) -> None:
    for token in forged(ada.tokens):
        header = {"Authorization": f"Bearer {token}".encode()}
        problem(await ada.http.get("/v1/account", headers=header), 401, "unauthenticated")
    for value in ("", "Bearer", "Bearer ", f"Basic {ada.tokens['access_token']}", ada.tokens["access_token"]):
        problem(await ada.http.get("/v1/account", headers={"Authorization": value}), 401, "unauthenticated")


@pytest.mark.parametrize("database_of", ["sqlite"], indirect=True)
async def test_nothing_secret_is_stored_in_the_clear(ada: Device) -> None:
    await ada.refresh()
    folder = ada.world.service.folder.path
    everything = b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())
    for secret in (PASSWORD, ada.tokens["refresh_token"], ada.tokens["access_token"]):
        assert secret.encode() not in everything
    assert hashlib.sha256(ada.tokens["refresh_token"].encode()).digest() in everything
