"""Two devices and the service on real object stores: what goes wrong between them and the store costs time, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import pytest
import trio

from cache.model import Connection
from remote.server.config import S3Config
from tests.support.devices import Device, Home, log_in, register, until
from tests.support.fault_proxy import Cut, Fault, FaultProxy, Kind, Reset, Rewrite, Stall, Where, flip
from tests.support.postgresql import Cluster
from tests.support.service import RunningService, start_service
from tests.support.stores import PATIENCE, RunningStore
from tests.support.wire import Device as Wire
from tests.support.wire import Json, World, chunked, content, entry, new_id, new_row, problem

LINK_SECONDS = 5
CONTENT = os.urandom(3_000_000)


@dataclass(frozen=True)
class Place:
    """A service whose objects lie in a real store, to which devices go through the proxy."""

    service: RunningService
    proxy: FaultProxy


def written(folder: Path, s3: S3Config) -> Path:
    """A configuration file."""
    chosen = {key: value for key, value in asdict(s3).items() if value is not None}
    table = [f"{key} = {json.dumps(value, default=str)}" for key, value in chosen.items()]
    file = folder / "aloft.toml"
    file.write_text("\n".join([f"link_seconds = {LINK_SECONDS}", "[s3]", *table]))
    return file


@pytest.fixture(scope="module")
def place(real: RunningStore, postgresql: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Ceph together with PostgreSQL; Swift with SQLite, and with the MD5 signed as if it compared nothing else."""
    folder = tmp_path_factory.mktemp(real.name)
    is_ceph = real.name == "ceph"
    database = {"database": postgresql.new_database()} if is_ceph else {}
    with FaultProxy(int(real.url.rpartition(":")[2])) as proxy:
        file = written(folder, real.settings(public_endpoint=proxy.store_url, content_md5=not is_ceph))
        with start_service(folder / "data", config=file, **database) as service:
            yield Place(service, proxy)


@pytest.fixture
async def homes(place: Place, tmp_path: Path) -> tuple[Home, Home]:
    url = place.service.url
    email = await register(url)
    logins = [await log_in(url, email, name) for name in ("desk", "laptop")]
    return Home(tmp_path / "desk", url, logins[0]), Home(tmp_path / "laptop", url, logins[1])


async def arrives(device: Device, path: str, content: bytes) -> None:
    await until(lambda: (node := device.node(path)) and node.size == len(content))
    assert await device.read(path) == content


async def test_two_devices_exchange_files(homes: tuple[Home, Home]) -> None:
    async with homes[0].started() as desk, homes[1].started() as laptop:
        desk.make_folder("docs")
        await desk.write("docs/large", CONTENT)
        for number in range(20):
            await desk.write(f"docs/{number}", os.urandom(20_000))
        await desk.sync()
        await until(lambda: len(laptop.tree()) == 22)
        assert await laptop.contents() == await desk.contents()

        await laptop.write("docs/large", b"edited", offset=1_500_000)
        await laptop.sync()
        edited = CONTENT[:1_500_000] + b"edited" + CONTENT[1_500_006:]
        await until(
            lambda: (mine := desk.node("docs/large")) and mine.mtime_ns == laptop.drive.replica.resolve("docs/large").mtime_ns
        )
        await arrives(desk, "docs/large", edited)


FAULTS_OF_UPLOADS: dict[str, Fault] = {
    "a transfer that is cut": Reset(Where.REQUEST_BODY, 100_000),
    "a wrong body": Rewrite(flip(100_000), request=True),
    "an answer that is lost": Reset(Where.ANSWER),
    "a link that has expired": Stall(Where.REQUEST_BODY, seconds=LINK_SECONDS + 1.5),
}
FAULTS_OF_DOWNLOADS: dict[str, Fault] = {
    "a transfer that is cut": Cut(Where.ANSWER_BODY, 100_000),
    "a wrong body": Rewrite(flip(100_000)),
    "a link that has expired": Stall(Where.REQUEST_BODY, seconds=LINK_SECONDS + 1.5),
}


