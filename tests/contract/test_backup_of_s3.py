"""Backups of a service whose objects are in a real object store: fetched once, compared, and put back where they are lacking."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from remote.server.backup import back_up, restore
from remote.server.backupfolder import CannotBackUp
from remote.server.config import ServerConfig
from tests.support.postgresql import Cluster
from tests.support.stores import PATIENCE, RunningStore
from tests.support.wire import Device, World, chunked, content, entry, new_id, new_row

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest) -> Iterator[Callable[[], str | None]]:
    """What a configuration says of a database that no service has seen."""
    if request.param == "sqlite":
        yield lambda: None
        return
    cluster: Cluster = request.getfixturevalue("postgresql")
    made: list[str] = []

    def make() -> str:
        made.append(cluster.empty_database())
        return made[-1]

    yield make
    for url in made:
        cluster.drop_database(url)


@pytest.fixture
async def world(tmp_path: Path, real: RunningStore, new_database: Callable[[], str | None]) -> AsyncIterator[World]:
    s3 = replace(real.settings(), prefix=f"{new_id()}/")
    world = World.open(tmp_path / "data", database=new_database(), s3=s3)
    yield world
    await world.close()


@pytest.fixture
async def files(world: World) -> dict[str, bytes]:
    """What the account has."""
    ada, found = await world.device(), {f"f{number}": os.urandom(100_000 + number) for number in range(5)}
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as straight:
        for name, body in found.items():
            (link,) = await ada.plan(body)
            assert (await straight.put(link["url"], content=body, headers=link["headers"])).status_code == 200
            row = new_row(inode := new_id(), "file", content=content(chunked(body)))
            await ada.accept({"entries": [entry(ada.space, name, None, inode)], "inodes": [row]})
    return found


def target(world: World, tmp_path: Path, new_database: Callable[[], str | None], **s3: Any) -> ServerConfig:
    config = world.service.config
    assert config.s3 is not None
    return replace(config, data=tmp_path / "again", database=new_database(), s3=replace(config.s3, **s3))


async def contents(config: ServerConfig, old: World, names: list[str]) -> dict[str, bytes]:
    world = World.open(config.data, database=config.database, s3=config.s3)
    world.clock.now_ns = old.clock.now_ns
    world.accounts["ada@example.org"] = {}
    try:
        assert world.epoch != old.epoch
        device: Device = await world.device()
        found = {}
        for name in names:
            response = await device.send("GET", "/v1/files/content", params={"path": f"/{name}"})
            assert response.status_code == 200, response.text
            found[name] = response.content
        return found
    finally:
        await world.close()


def keys(world: World) -> list[str]:
    return [each.key for each in world.service.store.listing()]


async def test_into_an_empty_store_all_of_it_is_put(
    world: World, files: dict[str, bytes], tmp_path: Path, new_database: Callable[[], str | None]
) -> None:
    report = back_up(world.service.config, tmp_path / "backup")
    assert (report.objects, report.copied, report.lost) == (5, 5, [])
    assert back_up(world.service.config, tmp_path / "backup").copied == 0
    there = target(world, tmp_path, new_database, prefix=f"{new_id()}/")
    report = restore(there, tmp_path / "backup")
    assert (report.objects, report.copied, report.lost) == (5, 5, [])
    assert await contents(there, world, list(files)) == files


async def test_into_the_same_store_only_what_it_lacks_is_put(
    world: World, files: dict[str, bytes], tmp_path: Path, new_database: Callable[[], str | None]
) -> None:
    back_up(world.service.config, tmp_path / "backup")
    world.service.store.delete(keys(world)[:2])
    there = target(world, tmp_path, new_database)
    report = restore(there, tmp_path / "backup")
    assert (report.objects, report.copied, report.lost) == (5, 2, [])
    assert await contents(there, world, list(files)) == files


async def test_what_the_store_has_wrongly_or_not_is_named_and_not_copied(
    world: World, files: dict[str, bytes], tmp_path: Path
) -> None:
    gone, short, *_ = keys(world)
    world.service.store.delete([gone])
    other = b"something else"
    world.service.store.write(short, hashlib.sha256(other).digest(), other)
    report = back_up(world.service.config, tmp_path / "backup")
    assert (sorted(report.lost), report.copied) == (sorted([gone, short]), 3)


async def test_the_commands(
    world: World, files: dict[str, bytes], tmp_path: Path, new_database: Callable[[], str | None]
) -> None:
    there = target(world, tmp_path, new_database, prefix=f"{new_id()}/")

    def admin(*arguments: str) -> Any:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-c", "from fs.cli.main import main; main()", "admin", *arguments, "--json"]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    source, goal = written(tmp_path / "one.toml", world.service.config), written(tmp_path / "two.toml", there)
    assert admin("backup", str(tmp_path / "backup"), "--config", source)["copied"] == 5
    assert admin("restore", str(tmp_path / "backup"), "--config", goal)["copied"] == 5
    assert await contents(there, world, list(files)) == files
    with pytest.raises(CannotBackUp, match=r"already|something in the database"):
        restore(there, tmp_path / "backup")


def written(file: Path, config: ServerConfig) -> str:
    """A configuration file."""
    assert config.s3 is not None
    table = {key: value for key, value in asdict(config.s3).items() if value is not None}
    lines = [f"data = {json.dumps(str(config.data))}"]
    lines += [] if config.database is None else [f"database = {json.dumps(config.database)}"]
    lines += ["[s3]", *(f"{key} = {json.dumps(value, default=str)}" for key, value in table.items())]
    file.write_text("\n".join(lines))
    return str(file)
