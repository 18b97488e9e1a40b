"""The mount process: one per home. Holds the home's lock, puts drive, mount and control socket together, and ends cleanly.

Started by `fs.background`, or in the foreground by the command itself. SIGTERM and SIGINT unmount and never wait for uploads:
those go on at the next mount.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from fs.background import MountFailed
from fs.control import ControlServer
from fs.home import Home, HomeError, open_home
from fs.mount import Mount
from fs.mountpoints import MountPointError
from fs.options import MountRequest
from fs.requests import Requests
from remote.memory import give_back_freed_memory

if TYPE_CHECKING:
    from cache.drive import Drive, DriveOptions
    from fs.desktop import Desktop
    from fs.reporting import Reporting
    from remote.http import HttpService

log = logging.getLogger("fs.daemon")  # also when it is run as __main__

LOG_BYTES = 4 * 2**20
LOG_FILES = 3
_LAST_ANSWERS_SECONDS = 1.0


def run_here(home: Home, request: MountRequest, ready: Callable[[], None]) -> None:
    """Be the mount process, until it is unmounted. `MountFailed` if it cannot begin, or ended by a failure."""
    try:
        give_back_freed_memory()
        with home.locked(request.mount.mount_point):
            trio.run(_serve, home, request, ready)
    except Exception as error:
        failure = _describe(error)
        if failure is None:
            log.exception("the mount process failed")
            raise MountFailed(f"{type(error).__name__}: {error}; see {home.log}", "internal") from error
        raise failure from error


def check_unmounted(home: Home, *, repair: bool) -> dict[str, Any]:
    """`aloft fsck` on a home without a mount process; nobody may start one meanwhile."""
    from cache import fsck
    from cache.store.database import DatabaseUnusable

    try:
        with home.locked():
            report = trio.run(partial(fsck.check_home, home.parts(), repair=repair))
    except DatabaseUnusable as error:
        raise MountFailed(str(error)) from error
    return {**asdict(report), "clean": report.clean}


def _describe(error: BaseException) -> MountFailed | None:
    """What a person is told; None for what nobody expected."""
    from cache.disk import as_disk_error
    from cache.errors import CacheError
    from cache.store.database import DatabaseUnusable
    from remote.api import NotAuthenticated, RemoteError

    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, NotAuthenticated):
        return MountFailed(str(error), "not logged in")
    if isinstance(error, HomeError | MountPointError | DatabaseUnusable | CacheError | RemoteError):
        return MountFailed(str(error))
    refused = as_disk_error(error)
    return None if refused is None else MountFailed(str(refused))


# --------------------------------------------------------------------------------------------------------- the process


async def _serve(home: Home, request: MountRequest, ready: Callable[[], None]) -> None:
    from cache.drive import Drive, DriveOptions
    from fs.desktop import Desktop
    from fs.reporting import Reporting
    from fs.session import Session
    from remote.notices import Notices
    from remote.syncs import Syncs

    credentials, options = Session(home).credentials(), DriveOptions(**request.drive)
    async with _open_service(home, options) as service:
        drive = Drive(
            home.parts(options.cache_folder),
            service,
            options,
            space=credentials.account.space,
            device=credentials.device.name,
            rates=service.meter.rates,
        )
        mount = Mount(drive, request.mount)
        requests = Requests(drive, mount, request.mount)
        control = ControlServer(home.control_socket, requests.handlers())
        reporting, desktop = Reporting(drive, Syncs(service)), Desktop(drive, Notices(service), home.shown)
        await _serve_from(drive, mount, requests, control, reporting, desktop, ready)
    log.info("unmounted")


async def _serve_from(
    drive: Drive,
    mount: Mount,
    requests: Requests,
    control: ControlServer,
    reporting: Reporting,
    desktop: Desktop,
    ready: Callable[[], None],
) -> None:
    """The drive runs for as long as there is a mount, whatever fails beside it: the kernel brings dirty pages until the end."""
    async with trio.open_nursery() as outer:
        await outer.start(drive.run)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_end_on_signal, nursery, mount, requests)
                control.listen()
                nursery.start_soon(control.run)
                nursery.start_soon(_unmount_when_cancelled, mount)
                nursery.start_soon(_beside, reporting.run)
                nursery.start_soon(_beside, desktop.run)
                with trio.CancelScope(shield=True):  # only the kernel ends a session: else dirty pages would be lost
                    await mount.run(ready)
                await requests.wait_unmounted()
                await _beside(reporting.tell_the_end)
                await control.drain(_LAST_ANSWERS_SECONDS)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await drive.stop()


async def _beside(work: Callable[[], Awaitable[None]]) -> None:
    """What nothing depends on: if it fails, the mount goes on without it."""
    try:
        await work()
    except Exception:
        log.exception("%s failed; the mount goes on without it", work)


def _open_service(home: Home, options: DriveOptions) -> HttpService:
    from remote.credentials import CredentialStore
    from remote.http import open_service
    from remote.link import RateLimit

    return open_service(
        CredentialStore(home.credentials),
        upload_limit=RateLimit(options.upload_limit),
        download_limit=RateLimit(options.download_limit),
    )


async def _end_on_signal(nursery: trio.Nursery, mount: Mount, requests: Requests) -> None:
    """The second signal is from somebody who insists, although programs still have files open."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            log.info("%s: unmounting", signal.Signals(number).name)
            requests.hurry()
            nursery.start_soon(mount.unmount)
            break
        async for _ in signals:
            mount.terminate()


async def _unmount_when_cancelled(mount: Mount) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await mount.unmount()


def _log_to(path: Path) -> None:
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request with its whole address
    logging.getLogger("httpcore").setLevel(logging.WARNING)


def main() -> int:
    """What `start_in_background` runs: the request on stdin, the descriptor for the report as the only argument."""
    report = os.fdopen(int(sys.argv[1]), "w")

    def tell(message: dict[str, Any]) -> None:
        if not report.closed:
            report.write(json.dumps(message) + "\n")
            report.close()

    os.umask(0o077)  # for our own files; what programs create in the folder has their umask, which the kernel applies
    faulthandler.enable()
    request = MountRequest.from_json(sys.stdin.read())
    try:
        home = open_home()
        _log_to(home.log)
        run_here(home, request, lambda: tell({"ready": True}))
    except MountFailed as failure:
        log.error("%s", failure)
        tell({"error": str(failure), "kind": failure.kind})
        return 1
    except HomeError as error:
        tell({"error": str(error), "kind": "failed"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
