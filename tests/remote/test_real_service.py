"""`HttpService` against the real service in another process."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import httpx
import pytest
import trio

from remote.accountapi import DeviceLogin, Login, LoginRequest, RegisterRequest
from remote.accounts import Accounts
from remote.api import (
    DeviceRevoked,
    Forbidden,
    NotAuthenticated,
    NotThere,
    QuotaExceeded,
    Rejected,
    ResetRequired,
    StaleCommit,
    TooManyDevices,
    Unreachable,
)
from remote.credentials import Credentials, CredentialStore, TokenPair
from remote.endpoint import Endpoint
from remote.http import HttpService, open_service
from remote.manifest import ChunkRef, Encoding, Manifest, Split
from remote.problems import AlreadyExists, LinkExpired
from remote.protocol import (
    Attributes,
    CommitRequest,
    ContentChange,
    EntryChange,
    FullRow,
    Group,
    InodeChange,
    Kind,
    ObjectToUpload,
    WantedManifest,
)
from tests.support.service import REPOSITORY, start_service

PASSWORD = "correct horse"
BODY = random.Random(3).randbytes(1_300_000)
OBJECT = hashlib.sha256(BODY).digest()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with start_service(tmp_path_factory.mktemp("service") / "data", quota=10_000_000, max_devices=2) as service:
        yield service


@pytest.fixture
def accounts(running) -> Accounts:
    return Accounts(Endpoint.parse(running.url))


async def log_in(accounts: Accounts, email: str, installation: bytes, **more: object) -> Login:
    device = DeviceLogin(installation=installation, name="laptop")
    return await accounts.login(LoginRequest(email=email, password=PASSWORD, device=device, **more))


def keep(path: Path, accounts: Accounts, login: Login, *, expired: bool = False) -> CredentialStore:
    store = CredentialStore(path)
    tokens = TokenPair.granted(login.tokens, 0.0 if expired else 1e12)
    store.write(
        Credentials(
            server=accounts.endpoint.url, installation=bytes(16), account=login.account, device=login.device, tokens=tokens
        )
    )
    return store


@pytest.fixture
async def login(accounts, request) -> Login:
    email = f"{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}@example.org"
    await accounts.register(RegisterRequest(email=email, password=PASSWORD, name="Ada"))
    return await log_in(accounts, email, os.urandom(16))


@pytest.fixture
def store(tmp_path, accounts, login) -> CredentialStore:
    return keep(tmp_path / "credentials.json", accounts, login)


@pytest.fixture
async def service(store):
    async with open_service(store) as opened:
        yield opened


async def upload(service: HttpService, space: bytes) -> None:
    plan = await service.plan_uploads(space, [ObjectToUpload(id=OBJECT, length=len(BODY))])
    for link in plan.missing:
        await service.put_object(link, BODY)


def manifest_of_the_object() -> bytes:
    chunk = ChunkRef.whole(OBJECT, len(BODY), len(BODY), Encoding.RAW)
    return Manifest.from_chunks(Split(2**18, 2**20, 2**22), (chunk,)).encode()


async def publish(service: HttpService, space: bytes) -> None:
    await upload(service, space)
    answer = await service.commit(space, (await commit_of(service, space, 1, manifest_of_the_object()))[1])
    assert answer.outcomes[0].result == "ok"


async def commit_of(service: HttpService, space: bytes, number: int, manifest: bytes, name: str = "file") -> tuple[bytes, bytes]:
    inode = os.urandom(16)
    group = Group(
        entries=[EntryChange(parent=space, name=name, base=None, inode=inode)],
        inodes=[
            InodeChange(
                id=inode,
                full=FullRow(kind=Kind.FILE),
                attributes=Attributes(mode=0o644, mtime_ns=1),
                content=ContentChange(manifest=manifest, base=0),
            )
        ],
    )
    epoch = (await service.changes("", wait_seconds=0, limit=1)).epoch
    request = CommitRequest(number=number, replica=bytes(16), epoch=epoch, groups=[group])
    return inode, request.model_dump_json(exclude_unset=True).encode()


async def test_bytes_go_there_and_come_back(service, login):
    space = login.account.space
    await upload(service, space)
    assert (await service.plan_uploads(space, [ObjectToUpload(id=OBJECT, length=len(BODY))])).missing == []

    manifest = manifest_of_the_object()
    inode, body = await commit_of(service, space, 1, manifest)
    answer = await service.commit(space, body)
    assert [outcome.result for outcome in answer.outcomes] == ["ok"]
    assert await service.commit(space, body) == answer

    page = await service.changes("", wait_seconds=0, limit=100)
    (changes,) = page.spaces
    content = next(row for row in changes.inodes if row.id == inode).content
    assert content is not None
    assert content.size == len(BODY)
    wanted = [WantedManifest(inode=inode, manifest_id=content.manifest_id), WantedManifest(inode=inode, manifest_id=bytes(32))]
    assert (await service.manifests(space, wanted)).manifests == [manifest, None]

    links = (await service.plan_downloads(space, [OBJECT])).links
    assert await service.get_object(links[0], len(BODY)) == BODY
    info = await service.account()
    assert info.traffic is not None
    statistics = service.statistics()
    assert (statistics.bytes_sent, statistics.bytes_received) == (info.traffic.received_bytes, info.traffic.sent_bytes)
    assert statistics.upload_rate is not None
    assert statistics.download_rate is not None
    assert statistics.latency is not None


async def test_a_folder_page_by_page(service, login):
    space = login.account.space
    names = ["a b", "a&b=c", "ä", "\U0001f600"]
    await upload(service, space)
    for number, name in enumerate(names, 1):
        await service.commit(space, (await commit_of(service, space, number, manifest_of_the_object(), name))[1])
    pages = [await service.folder(space, space, after="", limit=1)]
    while pages[-1].next is not None:
        pages.append(await service.folder(space, space, after=pages[-1].next, limit=1))
    feed = await service.changes("", wait_seconds=0, limit=100)
    assert [entry.name for page in pages for entry in page.entries] == names
    assert [entry for page in pages for entry in page.entries] == sorted(feed.spaces[0].entries, key=lambda entry: entry.rev)
    assert all(page.inodes[0] in feed.spaces[0].inodes and page.epoch == feed.epoch for page in pages)
    with pytest.raises(NotThere):
        await service.folder(space, bytes(16), after="", limit=1)


async def test_errors_arrive_as_what_they_are(service, login, accounts):
    space = login.account.space
    with pytest.raises(QuotaExceeded):
        await service.plan_uploads(space, [ObjectToUpload(id=OBJECT, length=10_000_001)])
    with pytest.raises((Forbidden, NotThere)):
        await service.plan_downloads(os.urandom(16), [OBJECT])
    with pytest.raises((NotThere, Forbidden)):
        await service.plan_downloads(space, [os.urandom(32)])
    with pytest.raises((ResetRequired, Rejected)):
        await service.changes("nonsense", wait_seconds=0, limit=10)
    with pytest.raises(Rejected):
        await service.commit(space, b"{}")
    with pytest.raises(NotThere):
        await service.remove_device(os.urandom(16))
    for number in (2, 1):
        _, body = await commit_of(service, space, number, Manifest.from_inline(b"x").encode(), f"n{number}")
        if number == 2:
            await service.commit(space, body)
    with pytest.raises(StaleCommit):
        await service.commit(space, body)
    with pytest.raises(AlreadyExists):
        await accounts.register(RegisterRequest(email=login.account.email, password=PASSWORD))


async def test_a_link_that_was_tampered_with(service, login):
    space = login.account.space
    await publish(service, space)
    plan = await service.plan_downloads(space, [OBJECT])
    other = plan.links[0].model_copy(update={"url": plan.links[0].url.replace(OBJECT.hex(), os.urandom(32).hex())})
    with pytest.raises((LinkExpired, NotThere)):
        await service.get_object(other, len(BODY))


async def test_wrong_bytes_are_not_taken(service, login):
    plan = await service.plan_uploads(login.account.space, [ObjectToUpload(id=OBJECT, length=len(BODY))])
    with pytest.raises(Rejected):
        await service.put_object(plan.missing[0], BODY[:-1] + b"?")


async def test_the_long_poll_wakes_up(service, login):
    space = login.account.space
    cursor = ""
    while (page := await service.changes(cursor, wait_seconds=0, limit=100)).has_more:
        cursor = page.cursor
    answers = []

    async def wait() -> None:
        answers.append(await service.changes(page.cursor, wait_seconds=50, limit=100))

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            _, body = await commit_of(service, space, 1, Manifest.from_inline(b"hello").encode())
            await service.commit(space, body)
    assert [entry.name for entry in answers[0].spaces[0].entries] == ["file"]


async def test_devices(service, login, accounts):
    other = await log_in(accounts, login.account.email, os.urandom(16))
    with pytest.raises(TooManyDevices) as caught:
        await log_in(accounts, login.account.email, os.urandom(16))
    assert {device.id for device in caught.value.devices} == {login.device.id, other.device.id}
    assert [device.current for device in (await service.devices()).devices if device.id == login.device.id] == [True]
    await service.remove_device(other.device.id)
    assert [device.id for device in (await service.devices()).devices] == [login.device.id]


async def test_a_removed_device_learns_it(service, login, accounts, tmp_path):
    other = await log_in(accounts, login.account.email, os.urandom(16))
    async with open_service(keep(tmp_path / "other.json", accounts, other)) as there:
        await there.account()
        await service.remove_device(other.device.id)
        with pytest.raises(DeviceRevoked):
            await there.account()


async def test_a_wrong_password(accounts, login):
    device = DeviceLogin(installation=bytes(16), name="x")
    with pytest.raises(NotAuthenticated) as caught:
        await accounts.login(LoginRequest(email=login.account.email, password="wrong password", device=device))
    assert not isinstance(caught.value, DeviceRevoked)


async def test_a_service_that_restarts(tmp_path):
    first = start_service(tmp_path / "data")
    try:
        accounts = Accounts(Endpoint.parse(first.url))
        await accounts.register(RegisterRequest(email="ada@example.org", password=PASSWORD))
        store = keep(tmp_path / "credentials.json", accounts, await log_in(accounts, "ada@example.org", os.urandom(16)))
        async with open_service(store) as service:
            before = await service.account()
            first.kill()
            with pytest.raises(Unreachable):
                await service.account()
            with start_service(tmp_path / "data", port=first.port):
                assert (await service.account()).account == before.account
    finally:
        first.kill()


async def test_the_service_in_this_process(tmp_path):
    from remote.server.app import create_app
    from remote.server.config import ServerConfig

    app = create_app(ServerConfig(data=tmp_path / "data", password_memory_kib=1024))
    try:
        transport = httpx.ASGITransport(app)
        accounts = Accounts(Endpoint.parse("http://127.0.0.1:1"), transport=transport)
        await accounts.register(RegisterRequest(email="ada@example.org", password=PASSWORD))
        login = await log_in(accounts, "ada@example.org", os.urandom(16))

        class Fixed:
            async def current(self) -> str:
                return login.tokens.access_token

            async def after_rejection(self, rejected: str) -> str:
                raise NotAuthenticated("no other")

        async with HttpService(accounts.endpoint, Fixed(), transport=transport, object_transport=transport) as service:
            await publish(service, login.account.space)
            plan = await service.plan_downloads(login.account.space, [OBJECT])
            assert await service.get_object(plan.links[0], len(BODY)) == BODY
    finally:
        app.state.service.close()


# -------------------------------------------------------------------------------------------------- tokens and processes

ASK = """
    import sys, trio
    from pathlib import Path
    from remote.credentials import CredentialStore
    from remote.http import open_service

    async def main():
        async with open_service(CredentialStore(Path(sys.argv[1]))) as service:
            print((await service.account()).account.email, flush=True)

    trio.run(main)