@pytest.mark.parametrize("fault", FAULTS_OF_UPLOADS)
async def test_an_upload_goes_on_after(homes: tuple[Home, Home], place: Place, fault: str) -> None:
    async with homes[0].started() as desk, homes[1].started() as laptop:
        with place.proxy.inject(FAULTS_OF_UPLOADS[fault], Kind.PUT, times=1) as met:
            await desk.write("large", content := os.urandom(2_000_000))
            await desk.sync()
            assert met.hits == 1
        await arrives(laptop, "large", content)


@pytest.mark.parametrize("fault", FAULTS_OF_DOWNLOADS)
async def test_a_download_goes_on_after(homes: tuple[Home, Home], place: Place, fault: str) -> None:
    async with homes[0].started() as desk, homes[1].started(io_timeout=PATIENCE) as laptop:
        await desk.write("large", content := os.urandom(2_000_000))
        await desk.sync()
        await until(lambda: laptop.node("large"))
        with place.proxy.inject(FAULTS_OF_DOWNLOADS[fault], Kind.GET, times=1) as met:
            await arrives(laptop, "large", content)
            assert met.hits == 1


async def test_a_store_that_is_away_makes_uploads_wait(homes: tuple[Home, Home], place: Place) -> None:
    async with homes[0].started() as desk, homes[1].started() as laptop:
        place.proxy.set_store_away(True)
        await desk.write("large", content := os.urandom(300_000))
        report = await desk.drive.sync(2.0)
        assert not report.complete
        assert desk.drive.status().connection is Connection.ONLINE, "the service is well"
        assert await desk.read("large") == content
        place.proxy.set_store_away(False)
        await desk.sync()
        await arrives(laptop, "large", content)


# --------------------------------------------------------------------------------------------------- what the service says


async def committed(device: Wire, group: Json) -> list[Json]:
    """The outcomes. As a device does, it asks again when the store was too slow for the service: a busy machine's may be."""
    number = device.number + 1
    with trio.fail_after(PATIENCE):
        while (answer := await device.try_commit(group, number=number)).status_code == 503:  # noqa: ASYNC110
            await trio.sleep(0.1)
    outcomes: list[Json] = answer.json()["outcomes"]
    return outcomes


async def test_a_commit_asks_the_store_and_waits_for_it(real: RunningStore, tmp_path: Path) -> None:
    """What was not sent is missing, however often it is claimed; a store that hangs is 503, and the same commit goes on later."""
    world = World.open(tmp_path / "data", s3=real.settings(timeout_seconds=1.0))
    device = await world.device()
    body = os.urandom(50_000)
    inode = new_id()
    group = {
        "entries": [entry(device.space, "f", None, inode)],
        "inodes": [new_row(inode, "file", content=content(chunked(body)))],
    }
    (link,) = await device.plan(body)
    (outcome,) = await committed(device, group)
    assert (outcome["result"], outcome["objects"]) == ("missing", [hashlib.sha256(body).hexdigest()])
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as http:
        assert (await http.put(link["url"], content=body, headers=link["headers"])).status_code == 200
        with real.servers.hanging():
            refused = await device.try_commit(group)
            problem(refused, 503, "unavailable")
            assert int(refused.headers["retry-after"]) > 0
            entries, _ = await device.listing()
            assert entries == {}
        device.number -= 1
        (outcome,) = await committed(device, group)
        assert outcome["result"] == "ok"
        (fetch,) = (await device.try_download(hashlib.sha256(body).hexdigest())).json()["links"]
        assert (await http.get(fetch["url"])).content == body
    assert await device.plan(body) == []
    await world.close()


async def test_the_service_carries_no_objects_itself(real: RunningStore, tmp_path: Path) -> None:
    world = World.open(tmp_path / "data", s3=real.settings())
    device = await world.device()
    assert (await device.send("GET", "/objects/x")).status_code == 404
    assert "traffic" not in {key for key, value in (await device.get("/v1/account")).items() if value is not None}
    await world.close()
