"""Notifications: what is told, to whom, once; which are wanted; and what is kept of them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from remote.server import namespace, news, notifications
from remote.server.mail import Mailer, MailFailed
from tests.support.wire import Device, Json, World, create, new_id, problem

DAY = 24 * 3600


async def listing(device: Device, **query: Any) -> list[Json]:
    return list((await device.get("/v1/notifications", params=query))["notifications"])


async def conflict(device: Device, number: int = 1) -> str:
    """Let the device bring a conflicted copy."""
    await device.accept(create(device.space, f"f (conflicted copy, laptop, 2026-11-20, {number})", inode := new_id(), b"x"))
    return inode


async def upload(device: Device, path: str, body: bytes) -> None:
    """As a plain client does."""
    id_ = hashlib.sha256(body).hexdigest()
    request = {"path": path, "size": len(body), "fingerprint": id_, "chunks": [{"id": id_, "size": len(body)}]}
    begun = await device.post("/v1/files/upload", request)
    for link in begun["missing"]:
        assert (await device.put(link, body)).is_success
    await device.post(f"/v1/files/upload/{begun['id']}/complete", {})


async def test_a_new_device_is_told_of_and_the_first_is_not(world: World, ada: Device, eve: Device) -> None:
    assert await listing(ada) == []
    second = await world.device(installation=(installation := new_id()))
    (told,) = await listing(ada)
    assert (told["topic"], told["priority"], told["device"], told["read_ns"]) == ("device.new", "high", second.id, None)
    await world.device(installation=installation)
    assert len(await listing(ada)) == 1, "the same home logs in again"
    await ada.send("DELETE", f"/v1/devices/{second.id}")
    await world.device(installation=installation)
    assert len(await listing(ada)) == 2
    assert await listing(eve) == [], "nobody else's"


async def test_a_conflicted_copy_is_told_of_by_its_path(world: World, ada: Device) -> None:
    inode = await conflict(ada)
    (told,) = await listing(ada)
    assert (told["topic"], told["inode"], told["device"]) == ("conflict", inode, ada.id)
    assert told["path"] == "/f (conflicted copy, laptop, 2026-11-20, 1)"
    assert told["path"] in told["text"]


def test_steps_of_the_quota_are_told_once_each() -> None:
    uses = ((0, 799), (799, 800), (800, 949), (900, 1000), (1000, 1000))
    found = [news.quota_news(1000, before, after) for before, after in uses]
    assert [[each.text[:4] for each in some] for some in found] == [[], ["80 %"], [], ["All "], []]


async def test_the_quota_is_told_of_by_a_commit(world: World, ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    original = namespace.load_budget

    def small(*arguments: Any, **more: Any) -> Any:
        return replace(original(*arguments, **more), quota=10_000)

    monkeypatch.setattr(namespace, "load_budget", small)
    await ada.store(ada.space, "big", new_id(), os.urandom(8500))
    (told,) = await listing(ada)
    assert (told["topic"], told["text"][:25]) == ("quota", "80 % of your storage is u")


async def test_what_a_device_cannot_send_is_told_of_once(ada: Device) -> None:
    failing = {"path": "/f", "size": 1, "error": "it cannot be read"}
    for first in ([failing], [failing], [failing, {"path": "/g", "size": 1}]):
        body = {"files": len(first), "bytes": 2, "changes": 0, "first": first}
        assert (await ada.send("POST", "/v1/sync/status", body)).status_code == 204
    (told,) = await listing(ada)
    assert (told["topic"], told["path"]) == ("upload.failed", "/f")
    await ada.send("POST", "/v1/sync/status", {"files": 0, "bytes": 0, "changes": 0})
    await ada.send("POST", "/v1/sync/status", {"files": 1, "bytes": 1, "changes": 0, "first": [failing]})
    assert len(await listing(ada)) == 2


async def test_pages_marks_and_counts(ada: Device) -> None:
    for number in range(5):
        await conflict(ada, number)
    page = await ada.get("/v1/notifications", params={"limit": 2})
    assert [each["id"] for each in page["notifications"]] == [5, 4]
    assert (page["latest"], page["unread"], page["has_more"]) == (5, 5, True)
    assert [each["id"] for each in await listing(ada, before=4)] == [3, 2, 1]
    assert [each["id"] for each in await listing(ada, after=3)] == [4, 5]
    assert await ada.post("/v1/notifications/read", {"ids": [2, 77]}) == {"unread": 4}
    assert [each["id"] for each in await listing(ada, unread=True)] == [5, 4, 3, 1]
    assert await ada.post("/v1/notifications/read", {"up_to": 4}) == {"unread": 1}
    assert [each["id"] for each in await listing(ada, unread=True)] == [5]
    assert all(each["read_ns"] is not None for each in await listing(ada, before=5))
    problem(await ada.send("GET", "/v1/notifications", params={"wait": 5}), 400, "invalid")
    problem(await ada.send("GET", "/v1/notifications", params={"after": 1, "before": 2}), 400, "invalid")


async def heard_by_who_waits(device: Device, after: int) -> list[int]:
    """For the next after one, while there is another conflict."""
    found: list[Json] = []

    async def wait() -> None:
        found.extend(await listing(device, after=after, wait=50))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked(0.1)
        await conflict(device, 2)
    return [each["id"] for each in found]


async def test_who_waits_hears_of_the_next(ada: Device) -> None:
    await conflict(ada)
    assert await heard_by_who_waits(ada, 1) == [2]


async def test_who_knows_more_than_a_restored_service_hears_of_the_next(ada: Device) -> None:
    await conflict(ada)
    assert (await ada.get("/v1/notifications", params={"after": 77}))["latest"] == 1
    assert await heard_by_who_waits(ada, 77) == [2]


async def test_what_is_not_wanted_is_not_kept(ada: Device) -> None:
    before = await ada.get("/v1/notifications/preferences")
    assert (before["topics"]["upload.completed"]["kept"], before["digest"]) == (False, False)
    wanted = {"conflict": {"kept": False}, "upload.completed": {"kept": True}}
    changed = await ada.post("/v1/notifications/preferences", {"topics": wanted})
    assert changed["topics"]["conflict"] == {"kept": False, "desktop": True, "email": True}
    assert changed == await ada.get("/v1/notifications/preferences")
    await conflict(ada)
    await upload(ada, "/up", b"x")
    assert [(told["topic"], told["path"], told["priority"]) for told in await listing(ada)] == [
        ("upload.completed", "/up", "low")
    ]
    problem(await ada.send("POST", "/v1/notifications/preferences", {"topics": {"weather": {}}}), 400, "invalid")


async def test_only_so_many_are_kept_and_for_so_long(world: World, ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "KEPT", 3)
    for number in range(5):
        await conflict(ada, number)
    assert [each["id"] for each in await listing(ada)] == [5, 4, 3]
    world.clock.advance(91 * DAY)
    await ada.refresh()
    await conflict(ada, 6)
    assert world.service.notifications.forget_old() == 2
    assert [each["id"] for each in await listing(ada)] == [6], "numbers are not given again"


class FakeMailer(Mailer):
    def __init__(self, refused: str = "") -> None:
        self.sent: list[tuple[str, str]] = []
        self.broken = False
        self.refused = refused

    def send(self, to: str, subject: str, text: str) -> None:
        if self.broken or to == self.refused:
            raise MailFailed("it does not answer")
        self.sent.append((to, text))


async def test_a_digest_a_day_with_what_is_unread(world: World, ada: Device, eve: Device) -> None:
    mailer, told = FakeMailer(), world.service.notifications
    await conflict(ada, 1)
    await conflict(eve, 1)
    await ada.post("/v1/notifications/preferences", {"digest": True})
    assert told.send_digests(mailer) == 0, "what was there before is no news"
    for number in (2, 3):
        await conflict(ada, number)
    await ada.post("/v1/notifications/read", {"ids": [2]})
    mailer.broken = True
    assert told.send_digests(mailer) == 0
    mailer.broken = False
    assert told.send_digests(mailer) == 1
    ((to, text),) = mailer.sent
    assert to == "ada@example.org"
    assert "20, 3)" in text
    assert "20, 2)" not in text
    await conflict(ada, 4)
    assert told.send_digests(mailer) == 0, "one a day"
    world.clock.advance(DAY + 1)
    assert told.send_digests(mailer) == 1
    assert "20, 4)" in mailer.sent[1][1]
    world.clock.advance(DAY + 1)
    assert told.send_digests(mailer) == 0, "nothing new"


async def test_an_address_that_is_refused_holds_up_no_other(
    world: World, ada: Device, eve: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "DIGESTS", 1)
    for device in (ada, eve):
        await device.post("/v1/notifications/preferences", {"digest": True})
    addresses = [device.account["email"] for device in (ada, eve)]
    for number, (refused, other) in enumerate((addresses, addresses[::-1])):
        for device in (ada, eve):
            await conflict(device, number)
        mailer = FakeMailer(refused)
        assert world.service.notifications.send_digests(mailer) == 1
        assert [to for to, _ in mailer.sent] == [other]
        world.clock.advance(DAY + 1)
        await ada.refresh()
        await eve.refresh()
