"""Parts of the service on their own: the rate limit, the database and its migrations, the data folder, waking, signatures."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from sqlalchemy import text

from remote.server.config import ServerConfig
from remote.server.database.engine import Database
from remote.server.database.opening import open_database
from remote.server.epochs import current_epoch
from remote.server.folder import DataFolder, DataFolderError
from remote.server.keys import Key
from remote.server.objects.signing import BadLink, Grant, sign, verify
from remote.server.problems import Refused
from remote.server.ratelimit import Limit, RateLimiter
from remote.server.service import create_invitation, open_service
from remote.server.wake import LocalWake
from tests.support.schemas import differences
from tests.support.wire import Clock

# ---------------------------------------------------------------------------------------------------------- rate limit


@pytest.fixture
def database(tmp_path: Path, database_of: Callable[[str], str | None]) -> Iterator[Database]:
    database = open_database(ServerConfig(tmp_path, database=database_of("data")))
    database.migrate()
    yield database
    database.close()


def wait(limiter: RateLimiter, *limits: Limit) -> int:
    """Seconds until an attempt is possible; 0: it was, and is counted."""
    try:
        limiter.take(limits)
    except Refused as refused:
        return refused.retry_after_seconds or -1
    return 0


def test_attempts_come_back_one_by_one(database: Database) -> None:
    clock = Clock()
    limit = Limit("a", 3, 60)
    assert [wait(RateLimiter(database, clock), limit) for _ in range(4)] == [0, 0, 0, 20]
    clock.advance(19.5)
    assert wait(RateLimiter(database, clock), limit) == 1
    clock.advance(0.5)
    assert [wait(RateLimiter(database, clock), limit) for _ in range(2)] == [0, 20]
    clock.advance(3600)
    assert [wait(RateLimiter(database, clock), limit) for _ in range(4)] == [0, 0, 0, 20]


def test_one_full_limit_of_several_counts_nothing_under_the_others(database: Database) -> None:
    limiter = RateLimiter(database, Clock())
    b, a = Limit("b", 2, 60), Limit("a", 1, 60)
    assert [wait(limiter, b, a), wait(limiter, b, a)] == [0, 60]
    assert [wait(limiter, b), wait(limiter, b)] == [0, 30]


def test_what_went_well_is_forgotten(database: Database) -> None:
    limiter, limit = RateLimiter(database, Clock()), Limit("a", 1, 60)
    for _ in range(5):
        assert wait(limiter, limit) == 0
        limiter.give_back([limit])
    limiter.give_back([limit])
    assert [wait(limiter, limit), wait(limiter, limit)] == [0, 60]


def test_of_many_attempts_at_once_no_more_than_the_limit_are_let_through(database: Database) -> None:
    limiter, limit, barrier = RateLimiter(database, Clock()), Limit("a", 3, 60), threading.Barrier(8)
    waits: list[int] = []

    def attempt() -> None:
        barrier.wait()
        waits.append(database.repeat(wait, limiter, limit))

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == [0] * 3 + [20] * 5


def test_buckets_that_ran_empty_leave_no_rows(database: Database) -> None:
    clock = Clock()
    limiter = RateLimiter(database, clock)
    for number in range(30):
        assert wait(limiter, Limit(f"{number}", 5, 50)) == 0
    clock.advance(10)
    assert [wait(limiter, Limit("other", 5, 50)) for _ in range(2)] == [0, 0]
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM rate_limits")).scalar() == 1


# ------------------------------------------------------------------------------------------------------------ database


def test_migrations_make_the_schema_that_the_statements_expect(database: Database) -> None:
    with database.read() as connection:
        assert differences(connection) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    database.migrate()
    first = current_epoch(database, time.time_ns, os.urandom)
    database.migrate()
    assert current_epoch(database, time.time_ns, os.urandom) == first


@pytest.mark.parametrize("database_of", ["sqlite"], indirect=True)
def test_sqlite_is_durable_and_checks_references(database: Database) -> None:
    with database.write() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_an_error_undoes_the_transaction(database: Database) -> None:
    def write_and_fail() -> None:
        with database.write() as connection:
            connection.execute(text("INSERT INTO epochs VALUES (1, 'x', 0)"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM epochs")).scalar() == 0


def test_a_reader_sees_one_state_while_others_write(database: Database) -> None:
    with database.read() as reader:
        count = text("SELECT count(*) FROM epochs")
        assert reader.execute(count).scalar() == 0
        with database.write() as writer:
            writer.execute(text("INSERT INTO epochs VALUES (1, 'x', 0)"))
        assert reader.execute(count).scalar() == 0


def test_a_database_from_the_future_is_left_alone(tmp_path: Path, database_of: Callable[[str], str | None]) -> None:
    config = ServerConfig(tmp_path / "data", database=database_of("data"), password_memory_kib=64)
    service = open_service(config)
    with service.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    service.close()
    with pytest.raises(DataFolderError, match="newer Aloft"):
        open_service(config)
    DataFolder(config.data).close()


# --------------------------------------------------------------------------------------------------------- data folder


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"kid": "a", "secret": "xyz"}', '{"kid": "a", "secret": "00"}'])
def test_a_damaged_key_is_an_error_and_not_a_new_key(tmp_path: Path, content: str) -> None:
    with DataFolder(tmp_path / "data") as folder:
        (folder.path / "tokens.key").write_text(content)
        with pytest.raises(DataFolderError, match=r"tokens\.key"):
            folder.old_key("tokens")


def test_a_folder_is_for_one_service_at_a_time(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data"), pytest.raises(DataFolderError, match="another service"):
        DataFolder(tmp_path / "data")
    DataFolder(tmp_path / "data").close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataFolderError, match="cannot use"):
        DataFolder(tmp_path / "file" / "data")
    with pytest.raises(DataFolderError, match="start it once"):
        create_invitation(ServerConfig(tmp_path / "nothing"))


def test_a_configuration_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both"):
        ServerConfig(tmp_path, tls_cert=tmp_path / "cert")
    with pytest.raises(ValueError, match="public URL"):
        ServerConfig(tmp_path, public_url="drive.example.org")


# -------------------------------------------------------------------------------------------------------------- waking


async def test_waiters_are_woken_by_their_topics_only() -> None:
    wake = LocalWake()
    with wake.subscribe([b"a", b"b"]) as waiter, wake.subscribe([b"c"]) as bystander:
        wake.notify(b"b")
        assert await waiter.wait(60)
        assert not await bystander.wait(0)
        assert not await waiter.wait(0), "it is ready to wait again"
        wake.notify(b"nobody")
    assert wake.waiting() == 0


async def test_what_happens_between_subscribing_and_waiting_is_not_missed() -> None:
    wake = LocalWake()
    with wake.subscribe([b"a"]) as waiter:
        wake.notify(b"a")
        with trio.fail_after(5):
            assert await waiter.wait(60)


async def test_closing_wakes_everybody_also_who_comes_later() -> None:
    wake = LocalWake()
    with wake.subscribe([b"a"]) as waiter:
        wake.close()
        assert await waiter.wait(60)
    with wake.subscribe([b"a"]) as late:
        assert await late.wait(60)
    assert wake.closed


# ---------------------------------------------------------------------------------------------------------- signatures

SIGNER = Key("k", b"s" * 32)
PUT = Grant("PUT", "owner/object.0", 1000, 5, bytes(32))


def test_a_signature_is_good_for_exactly_what_was_signed() -> None:
    query = sign(PUT, SIGNER)
    assert verify("PUT", PUT.key, query, SIGNER, 999) == PUT
    for method, key, by, now in (
        ("GET", PUT.key, SIGNER, 999),
        ("PUT", "owner/object.1", SIGNER, 999),
        ("PUT", PUT.key, Key("other", SIGNER.secret), 999),
        ("PUT", PUT.key, Key("k", b"t" * 32), 999),
        ("PUT", PUT.key, SIGNER, 1000),
    ):
        with pytest.raises(BadLink):
            verify(method, key, query, by, now)


@pytest.mark.parametrize("query", ["", "s", "s=1", "e=x&s=1", "&&&", "a=1&" * 20, "x" * 2000, "v=1&k=k&e=-1&s=%ff"])
def test_nonsense_is_no_signature(query: str) -> None:
    with pytest.raises(BadLink):
        verify("GET", "a/b.0", query, SIGNER, 0)


def test_readers_and_writers_in_many_threads_do_not_get_in_each_others_way(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("INSERT INTO epochs VALUES (1, '0', 0)"))
    errors: list[BaseException] = []

    def add() -> None:
        try:
            for _ in range(20):
                with database.alone() as connection:
                    value = int(connection.execute(text("SELECT epoch FROM epochs")).scalar_one())
                    connection.execute(text("UPDATE epochs SET epoch = :next"), {"next": str(value + 1)})
        except BaseException as error:  # noqa: BLE001 — reported by the test
            errors.append(error)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with database.read() as connection:
        assert connection.execute(text("SELECT epoch FROM epochs")).scalar_one() == "160"
    database.close()
