"""A name that the service takes no more: what has it already is kept, holds nothing else up, and goes when it is renamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.errors import ReservedName
from cache.model import RenameMode
from cache.store.schema import ROOT
from tests.support.devices import Home, log_in, register, until
from tests.support.service import RunningService, start_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("service") / "data") as service:
        yield service


@pytest.fixture
async def homes(service: RunningService, tmp_path: Path) -> tuple[Home, Home]:
    email = await register(service.url)
    logins = [await log_in(service.url, email, name) for name in ("desk", "laptop")]
    return Home(tmp_path / "desk", service.url, logins[0]), Home(tmp_path / "laptop", service.url, logins[1])


async def test_a_device_gives_it_to_nothing_in_the_root(homes: tuple[Home, Home]) -> None:
    async with homes[0].started(offline=True) as desk:
        await desk.write("f", b"x")
        folder, replica = desk.make_folder("d").ino, desk.drive.replica
        await desk.write("d/.aloft", b"elsewhere it is a name like any other")
        for attempt in (
            lambda: desk.make_folder(".aloft"),
            lambda: desk.rename("f", ".aloft"),
            lambda: replica.link(replica.resolve("f").ino, ROOT, ".aloft"),
            lambda: replica.rename(folder, ".aloft", ROOT, ".aloft", RenameMode.REPLACE),
        ):
            with pytest.raises(ReservedName):
                attempt()
        assert desk.tree().keys() == {"f", "d", "d/.aloft"}


async def test_what_was_never_sent_is_kept_and_shown_and_holds_nothing_else_up(
    homes: tuple[Home, Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with homes[0].started(offline=True) as desk:
        with monkeypatch.context() as before:
            before.setattr("cache.replica.RESERVED_IN_ROOT", "no name")
            desk.make_folder(".aloft")
            await desk.write(".aloft/notes", b"only here")
        await desk.write("other", b"goes")
        desk.make_folder("d")
        await desk.write("d/f", b"goes, too")
    async with homes[0].started() as desk, homes[1].started() as laptop:
        desk.drive.set_offline(False)
        await until(lambda: laptop.node("d/f") is not None and laptop.node("other") is not None)
        await until(lambda: desk.drive.status().problems)
        assert all(".aloft is a reserved name" in problem for problem in desk.drive.status().problems)
        assert (await desk.drive.sync()).complete is False
        await desk.write("other", b"goes on")
        await until(lambda: (node := laptop.node("other")) and node.size == 7)
        assert await desk.read(".aloft/notes") == b"only here"
        desk.rename(".aloft", "aloft")
        await desk.sync()
        await until(lambda: laptop.node("aloft/notes") is not None)
        assert await laptop.contents() == {"other": b"goes on", "d/f": b"goes, too", "aloft/notes": b"only here"}
