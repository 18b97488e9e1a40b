"""`aloft devices status`, `aloft conflicts` and `aloft changes`: how far everything is, as the service knows it."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fs.cli.login import checked
from fs.cli.output import ExitCode, JsonOption, emit, fail, printable
from fs.cli.remotefiles import PANEL, remote_path, run_with_files
from fs.cli.wording import counted, human_size, moment, parse_duration, parse_time

if TYPE_CHECKING:
    from rich.table import Table

    from remote.files import Files
    from remote.syncapi import Conflict, ConflictList, DeviceSync, FileChanges, FileHistory, Resolved, SyncStatus
    from remote.syncs import Syncs

R = TypeVar("R")


_KEEPS = ("original", "copy", "both")


def add_to(app: typer.Typer) -> None:
    conflicts = typer.Typer(help="List conflicted copies, or choose what to keep.", invoke_without_command=True)
    conflicts.callback()(list_conflicts_by_default)
    conflicts.command("list")(list_conflicts)
    conflicts.command("resolve")(resolve)
    app.add_typer(conflicts, name="conflicts", rich_help_panel=PANEL)
    app.command("changes", rich_help_panel=PANEL)(changes)


def device_status(
    path: Annotated[
        str | None,
        typer.Argument(metavar="[PATH]", help="A file or folder in the drive: who has its present state.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """What each device has of the drive, and what it has yet to send, as it told the service last."""
    found = _ask(lambda syncs: syncs.status(None if path is None else remote_path(path)))
    emit(found.model_dump(mode="json"), functools.partial(_devices_table, found), json)


def list_conflicts_by_default(context: typer.Context, json: JsonOption = False) -> None:
    if context.invoked_subcommand is None:
        list_conflicts(json)


def list_conflicts(json: JsonOption = False) -> None:
    """List the conflicted copies: where two devices changed a file, and neither had seen the other's change."""
    found = _ask(lambda syncs: syncs.conflicts())
    shown = functools.partial(_conflicts_table, found) if found.conflicts else "there is no conflicted copy"
    emit(found.model_dump(mode="json"), shown, json)


def resolve(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Of the conflicted copy.")],
    keep: Annotated[str, typer.Option("--keep", metavar="WHICH", help=f"{', '.join(_KEEPS)}.")],
    json: JsonOption = False,
) -> None:
    """Keep the original, the copy (in the original's place), or both, the copy under a name of its own.

    What is not kept stays in the trash, or among the versions of the file.
    """
    if keep not in _KEEPS:
        fail(f"--keep is {', '.join(_KEEPS[:-1])} or {_KEEPS[-1]}, not {keep}", ExitCode.USAGE)
    wanted = remote_path(path)

    async def work(syncs: Syncs) -> Resolved:
        from remote.syncapi import ResolveConflict

        found = [conflict for conflict in (await syncs.conflicts()).conflicts if conflict.copied.path == wanted]
        if not found:
            fail(f"{printable(wanted)} is no conflicted copy: `aloft conflicts` lists them")
        return await syncs.resolve(checked(ResolveConflict, keep=keep, **_as_looked_at(found[0])))

    kept = _ask(work)
    emit(kept.model_dump(mode="json"), f"Kept {printable(kept.file.path)}", json)


def changes(
    path: Annotated[
        str | None,
        typer.Argument(metavar="[PATH]", help="What happened to this file, instead of what changed.", show_default=False),
    ] = None,
    since: Annotated[str, typer.Option(metavar="TIME", help="2026-11-20, 2026-11-20T15:30, or 30m, 12h, 3d, 2w ago.")] = "1d",
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Where an earlier answer (--json) ended.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """List what changed in the drive, on any device: what is at each path now. Or what happened to one file."""
    if path is not None:
        history = run_with_files(functools.partial(_history, remote_path(path)))
        emit(history.model_dump(mode="json"), functools.partial(_history_table, history), json)
        return
    found = _ask(functools.partial(_all_changes, since=None if cursor is not None else _parse_since(since), cursor=cursor))
    emit(found.model_dump(mode="json"), "\n".join(_change_lines(found)) or "nothing has changed", json)


def _ask(call: Callable[[Syncs], Awaitable[R]]) -> R:
    async def work(files: Files) -> R:
        from remote.syncs import Syncs

        return await call(Syncs(files.service))

    return run_with_files(work)


async def _history(path: str, files: Files) -> FileHistory:
    from remote.syncs import Syncs

    return await Syncs(files.service).history((await files.metadata(path)).id)


async def _all_changes(syncs: Syncs, since: str | None, cursor: str | None) -> FileChanges:
    page = await syncs.changes(since) if since is not None else await syncs.changes_after(cursor or "")
    latest = {change.path: change for change in page.changes}
    while page.has_more:
        page = await syncs.changes_after(page.cursor)
        latest |= {change.path: change for change in page.changes}
    return page.model_copy(update={"changes": list(latest.values())})


def _as_looked_at(conflict: Conflict) -> dict[str, object]:
    original = None if conflict.original is None else conflict.original.version
    return {"id": conflict.copied.id, "copy_version": conflict.copied.version, "original_version": original}


def _parse_since(text: str) -> str:
    """As the service wants it."""
    ago_ns = parse_duration(text)
    try:
        at_ns = parse_time(text) if ago_ns is None else time.time_ns() - ago_ns
    except ValueError:
        fail(f"--since is a time like 2026-11-20T15:30, or 30m, 12h, 3d, 2w ago, not {text}", ExitCode.USAGE)
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat()


def _change_lines(found: FileChanges) -> list[str]:
    return [f"{'removed' if change.file is None else 'changed'} {printable(change.path)}" for change in found.changes]


def _devices_table(found: SyncStatus) -> Table:
    from rich.table import Table
    from rich.text import Text

    titles = ("name", "state", *(("has it",) if found.file is not None else ()), "waits to be sent", "up to date", "")
    table = Table(*titles)
    for device in found.devices:
        of_file = () if found.file is None else ("yes" if device.file == "completed" else str(device.file),)
        here = "this one" if device.current else ""
        told = moment(device.last_synced_ns)
        table.add_row(Text(printable(device.name)), str(device.state), *of_file, Text(_waiting(device)), told, here)
    return table


def _waiting(device: DeviceSync) -> str:
    parts = []
    if device.waiting_files:
        parts.append(f"{counted(device.waiting_files, 'file')} ({human_size(device.waiting_bytes)})")
    if device.waiting_changes:
        parts.append(counted(device.waiting_changes, "change"))
    parts += [f"{printable(file.path)}: {printable(file.error)}" for file in device.pending if file.error is not None]
    return ", ".join(parts) or "nothing"


def _conflicts_table(found: ConflictList) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("conflicted copy", "of", "size", "changed", "its original")
    for conflict in found.conflicts:
        other = conflict.original
        original = "gone" if other is None else f"{human_size(other.size)}, {moment(other.mtime_ns)}"
        table.add_row(
            Text(printable(conflict.copied.path)),
            Text(printable(conflict.device)),
            human_size(conflict.copied.size),
            moment(conflict.copied.mtime_ns),
            original,
        )
    return table


def _history_table(found: FileHistory) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("when", "what", "size", "by")
    for event in found.events:
        what = "deleted" if event.what == "deleted" else "written"
        by = event.device_name or event.device.hex()[:12]
        table.add_row(moment(event.at_ns), what, human_size(event.size), Text(printable(by)))
    return table
