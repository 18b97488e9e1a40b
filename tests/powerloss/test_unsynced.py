"""What a start in another boot makes of drafts whose bytes nobody synced, and the order of the syncs that it relies on."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from cache import drafts
from cache.clock import SystemRandomness
from cache.recovery import Recovered, Recovery
from cache.replica import Replica
from cache.store.restart import RestartStore
from cache.store.schema import ROOT
from tests.support.contents import Contents
from tests.support.memory_service import MemoryService

KIB = 1024


@pytest.fixture
def device(tmp_path: Path) -> Contents:
    return Contents(tmp_path / "home", MemoryService())


def noise(seed: int, size: int = 200 * KIB) -> bytes:
    return random.Random(seed).randbytes(size)


def start_in_another_boot(device: Contents) -> Recovered:
    """What the next start does, if the power failed: with the files as the test left them."""
    replica = Replica(device.database, device.tree, device.clock, SystemRandomness())
    stores = RestartStore(device.database), device.store, device.tree, replica
    return Recovery(*stores, device.home / "drafts", device.clock, "another boot").run()


def ino_of(device: Contents, name: str) -> int:
    ino = device.tree.child(ROOT, name)
    assert ino is not None, f"there is no {name}"
    return ino


async def beside(device: Contents, recovered: Recovered) -> bytes:
    (doubtful,) = recovered.doubtful
    assert doubtful.beside is not None
    assert "perhaps incomplete, power loss" in doubtful.beside
    return await device.read(ino_of(device, doubtful.beside))


async def test_a_new_file_that_was_never_synced_is_not_taken_for_good(device: Contents) -> None:
    async with device.running(uploads=False):
        await device.write(ino := device.create("film.mkv"), noise(1))
        (row,) = device.store.drafts(ino)
        with (device.home / "drafts" / str(row.id)).open("r+b") as file:
            file.write(bytes(100 * KIB))  # the row was durable, and only a part of the bytes
        recovered = start_in_another_boot(device)
        assert await device.read(ino) == b""
        assert await beside(device, recovered) == bytes(100 * KIB) + noise(1)[100 * KIB :]


async def test_the_same_boot_believes_what_was_closed(device: Contents, tmp_path: Path) -> None:
    async with device.running(uploads=False):
        await device.write(device.create("film.mkv"), noise(1))
    device = Contents(tmp_path / "home", MemoryService())
    async with device.running(uploads=False):
        stores = RestartStore(device.database), device.store, device.tree
        replica = Replica(device.database, device.tree, device.clock, SystemRandomness())
        recovered = Recovery(*stores, replica, device.home / "drafts", device.clock).run()
        assert recovered == Recovered((), (), 0, 0)
        assert await device.read(ino_of(device, "film.mkv")) == noise(1)


async def test_what_was_synced_stays_and_what_was_appended_later_lies_beside(device: Contents) -> None:
    async with device.running(uploads=False):
        ino = device.create("log.txt")
        file = device.files.open(ino, writable=True)
        await file.write(0, noise(1))
        await file.fsync()
        await file.write(200 * KIB, noise(2))
        await file.flush()
        file.release()
        recovered = start_in_another_boot(device)
        assert await device.read(ino) == noise(1)
        assert await beside(device, recovered) == noise(1) + noise(2)


async def test_a_tail_that_never_reached_the_disk_leaves_nothing_beside(device: Contents) -> None:
    async with device.running(uploads=False):
        ino = device.create("log.txt")
        file = device.files.open(ino, writable=True)
        await file.write(0, noise(1))
        await file.fsync()
        await file.write(200 * KIB, noise(2))
        await file.flush()
        file.release()
        (row,) = device.store.drafts(ino)
        os.truncate(device.home / "drafts" / str(row.id), 200 * KIB)
        recovered = start_in_another_boot(device)
        assert [(one.path, one.beside) for one in recovered.doubtful] == [("log.txt", None)]
        assert await device.read(ino) == noise(1)
        assert recovered.damaged == ()


async def test_an_edit_that_was_not_synced_leaves_the_content_of_the_service(device: Contents) -> None:
    async with device.running():
        await device.write(ino := device.create("report.odt"), noise(1))
        device.uploads.skip_quiet()
        await device.push(ino)
    device = Contents(device.home, device.service)
    async with device.running(uploads=False):
        await device.write(ino, noise(2), offset=100 * KIB)
        recovered = start_in_another_boot(device)
        assert await device.read(ino) == noise(1)
        assert await beside(device, recovered) == noise(1)[: 100 * KIB] + noise(2)


async def test_a_lower_draft_that_was_not_synced_takes_those_above_along(device: Contents) -> None:
    async with device.running(uploads=False):
        await device.write(ino := device.create("report.odt"), noise(1))
        file = device.files.open(ino, writable=True)
        await file.seal()
        await file.write(5, b"small, and in its row")
        await file.flush()
        file.release()
        recovered = start_in_another_boot(device)
        assert await device.read(ino) == b""
        assert await beside(device, recovered) == noise(1)[:5] + b"small, and in its row" + noise(1)[26:]


async def test_an_upper_draft_that_was_not_synced_leaves_the_lower_one(device: Contents) -> None:
    async with device.running(uploads=False):
        ino = device.create("report.odt")
        file = device.files.open(ino, writable=True)
        await file.write(0, noise(1))
        await file.fsync()
        await file.seal()
        await file.write(100 * KIB, noise(2))
        await file.flush()
        file.release()
        recovered = start_in_another_boot(device)
        assert await device.read(ino) == noise(1)
        assert await beside(device, recovered) == noise(1)[: 100 * KIB] + noise(2)


async def test_drafts_that_were_cut_short_lie_beside_as_far_as_they_go(device: Contents) -> None:
    """Both of them: what a lower one has lost does not show through the upper one any more."""
    async with device.running(uploads=False):
        await device.write(ino := device.create("report.odt"), noise(1))
        file = device.files.open(ino, writable=True)
        await file.seal()
        await file.write(100 * KIB, noise(2))
        await file.flush()
        file.release()
        for row, size in zip(device.store.drafts(ino), (50 * KIB, 120 * KIB), strict=True):
            os.truncate(device.home / "drafts" / str(row.id), size)
        recovered = start_in_another_boot(device)
        assert recovered.damaged == ()
        assert await device.read(ino) == b""
        assert await beside(device, recovered) == noise(1)[: 50 * KIB] + bytes(50 * KIB) + noise(2)[: 20 * KIB]


async def test_an_upper_draft_of_which_nothing_is_left_does_not_hide_the_lower_one(device: Contents) -> None:
    async with device.running(uploads=False):
        file = device.files.open(ino := device.create("report.odt"), writable=True)
        await file.write(0, noise(1)[: 100 * KIB])
        await file.fsync()
        await file.write(100 * KIB, noise(1)[100 * KIB :])
        await file.seal()
        await file.write(100 * KIB, noise(2))
        await file.flush()
        file.release()
        _, upper = device.store.drafts(ino)
        os.truncate(device.home / "drafts" / str(upper.id), 0)
        recovered = start_in_another_boot(device)
        assert recovered.damaged == ()
        assert await device.read(ino) == noise(1)[: 100 * KIB]
        assert await beside(device, recovered) == noise(1)


async def test_what_the_service_has_whole_is_taken_from_there(device: Contents) -> None:
    async with device.running():
        await device.write(ino := device.create("film.mkv"), noise(1))
        device.uploads.skip_quiet()
        await device.wait_complete(ino)
    device = Contents(device.home, device.service)
    async with device.running(uploads=False):
        (row,) = device.store.drafts(ino)
        (device.home / "drafts" / str(row.id)).write_bytes(b"")  # never written back
        assert start_in_another_boot(device).doubtful == ()
        assert await device.read(ino) == noise(1)


async def test_bytes_that_changed_in_place_are_what_the_disk_has(device: Contents) -> None:
    async with device.running(uploads=False):
        ino = device.create("database")
        file = device.files.open(ino, writable=True)
        await file.write(0, noise(1))
        await file.fsync()
        await file.write(4 * KIB, noise(2, 4 * KIB))
        await file.flush()
        file.release()
        assert start_in_another_boot(device).doubtful == ()
        assert await device.read(ino) == noise(1)[: 4 * KIB] + noise(2, 4 * KIB) + noise(1)[8 * KIB :]


async def test_what_was_closed_is_synced_soon_and_then_believed(device: Contents) -> None:
    async with device.running(uploads=False):
        await device.write(ino := device.create("film.mkv"), noise(1))
        await device.files.settle_closed()
        assert device.store.unsynced() == []
        assert start_in_another_boot(device).doubtful == ()
        assert await device.read(ino) == noise(1)


async def test_a_file_that_is_being_written_is_synced_when_it_is_quiet(device: Contents) -> None:
    async with device.running(uploads=False):
        file = device.files.open(ino := device.create("film.mkv"), writable=True)
        await file.write(0, noise(1))
        await file.flush()
        await device.files.settle_closed(quiet_seconds=60.0)
        assert device.store.unsynced() == [ino]
        await device.files.settle_closed(quiet_seconds=0.0)
        assert device.store.unsynced() == []
        file.release()


async def test_small_files_are_whole_in_their_rows(device: Contents) -> None:
    async with device.running(uploads=False):
        await device.write(ino := device.create("small.txt"), b"small")
        assert start_in_another_boot(device).doubtful == ()
        assert await device.read(ino) == b"small"


async def test_a_file_that_takes_the_name_of_another_is_synced_before(device: Contents) -> None:
    async with device.running(uploads=False):
        await device.write(ino := device.create("report.odt.tmp"), noise(1))
        await device.files.settle_before_replacing(ino)
        assert start_in_another_boot(device).doubtful == ()
        assert await device.read(ino) == noise(1)


class Steps:
    """The order of what is written to drafts' files, cut and made durable."""

    def __init__(self, device: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self._note(monkeypatch, device.database, "make_durable", "rows durable")
        self._note(monkeypatch, drafts, "write_all", "bytes written")
        self._note(monkeypatch, os, "ftruncate", "file cut")

    def _note(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, what: str) -> None:
        real: Callable[..., object] = getattr(owner, name)

        def noted(*arguments: object) -> object:
            self.done.append(what)
            return real(*arguments)

        monkeypatch.setattr(owner, name, noted)


async def test_what_was_synced_is_not_written_over_before_its_truncation_is_durable(
    device: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with device.running(uploads=False):
        file = device.files.open(ino := device.create("report.odt"), writable=True)
        await file.write(0, noise(1))
        await file.fsync()
        steps = Steps(device, monkeypatch)
        again = device.files.open(ino, writable=True, truncate=True)
        await again.write(0, noise(2, 70 * KIB))
        assert steps.done == ["rows durable", "file cut", "bytes written"]
        await again.flush()
        again.release()
        file.release()
        assert await device.read(ino) == noise(2, 70 * KIB)


async def test_what_was_never_synced_costs_no_sync_when_it_is_truncated(
    device: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with device.running(uploads=False):
        await device.write(ino := device.create("report.odt"), noise(1))
        steps = Steps(device, monkeypatch)
        file = device.files.open(ino, writable=True, truncate=True)
        await file.write(0, noise(2, 70 * KIB))
        assert steps.done == ["file cut", "bytes written"]
        await file.flush()
        file.release()


async def test_a_second_fsync_syncs_only_the_rows(device: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    async with device.running(uploads=False):
        file = device.files.open(device.create("report.odt"), writable=True)
        await file.write(0, noise(1))
        await file.fsync()
        await file.fsync()
        assert len(synced) == 1
        file.release()


async def test_a_draft_is_unlinked_only_after_the_commit_that_forgets_it(device: Contents) -> None:
    async with device.running(uploads=False):
        await device.write(ino := device.create("film.mkv"), noise(1))
        (row,) = device.store.drafts(ino)
        path = device.home / "drafts" / str(row.id)
        unlinked_inside = False
        with device.database.transaction():
            device.files.drop_drafts(ino)
            with trio.move_on_after(0.2):
                while path.exists():  # noqa: ASYNC110
                    await trio.sleep(0.01)
                unlinked_inside = True
        assert not unlinked_inside
        with trio.fail_after(60):
            while path.exists():  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_a_drop_that_is_rolled_back_unlinks_nothing(device: Contents) -> None:
    async with device.running(uploads=False):
        await device.write(ino := device.create("film.mkv"), noise(1))

        def fail() -> None:
            with device.database.transaction():
                device.files.drop_drafts(ino)
                raise ValueError("stop")

        with pytest.raises(ValueError, match="stop"):
            fail()
        await device.write(device.create("another"), b"x")
        await trio.sleep(0.1)
        assert await device.read(ino) == noise(1)


async def test_syncing_a_handle_that_lost_its_file_makes_no_copy(device: Contents) -> None:
    async with device.running(uploads=False):
        await device.write(ino := device.create("film.mkv"), noise(1))
        file = device.files.open(ino, writable=True)
        device.files.content_replaced(ino)
        await file.fsync()
        assert device.forks == []
        file.release()


async def test_a_draft_that_the_service_has_and_that_is_whole_stays(device: Contents) -> None:
    async with device.running():
        await device.write(ino := device.create("film.mkv"), noise(1))
        device.uploads.skip_quiet()
        await device.wait_complete(ino)
    device = Contents(device.home, device.service)
    async with device.running(uploads=False):
        assert start_in_another_boot(device).doubtful == ()
        (row,) = device.store.drafts(ino)
        assert row.complete
        assert row.unsynced is None
        assert await device.read(ino) == noise(1)
