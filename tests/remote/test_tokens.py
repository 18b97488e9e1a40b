"""Credentials and tokens: durable before they are used, refreshed by one process at a time, never lost by a kill."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import stat
import subprocess
import sys
import textwrap
import threading

import pytest
import trio
import trio.testing

from remote.accountapi import Account, Tokens
from remote.accounts import Accounts
from remote.api import NotAuthenticated, Unreachable
from remote.credentials import Credentials, CredentialStore, TokenPair
from remote.endpoint import Endpoint
from remote.protocol import Device
from remote.tokens import StoredTokens

LIFE = 600


class TokenServer:
    """The service's rule: a rotated refresh token stays valid until its successor is first used."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.valid = {"refresh-0"}
        self.refreshed: list[str] = []

    def refresh(self, token: str) -> Tokens | None:
        with self.lock:
            if token not in self.valid:
                return None
            successor = f"refresh-{secrets.token_hex(8)}"
            self.valid = {token, successor}
            self.refreshed.append(token)
            return Tokens(access_token=f"access-{len(self.refreshed)}", expires_in=LIFE, refresh_token=successor)

    async def __call__(self, token: str) -> Tokens:
        await trio.lowlevel.checkpoint()
        tokens = self.refresh(token)
        if tokens is None:
            raise NotAuthenticated("this refresh token is used up")
        return tokens


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def credentials(server: str = "http://127.0.0.1:1", *, expires_at: float = 0.0, account: bytes = bytes(16)) -> Credentials:
    return Credentials(
        server=server,
        installation=bytes(16),
        account=Account(id=account, email="ada@example.org", name="Ada", space=bytes(16)),
        device=Device(id=bytes(16), name="laptop", created_ns=0, last_seen_ns=0),
        tokens=TokenPair(refresh_token="refresh-0", access_token="access-0", renew_at=expires_at - 30, expires_at=expires_at),
    )


@pytest.fixture
def store(tmp_path) -> CredentialStore:
    return CredentialStore(tmp_path / "credentials.json")


# ------------------------------------------------------------------------------------------------------------- the file


def test_the_file_is_for_its_owner_and_comes_back_as_it_went(store):
    assert store.read() is None
    store.write(credentials())
    store.write(credentials(expires_at=5.0))
    assert store.read() == credentials(expires_at=5.0)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert [path.name for path in store.path.parent.iterdir()] == ["credentials.json"]


def test_what_a_killed_process_left_beside_it_does_not_stay(store):
    left = store.path.with_name("credentials.json.new")
    left.write_text("half a fi")
    store.write(credentials())
    assert store.read() == credentials()
    assert [path.name for path in store.path.parent.iterdir()] == ["credentials.json"]


async def test_a_start_clears_tokens_that_a_killed_process_was_writing(store):
    left = store.path.with_name("credentials.json.new")
    left.write_text("half a fi")
    async with store.locked():
        store.clear_left_overs()
        assert left.exists(), "somebody may be writing it now"
    store.clear_left_overs()
    assert not left.exists()


def test_tokens_do_not_show(store):
    text = repr(credentials()) + str(credentials())
    assert "refresh-0" not in text
    assert "access-0" not in text


@pytest.mark.parametrize("content", ["", "{}", "nothing", '{"version": 2}'])
def test_a_damaged_file_asks_for_a_login(store, content):
    store.path.write_text(content)
    with pytest.raises(NotAuthenticated, match="damaged"):
        store.read()


def test_a_folder_in_its_place_is_said(store):
    store.path.mkdir()
    with pytest.raises(NotAuthenticated, match=r"cannot read .*: Is a directory"):
        store.read()


def test_a_link_is_not_followed(store, tmp_path):
    (tmp_path / "elsewhere").write_text(credentials().model_dump_json())
    store.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotAuthenticated):
        store.read()
    store.write(credentials())
    assert not store.path.is_symlink()


async def test_the_lock_is_waited_for_and_the_wait_is_bounded(store, autojump_clock):
    async with store.locked():
        with pytest.raises(Unreachable, match="holds"):
            async with store.locked(seconds=3.0):
                raise AssertionError("two hold the lock")
        assert trio.current_time() == pytest.approx(3.0, abs=0.1)
    async with store.locked():
        pass


# ----------------------------------------------------------------------------------------------------------- the tokens


async def test_a_fresh_token_needs_no_service(store):
    clock, server = Clock(), TokenServer()
    store.write(credentials(expires_at=clock.now + LIFE))
    tokens = StoredTokens(store, server, clock)
    assert await tokens.current() == "access-0"
    assert server.refreshed == []


async def test_a_token_is_renewed_before_it_ends(store):
    clock, server = Clock(), TokenServer()
    store.write(credentials(expires_at=clock.now + 20))
    tokens = StoredTokens(store, server, clock)
    assert await tokens.current() == "access-1"
    assert await tokens.current() == "access-1"
    stored = store.read().tokens
    assert (stored.access_token, stored.expires_at) == ("access-1", clock.now + LIFE)
    assert stored.refresh_token in server.valid
    clock.now += LIFE - 10
    assert await tokens.current() == "access-2"
    assert len(server.refreshed) == 2


