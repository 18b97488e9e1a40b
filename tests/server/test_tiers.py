"""Tiers: choosing one, what each of them lets an account store, and what becomes of accounts from before there were any."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from remote.accountapi import TierName
from remote.server.config import PlusTier, ServerConfig, TierConfig, TiersConfig
from remote.server.database.opening import open_database
from remote.server.devices import ALL_SCOPES, Caller
from remote.server.tiers import Tiers
from tests.support.wire import (
    Device,
    Json,
    World,
    chunked,
    content,
    create,
    entry,
    inline,
    move,
    new_id,
    new_row,
    problem,
    remove,
    write,
)

SMALL = TiersConfig(free=TierConfig(quota_bytes=10_000), plus=PlusTier(quota_bytes=50_000, upload_bytes_per_second=1000))


@pytest.fixture
async def poor(open_world: Callable[..., World]) -> Device:
    """A device of an account in a free tier of 10,000 bytes; plus has 50,000."""
    return await open_world("poor", tiers=SMALL).device()


async def choose(device: Device, tier: str) -> Json:
    return await device.post("/v1/users/tier", {"tier": tier})


async def test_an_account_begins_in_the_free_tier_and_sees_all_of_them(ada: Device) -> None:
    await ada.accept(create(ada.space, "f", new_id(), b"some bytes"))
    await ada.plan(os.urandom(5000))
    found = await ada.get("/v1/users/tier")
    assert (found["tier"], found["quota_bytes"]) == ("free", 100 * 2**30)
    assert (found["used_bytes"], found["reserved_bytes"]) == (len(inline(b"some bytes")), 5000)
    assert [(each["name"], each["quota_bytes"], each["kept_days"]) for each in found["tiers"]] == [
        ("free", 100 * 2**30, 30),
        ("plus", 2**40, 90),
        ("pro", 10 * 2**40, 365),
    ]
    assert all(
        (each["largest_file_bytes"], each["content_types"], each["upload_bytes_per_second"]) == (None, ["*/*"], None)
        for each in found["tiers"]
    )


async def test_another_tier_s_storage_is_there_at_once(poor: Device) -> None:
    body = os.urandom(20_000)
    wanted = {"objects": [{"id": os.urandom(32).hex(), "length": 20_000}]}
    problem(await poor.send("POST", f"/v1/spaces/{poor.space}/uploads", wanted), 507, "quota")
    chosen = await choose(poor, "plus")
    assert (chosen["tier"], chosen["quota_bytes"]) == ("plus", 50_000)
    await poor.store(poor.space, "f", new_id(), body)
    account = await poor.get("/v1/account")
    assert (account["quota_bytes"], account["tier"]["name"]) == (50_000, "plus")
    assert account["tier"]["upload_bytes_per_second"] == 1000, "devices read here how fast they may be"


async def test_a_tier_that_is_too_small_for_what_is_stored_is_refused_with_the_numbers(poor: Device) -> None:
    await choose(poor, "plus")
    inode, body = new_id(), os.urandom(9_000)
    await poor.store(poor.space, "f", inode, body)
    reserved = await poor.plan(os.urandom(3_000))
    taken = 12_000 + len(chunked(body))
    document = problem(await poor.send("POST", "/v1/users/tier", {"tier": "free"}), 409, "quota")
    numbers = (document["quota_bytes"], document["used_bytes"], document["needed_bytes"])
    assert numbers == (10_000, taken, taken - 10_000)
    assert str(taken - 10_000) in document["detail"]
    assert (await poor.get("/v1/users/tier"))["tier"] == "plus"
    assert len(reserved) == 1
    poor.world.clock.advance(24 * 3600 + 1)
    await poor.refresh()
    assert (await choose(poor, "free"))["quota_bytes"] == 10_000, "the upload was given up"


async def test_only_a_tier_that_there_is_can_be_chosen_and_only_for_oneself(poor: Device) -> None:
    for wrong in ({"tier": "gold"}, {"tier": "plus", "account": poor.account["id"]}, {}):
        problem(await poor.send("POST", "/v1/users/tier", wrong), 400, "invalid")
    problem(await poor.http.post("/v1/users/tier", json={"tier": "plus"}), 401, "unauthenticated")
    eve = await poor.world.device("eve@example.org")
    await choose(eve, "pro")
    assert (await poor.get("/v1/users/tier"))["tier"] == "free"


@pytest.mark.parametrize(("chosen", "expected"), [({}, 5_000), ({"quota_bytes": 7_000}, 7_000)])
async def test_the_quota_of_a_configuration_from_before_tiers_is_the_free_tier_s(
    open_world: Callable[..., World], chosen: Json, expected: int
) -> None:
    device = await open_world(tiers=TiersConfig(free=TierConfig(quota_bytes=5_000)), **chosen).device()
    assert (await device.get("/v1/users/tier"))["quota_bytes"] == expected


async def test_what_the_configuration_says_of_a_tier_holds_for_accounts_that_are_there(open_world: Callable[..., World]) -> None:
    first = open_world(tiers=SMALL)
    device = await first.device()
    await first.close()
    second = open_world(tiers=TiersConfig(free=TierConfig(quota_bytes=3_000)))
    again = Device(second, device.account, device.device, device.tokens, device.installation)
    assert (await again.get("/v1/account"))["quota_bytes"] == 3_000


@pytest.mark.parametrize("on", ["sqlite", "postgresql"])
def test_an_account_from_before_tiers_keeps_its_storage_until_it_chooses(
    tmp_path: Path, request: pytest.FixtureRequest, on: str
) -> None:
    url = request.getfixturevalue("postgresql").empty_database() if on == "postgresql" else None
    config = ServerConfig(tmp_path, database=url, tiers=SMALL)
    database, account = open_database(config), os.urandom(16)
    alembic = Config()
    alembic.set_main_option("script_location", "remote.server.database:migrations")
    with database.alone() as connection:
        alembic.attributes["connection"] = connection
        command.upgrade(alembic, "0006")
        connection.execute(
            text(
                "INSERT INTO accounts (id, email, email_key, name, password_hash, personal_space, quota_bytes, used_bytes, "
                "created_ns) VALUES (:id, 'old@example.org', 'old@example.org', '', '', :id, 123456, 1000, 0)"
            ),
            {"id": account},
        )
    database.migrate()
    tiers = Tiers(config, database, lambda: 0)
    caller = Caller(account, account, ALL_SCOPES)
    assert (tiers.of(caller).tier, tiers.of(caller).quota_bytes) == ("free", 123456)
    assert tiers.choose(caller, TierName.FREE).quota_bytes == 10_000
    assert tiers.of(caller).quota_bytes == 10_000
    database.close()


# ------------------------------------------------------------------------------------------------- what a tier lets in


@pytest.fixture
async def choosy(open_world: Callable[..., World]) -> Device:
    """A device whose tier takes images and plain text of at most 6,000 bytes."""
    free = TierConfig(largest_file_bytes=6_000, content_types=("image/*", "text/plain"))
    return await open_world("choosy", tiers=TiersConfig(free=free)).device()


async def why(device: Device, group: Json) -> str:
    """What is said to a group that is refused; nothing of one that is not."""
    outcome = await device.outcome(group)
    assert outcome["result"] in ("ok", "refused")
    return str(outcome["detail"])


def of_objects(parent: str, name: str, body: bytes, **claim: str) -> Json:
    inode = new_id()
    row = new_row(inode, "file", content=content(chunked(body)) | claim)
    return {"entries": [entry(parent, name, None, inode)], "inodes": [row]}


async def test_a_file_that_is_too_large_is_refused_by_the_commit(choosy: Device) -> None:
    most, more = os.urandom(6_000), os.urandom(6_001)
    await choosy.upload(most, more)
    assert await why(choosy, of_objects(choosy.space, "most.png", most)) == ""
    said = await why(choosy, of_objects(choosy.space, "more.png", more))
    assert "6001" in said
    assert "6000" in said
    assert set((await choosy.listing())[0]) == {(choosy.space, "most.png")}


async def test_a_file_of_another_type_is_refused_by_the_commit(choosy: Device) -> None:
    root, inode = choosy.space, new_id()
    for name in ("a.png", "b.JPEG", "c.txt"):
        assert await why(choosy, create(root, name, new_id(), b"x")) == ""
    for name, type_ in (
        ("a.html", "text/html"),
        ("a", "application/octet-stream"),
        ("a.png.gz", "application/octet-stream"),
        ("data:,a", "application/octet-stream"),
    ):
        assert await why(choosy, create(root, name, new_id(), b"x")) == (
            f"{type_} is not among the types that this account's tier takes: image/*, text/plain"
        )
    assert await why(choosy, create(root, "f.png", inode, b"one")) == ""
    assert "text/html" in await why(choosy, move(inode, (root, "f.png"), (root, "f.html")))
    assert "text/html" in await why(choosy, {"entries": [entry(root, "link.html", None, inode)]})
    assert await why(choosy, move(inode, (root, "f.png"), (root, "f.gif"))) == ""
    assert (
        await why(choosy, {"entries": [entry(root, "folder.html", None, (folder := new_id()))], "inodes": [new_row(folder)]})
        == ""
    )


async def test_what_is_said_of_a_type_besides_the_name_counts_too(choosy: Device) -> None:
    body = os.urandom(100)
    await choosy.upload(body)
    assert await why(choosy, of_objects(choosy.space, "no ending", body, content_type="image/png")) == ""
    assert "text/html" in await why(choosy, of_objects(choosy.space, "a.png", body, content_type="text/html"))


async def test_what_was_there_before_may_stay_and_be_moved_and_removed(open_world: Callable[..., World]) -> None:
    free = TierConfig(largest_file_bytes=5, content_types=("text/plain",))
    device = await open_world(tiers=TiersConfig(free=free)).device()
    await choose(device, "plus")
    root, page, long = device.space, new_id(), new_id()
    await device.accept(create(root, "a.html", page, b"page"), create(root, "long.txt", long, b"too long"))
    await choose(device, "free")
    assert await why(device, move(page, (root, "a.html"), (root, "b.html"))) == ""
    assert await why(device, {"inodes": [{"id": long, "attributes": {"mode": 0o600}}]}) == ""
    assert "text/html" in await why(device, write(page, b"new", 2))
    assert "text/css" in await why(device, move(page, (root, "b.html"), (root, "b.css")))
    assert "8" in await why(device, write(long, b"too lone", 3))
    assert await why(device, write(long, b"short", 3)) == ""
    assert await why(device, remove(root, "b.html", page, seen=2)) == ""


async def test_a_plan_that_says_what_it_is_for_is_refused_before_any_byte(choosy: Device) -> None:
    def plan(**file: object) -> Json:
        return {"objects": [{"id": os.urandom(32).hex(), "length": 1000}], "file": file}

    path = f"/v1/spaces/{choosy.space}/uploads"
    document = problem(await choosy.send("POST", path, plan(name="a.png", size=6_001)), 413, "too-large")
    assert document["field"] == "file.size"
    problem(await choosy.send("POST", path, plan(name="a.html", size=1)), 415, "content-type")
    problem(await choosy.send("POST", path, plan(name="a.png", size=1, content_type="text/html")), 415, "content-type")
    problem(await choosy.send("POST", path, plan(name="a/b", size=1)), 400, "invalid")
    problem(await choosy.send("POST", path, plan(name="a.png", size=1, content_type="image")), 400, "invalid")
    assert (await choosy.get("/v1/users/tier"))["reserved_bytes"] == 0
    assert len((await choosy.post(path, plan(name="a.png", size=6_000)))["missing"]) == 1
