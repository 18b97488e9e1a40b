"""What PostgreSQL adds: transactions that meet, connections that go at the worst moment, a database that is away, wake-ups."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from remote.protocol import ProblemType
from remote.server.config import ServerConfig
from remote.server.database import devices
from remote.server.database.opening import open_wake
from remote.server.database.postgresql import PostgresDatabase
from remote.server.database.schema import invitations
from remote.server.folder import DataFolderError
from remote.server.problems import Refused
from remote.server.service import Service, create_invitation, open_service
from remote.server.wake import Wake
from tests.support.commit_proxy import CommitProxy
from tests.support.postgresql import Cluster, name_of
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wire import Device, World, create, new_id, problem

pytestmark = pytest.mark.parametrize("database_of", ["postgresql"], indirect=True)


@pytest.fixture
def url(database_of: Callable[[str], str]) -> str:
    return database_of("data")


@pytest.fixture
def database(url: str) -> Iterator[PostgresDatabase]:
    database = PostgresDatabase(url)
    yield database
    database.close()


def in_threads(*works: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def add_invitation(database: PostgresDatabase, code: bytes) -> None:
    with database.write() as connection:
        connection.execute(insert(invitations).values(code_hash=code, created_ns=0))


def count_invitations(database: PostgresDatabase) -> int:
    with database.read() as connection:
        return int(connection.execute(text("SELECT sum(created_ns) FROM invitations")).scalar_one())


# -------------------------------------------------------------------------------------------------------- transactions


def test_work_that_ran_into_a_deadlock_is_done_again(database: PostgresDatabase) -> None:
    codes = [b"a" * 32, b"b" * 32]
    for code in codes:
        add_invitation(database, code)
    first_try = threading.Barrier(2)
    tries: list[bytes] = []

    def count_both(order: list[bytes]) -> None:
        with database.write() as connection:
            for number, code in enumerate(order):
                tries.append(code)
                connection.execute(
                    text("UPDATE invitations SET created_ns = created_ns + 1 WHERE code_hash = :code"), {"code": code}
                )
                if number == 0 and len(tries) <= 2:
                    first_try.wait(PATIENCE)

    in_threads(lambda: database.repeat(count_both, codes), lambda: database.repeat(count_both, codes[::-1]))
    assert count_invitations(database) == 4
    assert len(tries) > 4


def test_work_is_done_again_when_its_connection_goes_and_when_another_was_first(
    database: PostgresDatabase, postgresql: Cluster, url: str
) -> None:
    tries = 0

    def add() -> None:
        nonlocal tries
        tries += 1
        with database.write() as connection:
            connection.execute(insert(invitations).values(code_hash=bytes([tries // 3]) * 32, created_ns=tries))
            if tries == 1:
                postgresql.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name_of(url)}'")

    database.repeat(add)
    assert tries == 2
    database.repeat(add)
    assert (tries, count_invitations(database)) == (3, 5)


def test_work_that_fails_for_good_is_not_done_for_ever(database: PostgresDatabase) -> None:
    add_invitation(database, b"a" * 32)
    with pytest.raises(IntegrityError):
        database.repeat(add_invitation, database, b"a" * 32)


def test_durability_that_was_lowered_is_overruled(database: PostgresDatabase, postgresql: Cluster, url: str) -> None:
    postgresql.execute(f"ALTER DATABASE {name_of(url)} SET synchronous_commit = off")
    with database.write() as connection:
        assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == "on"


async def test_a_refresh_waits_for_a_log_in_and_finds_its_token_gone(ada: Device, postgresql: Cluster, url: str) -> None:
    """Else a token of the session before would be issued into the new one."""
    account, device = bytes.fromhex(ada.account["id"]), bytes.fromhex(ada.id)
    service = ada.world.service
    refusals: list[str] = []

    def refresh() -> None:
        try:
            service.devices.refresh(ada.tokens["refresh_token"])
        except Refused as refused:
            refusals.append(refused.type)

    waiting = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name_of(url)}' AND wait_event_type = 'Lock'"
    refreshing = threading.Thread(target=refresh)
    with service.database.write() as connection:
        devices.find(connection, account, device, lock=True)
        refreshing.start()
        wait_until(lambda: postgresql.execute(waiting)[0][0] == 1)
        devices.revoke_tokens(connection, account, device, bytes(16))
    refreshing.join(PATIENCE)
    assert refusals == [ProblemType.UNAUTHENTICATED]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_whose_connection_dies_at_its_end_is_applied_once(
    open_world: Callable[..., World], postgresql: Cluster, url: str, when: Literal["before", "after"]
) -> None:
    with tempfile.TemporaryDirectory(prefix="aloft-pg-") as folder, CommitProxy(Path(folder), postgresql.folder) as proxy:
        world = open_world(database=postgresql.through(Path(folder), url))
        ada = await world.device()
        proxy.cut(b"INSERT INTO commits", when)
        answer = await ada.accept(create(ada.space, "f", new_id(), b"content"))
        assert proxy.has_cut
        assert (answer["revision"], answer["outcomes"][0]["entries"]) == (2, [2])
        page = await ada.changes("")
        assert page["spaces"][0]["revision"] == 2
        assert [row["name"] for row in page["spaces"][0]["entries"]] == ["f"]
        await world.close()


# ---------------------------------------------------------------------------------------------------- a lost database


async def test_a_database_that_is_away_is_said_and_comes_back(ada: Device, postgresql: Cluster, url: str) -> None:
    name = name_of(url)
    postgresql.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    postgresql.execute(f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = '{name}'")
    group = create(ada.space, "f", new_id(), b"content")
    for response in (
        await ada.try_commit(group, number=1),
        await ada.send("GET", "/v1/changes"),
        await ada.world.try_login("ada@example.org", new_id()),
        await ada.world.refresh(ada.tokens["refresh_token"]),
    ):
        problem(response, 503, "unavailable")
        assert "retry-after" in response.headers
    postgresql.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert (await ada.commit(group, number=1))["revision"] == 2
    await ada.refresh()


async def test_a_full_disk_is_said_and_nothing_half_done_remains(ada: Device, postgresql: Cluster, url: str) -> None:
    """The server says so at the last statement but one; with room again the same commit goes through."""
    postgresql.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$",
        name_of(url),
    )
    postgresql.execute("CREATE TRIGGER full_disk BEFORE INSERT ON commits EXECUTE FUNCTION full_disk()", name_of(url))
    group = create(ada.space, "f", new_id(), b"content")
    response = await ada.try_commit(group, number=1)
    problem(response, 503, "unavailable")
    assert "retry-after" in response.headers
    postgresql.execute("DROP TRIGGER full_disk ON commits", name_of(url))
    assert (await ada.listing())[0] == {}
    assert (await ada.get("/v1/account"))["used_bytes"] == 0
    await ada.accept(group)


def test_a_database_that_is_not_there_is_said_at_the_start(tmp_path: Path, url: str) -> None:
    config = ServerConfig(tmp_path / "data", database=url.replace(name_of(url), "no_such_database"))
    for start in (open_service, create_invitation):
        with pytest.raises(DataFolderError, match=r"the database no_such_database .* does not exist"):
            start(config)


def test_services_that_start_at_once_on_an_empty_database_agree(tmp_path: Path, postgresql: Cluster, url: str) -> None:
    empty = postgresql.empty_database()
    services: list[Service] = []

    def start() -> None:
        services.append(open_service(ServerConfig(tmp_path / "data", database=empty, password_memory_kib=64)))

    in_threads(start, start, start)
    assert len({service.epoch for service in services}) == 1
    assert len(services) == 3
    for service in services:
        service.close()
    postgresql.drop_database(empty)


# ------------------------------------------------------------------------------------------------------------ wake-ups


@pytest.fixture
async def wakes(url: str) -> AsyncIterator[tuple[Wake, Wake]]:
    """Of two processes."""
    databases = [PostgresDatabase(url) for _ in range(2)]
    one, two = (open_wake(database) for database in databases)
    yield one, two
    for wake, database in zip((one, two), databases, strict=True):
        wake.close()
        database.close()


async def hears(one: Wake, two: Wake) -> None:
    """A wake-up goes from one process to the other, and to nobody there who does not wait for it."""
    for _ in range(int(PATIENCE)):
        with two.subscribe([b"a" * 16]) as waiter, two.subscribe([b"b" * 16]) as bystander:
            one.notify(*(bytes([n]) * 16 for n in range(256) if n != ord("b")))
            if await waiter.wait(1) and not await bystander.wait(0):
                return  # else all were woken, since a connection was new
    pytest.fail("the processes do not hear each other")


async def test_wake_ups_reach_the_other_processes(wakes: tuple[Wake, Wake]) -> None:
    one, two = wakes
    await hears(one, two)
    await hears(two, one)


async def test_who_listens_again_after_a_loss_looks_for_what_was_missed(
    wakes: tuple[Wake, Wake], postgresql: Cluster, url: str
) -> None:
    one, two = wakes
    await hears(one, two)
    with two.subscribe([b"a" * 16]) as waiter:
        postgresql.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name_of(url)}'")
        assert await waiter.wait(PATIENCE)
    await hears(one, two)


async def test_what_somebody_else_says_on_the_channel_wakes_all_and_ends_nothing(wakes: tuple[Wake, Wake], url: str) -> None:
    one, two = wakes
    await hears(one, two)
    with two.subscribe([b"a" * 16]) as waiter:
        database = PostgresDatabase(url)
        with database.connect() as connection:
            connection.execute("NOTIFY aloft, 'nothing of ours'")
        database.close()
        assert await waiter.wait(PATIENCE)
    await hears(one, two)
