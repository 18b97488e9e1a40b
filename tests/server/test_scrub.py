"""The scrubber: it finds what is damaged or gone, mends it from a backup, and goes on where it was."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from remote.server import scrub
from remote.server.database import scrub as rows
from remote.server.objects.folders import path_of
from remote.server.objects.store import StoreUnavailable
from remote.server.scrub import Scrubber
from tests.support.wire import Device, World, new_id

BODIES = [os.urandom(1000 + number) for number in range(5)]


@pytest.fixture
async def files(world: World, ada: Device) -> dict[bytes, Path]:
    """Where each of five objects lies."""
    owner = ada.account["id"]
    folder = world.service.folder.path / "objects"
    for number, body in enumerate(BODIES):
        await ada.store(ada.space, f"f{number}", new_id(), body)
    found = {body: path_of(folder, f"{owner}/{hashlib.sha256(body).hexdigest()}.0") for body in BODIES}
    assert all(file.exists() for file in found.values())
    return found


def scrubber(world: World) -> Scrubber:
    return Scrubber(world.service.database, world.service.store, world.clock)


def noted(world: World) -> int:
    with world.service.database.read() as connection:
        return rows.count_damaged(connection)


async def test_what_is_whole_is_said_to_be_so(world: World, files: dict[bytes, Path]) -> None:
    report = scrubber(world).run()
    assert (report.objects, report.bytes, report.damaged) == (5, sum(map(len, BODIES)), [])


async def test_a_changed_byte_a_short_file_and_a_lost_one_are_found(world: World, files: dict[bytes, Path]) -> None:
    changed, short, lost = BODIES[0], BODIES[1], BODIES[2]
    files[changed].write_bytes(b"?" + files[changed].read_bytes()[1:])
    files[short].write_bytes(files[short].read_bytes()[:10])
    files[lost].unlink()
    assert scrubber(world).run(dry_run=True).left == 3
    assert noted(world) == 0, "a dry run notes nothing"
    report = scrubber(world).run()
    assert (report.left, noted(world)) == (3, 3)
    assert {each.key.partition("/")[2].partition(".")[0] for each in report.damaged} == {
        hashlib.sha256(body).hexdigest() for body in (changed, short, lost)
    }


async def test_it_is_mended_from_a_backup_that_is_good_itself(world: World, ada: Device, files: dict[bytes, Path]) -> None:
    kept = {hashlib.sha256(body).hexdigest(): body for body in BODIES[:2]} | {hashlib.sha256(BODIES[2]).hexdigest(): b"bad"}
    for body in BODIES[:3]:
        files[body].unlink()
    assert scrubber(world).run().left == 3
    report = scrubber(world).run(read_backup=lambda key, length: kept.get(key.partition("/")[2].partition(".")[0]))
    assert (report.left, noted(world)) == (1, 1)
    assert [each.mended for each in report.damaged].count(True) == 2
    for number in (0, 1):
        response = await ada.send("GET", "/v1/files/content", params={"path": f"/f{number}"})
        assert response.content == BODIES[number]
    world.service.store.write(report_key(ada, BODIES[2]), hashlib.sha256(BODIES[2]).digest(), BODIES[2])
    assert (scrubber(world).run().left, noted(world)) == (0, 0)


def report_key(device: Device, body: bytes) -> str:
    return f"{device.account['id']}/{hashlib.sha256(body).hexdigest()}.0"


async def test_a_part_at_a_time_goes_on_where_it_was(
    world: World, files: dict[bytes, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrub, "STEP", 2)
    seen = [scrubber(world).go_on(1).objects for _ in range(5)]
    assert seen == [2, 2, 1, 0, 2], "and begins again after the last"
    assert scrubber(world).go_on(10**9).objects == 3
    assert scrubber(world).go_on(10**9).objects == 5


async def test_garbage_that_goes_meanwhile_is_no_loss(
    world: World, files: dict[bytes, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = rows.after

    def and_then_it_goes(connection: object, *arguments: object) -> object:
        found = original(connection, *arguments)  # type: ignore[arg-type]
        for each in found[:1]:
            files[BODIES[[hashlib.sha256(body).digest() for body in BODIES].index(each.object_id)]].unlink(missing_ok=True)
        return found

    monkeypatch.setattr(rows, "after", and_then_it_goes)
    monkeypatch.setattr(rows, "has", lambda connection, each: False)
    assert scrubber(world).run().damaged == []


async def test_a_store_that_is_away_is_not_taken_for_damage(world: World, files: dict[bytes, Path]) -> None:
    for file in files.values():
        file.unlink()
        file.mkdir()
    report = scrubber(world).run()
    assert report.left == 5, "the store answers, but these cannot be read"
    folder = world.service.folder.objects
    folder.rename(folder.with_name("away"))
    with pytest.raises(StoreUnavailable):
        scrubber(world).run()
