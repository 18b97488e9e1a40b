"""Garbage: what nothing names goes, what something names stays, whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import trio
from sqlalchemy import delete, select, text, update

from remote import crashpoints
from remote.server.database.schema import accounts, dead_objects, inodes, manifests, objects, space_objects, versions
from remote.server.garbage import ABANDONED_NS, CLOSED_NS, GRACE_NS, Garbage, Report, recount
from remote.server.objects.store import StoreUnavailable
from tests.support.wire import PASSWORD, Device, Json, World, chunked, content, entry, inline, new_id, new_row, remove

SECOND_NS = 10**9


def collect(world: World, *, dry_run: bool = False, proceed: Callable[[], None] = lambda: None) -> Report:
    garbage = Garbage(world.service.database, world.service.store, world.clock, proceed=proceed)
    return garbage.collect(dry_run=dry_run)


def expire_versions(world: World, inode: str) -> None:
    """As when their time to live is over: all but the newest go; of a deleted file all, and the file with them."""
    with world.service.database.write() as connection:
        here = bytes.fromhex(inode)
        named = connection.execute(text("SELECT 1 FROM entries WHERE inode = :inode"), {"inode": here}).first()
        if named is None:
            connection.execute(delete(inodes).where(inodes.c.id == here))
            connection.execute(delete(versions).where(versions.c.inode == here))
            return
        newest = select(inodes.c.content_rev).where(inodes.c.id == here).scalar_subquery()
        connection.execute(delete(versions).where(versions.c.inode == here, versions.c.content_rev < newest))


async def edit(device: Device, inode: str, *bodies: bytes) -> None:
    _, rows = await device.listing()
    await device.upload(*bodies)
    row = {"id": inode, "content": content(chunked(*bodies), base=rows[inode]["content_rev"])}
    await device.accept({"inodes": [row]})


def id_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def used(world: World) -> int:
    with world.service.database.read() as connection:
        return int(connection.execute(select(accounts.c.used_bytes)).scalars().first() or 0)


def keys(world: World) -> set[str]:
    return {listed.key.split("/")[1] for listed in world.service.store.listing()}


async def is_readable(device: Device, body: bytes) -> bool:
    response = await device.try_download(id_of(body))
    if response.status_code != 200:
        return False
    (link,) = response.json()["links"]
    return (await device.http.get(link["url"], headers=link["headers"])).content == body


async def replaced(device: Device, *, shared: bytes = b"") -> tuple[str, bytes, bytes]:
    """A file whose first content's version has expired: (inode, what it held, what it holds)."""
    file, old, new = new_id(), os.urandom(5000), os.urandom(4000)
    common = [shared] if shared else []
    await device.store(device.space, file[:8], file, old, *common)
    await edit(device, file, new, *common)
    expire_versions(device.world, file)
    return file, old, new


async def test_what_is_named_stays(world: World, ada: Device) -> None:
    file, gone, body, other = new_id(), new_id(), os.urandom(5000), os.urandom(6000)
    await ada.store(ada.space, "f", file, body)
    await edit(ada, file, other)
    await ada.store(ada.space, "gone", gone, os.urandom(3000))
    _, rows = await ada.listing()
    await ada.accept(remove(ada.space, "gone", gone, seen=rows[gone]["content_rev"]))
    before, stored = used(world), keys(world)
    assert collect(world) == Report()
    assert (used(world), keys(world)) == (before, stored)


async def test_an_expired_version_gives_its_room_back_and_goes_after_the_grace(world: World, ada: Device) -> None:
    shared = os.urandom(7000)
    _, old, new = await replaced(ada, shared=shared)
    link = (await ada.try_download(id_of(old))).json()["links"][0]
    would = collect(world, dry_run=True)
    assert (would.manifests, would.dead, would.dead_bytes) == (1, 1, len(old))
    report = collect(world)
    assert (report.manifests, report.dead, report.dead_bytes, report.deleted) == (1, 1, len(old), 0)
    assert used(world) == len(new) + len(shared) + len(chunked(new, shared))
    assert not await is_readable(ada, old)
    assert (await ada.http.get(link["url"], headers=link["headers"])).content == old, "a link that was given out is good"
    world.clock.advance(GRACE_NS / SECOND_NS)
    await ada.refresh()
    assert collect(world).deleted == 1
    assert keys(world) == {f"{id_of(new)}.0", f"{id_of(shared)}.0"}
    assert await is_readable(ada, new)
    assert await is_readable(ada, shared)


