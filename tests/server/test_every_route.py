"""Every route while the database or the object store is lost, or the disk is full, at any statement: 503, and nothing done."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import Engine, delete, event, select

from remote.server.database.schema import metadata, rate_limits
from tests.server.test_access import routes
from tests.support.everyroute import Call, Everything, everything
from tests.support.wire import World

ELSEWHERE = {
    *(("POST", "/v1/password/forgotten"), ("POST", "/v1/password/new")),  # tests/server/test_recovery.py
    *(("GET", "/content"), ("HEAD", "/content")),  # tests/server/test_content_origin.py
    ("GET", "/v1/notifications/stream"),  # has no end
    *(("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/openapi.json")),
}
ASIDE = {"audit", "rate_limits", "jobs"}
"""Tables of which rows may be written for a request that is refused."""
RESUMED = {"file_uploads", "upload_sessions", "upload_objects"}
"""What is known of an upload: who asks again goes on from there."""


@pytest.fixture
async def all_of_it(world: World) -> Everything:
    return await everything(world)


class Losing:
    """From one of the statements on that write, none is taken any more."""

    def __init__(self, after: int, on: str) -> None:
        self._left = after
        self._on = on
        self.first = ""

    def __call__(self, cursor: object, statement: str, parameters: object, context: object) -> None:
        if statement.lstrip().partition(" ")[0].upper() in ("INSERT", "UPDATE", "DELETE", "WITH", "REPLACE"):
            self._left -= 1
        if self._left < 0:
            self.first = self.first or " ".join(statement.split())
            if self._on == "postgresql":
                raise psycopg.OperationalError("the connection is lost")
            raise sqlite3.OperationalError("database or disk is full")


@contextmanager
def lost(after: int, on: str) -> Iterator[Losing]:
    losing = Losing(after, on)
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        event.listen(Engine, name, losing)
    try:
        yield losing
    finally:
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            event.remove(Engine, name, losing)


def dump(world: World) -> dict[str, list[Any]]:
    with world.service.database.read() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table)).all()))
            for table in metadata.sorted_tables
            if table.name not in ASIDE
        }


def changed(one: dict[str, list[Any]], other: dict[str, list[Any]]) -> set[str]:
    return {name for name in one if one[name] != other[name]}


def is_said(response: httpx.Response, call: Call) -> bool:
    assert response.status_code == 503, (str(call), response.text)
    assert "retry-after" in response.headers, str(call)
    return call.method == "HEAD" or bool(response.json()["type"] == "unavailable")


async def test_all_routes_are_tried(world: World, all_of_it: Everything) -> None:
    assert {call.route for call in all_of_it.calls} | ELSEWHERE >= {*routes(world)}, "a new route wants a row there"
    for call in all_of_it.calls:
        response = await all_of_it.send(call)
        assert response.is_success, (str(call), response.text)


async def test_a_database_that_is_lost_at_any_statement_leaves_nothing_half_done(world: World, all_of_it: Everything) -> None:
    on = "sqlite" if world.service.config.database is None else "postgresql"
    for call in all_of_it.calls:
        for after in range(200):
            with world.service.database.write() as connection:
                connection.execute(delete(rate_limits))
            before = dump(world)
            with lost(after, on) as losing:
                response = await all_of_it.send(call)
            if not losing.first:
                assert response.is_success, (str(call), response.text)
                break
            assert is_said(response, call)
            done = changed(before, dump(world))
            if done and any(f" {table} " in losing.first for table in ASIDE):
                break  # all of it is done, and could not be noted; as after an answer that was lost
            assert done <= RESUMED, (str(call), losing.first)


async def test_an_object_store_that_is_lost_is_said_by_who_needs_it(world: World, all_of_it: Everything) -> None:
    objects = world.service.folder.objects
    objects.rename(objects.with_name("lost"))
    needed = set()
    for call in all_of_it.calls:
        before = dump(world)
        response = await all_of_it.send(call)
        if not response.is_success:
            assert is_said(response, call)
            assert changed(before, dump(world)) <= RESUMED | {"public_links"}, (str(call), "but for how often a link was opened")
            needed.add(str(call))
    assert needed >= {"GET /v1/files/content", "GET /link/{token}", "POST /v1/files/upload/{upload}/complete"}, needed
