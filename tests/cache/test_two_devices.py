"""Two real drives against the real service in a process of its own: everything but the kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import trio

from cache.clock import SystemRandomness
from cache.errors import Unavailable
from cache.model import AttributeUpdate, Connection, FileState, RenameMode
from cache.status import Queue
from cache.store.schema import ROOT
from remote.http import HttpService
from remote.protocol import ChangesPage, Kind
from tests.support.devices import Home, log_in, register, until
from tests.support.service import RunningService, start_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """One for all tests that do not harm it; each has an account of its own."""
    with start_service(tmp_path_factory.mktemp("service") / "data") as service:
        yield service


async def two_homes(url: str, folder: Path) -> tuple[Home, Home]:
    email = await register(url)
    logins = [await log_in(url, email, name) for name in ("desk", "laptop")]
    return Home(folder / "desk", url, logins[0]), Home(folder / "laptop", url, logins[1])


@pytest.fixture
async def homes(service: RunningService, tmp_path: Path) -> tuple[Home, Home]:
    return await two_homes(service.url, tmp_path)


async def test_what_one_does_the_other_sees(homes: tuple[Home, Home]) -> None:
    async with homes[0].started() as desk, homes[1].started() as laptop:
        desk.make_folder("docs")
        await desk.write("docs/small", b"a few bytes")
        large = bytes(range(256)) * 20_000
        await desk.write("docs/large", large)
        await desk.sync()
        await until(lambda: laptop.node("docs/small") and laptop.node("docs/large"))
        assert await laptop.contents() == {"docs/small": b"a few bytes", "docs/large": large}

        await laptop.write("docs/small", b"edited there")
        laptop.rename("docs/large", "moved")
        await laptop.sync()
        await until(lambda: desk.node("moved") and (node := desk.node("docs/small")) and node.size == 12)
        assert await desk.contents() == {"docs/small": b"edited there", "moved": large}

        desk.remove("docs/small")
        desk.remove("docs")
        await desk.sync()
        await until(lambda: laptop.node("docs") is None)
        assert set(laptop.tree()) == {"moved"}


async def test_edits_of_one_file_at_once_leave_both_contents(homes: tuple[Home, Home]) -> None:
    async with homes[0].started() as desk, homes[1].started() as laptop:
        await desk.write("report.txt", b"first")
        await desk.sync()
        await until(lambda: laptop.node("report.txt"))
        laptop.drive.set_offline(True)
        await laptop.write("report.txt", b"from the laptop")
        await desk.write("report.txt", b"from the desk")
        await desk.sync()
        laptop.drive.set_offline(False)
        await laptop.sync()
        await until(lambda: len(desk.tree()) == 2 and desk.tree().keys() == laptop.tree().keys())
        for device in (desk, laptop):
            contents = await device.contents()
            (copy,) = contents.keys() - {"report.txt"}
            assert contents == {"report.txt": b"from the desk", copy: b"from the laptop"}
            assert copy.startswith("report (conflicted copy, laptop, ")
            assert copy.endswith(").txt")
            assert await device.drive.file_status(device.drive.replica.resolve(copy).ino) is FileState.CONFLICT


async def test_work_done_offline_is_merged(homes: tuple[Home, Home]) -> None:
    async with homes[0].started() as desk, homes[1].started() as laptop:
        for folder in ("a", "b"):
            desk.make_folder(folder)
            for number in range(5):
                await desk.write(f"{folder}/{number}", f"{folder}{number}".encode() * 1000)
        await desk.sync()
        await until(lambda: len(laptop.tree()) == 12)
        laptop.drive.set_offline(True)
        assert laptop.drive.status().connection is Connection.OFFLINE
        laptop.rename("a", "renamed")
        laptop.remove("renamed/0")
        await laptop.write("renamed/1", b"edited offline")
        await laptop.write("new", b"made offline")
        await desk.write("a/2", b"edited meanwhile")
        desk.remove("b/0")
        desk.rename("b/1", "a/moved in")
        await desk.write("a/0", b"edited though the laptop deletes it")
        await desk.sync()
        report = await laptop.drive.sync()
        assert not report.complete
        assert "offline" in (report.reason or "")
        assert "new" in report.waiting

        laptop.drive.set_offline(False)
        await laptop.sync()
        expected = {
            "renamed/0": b"edited though the laptop deletes it",
            "renamed/1": b"edited offline",
            "renamed/2": b"edited meanwhile",
            "renamed/3": b"a3" * 1000,
            "renamed/4": b"a4" * 1000,
            "renamed/moved in": b"b1" * 1000,
            "b/2": b"b2" * 1000,
            "b/3": b"b3" * 1000,
            "b/4": b"b4" * 1000,
            "new": b"made offline",
        }
        for device in (desk, laptop):
            await until(lambda device=device: set(device.tree()) == {*expected, "renamed", "b"})
            await until(lambda device=device: device.drive.status().queue.changes == 0)
            assert await device.contents() == expected


async def test_everything_that_is_not_content_travels(homes: tuple[Home, Home]) -> None:
    async with homes[0].started() as desk, homes[1].started() as laptop:
        replica = desk.drive.replica
        node = await desk.write("file", b"x")
        replica.link(node.ino, ROOT, "second name")
        replica.create(ROOT, "link", Kind.SYMLINK, mode=0o777, uid=None, gid=None, target="file")
        replica.create(ROOT, "pipe", Kind.FIFO, mode=0o600, uid=None, gid=None)
        replica.create(ROOT, "device", Kind.CHARACTER, mode=0o600, uid=None, gid=None, device_number=0x103)
        replica.create(ROOT, "empty", Kind.FILE, mode=0o600, uid=None, gid=None, published=True)
        folder = desk.make_folder("folder")
        replica.set_xattr(node.ino, "user.note", b"\x00\xff")
        replica.set_attributes(node.ino, AttributeUpdate(mode=0o4711, uid=7, gid=8, mtime_ns=1_234_567_891))
        replica.set_attributes(folder.ino, AttributeUpdate(mtime_ns=99))
        await desk.sync()
        await until(lambda: len(laptop.tree()) == 7)
        await until(lambda: (found := laptop.node("folder")) and found.mtime_ns == 99)
        there = laptop.drive.replica
        file = there.resolve("file")
        assert (file.mode, file.uid, file.gid, file.mtime_ns, file.nlink) == (0o4711, 7, 8, 1_234_567_891, 2)
        assert there.resolve("second name").ino == file.ino
        assert there.get_xattr(file.ino, "user.note") == b"\x00\xff"
        assert there.read_link(there.resolve("link").ino) == "file"
        assert there.resolve("link").size == 4
        assert there.resolve("device").device_number == 0x103
        assert await laptop.read("empty") == b""

        there.set_attributes(file.ino, AttributeUpdate(mtime_ns=5))
        there.remove_xattr(file.ino, "user.note")
        laptop.rename("file", "link", RenameMode.EXCHANGE)
        await until(lambda: replica.node(node.ino).mtime_ns == 5 and not replica.list_xattrs(node.ino))
        await until(lambda: (found := desk.node("link")) and found.ino == node.ino)


async def test_an_open_file_keeps_its_version_and_forks_when_it_is_written(homes: tuple[Home, Home]) -> None:
    async with homes[0].started() as desk, homes[1].started() as laptop:
        await desk.write("log", b"one")
        await desk.sync()
        await until(lambda: laptop.node("log"))
        file = laptop.drive.files.open(laptop.drive.replica.resolve("log").ino, writable=True)
        assert await file.read(0, 10) == b"one"
        await desk.write("log", b"another")
        await desk.sync()
        await until(lambda: (node := laptop.node("log")) and node.size == 7)
        assert await file.read(0, 10) == b"one"
        assert file.size == 3
        assert await laptop.read("log") == b"another"
        await file.write(3, b", two")
        await file.flush()
        file.release()
        await laptop.sync()
        await until(lambda: len(desk.tree()) == 2)
        contents = await desk.contents()
        assert contents.pop("log") == b"another"
        assert list(contents.values()) == [b"one, two"]


async def test_a_write_that_was_not_closed_yet_is_not_run_over(homes: tuple[Home, Home]) -> None:
    async with homes[0].started() as desk, homes[1].started() as laptop:
        for name in ("edited", "deleted"):
            await desk.write(name, b"one")
        await desk.sync()
        await until(lambda: laptop.node("edited") and laptop.node("deleted"))
        files = {
            name: laptop.drive.files.open(laptop.drive.replica.resolve(name).ino, writable=True) for name in ("edited", "deleted")
        }
        for file in files.values():
            await file.write(3, b" more")
        await desk.write("edited", b"another")
        desk.remove("deleted")
        await desk.write("last", b"")
        await desk.sync()
        await until(lambda: laptop.node("last"))
        for file in files.values():
            await file.write(8, b" and more")
            await file.flush()
            file.release()
        await laptop.sync()
        await until(lambda: len(desk.tree()) == 4)
        for device in (desk, laptop):
            contents = await device.contents()
            assert contents.pop("edited") == b"another"
            assert contents.pop("deleted") == b"one more and more"
            assert sorted(contents.values()) == [b"", b"one more and more"]


async def test_killed_in_the_middle_it_goes_on(homes: tuple[Home, Home]) -> None:
    large = b"".join(number.to_bytes(4, "big") for number in range(2_000_000))
    async with homes[0].started(upload_limit=None) as desk:
        await desk.write("large", large)
        await desk.write("small", b"small")
        desk.rename("small", "renamed")
        await until(lambda: desk.drive.status().counters.objects_sent)
    async with homes[0].started() as desk, homes[1].started() as laptop:
        await desk.sync()
        await until(lambda: len(laptop.tree()) == 2)
        assert await laptop.contents() == {"large": large, "renamed": b"small"}
        assert await desk.contents() == {"large": large, "renamed": b"small"}


async def test_a_service_that_comes_back_is_used_again(tmp_path: Path) -> None:
    service = start_service(tmp_path / "service")
    homes = await two_homes(service.url, tmp_path)
    async with homes[0].started() as desk, homes[1].started() as laptop:
        await desk.write("before", b"before" * 2000)
        await desk.sync()
        await until(lambda: laptop.node("before"))
        service.kill()
        await desk.write("during", b"during")
        desk.rename("before", "renamed")
        with pytest.raises(Unavailable):
            await laptop.read("before")
        with start_service(tmp_path / "service", port=service.port):
            await desk.sync()
            await until(lambda: set(laptop.tree()) == {"during", "renamed"})
            await until(lambda: laptop.drive.status().connection is Connection.ONLINE)
            assert await laptop.contents() == {"during": b"during", "renamed": b"before" * 2000}


async def test_a_new_device_lists_all_that_is_there(homes: tuple[Home, Home]) -> None:
    async with homes[0].started() as desk:
        for folder in range(20):
            desk.make_folder(f"folder {folder}")
            for number in range(30):
                await desk.write(f"folder {folder}/{number}", b"%d in %d" % (number, folder))
        await desk.sync()
    async with homes[1].started() as laptop:
        await laptop.drive.list_first(ROOT)
        folder = laptop.drive.replica.resolve("folder 7").ino
        await laptop.drive.list_first(folder)
        assert len(laptop.drive.replica.list_entries(folder, 0, 100)) == 30
        await until(lambda: laptop.drive.status().listing.finished)
        assert len(laptop.tree()) == 620
        listing = laptop.drive.status().listing
        assert (listing.entries, listing.total, listing.finished) == (620, 620, True)
        assert laptop.drive.status().counters.objects_fetched == 0
        assert await laptop.read("folder 3/4") == b"4 in 3"
        assert laptop.drive.status().queue == Queue(0, 0, 0, ())


async def test_a_new_device_is_usable_while_the_listing_loads(homes: tuple[Home, Home], monkeypatch: pytest.MonkeyPatch) -> None:
    async with homes[0].started() as desk:
        for folder in range(10):
            desk.make_folder(f"folder {folder}")
            for number in range(20):
                await desk.write(f"folder {folder}/{number}", b"%d in %d" % (number, folder))
        await desk.sync()
        everything = await desk.contents()
        let_go, begun = trio.Event(), list[HttpService]()
        real = HttpService.changes

        async def changes(self: HttpService, cursor: str, *, wait_seconds: int, limit: int, removed: bool = False) -> ChangesPage:
            if cursor and self in begun:
                await let_go.wait()
            elif not cursor:
                begun.append(self)
            return await real(self, cursor, wait_seconds=wait_seconds, limit=20)

        monkeypatch.setattr(HttpService, "changes", changes)
        monkeypatch.setattr("cache.listing.FOLDER_ROWS", 7)
        async with homes[1].started() as laptop:
            await until(lambda: laptop.drive.status().connection is Connection.ONLINE)
            replica = laptop.drive.replica
            await laptop.drive.list_first(ROOT)
            assert {listed.name for listed in replica.list_entries(ROOT, 0, 100)} == {f"folder {n}" for n in range(10)}
            folder = replica.resolve("folder 7").ino
            await laptop.drive.list_first(folder)
            assert {listed.name for listed in replica.list_entries(folder, 0, 100)} == {f"{n}" for n in range(20)}
            assert await laptop.read("folder 7/4") == b"4 in 7"
            listing = laptop.drive.status().listing
            assert (listing.total, listing.finished) == (210, False)
            assert listing.entries < 210
            desk.remove("folder 7/4")
            desk.drive.replica.rename(ROOT, "folder 8", desk.drive.replica.resolve("folder 7").ino, "moved", RenameMode.REPLACE)
            await desk.sync()
            await laptop.write("folder 7/mine", b"made here")
            let_go.set()
            await laptop.sync()
            await until(lambda: desk.node("folder 7/mine"))
            del everything["folder 7/4"]
            moved = {path.replace("folder 8", "folder 7/moved"): content for path, content in everything.items()}
            await until(lambda: laptop.tree().keys() == desk.tree().keys())
            assert await laptop.contents() == await desk.contents() == {**moved, "folder 7/mine": b"made here"}
            assert laptop.drive.status().stopped_because is None


async def test_paused_nothing_goes_up(homes: tuple[Home, Home]) -> None:
    async with homes[0].started() as desk, homes[1].started() as laptop:
        await until(lambda: laptop.drive.replica.is_listed(ROOT))
        desk.drive.pause()
        await desk.write("file", b"x" * 10_000)
        report = await desk.drive.sync()
        assert (report.complete, report.waiting, report.files, report.bytes) == (False, ("file",), 2, 10_000)
        assert "paused" in (report.reason or "")
        assert laptop.tree() == {}
    async with homes[0].started() as desk, homes[1].started() as laptop:
        assert desk.drive.status().paused
        desk.drive.resume()
        await desk.sync()
        await until(lambda: laptop.node("file"))


async def test_a_full_account_is_said_and_room_is_used(tmp_path: Path) -> None:
    with start_service(tmp_path / "small service", quota=100_000) as small:
        homes = await two_homes(small.url, tmp_path)
        async with homes[0].started() as desk:
            content = SystemRandomness().bytes(200_000)
            node = await desk.write("large", content)
            await until(lambda: desk.drive.status().queue.first and desk.drive.status().queue.first[0].error)
            report = await desk.drive.sync()
            assert not report.complete
            assert "large" in report.waiting
            assert await desk.drive.file_status(node.ino) is FileState.ERROR
            await desk.write("small", b"fits")
            desk.drive.replica.unlink(ROOT, "large")
            await desk.sync()


async def test_a_mass_of_deletions_waits_for_the_person(homes: tuple[Home, Home]) -> None:
    async with homes[0].started() as desk, homes[1].started() as laptop:
        for folder in range(6):
            desk.make_folder(f"{folder}")
            for number in range(100):
                await desk.write(f"{folder}/{number}", b"%d" % number)
        await desk.sync()
        await until(lambda: len(laptop.tree()) == 606)
        everything = await desk.contents()
        for path in sorted(desk.tree(), reverse=True):
            desk.remove(path)
        await until(lambda: desk.drive.status().breakers)
        assert desk.drive.undo_deletes() == 600
        await desk.sync()
        assert await desk.contents() == everything
        assert len(laptop.tree()) == 606

        for path in sorted(laptop.tree(), reverse=True):
            laptop.remove(path)
        await until(lambda: laptop.drive.status().breakers)
        report = await laptop.drive.sync()
        assert "confirm-deletes" in (report.reason or "")
        assert laptop.drive.confirm_deletes() == 600
        await laptop.sync()
        # The other device stops as well if they come at once, which depends on how they were spread over commits.
        await until(lambda: desk.drive.status().breakers or desk.tree() == {})
        desk.drive.confirm_deletes()
        await until(lambda: desk.tree() == {})


async def test_status_turns_into_json(homes: tuple[Home, Home]) -> None:
    async with homes[0].started() as desk:
        await desk.write("file", b"x")
        await desk.sync()
        status = json.loads(json.dumps(asdict(desk.drive.status())))
        assert status["connection"] == "online"
        assert status["queue"] == {"files": 0, "bytes": 0, "changes": 0, "first": []}
        assert status["failures"] == []