"""
KILLED_BEFORE_THE_STORE = """
    import os, signal
    from remote import credentials
    credentials.CredentialStore.write = lambda self, new: os.kill(os.getpid(), signal.SIGKILL)
"""


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


async def said(process: subprocess.Popen[str]) -> str:
    return (await trio.to_thread.run_sync(lambda: process.communicate(timeout=60)))[0].strip()


async def test_a_kill_between_answer_and_store_does_not_log_out(tmp_path, accounts, login):
    store = keep(tmp_path / "credentials.json", accounts, login, expired=True)
    before = store.read()
    killing = textwrap.dedent(KILLED_BEFORE_THE_STORE) + textwrap.dedent(ASK)
    for _ in range(2):
        killed = run_python(killing, store.path)
        assert await said(killed) == ""
        assert killed.returncode == -signal.SIGKILL
        assert store.read() == before
    assert await said(run_python(textwrap.dedent(ASK), store.path)) == login.account.email
    after = store.read()
    assert after is not None
    assert after.tokens is not None
    assert after.tokens.refresh_token != login.tokens.refresh_token
    # Its own successor works as well.
    store.write(after.model_copy(update={"tokens": after.tokens.model_copy(update={"renew_at": 0.0, "expires_at": 0.0})}))
    assert await said(run_python(textwrap.dedent(ASK), store.path)) == login.account.email


async def test_processes_of_one_home_that_refresh_at_once(tmp_path, accounts, login):
    store = keep(tmp_path / "credentials.json", accounts, login, expired=True)
    processes = [run_python(textwrap.dedent(ASK), store.path) for _ in range(3)]
    assert [await said(process) for process in processes] == [login.account.email] * 3
    async with open_service(store) as service:
        await service.account()


async def test_an_access_token_that_the_service_does_not_take(tmp_path, accounts, login):
    store = keep(tmp_path / "credentials.json", accounts, login)
    known = store.read()
    store.write(known.model_copy(update={"tokens": known.tokens.model_copy(update={"access_token": "made up"})}))
    async with open_service(store) as service:
        assert (await service.account()).account.email == login.account.email
    assert store.read().tokens.access_token != "made up"


async def test_after_a_logout_nothing_works(accounts, login, store):
    await accounts.logout(login.tokens.access_token)
    async with open_service(store) as service:
        with pytest.raises(NotAuthenticated):
            await service.account()
    with pytest.raises(NotAuthenticated):
        await accounts.refresh(login.tokens.refresh_token)
