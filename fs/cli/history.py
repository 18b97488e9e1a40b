"""`aloft versions`, `restore` and `trash`: what was replaced or deleted, and how it comes back."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.output import ExitCode, JsonOption, emit, fail, printable
from fs.cli.remotefiles import remote_path, run_with_files
from fs.cli.wording import counted, human_size, moment, parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from remote.fileapi import FileInfo, FormerVersion, Restored, TrashEntry, VersionList
    from remote.files import Files

PANEL = "Versions and trash"
SHORT = 12
"""Digits of a version or an entry that are shown: enough to name it, and more may be given."""

TRASH_HELP = """What was deleted: list it, bring it back, or remove it for good.

In a mount it is shown, too, to be read and copied: look into `.aloft/trash/` at the top of it, which no listing shows.
"""

APath = Annotated[str, typer.Argument(metavar="PATH", help="Of a file in the drive.")]


def add_to(app: typer.Typer) -> None:
    app.command("versions", rich_help_panel=PANEL)(versions)
    app.command("restore", rich_help_panel=PANEL)(restore)
    trash = typer.Typer(help=TRASH_HELP, no_args_is_help=True)
    trash.command("ls")(trash_ls)
    trash.command("restore")(trash_restore)
    trash.command("empty")(trash_empty)
    app.add_typer(trash, name="trash", rich_help_panel=PANEL)


def versions(path: APath, json: JsonOption = False) -> None:
    """List the contents that a file had, the newest first.

    They are kept for as long as the account's tier says (`aloft tier`). `aloft restore` brings one back;
    `aloft get PATH` fetches the newest. In a mount they are files, to be read and copied: look into
    `.aloft/versions/PATH/` at the top of it, which no listing shows.
    """
    found = run_with_files(lambda files: files.versions(remote_path(path)))
    emit(found.model_dump(mode="json"), functools.partial(_versions_table, found), json)


def restore(
    path: APath,
    version: Annotated[
        str | None, typer.Option("--version", metavar="ID", help="As `aloft versions` shows it, or its beginning.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="The content of then, like 2026-11-20T15:30 (local time).")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Let a file hold a former content again: the one before the present one, if none is named.

    The present content stays a version, so this can be undone. What was deleted is brought back by `aloft trash restore`.
    """
    if version is not None and at is not None:
        fail("--version and --at say the same: give one of them", ExitCode.USAGE)
    moment_ns = None if at is None else _parse_at(at)

    async def work(files: Files) -> FileInfo:
        found = await files.versions(remote_path(path))
        return await files.restore_version(remote_path(path), _choose(found, version, moment_ns).version)

    info = run_with_files(work)
    emit(info.model_dump(mode="json"), f"{printable(info.path)} has {human_size(info.size)} again", json)


def trash_ls(json: JsonOption = False) -> None:
    """List what was deleted, the latest first. A folder is one entry, with all that went with it."""
    found = run_with_files(lambda files: files.trash())
    data = {"entries": [entry.model_dump(mode="json") for entry in found]}
    emit(data, functools.partial(_trash_table, found) if found else "the trash is empty", json)


def trash_restore(
    what: Annotated[str, typer.Argument(metavar="PATH|ID", help="Where it was, or its id as `aloft trash ls` shows it.")],
    to: Annotated[str | None, typer.Option("--to", metavar="PATH", help="Put it there instead.")] = None,
    json: JsonOption = False,
) -> None:
    """Bring a deleted file or folder back: to where it was, or beside what is there now."""

    async def work(files: Files) -> Restored:
        entry = _find(await files.trash(), what)
        return await files.restore(entry.id, None if to is None else remote_path(to))

    done = run_with_files(work)
    said = f"{printable(done.file.path)} is back"
    if done.restored > 1:
        said += f", and {counted(done.restored - 1, 'other')} with it"
    if not done.complete:
        said += "; there was more in it, which is in the trash still: `aloft trash ls`"
    emit(done.model_dump(mode="json"), said, json)


def trash_empty(
    what: Annotated[str | None, typer.Argument(metavar="[PATH|ID]", help="Only this entry.", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove what is in the trash for good. Its room comes back within some hours."""
    if not yes:
        question = "all that is in the trash" if what is None else what
        if not typer.confirm(f"Remove {printable(question)} for good?", err=True):
            fail("nothing was removed")

    async def work(files: Files) -> int:
        return await files.empty_trash(None if what is None else _find(await files.trash(), what).id)

    removed = run_with_files(work)
    emit({"removed": removed}, f"{removed} files and folders are gone", json)


def _choose(found: VersionList, version: str | None, at_ns: int | None) -> FormerVersion:
    if version is not None:
        fitting = {each.version: each for each in found.versions if each.version.hex().startswith(version.lower())}
        if len(fitting) != 1:
            many = "more than one version begins so" if fitting else "there is no such version"
            fail(f"{many}: `aloft versions` lists them")
        return next(iter(fitting.values()))
    if at_ns is not None:
        for each in found.versions:
            if each.created_ns <= at_ns:
                return each
        fail("no version is that old, or it is not kept any more: `aloft versions` lists them")
    former = [each for each in found.versions if each.version != found.current]
    if not former:
        fail("there is no former version of this file")
    return former[0]


def _find(entries: Sequence[TrashEntry], what: str) -> TrashEntry:
    path = remote_path(what)
    fitting = [entry for entry in entries if entry.path == path] or [
        entry for entry in entries if len(what) >= 4 and entry.id.hex().startswith(what.lower())
    ]
    if not fitting:
        fail(f"there is no {printable(what)} in the trash: `aloft trash ls` lists what is there")
    return fitting[0]


def _parse_at(text: str) -> int:
    try:
        return parse_time(text)
    except ValueError as error:
        fail(f"--at: {error}", ExitCode.USAGE)


def _versions_table(found: VersionList) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for title in ("version", "size", "since", "until"):
        table.add_column(title, justify="right" if title == "size" else "left")
    for each in found.versions:
        until = "now" if each.replaced_ns is None else moment(each.replaced_ns)
        table.add_row(each.version.hex()[:SHORT], human_size(each.size), moment(each.created_ns), until)
    return table


def _trash_table(found: Sequence[TrashEntry]) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for title in ("id", "deleted", "size", "path"):
        table.add_column(title, justify="right" if title == "size" else "left", overflow="fold")
    for entry in found:
        folder = entry.kind == "directory"
        size = "" if folder else human_size(entry.size)
        table.add_row(entry.id.hex()[:SHORT], moment(entry.deleted_ns), size, printable(entry.path) + ("/" if folder else ""))
    return table