async def test_what_comes_again_gets_another_generation_before_and_after_the_deletion(world: World, ada: Device) -> None:
    _, old, new = await replaced(ada)
    collect(world)
    await ada.store(ada.space, "again", new_id(), old)
    assert keys(world) == {f"{id_of(old)}.0", f"{id_of(old)}.1", f"{id_of(new)}.0"}
    world.clock.advance(GRACE_NS / SECOND_NS)
    await ada.refresh()
    assert collect(world).deleted == 1
    assert await is_readable(ada, old)
    fresh = os.urandom(1000)
    await ada.store(ada.space, "fresh", new_id(), fresh)
    assert keys(world) == {f"{id_of(old)}.1", f"{id_of(new)}.0", f"{id_of(fresh)}.1"}, "no generation is given twice"


async def test_an_upload_that_nobody_goes_on_with_ends(world: World, ada: Device) -> None:
    body = os.urandom(5000)
    await ada.upload(body)
    await ada.plan(os.urandom(100))
    world.clock.advance(600)
    assert collect(world) == Report()
    world.clock.advance(ABANDONED_NS / SECOND_NS + 1)
    await ada.refresh()
    assert collect(world, dry_run=True).sessions == 1
    report = collect(world)
    assert (report.sessions, report.dead) == (1, 2)
    links = await ada.plan(body)
    assert [link["id"] for link in links] == [id_of(body)], "it is not there any more, whatever the store has"
    await ada.store(ada.space, "f", new_id(), body)
    world.clock.advance(GRACE_NS / SECOND_NS)
    await ada.refresh()
    assert collect(world).deleted == 2
    assert await is_readable(ada, body)
    assert keys(world) == {f"{id_of(body)}.1"}


