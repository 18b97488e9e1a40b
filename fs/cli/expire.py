"""`aloft expire`: files and folders that go to the trash at a time."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.history import PANEL
from fs.cli.output import ExitCode, JsonOption, emit, fail, printable
from fs.cli.remotefiles import remote_path, run_with_files
from fs.cli.wording import moment, parse_duration, parse_time

if TYPE_CHECKING:
    from rich.table import Table

    from remote.fileapi import Expiry, ExpiryList
    from remote.files import Files

NEVER = "never"


def add_to(app: typer.Typer) -> None:
    app.command("expire", rich_help_panel=PANEL)(expire)


def expire(
    path: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="A file or folder in the drive.", show_default=False)
    ] = None,
    when: Annotated[
        str | None,
        typer.Argument(metavar="[WHEN]", help="12h, 30d, 2w, 2026-12-24, 2026-12-24T18:00, or never.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Let a file or folder go to the trash at a time; without WHEN, say when it does; without PATH, list all that do.

    It goes with what is in it by then, and whatever was written to it meanwhile. A day before, there is a notification.
    """
    if path is None or when is None:
        found = run_with_files(lambda files: files.expiries(None if path is None else remote_path(path)))
        nothing = "nothing expires" if path is None else f"{printable(remote_path(path))} does not expire"
        emit(found.model_dump(mode="json"), functools.partial(_table, found) if found.expiries else nothing, json)
        return
    wanted = remote_path(path)
    if when == NEVER:
        run_with_files(lambda files: files.forget_expiry(wanted))
        emit({"path": wanted, "expires_ns": None}, f"{printable(wanted)} does not expire any more", json)
        return
    expires_ns = _parse_when(when)

    async def work(files: Files) -> Expiry:
        return await files.set_expiry(wanted, expires_ns)

    chosen = run_with_files(work)
    emit(chosen.model_dump(mode="json"), f"{printable(chosen.path)} goes to the trash at {moment(chosen.expires_ns)}", json)


def _parse_when(text: str) -> int:
    after_ns = parse_duration(text)
    if after_ns is not None:
        return time.time_ns() + after_ns
    try:
        return parse_time(text)
    except ValueError:
        fail(f"WHEN is 12h, 30d, 2w, a time like 2026-12-24T18:00, or never; not {text}", ExitCode.USAGE)


def _table(found: ExpiryList) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("goes to the trash", "what")
    for each in found.expiries:
        table.add_row(moment(each.expires_ns), Text(printable(each.path)))
    return table
