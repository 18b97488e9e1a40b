"""The account: what it says of itself, its password, logging out, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import trio

from remote.accountapi import Account, LoginRequest
from remote.server.problems import Refused
from tests.support.devices import until
from tests.support.wire import PASSWORD, Device, World, create, new_id, problem

ADA = "ada@example.org"
BETTER = "another password"


# ------------------------------------------------------------------------------------------------------------- profile


async def test_a_profile_from_the_registration_on(world: World) -> None:
    await world.register(ADA)
    registered = world.clock.now_ns
    world.clock.advance(60)
    ada = await world.device(ADA)
    info = await ada.get("/v1/account")
    assert (info["created_ns"], info["last_login_ns"]) == (registered, registered + 60 * 10**9)
    assert info["settings"] == {"language": "en", "time_zone": "UTC"}
    world.clock.advance(60)
    await ada.refresh()
    assert (await ada.get("/v1/account"))["last_login_ns"] == registered + 60 * 10**9


async def test_name_and_settings_change_each_by_itself(ada: Device) -> None:
    async def change(body: object) -> tuple[str, dict[str, str]]:
        answer = await ada.send("PATCH", "/v1/account", body)
        assert answer.status_code == 200, answer.text
        assert answer.json() == await ada.get("/v1/account")
        return answer.json()["account"]["name"], answer.json()["settings"]

    assert await change({"name": " Ada "}) == ("Ada", {"language": "en", "time_zone": "UTC"})
    assert await change({"settings": {"time_zone": "Europe/Berlin"}}) == ("Ada", {"language": "en", "time_zone": "Europe/Berlin"})
    assert await change({"settings": {"language": "pt-BR"}}) == ("Ada", {"language": "pt-BR", "time_zone": "Europe/Berlin"})
    assert await change({"settings": {"time_zone": None}, "name": ""}) == ("", {"language": "pt-BR", "time_zone": "UTC"})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"settings": {"colour": "red"}}, "settings.colour"),
        ({"settings": {"time_zone": "Europe/Atlantis"}}, "settings.time_zone"),
        ({"settings": {"time_zone": "../../etc/passwd"}}, "settings.time_zone"),
        ({"settings": {"language": "plain English"}}, "settings.language"),
        ({"name": "a\nb"}, "name"),
        ({"email": "eve@example.org"}, "email"),
    ],
)
async def test_what_is_no_profile_is_refused(ada: Device, body: object, field: str) -> None:
    assert problem(await ada.send("PATCH", "/v1/account", body), 400, "invalid")["field"] == field


# ------------------------------------------------------------------------------------------------------------ password


async def test_a_changed_password_is_the_only_good_one(world: World, ada: Device, other: Device) -> None:
    body = {"password": "wrong password", "new_password": BETTER}
    assert problem(await ada.send("POST", "/v1/account/password", body), 403, "forbidden")["field"] == "password"
    short = {"password": PASSWORD, "new_password": "short"}
    assert problem(await ada.send("POST", "/v1/account/password", short), 400, "invalid")["field"] == "new_password"
    body["password"] = PASSWORD
    assert (await ada.send("POST", "/v1/account/password", body)).status_code == 204
    await ada.get("/v1/account")
    await other.get("/v1/account")
    problem(await world.try_login(ADA, new_id()), 401, "unauthenticated")
    assert (await world.try_login(ADA, new_id(), password=BETTER)).status_code == 200


async def test_a_changed_password_may_log_all_others_out(world: World, ada: Device, other: Device, eve: Device) -> None:
    token = (await ada.post("/v1/personal-tokens", {"name": "t", "scopes": ["account:read"]}))["token"]
    body = {"password": PASSWORD, "new_password": BETTER, "log_out_others": True}
    assert (await ada.send("POST", "/v1/account/password", body)).status_code == 204
    await ada.get("/v1/account")
    await eve.get("/v1/account")
    problem(await other.send("GET", "/v1/account"), 401, "revoked")
    problem(await ada.send("GET", "/v1/account", token=token), 401, "unauthenticated")


async def test_guessing_the_password_of_a_stolen_device_is_slowed_down(world: World, ada: Device) -> None:
    for path in ("/v1/account/password", "/v1/account/close") * 5:
        body = {"password": "wrong"} | ({"new_password": BETTER} if path.endswith("password") else {})
        problem(await ada.send("POST", path, body), 403, "forbidden")
    problem(await ada.send("POST", "/v1/account/close", {"password": PASSWORD}), 429, "rate-limited")
    problem(await world.try_login(ADA, new_id()), 429, "rate-limited")


async def test_a_login_with_the_password_of_a_moment_ago_is_refused(world: World, ada: Device) -> None:
    device = {"installation": new_id(), "name": "late"}
    request = LoginRequest.model_validate({"email": ADA, "password": PASSWORD, "device": device})
    known = world.service.accounts.check_password(ADA, PASSWORD)
    assert known is not None
    body = {"password": PASSWORD, "new_password": BETTER, "log_out_others": True}
    assert (await ada.send("POST", "/v1/account/password", body)).status_code == 204
    with pytest.raises(Refused, match="changed meanwhile"):
        world.service.devices.login(known.account, request, known.password_hash)
    assert len((await ada.get("/v1/devices"))["devices"]) == 1


async def test_limits_outlive_the_process(open_world: Callable[..., World]) -> None:
    world = open_world()
    await world.register(ADA)
    for _ in range(10):
        problem(await world.try_login(ADA, new_id(), password="wrong password"), 401, "unauthenticated")
    await world.close()
    problem(await open_world().try_login(ADA, new_id()), 429, "rate-limited")


# ----------------------------------------------------------------------------------------------------------- log out all


async def test_all_devices_are_logged_out_at_once(world: World, ada: Device, other: Device, eve: Device) -> None:
    third = await world.device(ADA)
    assert (await ada.send("DELETE", "/v1/devices", params={"keep_current": "true"})).status_code == 204
    await ada.get("/v1/account")
    for device in (other, third):
        problem(await device.send("GET", "/v1/account"), 401, "revoked")
        problem(await world.refresh(device.tokens["refresh_token"]), 401, "revoked")
    assert (await ada.send("DELETE", "/v1/devices")).status_code == 204
    problem(await ada.send("GET", "/v1/account"), 401, "revoked")
    await eve.get("/v1/account")


async def test_who_waits_for_news_is_told_at_once_that_it_is_logged_out(world: World, ada: Device, other: Device) -> None:
    await other.changes()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            path = {"cursor": other.cursor, "wait": 60}
            problem(await other.send("GET", "/v1/changes", params=path), 401, "revoked")

        nursery.start_soon(wait)
        await until(lambda: world.service.wake.waiting() == 1)
        await ada.send("DELETE", "/v1/devices", params={"keep_current": "true"})


# -------------------------------------------------------------------------------------------------------------- closing


async def test_a_closed_account_is_gone(world: World, ada: Device, other: Device, eve: Device) -> None:
    token = (await ada.post("/v1/personal-tokens", {"name": "t", "scopes": ["files:read"]}))["token"]
    await ada.accept(create(ada.space, "secret", new_id(), b"x"))
    problem(await ada.send("POST", "/v1/account/close", {"password": "wrong password"}), 403, "forbidden")
    assert (await ada.send("POST", "/v1/account/close", {"password": PASSWORD})).status_code == 204
    for device in (ada, other):
        problem(await device.send("GET", "/v1/account"), 401, "revoked")
        problem(await world.refresh(device.tokens["refresh_token"]), 401, "revoked")
    problem(await ada.send("GET", "/v1/changes", token=token), 401, "unauthenticated")
    problem(await world.try_login(ADA, ada.installation), 401, "unauthenticated")
    problem(await eve.send("GET", f"/v1/spaces/{ada.space}/folders/{ada.space}"), 404, "not-found")
    await eve.get("/v1/account")


async def test_the_address_of_a_closed_account_is_free(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "secret", new_id(), b"x"))
    await ada.send("POST", "/v1/account/close", {"password": PASSWORD})
    del world.accounts[ADA]
    again = await world.device(ADA, ada.installation)
    assert again.account["id"] != ada.account["id"]
    entries, _ = await again.listing()
    assert not entries
    problem(await ada.send("GET", "/v1/account"), 401, "revoked")


async def test_closing_and_logging_in_at_once_leaves_nobody_inside(world: World, ada: Device) -> None:
    """Straight on the service, in threads that start together."""
    account, barrier = Account.model_validate(ada.account), threading.Barrier(5)
    known = world.service.accounts.check_password(ADA, PASSWORD)
    caller = world.service.devices.authenticate(ada.tokens["access_token"])
    assert known is not None

    def log_in() -> None:
        device = {"installation": new_id(), "name": "x"}
        request = LoginRequest.model_validate({"email": ADA, "password": PASSWORD, "device": device})
        barrier.wait()
        try:
            world.service.devices.login(account, request, known.password_hash)
        except Refused as refused:
            assert "changed" in refused.detail  # noqa: PT017

    def close() -> None:
        barrier.wait()
        world.service.accounts.close(caller, PASSWORD, world.service.sharing.close_account)

    threads = [threading.Thread(target=work) for work in (log_in, log_in, log_in, log_in, close)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await trio.to_thread.run_sync(thread.join)
    assert world.service.devices.listing(caller).devices == []