async def test_a_store_that_is_away_delays_only_the_deletion(world: World, ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    _, old, _ = await replaced(ada)
    collect(world)
    world.clock.advance(GRACE_NS / SECOND_NS)
    await ada.refresh()

    def away(_keys: Sequence[str]) -> None:
        raise StoreUnavailable("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(world.service.store, "delete", away)
        with pytest.raises(StoreUnavailable):
            collect(world)
    assert f"{id_of(old)}.0" in keys(world)
    assert collect(world).deleted == 1


async def test_whatever_is_committed_between_two_steps_stays(world: World, ada: Device) -> None:
    """The garbage is named again, by a new file, before each step in turn; so is an object that never lost its name."""
    steps = 0
    for moment in range(12):
        shared = os.urandom(3000)
        _, old, new = await replaced(ada, shared=shared)
        passed, done, again = 0, False, new_id()

        async def name_again(file: str, old: bytes, shared: bytes) -> None:
            await ada.store(ada.space, file, file, old, shared)  # the very manifest that is garbage
            await ada.store(ada.space, new_id(), new_id(), shared)

        def proceed(some: tuple[str, bytes, bytes] = (again, old, shared), at: int = moment) -> None:
            nonlocal passed, done
            if passed == at:
                done = True
                trio.from_thread.run(name_again, *some)
            passed += 1

        def work(step: Callable[[], None] = proceed) -> None:
            collect(world, proceed=step)

        await trio.to_thread.run_sync(work)
        steps = max(steps, passed)
        if not done:
            await name_again(again, old, shared)
        world.clock.advance(GRACE_NS / SECOND_NS)
        await ada.refresh()
        collect(world)
        for body in (old, shared, new):
            assert await is_readable(ada, body), f"step {moment}"
        assert await ada.manifest(again, chunked(old, shared)) is not None, f"step {moment}"
        assert recount(world.service.database) == []
    assert steps <= 12, "there are more steps than were tried"


@contextmanager
def dying_at(point: str) -> Iterator[None]:
    def die(name: str) -> None:
        if name == point:
            raise KeyboardInterrupt

    before = crashpoints.install(die)
    try:
        yield
    finally:
        crashpoints.install(before)


@pytest.mark.parametrize("point", sorted(name for name in crashpoints.POINTS if name.startswith("service.garbage.")))
async def test_a_run_that_died_anywhere_is_finished_by_the_next(world: World, ada: Device, point: str) -> None:
    bob = await world.device("bob@example.org")
    await bob.store(bob.space, "f", new_id(), os.urandom(2000))
    assert (await bob.send("POST", "/v1/account/close", {"password": PASSWORD})).is_success
    _, _, new = await replaced(ada)
    await ada.upload(os.urandom(100))
    collect(world)  # so that something has been dead for long when the deaths come
    world.clock.advance(CLOSED_NS / SECOND_NS + 1)
    await ada.refresh()
    _, _, newer = await replaced(ada)
    died = 0
    for _ in range(2):
        with dying_at(point):
            try:
                collect(world)
            except KeyboardInterrupt:
                died += 1
    assert died
    collect(world)
    world.clock.advance(GRACE_NS / SECOND_NS)
    await ada.refresh()
    collect(world)
    assert keys(world) == {f"{id_of(new)}.0", *(key for key in keys(world) if key.startswith(id_of(newer)))}
    assert await is_readable(ada, new)
    assert await is_readable(ada, newer)
    assert recount(world.service.database) == []


async def test_what_a_closed_account_stored_goes_after_a_while(world: World, ada: Device) -> None:
    bob = await world.device("bob@example.org")
    body = os.urandom(2000)
    await ada.store(ada.space, "f", new_id(), body)
    await bob.store(bob.space, "f", new_id(), body)
    assert (await bob.send("POST", "/v1/account/close", {"password": PASSWORD})).is_success
    assert collect(world) == Report()
    world.clock.advance(CLOSED_NS / SECOND_NS + 1)
    await ada.refresh()
    assert collect(world).dead == 1
    with world.service.database.read() as connection:
        here = bytes.fromhex(bob.space)
        for table in (inodes, versions, manifests, space_objects):
            assert connection.execute(select(table).where(table.c.space_id == here)).first() is None
        row = connection.execute(select(accounts).where(accounts.c.personal_space == here)).one()
        assert (row.email, row.name, row.used_bytes) == ("", "", 0)
    assert await is_readable(ada, body)


async def test_many_objects_are_looked_for_in_parts(world: World, ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote.server.garbage.AT_ONCE", 3)
    monkeypatch.setattr("remote.server.garbage.PAGE", 2)
    file, old, new = new_id(), [os.urandom(50) for _ in range(20)], [os.urandom(50) for _ in range(20)]
    await ada.store(ada.space, "f", file, *old)
    await edit(ada, file, *new, *old[::2])
    expire_versions(world, file)
    assert collect(world).dead == 10
    with world.service.database.read() as connection:
        left = set(connection.execute(select(objects.c.object_id)).scalars())
        dead = set(connection.execute(select(dead_objects.c.object_id)).scalars())
    assert {id_.hex() for id_ in left} == {id_of(body) for body in (*new, *old[::2])}
    assert {id_.hex() for id_ in dead} == {id_of(body) for body in old[1::2]}


async def test_usage_that_is_wrong_is_found_and_mended(world: World, ada: Device) -> None:
    await ada.store(ada.space, "f", new_id(), os.urandom(5000))
    right = used(world)
    assert recount(world.service.database) == []
    with world.service.database.write() as connection:
        connection.execute(update(accounts).values(used_bytes=7))
    (wrong,) = recount(world.service.database, dry_run=True)
    assert (wrong.told, wrong.found, used(world)) == (7, right, 7)
    assert len(recount(world.service.database)) == 1
    assert used(world) == right
    assert recount(world.service.database) == []


async def test_small_contents_give_their_room_back_too(world: World, ada: Device) -> None:
    file: Json = new_row(new_id(), "file", content=content(inline(b"one")))
    await ada.accept({"entries": [entry(ada.space, "f", None, file["id"])], "inodes": [file]})
    _, rows = await ada.listing()
    await ada.accept({"inodes": [{"id": file["id"], "content": content(inline(b"other"), base=rows[file["id"]]["content_rev"])}]})
    expire_versions(world, file["id"])
    report = collect(world)
    assert (report.manifests, report.manifest_bytes, report.dead) == (1, len(inline(b"one")), 0)
    assert used(world) == len(inline(b"other"))
