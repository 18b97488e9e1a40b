"""What Prometheus is told, and whether a service says that it can do its work."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import NoReturn

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from remote.server.objects.store import StoreUnavailable
from tests.support.wire import Device, World, create, new_id, problem


def told(world: World) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, values of the labels) of everything that is told now, asked for as Prometheus does."""
    server = world.service.metrics.serve("127.0.0.1", 0)
    try:
        text = httpx.get(f"http://127.0.0.1:{server.server_port}/metrics").text
    finally:
        server.shutdown()
        server.server_close()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, tuple(sample.labels.values())): sample.value for sample in samples}


async def test_requests_are_counted_by_route_and_never_by_path(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "f", new_id(), os.urandom(1000)))
    problem(await ada.send("GET", "/v1/files/metadata", params={"path": "/secret name"}), 404, "not-found")
    problem(await ada.send("GET", "/v1/secret"), 404, "not-found")
    found = told(world)
    assert found["aloft_requests_total", ("POST", "/v1/spaces/{space}/commit", "200")] == 1
    assert found["aloft_requests_total", ("GET", "/v1/files/metadata", "404")] == 1
    assert found["aloft_requests_total", ("GET", "none", "404")] == 1
    assert found["aloft_request_seconds_count", ("/v1/spaces/{space}/commit",)] == 1
    assert found["aloft_body_bytes_total", ("received",)] > 1000
    assert not [key for key in found if "secret" in str(key) or ada.space in str(key)]


async def test_the_state_is_told(world: World, ada: Device) -> None:
    await ada.accept(create(ada.space, "f", new_id(), b"x"))
    world.service.housekeeping.do_what_is_due()
    world.clock.advance(60)
    found = told(world)
    assert {name: found[name, ()] for name in ("aloft_accounts", "aloft_devices", "aloft_waiting", "aloft_dead_objects")} == {
        "aloft_accounts": 1, "aloft_devices": 1, "aloft_waiting": 0, "aloft_dead_objects": 0,
    }  # fmt: skip
    assert found["aloft_used_bytes", ()] > 0
    assert found["aloft_job_age_seconds", ("garbage",)] == 60


async def test_the_lag_of_the_feed_is_that_of_who_waited(world: World, ada: Device) -> None:
    async def lags() -> float:
        return told(world)["aloft_feed_lag_seconds_count", ()]

    await ada.changes()
    await ada.changes(wait=0)
    assert await lags() == 0, "nobody waited"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: ada.changes(wait=50))
        while world.service.wake.waiting() == 0:  # noqa: ASYNC110 (nothing tells that somebody waits now)
            await anyio.sleep(0.01)
        await ada.accept(create(ada.space, "f", new_id(), b"x"))
    assert await lags() == 1
    assert told(world)["aloft_feed_lag_seconds_sum", ()] > 0


def refuse(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: object) -> NoReturn:
        raise error

    return fail


async def test_what_does_not_answer_is_named(world: World, ada: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await world.http.get("/readyz")).json() == {"status": "ready"}
    service = world.service
    with monkeypatch.context() as patched:
        patched.setattr(service.store._store, "stat", refuse(StoreUnavailable("away")))  # type: ignore[attr-defined]
        assert (await world.http.get("/readyz")).status_code == 200, "it looks once a second"
        world.clock.advance(1)
        assert "object store" in problem(await world.http.get("/readyz"), 503, "unavailable")["detail"]
    world.clock.advance(1)
    with monkeypatch.context() as patched:
        patched.setattr(type(service.database), "read", lambda _: nullcontext(Gone()))
        patched.setattr(type(service.database), "is_away", lambda *_: True)
        assert "database" in problem(await world.http.get("/readyz"), 503, "unavailable")["detail"]
    world.clock.advance(1)
    assert (await world.http.get("/readyz")).status_code == 200
    assert told(world)["aloft_store_errors_total", ("stat",)] == 1


class Gone:
    def execute(self, *_: object) -> NoReturn:
        raise OperationalError("select 1", {}, Exception("gone"))
