"""Links that are good only from where they were asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import httpx
import pytest

from remote.server.config import ObjectsConfig, ServerConfig
from remote.server.settings import BadSettings, load_config
from tests.support.wire import BASE, Device, World, new_id, problem

HERE, THERE = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def bound(open_world: Callable[..., World]) -> World:
    return open_world(objects=ObjectsConfig(bind_address=True))


def from_(world: World, address: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=world.app, client=(address, 1234)), base_url=BASE)


async def device_at(world: World, address: str) -> Device:
    await world.http.aclose()
    world.http = from_(world, address)
    return await world.device()


async def stored(ada: Device) -> tuple[bytes, str]:
    """A content, and the link to its one object."""
    body = os.urandom(1000)
    await ada.store(ada.space, new_id(), inode := new_id(), body)
    return body, (await ada.get("/v1/files/download", params={"id": inode}))["links"][0]["url"]


async def test_a_link_is_good_from_where_it_was_asked_for_and_from_nowhere_else(bound: World) -> None:
    ada = await device_at(bound, HERE)
    body, url = await stored(ada)
    other = os.urandom(1000)
    (link,) = await ada.plan(other)
    plan = (await ada.post(f"/v1/spaces/{ada.space}/downloads", {"objects": [url.rpartition("/")[2].partition(".")[0]]}))["links"]
    async with from_(bound, THERE) as elsewhere:
        problem(await elsewhere.put(link["url"], content=other, headers=link["headers"]), 403, "forbidden")
        for one in (url, plan[0]["url"]):
            refused = problem(await elsewhere.get(one), 403, "forbidden")
            assert "another address" in refused["detail"]
    assert (await ada.put(link, other)).status_code == 200
    for one in (url, plan[0]["url"]):
        assert (await ada.http.get(one)).content == body
    async with from_(bound, f"::ffff:{HERE}") as mapped:
        assert (await mapped.get(url)).content == body, "the same address, by another kind of socket"


async def test_the_address_is_part_of_what_is_signed(bound: World) -> None:
    ada = await device_at(bound, HERE)
    _, url = await stored(ada)
    path, _, query = url.partition("?")
    fields = dict(parse_qsl(query))
    assert fields["a"] == HERE
    async with from_(bound, THERE) as elsewhere:
        problem(await elsewhere.get(f"{path}?{urlencode(fields | {'a': THERE})}"), 403, "forbidden")
        del fields["a"]
        problem(await elsewhere.get(f"{path}?{urlencode(fields)}"), 403, "forbidden")


async def test_whoever_moved_asks_for_a_new_link(bound: World) -> None:
    ada = await device_at(bound, HERE)
    body, _ = await stored(ada)
    await bound.http.aclose()
    bound.http = from_(bound, THERE)
    name = (await ada.get("/v1/files", params={"path": "/"}))["entries"][0]["path"]
    url = (await ada.get("/v1/files/download", params={"path": name}))["links"][0]["url"]
    assert (await ada.http.get(url)).content == body


async def test_by_default_a_link_is_good_from_everywhere(world: World) -> None:
    ada = await device_at(world, HERE)
    body, url = await stored(ada)
    assert HERE not in url
    async with from_(world, THERE) as elsewhere:
        assert (await elsewhere.get(url)).content == body


def test_it_is_refused_where_the_store_could_not_check_it(tmp_path: Path) -> None:
    file = tmp_path / "aloft.toml"
    file.write_text('[objects]\nbind_address = true\n[s3]\nbucket = "b"')
    with pytest.raises(BadSettings, match=r"objects\.bind_address is for the embedded object store"):
        load_config(file, {}, {}, default_data=tmp_path)
    assert ServerConfig(tmp_path).objects.bind_address is False
    assert load_config(None, {"ALOFT_OBJECTS_BIND_ADDRESS": "true"}, {}, default_data=tmp_path).objects.bind_address is True
