"""Keys that sign are replaced while the service runs: nothing that is good is refused, and nothing is good for too long."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from remote.server import keyring
from remote.server.config import ServerConfig
from remote.server.database import keys as rows
from remote.server.folder import DataFolder
from remote.server.keyring import FRESH_NS, LEEWAY_NS, LOOKS, OBJECTS, SPREAD_NS, TOKENS, KeyRing, forget_ended, lives_ns, rotate
from remote.server.keys import Key
from remote.server.problems import Refused
from remote.server.tokens import ACCESS_SECONDS
from tests.support.wire import Device, World, create, new_id, problem

SECOND_NS = 10**9
HOUR = 3600.0


def config(world: World) -> ServerConfig:
    return world.service.config


def rotated(world: World, *names: str, **more: Any) -> list[keyring.Rotation]:
    return rotate(world.service.database, config(world), names or (TOKENS, OBJECTS), world.clock, os.urandom, **more)


def ring(world: World, name: str = TOKENS) -> KeyRing:
    """As another process has it."""
    return KeyRing(world.service.database, name, lives_ns(config(world))[name], world.clock)


def kids(world: World, name: str = TOKENS) -> list[str]:
    with world.service.database.read() as connection:
        return [row.key.kid for row in rows.load(connection, name)]


def kid_of(device: Device) -> str:
    kid: str = jwt.get_unverified_header(device.tokens["access_token"])["kid"]
    return kid


async def is_let_in(device: Device) -> bool:
    response = await device.send("GET", "/v1/account")
    assert response.status_code in (200, 401), response.text
    return response.status_code == 200


# ------------------------------------------------------------------------------------------------------------ by and by


async def test_a_new_key_signs_and_the_old_one_is_good_until_its_tokens_have_ended(world: World, ada: Device) -> None:
    old = kid_of(ada)
    (rotation,) = rotated(world, TOKENS)
    assert (rotation.name, rotation.replaced) == (TOKENS, [old])
    await ada.refresh()
    assert kid_of(ada) == old, "another process may not know the new one yet"
    world.clock.advance(SPREAD_NS / SECOND_NS)
    assert await is_let_in(ada)
    last = await world.device(ada.account["email"])
    await ada.refresh()
    assert kid_of(ada) == kid_of(last) == rotation.kid != old
    assert kids(world, OBJECTS), "the others are as they were"
    assert len(kids(world, OBJECTS)) == 1


async def test_a_token_of_a_key_is_refused_after_its_end_however_long_it_says_that_it_lasts(world: World, ada: Device) -> None:
    with world.service.database.read() as connection:
        (leaked,) = (row.key for row in rows.load(connection, TOKENS))
    claims = jwt.decode(ada.tokens["access_token"], options={"verify_signature": False})
    ada.tokens["access_token"] = jwt.encode(
        claims | {"exp": claims["exp"] + 10**6}, leaked.secret, algorithm="HS256", headers={"kid": leaked.kid}
    )
    (rotation,) = rotated(world, TOKENS)
    assert rotation.good_until_ns is not None
    world.clock.now_ns = rotation.good_until_ns - 1
    assert await is_let_in(ada)
    assert forget_ended(world.service.database, config(world), world.clock) == 0
    world.clock.now_ns = rotation.good_until_ns
    assert not await is_let_in(ada)
    assert forget_ended(world.service.database, config(world), world.clock) == 1
    assert kids(world) == [rotation.kid]
    world.clock.advance(FRESH_NS / SECOND_NS)
    assert not await is_let_in(ada)


async def test_it_is_good_for_what_lasts_longest(world: World) -> None:
    tokens, objects = rotated(world, TOKENS, OBJECTS)[::-1]
    now = world.clock.now_ns
    assert tokens.good_until_ns == now + SPREAD_NS + 3600 * SECOND_NS + LEEWAY_NS, "a ticket of a public link: an hour"
    assert objects.good_until_ns == now + SPREAD_NS + config(world).link_seconds * SECOND_NS + LEEWAY_NS


async def test_a_second_rotation_soon_after_the_first_refuses_nothing(world: World, ada: Device) -> None:
    rotated(world, TOKENS)
    world.clock.advance(5)
    second = rotated(world, TOKENS)[0]
    assert len(second.replaced) == 2
    for _ in range(10):
        await ada.refresh()
        assert await is_let_in(ada)
        world.clock.advance(3)
    assert kid_of(ada) == second.kid


async def test_downloads_and_links_go_on(world: World, ada: Device) -> None:
    body = os.urandom(50_000)
    await ada.store(ada.space, "f", new_id(), body)
    plan = await ada.get("/v1/files/download", params={"path": "/f"})
    (link,) = await ada.plan(other := os.urandom(1000))
    made = await ada.post("/v1/links", {"path": "/f", "downloads_max": 1})
    token = made["url"].rpartition("/")[2]
    admitted = await world.http.get(f"/link/{token}")
    ticket = admitted.headers["location"]
    part = await world.http.get(f"/link/{token}{ticket}", headers={"Range": "bytes=0-9999"})
    rotated(world)
    world.clock.advance(200)
    assert (await world.http.get(plan["links"][0]["url"])).content == body
    assert (await ada.put(link, other)).status_code == 200
    rest = await world.http.get(f"/link/{token}{ticket}", headers={"Range": "bytes=10000-"})
    assert part.content + rest.content == body
    fresh = await ada.get("/v1/files/download", params={"path": "/f"})
    assert fresh["links"][0]["url"] != plan["links"][0]["url"]
    assert (await world.http.get(fresh["links"][0]["url"])).content == body


async def test_cursors_remain_good(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "a", new_id()))
    await ada.changes()
    rotated(world, at_once=True)
    world.clock.advance(FRESH_NS / SECOND_NS)
    await ada.refresh()
    await ada.accept(create(ada.space, "b", new_id()))
    (changed,) = (await ada.changes())["spaces"]
    assert [row["name"] for row in changed["entries"]] == ["b"]


# --------------------------------------------------------------------------------------------------------------- at once


async def test_at_once_what_the_old_key_signed_is_refused_and_devices_only_refresh(world: World, ada: Device) -> None:
    body = os.urandom(5000)
    await ada.store(ada.space, "f", new_id(), body)
    plan = await ada.get("/v1/files/download", params={"path": "/f"})
    rotations = rotated(world, at_once=True)
    assert [each.good_until_ns for each in rotations] == [None, None]
    world.clock.advance(FRESH_NS / SECOND_NS)
    assert not await is_let_in(ada)
    problem(await world.http.get(plan["links"][0]["url"]), 403, "forbidden")
    await ada.refresh()
    assert await is_let_in(ada)
    plan = await ada.get("/v1/files/download", params={"path": "/f"})
    assert (await world.http.get(plan["links"][0]["url"])).content == body


async def test_a_dry_run_changes_nothing(world: World, ada: Device) -> None:
    before = kids(world), kids(world, OBJECTS)
    assert len(rotated(world, dry_run=True)) == 2
    assert len(rotated(world, at_once=True, dry_run=True)) == 2
    assert (kids(world), kids(world, OBJECTS)) == before
    world.clock.advance(60)
    assert await is_let_in(ada)


# -------------------------------------------------------------------------------------------------- several processes


async def test_another_process_knows_a_key_before_it_signs(world: World) -> None:
    here, there = ring(world), ring(world)
    old = here.signing()
    assert there.verifying(old.kid) == old
    (rotation,) = rotated(world, TOKENS)
    signed = set()
    for _ in range(2 * SPREAD_NS // SECOND_NS):
        key = here.signing()
        assert there.verifying(key.kid) == key
        signed.add(key.kid)
        world.clock.advance(1)
    assert signed == {old.kid, rotation.kid}


async def test_a_key_that_was_just_made_is_looked_for(world: World) -> None:
    here, there = ring(world), ring(world)
    old = there.signing()
    rotated(world, TOKENS, at_once=True)
    fresh = here.signing()
    assert fresh != old
    assert there.verifying(fresh.kid) == fresh
    assert there.verifying(old.kid) is None


async def test_unknown_ids_are_looked_for_so_many_times_and_never_take_the_place_of_a_good_one(world: World) -> None:
    here, there = ring(world), ring(world)
    there.signing()
    for number in range(LOOKS):
        assert there.verifying(f"{number:016x}") is None
    with pytest.raises(Refused, match="cannot be checked now") as refused:
        there.verifying("f" * 16)
    assert refused.value.retry_after_seconds == 1
    assert there.verifying("0" * 16) is None, "it was looked for"
    assert there.verifying(there.signing().kid) is not None
    rotated(world, TOKENS, at_once=True)
    fresh = here.signing()
    with pytest.raises(Refused):
        there.verifying(fresh.kid)
    world.clock.advance(FRESH_NS / SECOND_NS)
    assert there.verifying(fresh.kid) == fresh, "a second request finds it"


async def test_a_forged_id_is_no_way_in(world: World, ada: Device) -> None:
    claims = jwt.decode(ada.tokens["access_token"], options={"verify_signature": False})
    (other,) = kids(world, OBJECTS)
    for kid in (new_id()[:16], other, "", "../tokens", "x" * 1000):
        forged = jwt.encode(claims, b"k" * 32, algorithm="HS256", headers={"kid": kid})
        problem(await ada.send("GET", "/v1/account", token=forged), 401, "unauthenticated")
    with world.service.database.read() as connection:
        (objects,) = (row.key for row in rows.load(connection, OBJECTS))
    forged = jwt.encode(claims, objects.secret, algorithm="HS256", headers={"kid": objects.kid})
    problem(await ada.send("GET", "/v1/account", token=forged), 401, "unauthenticated")
    assert await is_let_in(ada)


@pytest.mark.parametrize("database_of", ["postgresql"], indirect=True)
async def test_two_services_on_one_database_take_each_others_tokens_through_a_rotation(open_world: Callable[..., World]) -> None:
    one, two = open_world(), open_world()
    two.clock = one.clock
    ada = await one.device()
    for at_once in (False, True):
        rotated(one, at_once=at_once)
        for _ in range(10):
            ada.tokens = (await one.refresh(ada.tokens["refresh_token"])).json()
            headers = {"Authorization": f"Bearer {ada.tokens['access_token']}"}
            assert (await two.http.get("/v1/account", headers=headers)).status_code == 200
            one.clock.advance(2)
    assert ACCESS_SECONDS > 20, "it did not end meanwhile"


# ------------------------------------------------------------------------------------------------ from before the database


async def test_keys_in_files_are_taken_over(open_world: Callable[..., World]) -> None:
    first = open_world()
    ada = await first.device()
    with first.service.database.write() as connection:
        (key,) = (row.key for row in rows.load(connection, TOKENS))
        rows.remove(connection, TOKENS, [key.kid])
    folder = first.service.folder.path
    await first.close()
    file = folder / "tokens.key"
    file.write_text(f'{{"kid": "{key.kid}", "secret": "{key.secret.hex()}"}}')
    second = open_world()
    second.clock.now_ns = first.clock.now_ns
    headers = {"Authorization": f"Bearer {ada.tokens['access_token']}"}
    assert (await second.http.get("/v1/account", headers=headers)).status_code == 200
    assert kids(second) == [key.kid]
    assert not file.exists()
    await second.close()
    file.write_text('{"kid": "00", "secret": "' + "00" * 32 + '"}')
    third = open_world()
    assert kids(third) == [key.kid], "what the database has is what is good"
    assert not file.exists()


def test_a_key_by_itself_is_its_own_ring() -> None:
    key = Key("k", b"s" * 32)
    assert (key.signing(), key.verifying("k"), key.verifying("other")) == (key, key, None)


def test_no_key_file_is_made(tmp_path: Any) -> None:
    with DataFolder(tmp_path / "data") as folder:
        assert folder.old_key(TOKENS) is None