async def test_short_lived_tokens_are_used_too(store):
    clock = Clock()

    async def refresh(_: str) -> Tokens:
        return Tokens(access_token="short", expires_in=10, refresh_token="next")

    store.write(credentials())
    tokens = StoredTokens(store, refresh, clock)
    await tokens.current()
    known = store.read().tokens
    assert clock.now < known.renew_at < known.expires_at


async def test_many_tasks_refresh_once(store):
    clock, server = Clock(), TokenServer()
    store.write(credentials())
    tokens = StoredTokens(store, server, clock)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(tokens.current)
    assert len(server.refreshed) == 1


async def test_what_another_process_refreshed_is_taken(store):
    clock, server = Clock(), TokenServer()
    store.write(credentials(expires_at=clock.now + LIFE))
    here, there = StoredTokens(store, server, clock), StoredTokens(store, server, clock)
    assert await here.current() == "access-0"
    assert await there.after_rejection("access-0") == "access-1"
    assert await here.after_rejection("access-0") == "access-1"
    assert len(server.refreshed) == 1


async def test_tokens_that_cannot_be_stored_are_not_used(store):
    clock, server = Clock(), TokenServer()
    store.write(credentials())

    class Full(CredentialStore):
        def write(self, new: Credentials) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

    tokens = StoredTokens(Full(store.path), server, clock)
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            await tokens.current()
    assert server.refreshed == ["refresh-0", "refresh-0"]


async def test_a_service_that_is_away_leaves_the_token_its_last_seconds(store):
    clock = Clock()

    async def away(_: str) -> Tokens:
        raise Unreachable("away")

    store.write(credentials(expires_at=clock.now + 20))
    tokens = StoredTokens(store, away, clock)
    assert await tokens.current() == "access-0"
    clock.now += 20
    with pytest.raises(Unreachable):
        await tokens.current()


async def test_after_a_logout_there_is_no_token(store):
    clock, server = Clock(), TokenServer()
    store.write(credentials(expires_at=clock.now + LIFE))
    tokens = StoredTokens(store, server, clock)
    await tokens.current()
    store.write(credentials().model_copy(update={"tokens": None}))
    with pytest.raises(NotAuthenticated, match="login"):
        await tokens.after_rejection("access-0")


async def test_the_tokens_of_another_account_are_not_used(store):
    clock, server = Clock(), TokenServer()
    store.write(credentials(expires_at=clock.now + LIFE))
    tokens = StoredTokens(store, server, clock)
    await tokens.current()
    store.write(credentials(expires_at=clock.now + LIFE, account=b"\x01" * 16))
    with pytest.raises(NotAuthenticated, match="another account"):
        await tokens.after_rejection("access-0")


async def test_a_refresh_that_is_cancelled_gives_the_lock_back(store):
    clock = Clock()

    async def never(_: str) -> Tokens:
        await trio.sleep_forever()
        raise AssertionError

    store.write(credentials())
    with trio.move_on_after(0.1):
        await StoredTokens(store, never, clock).current()
    assert await StoredTokens(store, TokenServer(), clock).current() == "access-1"


# -------------------------------------------------------------------------------------------------- several processes


def wire_tokens(wire, reply) -> TokenServer:
    server = TokenServer()

    def answer(received):
        token = received.body.decode().split('"')[3]
        tokens = server.refresh(token)
        if tokens is None:
            return reply(401)
        return reply(200, tokens.model_dump_json().encode())

    wire.reply = answer
    return server


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


REFRESH = """
    import sys, trio
    from pathlib import Path
    from remote.accounts import Accounts
    from remote.credentials import CredentialStore
    from remote.endpoint import Endpoint
    from remote.tokens import StoredTokens

    async def main():
        tokens = StoredTokens(CredentialStore(Path(sys.argv[1])), Accounts(Endpoint.parse(sys.argv[2])).refresh)
        print(await tokens.current(), flush=True)

    trio.run(main)
"""

KILLED_BEFORE_THE_STORE = """
    import os, signal
    from remote import credentials
    credentials.CredentialStore.write = lambda self, new: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_between_answer_and_store_does_not_log_out(wire, reply, store):
    server = wire_tokens(wire, reply)
    store.write(credentials(wire.url))
    killed = run_python(textwrap.dedent(KILLED_BEFORE_THE_STORE) + textwrap.dedent(REFRESH), store.path, wire.url)
    assert killed.communicate(timeout=60)[0] == ""
    assert killed.returncode == -signal.SIGKILL
    assert server.refreshed == ["refresh-0"]
    assert store.read() == credentials(wire.url)

    again = run_python(REFRESH, store.path, wire.url)
    assert again.communicate(timeout=60)[0].strip() == "access-2"
    assert server.refreshed == ["refresh-0", "refresh-0"]
    assert store.read().tokens.access_token == "access-2"


def test_processes_of_one_home_refresh_one_at_a_time(wire, reply, store):
    server = wire_tokens(wire, reply)
    store.write(credentials(wire.url))
    processes = [run_python(REFRESH, store.path, wire.url) for _ in range(3)]
    assert {process.communicate(timeout=60)[0].strip() for process in processes} == {"access-1"}
    assert server.refreshed == ["refresh-0"]


async def test_register_is_never_sent_twice(wire, reply):
    from remote.accountapi import RegisterRequest

    wire.reply = lambda _: reply(silent=True)
    with pytest.raises(Unreachable):
        await Accounts(Endpoint.parse(wire.url)).register(RegisterRequest(email="a@b", password="long enough"))
    assert len(wire.received) == 1
