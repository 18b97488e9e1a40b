"""Devices for tests: a real drive each (without a kernel), logged in to a real service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from cache.clock import SystemClock, SystemRandomness
from cache.drive import Drive, DriveOptions
from cache.errors import NoEntry
from cache.home import HomePaths
from cache.model import AttributeUpdate, Change, Node, RenameMode
from cache.status import SyncReport
from cache.store.schema import ROOT
from remote.accountapi import DeviceLogin, Login, LoginRequest, RegisterRequest
from remote.accounts import Accounts
from remote.endpoint import Endpoint
from remote.http import HttpService
from remote.protocol import Kind

PASSWORD = "correct horse"
PATIENCE = 60.0
"""Seconds after which a condition that has not come true will not."""

QUICK = DriveOptions(cache_size=256 * 2**20, upload_delay=0.0, io_timeout=10.0)


class FixedToken:
    def __init__(self, token: str) -> None:
        self._token = token

    async def current(self) -> str:
        return self._token

    async def after_rejection(self, rejected: str) -> str:
        raise AssertionError("the service refused a fresh token")


async def register(url: str) -> str:
    """A new account; its address."""
    email = f"{SystemRandomness().bytes(8).hex()}@example.org"
    await Accounts(Endpoint.parse(url)).register(RegisterRequest(email=email, password=PASSWORD))
    return email


async def log_in(url: str, email: str, device: str) -> Login:
    installation = SystemRandomness().bytes(16)
    request = LoginRequest(email=email, password=PASSWORD, device=DeviceLogin(installation=installation, name=device))
    return await Accounts(Endpoint.parse(url)).login(request)


async def until(condition: Callable[[], object]) -> None:
    """Return when `condition` is true."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 (what is waited for is spread over both devices and the service)
            await trio.sleep(0.01)


@dataclass
class Device:
    """One running drive, and the few operations that tests do on it, by path."""

    name: str
    drive: Drive
    changes: list[Change]

    def node(self, path: str) -> Node | None:
        try:
            return self.drive.replica.resolve(path)
        except NoEntry:
            return None

    def tree(self) -> dict[str, Node]:
        """Every path below the root."""
        found: dict[str, Node] = {}
        folders = [("", ROOT)]
        while folders:
            path, ino = folders.pop()
            for listed in self.drive.replica.list_entries(ino, 0, 1_000_000):
                below = f"{path}/{listed.name}".lstrip("/")
                found[below] = listed.node
                if listed.node.kind is Kind.DIRECTORY:
                    folders.append((below, listed.node.ino))
        return found

    async def contents(self) -> dict[str, bytes]:
        return {path: await self.read(path) for path, node in self.tree().items() if node.kind is Kind.FILE}

    async def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        file = self.drive.files.open(self.drive.replica.resolve(path).ino, writable=False)
        try:
            return await file.read(offset, file.size if size is None else size)
        finally:
            await file.flush()
            file.release()

    async def write(self, path: str, data: bytes, offset: int | None = None) -> Node:
        """Like `open(O_CREAT | O_TRUNC), write, close`; with an offset without the truncation."""
        node = self.node(path)
        if node is None:
            parent, name = self._split(path)
            node = self.drive.replica.create(parent, name, Kind.FILE, mode=0o644, uid=None, gid=None)
        file = self.drive.files.open(node.ino, writable=True, truncate=offset is None)
        try:
            if data:
                await file.write(offset or 0, data)
            now = SystemClock().wall_ns()  # the kernel owns the times of a file that is written, and tells before it flushes
            self.drive.replica.set_attributes(node.ino, AttributeUpdate(mtime_ns=now, ctime_ns=now))
            await file.flush()
        finally:
            file.release()
        return self.drive.replica.resolve(path)

    def make_folder(self, path: str) -> Node:
        parent, name = self._split(path)
        return self.drive.replica.create(parent, name, Kind.DIRECTORY, mode=0o755, uid=None, gid=None)

    def remove(self, path: str) -> None:
        parent, name = self._split(path)
        node = self.drive.replica.lookup(parent, name)
        (self.drive.replica.rmdir if node.kind is Kind.DIRECTORY else self.drive.replica.unlink)(parent, name)

    def rename(self, old: str, new: str, mode: RenameMode = RenameMode.REPLACE) -> None:
        self.drive.replica.rename(*self._split(old), *self._split(new), mode)

    async def sync(self) -> SyncReport:
        report = await self.drive.sync(PATIENCE)
        assert report.complete, report
        return report

    def _split(self, path: str) -> tuple[int, str]:
        folder, _, name = path.rpartition("/")
        return self.drive.replica.resolve(folder).ino, name


class Home:
    """Where a device keeps its state, and who it is: started again it goes on as the same device."""

    def __init__(self, folder: Path, url: str, login: Login, options: DriveOptions = QUICK) -> None:
        folder.mkdir(exist_ok=True)
        self.paths = HomePaths.under(folder)
        self.url = url
        self.login = login
        self.options = options

    @asynccontextmanager
    async def started(self, **changed: object) -> AsyncIterator[Device]:
        """The drive, running. At the end it is dropped as if the process had been killed; `drive.stop()` is for the test."""
        token = FixedToken(self.login.tokens.access_token)
        options = replace(self.options, **changed)  # type: ignore[arg-type]
        async with HttpService(Endpoint.parse(self.url), token) as service, trio.open_nursery() as nursery:
            drive = Drive(
                self.paths,
                service,
                options,
                space=self.login.account.space,
                device=self.login.device.name,
                rates=service.meter.rates,
            )
            device = Device(self.login.device.name, drive, [])
            drive.subscribe(device.changes.extend)
            await nursery.start(drive.run)
            yield device
            assert (await drive.fsck(repair=False)).problems == ()
            nursery.cancel_scope.cancel()
