"""What a page of another origin gets in a browser: nothing, unless the configuration names its origin."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from remote.server.config import CorsConfig
from remote.server.settings import load_config
from tests.support.wire import Device, World, new_id

APP, LOCAL, OTHER = "https://app.example.org", "http://localhost:5173", "https://evil.example.org"


@pytest.fixture
def shared(open_world: Callable[..., World]) -> World:
    return open_world(cors=CorsConfig((APP, LOCAL)))


def cors_headers(response: httpx.Response) -> set[str]:
    return {name for name in response.headers if name.startswith("access-control-")}


async def preflight(world: World, path: str, origin: str, method: str = "GET", headers: str = "authorization") -> httpx.Response:
    asked = {"origin": origin, "access-control-request-method": method, "access-control-request-headers": headers}
    return await world.http.options(path, headers=asked)


async def test_by_default_nothing_is_shared(world: World, ada: Device) -> None:
    await ada.store(ada.space, "f", new_id(), os.urandom(1000))
    url = (await ada.get("/v1/files/download", params={"path": "/f"}))["links"][0]["url"]
    token = {"Authorization": f"Bearer {ada.tokens['access_token']}"}
    for path in ("/v1/account", url, "/openapi.json"):
        response = await world.http.get(path, headers={"Origin": APP, **token})
        assert (response.status_code, cors_headers(response)) == (200, set())
        assert "origin" not in response.headers.get("vary", "").lower()
        refused = await preflight(world, path, APP)
        assert (refused.status_code, cors_headers(refused)) == (405, set())


async def test_a_page_of_a_named_origin_uses_the_api_and_the_links(shared: World) -> None:
    ada = await shared.device()
    body, path = os.urandom(1000), "/v1/files/metadata"
    asked = await preflight(shared, path, APP, headers="Authorization, If-Match")
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, APP)
    assert "GET" in asked.headers["access-control-allow-methods"]
    token = {"Authorization": f"Bearer {ada.tokens['access_token']}"}
    refused = await shared.http.get("/v1/account", headers={"Origin": APP})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, APP), "it may read why"
    for origin in (APP, LOCAL):
        answer = await shared.http.get("/v1/account", headers={"Origin": origin, **token})
        assert answer.headers["access-control-allow-origin"] == origin
        assert "Origin" in answer.headers["vary"], "a cache must not give it to another one"
        assert "access-control-allow-credentials" not in answer.headers
    (link,) = await ada.plan(body)
    asked = await preflight(shared, link["url"], APP, "PUT", "content-type")
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, APP)
    sent = await shared.http.put(link["url"], content=body, headers={"Origin": APP})
    assert (sent.status_code, sent.headers["access-control-allow-origin"]) == (200, APP)
    assert "etag" in sent.headers["access-control-expose-headers"]
    await ada.store(ada.space, "f", new_id(), body)
    url = (await ada.get("/v1/files/download", params={"path": "/f"}))["links"][0]["url"]
    got = await shared.http.get(url, headers={"Origin": APP, "Range": "bytes=0-9"})
    assert (got.content, got.headers["access-control-allow-origin"]) == (body[:10], APP)


@pytest.mark.parametrize(
    "origin", [OTHER, "null", "http://app.example.org", f"{APP}:8443", f"{APP}.evil.org", "https://x.app.example.org"]
)
async def test_an_origin_that_is_not_named_gets_nothing(shared: World, origin: str) -> None:
    asked = await preflight(shared, "/v1/account", origin)
    assert asked.status_code == 400
    assert "access-control-allow-origin" not in asked.headers
    answer = await shared.http.get("/v1/account", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers
    assert "Origin" in answer.headers["vary"]


async def test_a_preflight_for_something_else_is_refused(shared: World) -> None:
    assert (await preflight(shared, "/v1/account", APP, method="TRACE")).status_code == 400
    assert (await preflight(shared, "/v1/account", APP, headers="x-something")).status_code == 400


async def test_only_the_api_and_objects_are_shared(shared: World) -> None:
    for path in ("/link/abc", "/healthz", "/readyz", "/openapi.json", "/v1", "/nothing"):
        assert cors_headers(await shared.http.get(path, headers={"Origin": APP})) == set()
        assert cors_headers(await preflight(shared, path, APP)) == set()


def test_origins_come_from_a_variable_too(tmp_path: Path) -> None:
    config = load_config(None, {"ALOFT_CORS_ORIGINS": f"{APP}, {LOCAL}, https://[::1]:8000"}, {}, default_data=tmp_path)
    assert config.cors.origins == (APP, LOCAL, "https://[::1]:8000")
