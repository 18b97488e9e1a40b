"""Asking the mount process of this home, with what is shown while it takes its time; and the service past it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fs.cli.login import find_endpoint
from fs.cli.output import ExitCode, fail
from fs.cli.wording import counted

if TYPE_CHECKING:
    from fs.control import Json
    from fs.home import Home
    from remote.http import HttpService

TOKEN_VARIABLE = "ALOFT_TOKEN"
SERVER_VARIABLE = "ALOFT_SERVER"


def ask(home: Home, command: str, arguments: Json | None = None, *, on_progress: Callable[[Json], None] | None = None) -> Json:
    """The mount process's answer; the command fails if there is none."""
    from fs.control import ControlError, NoMountProcess, call

    try:
        return call(home.control_socket, command, arguments, on_progress=on_progress)
    except NoMountProcess as error:
        fail(str(error), ExitCode.NOT_MOUNTED)
    except ControlError as error:
        fail(str(error))


def tell(home: Home, command: str) -> None:
    """Let the mount process know of something, if there is one."""
    from fs.control import ControlError, NoMountProcess, call

    with suppress(NoMountProcess, ControlError):
        call(home.control_socket, command)


def logged_in_service() -> HttpService:
    """The service, as the device that this home is; to be closed."""
    from fs.home import open_home
    from remote.credentials import CredentialStore
    from remote.http import open_service

    return open_service(CredentialStore(open_home().credentials))


def files_service() -> HttpService:
    """The service for what works without a mount: as this home's device, or by the token in $ALOFT_TOKEN; to be closed."""
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        return logged_in_service()
    from fs.home import open_home
    from fs.session import Session
    from remote.http import HttpService
    from remote.tokens import FixedToken

    server = os.environ.get(SERVER_VARIABLE) or None
    last = Session(open_home()).last()
    if server is None and last is None:
        fail(f"set ${SERVER_VARIABLE} to the address of the service", ExitCode.USAGE)
    return HttpService(find_endpoint(server, None, False, last), FixedToken(token))


def ask_with_progress(home: Home, command: str, arguments: Json, *, json: bool) -> Json:
    """For what takes as long as its uploads: with a progress bar, on a terminal."""
    if json or not sys.stderr.isatty():
        return ask(home, command, arguments)
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        return ask(home, command, arguments, on_progress=_shown_in(bar, bar.add_task("Uploading", total=None)))


def _shown_in(bar: Any, task: Any) -> Callable[[Json], None]:
    """The total is the most that was ever seen waiting: it grows when programs write more."""
    most = 0

    def show(progress: Json) -> None:
        nonlocal most
        most = max(most, progress["bytes"])
        waiting = counted(progress["files"] + progress["changes"], "change") + " to go"
        what = waiting if progress["connection"] == "online" else f"{waiting} ({progress['connection']})"
        bar.update(task, description=what, total=most or None, completed=most - progress["bytes"])

    return show


def inside(paths: Sequence[Path]) -> list[str]:
    """Absolute paths for the mount process, which cannot ask its own folder: links that lead into the drive are followed
    here, those at the end are what is meant."""
    return [
        str(path.absolute().parent.resolve() / path.name) if path.name not in ("", "..") else str(path.resolve())
        for path in paths
    ]
