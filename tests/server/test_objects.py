"""Uploads, downloads and quota: who may send and fetch which bytes, and what a commit believes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

import pytest

from tests.support.wire import (
    Device,
    Json,
    World,
    chunked,
    content,
    create,
    entry,
    file_row,
    inline,
    new_id,
    new_row,
    problem,
    remove,
)

MIB = 2**20


def object_id(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def of_objects(parent: str, name: str, *objects: bytes) -> Json:
    inode = new_id()
    row = new_row(inode, "file", content=content(chunked(*objects)))
    return {"entries": [entry(parent, name, None, inode)], "inodes": [row]}


async def test_what_was_uploaded_and_committed_can_be_fetched(ada: Device, other: Device) -> None:
    bodies = [os.urandom(100), os.urandom(3 * MIB + 1)]
    await ada.store(ada.space, "f", new_id(), *bodies)
    links = (await other.try_download(*map(object_id, bodies))).json()["links"]
    assert [link["id"] for link in links] == [object_id(body) for body in bodies]
    assert [(await other.http.get(link["url"])).content for link in links] == bodies


async def test_a_plan_names_what_is_missing_and_resuming_is_planning_again(ada: Device) -> None:
    sent, unsent = os.urandom(10), os.urandom(20)
    links = await ada.plan(sent, unsent)
    assert [(link["id"], link["method"], link["headers"]["Content-Length"]) for link in links] == [
        (object_id(sent), "PUT", "10"),
        (object_id(unsent), "PUT", "20"),
    ]
    await ada.put(links[0], sent)
    assert [link["id"] for link in await ada.plan(sent, unsent)] == [object_id(unsent)]
    assert await ada.plan(sent) == []


async def test_a_commit_names_the_objects_that_are_missing(ada: Device) -> None:
    sent, unsent, unknown = os.urandom(10), os.urandom(20), os.urandom(30)
    links = await ada.plan(sent, unsent)
    await ada.put(links[0], sent)
    outcome = await ada.outcome(of_objects(ada.space, "f", sent, unsent, unknown))
    assert outcome["result"] == "missing"
    assert sorted(outcome["objects"]) == sorted([object_id(unsent), object_id(unknown)])
    await ada.put(links[1], unsent)
    await ada.upload(unknown)
    assert (await ada.outcome(of_objects(ada.space, "f", sent, unsent, unknown)))["result"] == "ok"


async def test_what_a_file_of_the_account_holds_is_not_sent_again(ada: Device, other: Device) -> None:
    body = os.urandom(1000)
    await ada.store(ada.space, "f", new_id(), body)
    assert await other.plan(body) == []
    assert (await other.outcome(of_objects(ada.space, "copy", body)))["result"] == "ok"


async def test_replaced_and_deleted_contents_can_still_be_fetched(ada: Device) -> None:
    inode, old, new = new_id(), os.urandom(10), os.urandom(11)
    await ada.store(ada.space, "f", inode, old)
    await ada.upload(new)
    await ada.accept({"inodes": [{"id": inode, "content": content(chunked(new), base=2)}]})
    await ada.accept(remove(ada.space, "f", inode, seen=3))
    assert (await ada.try_download(object_id(old), object_id(new))).status_code == 200
    assert await ada.manifest(inode, chunked(old)) is not None
    assert await ada.manifest(new_id(), chunked(old)) is not None, "a conflicted copy, which only its device knows, lies on it"
    assert await ada.manifest(inode, chunked(b"never sent")) is None
    eve = await ada.world.device("eve@example.org")
    assert await eve.manifest(inode, chunked(old)) is None, "a manifest belongs to a space"


async def test_a_manifest_that_lies_about_a_length_is_refused(ada: Device) -> None:
    body = os.urandom(100)
    await ada.upload(body)
    lie = (
        chunked(body)
        .replace((100).to_bytes(4, "little"), (99).to_bytes(4, "little"))
        .replace(b"\x64" + b"\0" * 7, b"\x63" + b"\0" * 7)
    )
    row = new_row(new_id(), "file", content=content(lie))
    outcome = await ada.outcome({"entries": [entry(ada.space, "f", None, row["id"])], "inodes": [row]})
    assert outcome["result"] == "refused"


# -------------------------------------------------------------------------------------------------- between two accounts


async def test_a_hash_fetches_nothing_and_reveals_nothing(ada: Device, eve: Device) -> None:
    body = os.urandom(1000)
    await ada.store(ada.space, "f", new_id(), body)
    problem(await eve.try_download(object_id(body)), 404, "not-found")
    assert [link["id"] for link in await eve.plan(body)] == [object_id(body)], "she is told to send it herself"
    outcome = await eve.outcome(of_objects(eve.space, "mine", body))
    assert (outcome["result"], outcome["objects"]) == ("missing", [object_id(body)])
    problem(await eve.try_download(object_id(body)), 404, "not-found")


async def test_planning_alone_gives_no_right_to_what_somebody_else_sends(ada: Device, eve: Device) -> None:
    body = os.urandom(1000)
    await eve.plan(body)
    await ada.store(ada.space, "f", new_id(), body)
    assert (await eve.outcome(of_objects(eve.space, "mine", body)))["result"] == "missing"


async def test_who_has_the_bytes_stores_them_for_themselves(ada: Device, eve: Device) -> None:
    body = os.urandom(1000)
    await ada.store(ada.space, "f", new_id(), body)
    await eve.store(eve.space, "g", new_id(), body)
    (link,) = (await eve.try_download(object_id(body))).json()["links"]
    assert (await eve.http.get(link["url"])).content == body
    assert eve.account["id"] in link["url"]


# ------------------------------------------------------------------------------------------------------ the data plane


@pytest.fixture
async def link(ada: Device) -> Json:
    (link,) = await ada.plan(BODY)
    return link


BODY = b"the bytes that were announced"


async def nothing_is_stored(ada: Device) -> None:
    assert [link["id"] for link in await ada.plan(BODY)] == [object_id(BODY)]
    assert list((ada.world.service.folder.objects / "incoming").iterdir()) == []


async def test_a_put_can_be_repeated(ada: Device, link: Json) -> None:
    assert [(await ada.put(link, BODY)).status_code for _ in range(3)] == [200, 200, 200]
    assert await ada.plan(BODY) == []


async def test_a_body_of_the_same_length_and_another_hash_is_refused(ada: Device, link: Json) -> None:
    problem(await ada.put(link, bytes(len(BODY))), 400, "invalid")
    await nothing_is_stored(ada)


@pytest.mark.parametrize("body", [b"", BODY[:-1], BODY + b"x"])
async def test_a_body_of_another_length_is_refused(ada: Device, link: Json, body: bytes) -> None:
    response = await ada.http.put(link["url"], content=body)
    problem(response, 400, "invalid")
    await nothing_is_stored(ada)


async def test_a_link_is_for_five_minutes(world: World, ada: Device, link: Json) -> None:
    world.clock.advance(299)
    assert (await ada.put(link, BODY)).status_code == 200
    world.clock.advance(1)
    problem(await ada.put(link, BODY), 403, "forbidden")


async def test_a_link_is_for_one_key_one_method_and_as_it_was_signed(ada: Device, link: Json) -> None:
    url = link["url"]
    await ada.put(link, BODY)
    forged = [
        ("PUT", url.replace(".0?", ".1?")),
        ("PUT", url.replace(ada.account["id"], new_id())),
        ("PUT", url.replace("&l=29", "&l=30")),
        ("PUT", url.replace(object_id(BODY) + "&s", object_id(b"else") + "&s")),
        ("PUT", url.partition("?")[0]),
        ("PUT", url[:-1] + ("0" if url[-1] != "0" else "1")),
        ("PUT", url + "&e=9999999999"),
        ("PUT", url.replace("v=1", "v=2")),
        ("GET", url),
        ("GET", url.partition("?")[0]),
        ("GET", url.replace("/objects/", "/objects/../")),
    ]
    for method, changed in forged:
        response = await ada.http.request(method, changed, content=BODY if method == "PUT" else None)
        assert response.status_code in (403, 404), (method, changed)
    assert (await ada.http.delete(url)).status_code == 405
    assert (await ada.http.head(url)).status_code == 405


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-3", (206, BODY[:4])),
        ("bytes=4-", (206, BODY[4:])),
        ("bytes=-5", (206, BODY[-5:])),
        ("bytes=-500", (206, BODY)),
        ("bytes=10-5000", (206, BODY[10:])),
        ("bytes=3-2", (200, BODY)),
        ("bytes=0-1,3-4", (200, BODY)),
        ("lines=1-2", (200, BODY)),
        ("bytes=29-", (416, None)),
        ("bytes=-0", (416, None)),
    ],
)
async def test_parts_of_an_object(ada: Device, asked: str, expected: tuple[int, bytes | None]) -> None:
    await ada.store(ada.space, "f", new_id(), BODY)
    (link,) = (await ada.try_download(object_id(BODY))).json()["links"]
    response = await ada.http.get(link["url"], headers={"Range": asked})
    status, body = expected
    assert response.status_code == status
    if body is not None:
        assert (response.content, int(response.headers["content-length"])) == (body, len(body))
    if status == 206 and body is not None:
        assert response.headers["content-range"].endswith(f"/{len(BODY)}")


async def test_the_service_counts_what_it_carries(ada: Device, eve: Device) -> None:
    body = os.urandom(5000)
    await ada.store(ada.space, "f", new_id(), body)
    (link,) = (await ada.try_download(object_id(body))).json()["links"]
    await ada.http.get(link["url"])
    await ada.http.get(link["url"], headers={"Range": "bytes=0-9"})
    traffic = (await ada.get("/v1/account"))["traffic"]
    assert traffic == {"received_bytes": 5000, "received_objects": 1, "sent_bytes": 5010, "sent_objects": 2}
    assert (await eve.get("/v1/account"))["traffic"]["received_bytes"] == 0


# --------------------------------------------------------------------------------------------------------------- quota


async def used(device: Device) -> int:
    return int((await device.get("/v1/account"))["used_bytes"])


@pytest.fixture
async def poor(open_world: Callable[..., World]) -> Device:
    """A device with room for 10,000 bytes."""
    return await open_world("poor", quota_bytes=10_000).device()


async def test_a_plan_that_does_not_fit_is_refused_before_any_byte(poor: Device) -> None:
    wanted = [{"id": os.urandom(32).hex(), "length": 10_001}]
    document = problem(await poor.send("POST", f"/v1/spaces/{poor.space}/uploads", {"objects": wanted}), 507, "quota")
    assert (document["quota_bytes"], document["used_bytes"], document["needed_bytes"]) == (10_000, 0, 10_001)


async def test_plans_reserve_and_asking_again_reserves_once(poor: Device) -> None:
    body = os.urandom(6000)
    for _ in range(3):
        await poor.plan(body)
    wanted = [{"id": os.urandom(32).hex(), "length": 6000}]
    problem(await poor.send("POST", f"/v1/spaces/{poor.space}/uploads", {"objects": wanted}), 507, "quota")


async def test_reserved_bytes_are_those_that_the_commit_uses(poor: Device) -> None:
    body = os.urandom(9_000)
    await poor.store(poor.space, "f", new_id(), body)
    assert await used(poor) == 9_000 + len(chunked(body))
    assert (await poor.outcome(create(poor.space, "g", new_id(), b"x" * 2000)))["result"] == "quota"
    assert (await poor.outcome(create(poor.space, "h", new_id(), b"x" * 100)))["result"] == "ok"


async def test_inline_contents_leave_room_for_what_was_reserved(poor: Device) -> None:
    body = os.urandom(8_000)
    await poor.upload(body)
    assert (await poor.outcome(create(poor.space, "small", new_id(), b"x" * 3000)))["result"] == "quota"
    assert (await poor.outcome(of_objects(poor.space, "f", body)))["result"] == "ok"


async def test_deleting_and_renaming_work_with_the_quota_used_up(poor: Device) -> None:
    inode = new_id()
    await poor.accept(*(create(poor.space, f"f{n}", inode if n == 0 else new_id(), bytes([n]) * 3000) for n in range(3)))
    assert (await poor.outcome(create(poor.space, "more", new_id(), b"y" * 3000)))["result"] == "quota"
    await poor.accept(remove(poor.space, "f0", inode, seen=2))


async def test_equal_contents_count_once(ada: Device) -> None:
    await ada.accept(*(create(ada.space, f"f{n}", new_id(), b"same") for n in range(5)))
    both = {
        "entries": [entry(ada.space, name, None, name_id) for name, name_id in (("a", "0" * 32), ("b", "1" * 32))],
        "inodes": [file_row("0" * 32, b"new"), file_row("1" * 32, b"new")],
    }
    await ada.accept(both)
    assert await used(ada) == len(inline(b"same")) + len(inline(b"new"))


async def test_an_abandoned_upload_gives_its_room_back(poor: Device) -> None:
    body = os.urandom(9_000)
    await poor.upload(body)
    poor.world.clock.advance(24 * 3600 + 1)
    await poor.refresh()
    outcome = await poor.outcome(of_objects(poor.space, "late", body))
    assert outcome["result"] == "missing", "the session is over"
    assert (await poor.outcome(create(poor.space, "f", new_id(), b"x" * 4000)))["result"] == "ok"
    assert [link["url"].partition("?")[0][-2:] for link in await poor.plan(os.urandom(10))] == [".0"]
    wanted = [{"id": object_id(body), "length": 5000}]
    links = (await poor.post(f"/v1/spaces/{poor.space}/uploads", {"objects": wanted}))["missing"]
    assert links[0]["url"].partition("?")[0].endswith(".1"), "a key is never used for a second session"


async def test_one_object_has_one_length_and_a_bounded_one(ada: Device) -> None:
    path, id_ = f"/v1/spaces/{ada.space}/uploads", os.urandom(32).hex()
    two = {"objects": [{"id": id_, "length": 1}, {"id": id_, "length": 2}]}
    assert problem(await ada.send("POST", path, two), 400, "invalid")["field"] == "objects.1.length"
    long = {"objects": [{"id": id_, "length": 2**30}]}
    assert problem(await ada.send("POST", path, long), 400, "invalid")["field"] == "objects.0.length"
    many = {"objects": [{"id": os.urandom(32).hex(), "length": 1} for _ in range(513)]}
    assert problem(await ada.send("POST", path, many), 400, "invalid")["field"] == "objects"
