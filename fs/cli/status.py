"""`aloft status` and `aloft sync`: what the drive does, and whether everything is safe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.asking import ask, ask_with_progress, inside
from fs.cli.output import ExitCode, JsonOption, emit, print_json
from fs.cli.wording import counted, describe_queue, human_rate, human_size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fs.control import Json
    from fs.home import Home

PANEL = "Drive"
_WATCH_SECONDS = 1.0
_SHOWN = 10
"""Paths that are named to a person; programs get all that the drive tells."""


def add_to(app: typer.Typer) -> None:
    app.command("sync", rich_help_panel=PANEL)(sync)
    app.command("status", rich_help_panel=PANEL)(status)


def sync(
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="S", min=0.0, help="Wait so long also when it cannot go on now (offline, paused).", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Return when everything that was closed or fsynced so far is on the server."""
    from fs.home import open_home

    report = ask_with_progress(open_home(), "sync", {"timeout": timeout}, json=json)
    if report["complete"]:
        emit(report, "Everything is on the server", json)
        return ExitCode.OK
    what = f"{counted(report['files'], 'change')} ({human_size(report['bytes'])})"
    lines = [f"Not on the server yet: {what}: {report['reason'] or 'it is still under way'}"]
    shown = report["waiting"][:_SHOWN]
    lines += [f"  {path}" for path in shown]
    if report["files"] > len(shown):
        lines.append(f"  … and {report['files'] - len(shown)} more")
    emit(report, "\n".join(lines), json)
    return ExitCode.NOT_SAFE


def status(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="[PATH...]", help="Files to say the state of.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C, once a second.")] = False,
    json: JsonOption = False,
) -> None:
    """The connection, what waits, speeds, the cache, counters; and of each PATH: online-only, cached, pinned, draft,
    uploading, conflict or error."""
    from fs.home import open_home

    home = open_home()
    arguments = {"paths": inside(paths or [])}
    if watch:
        _watch(home, arguments, json=json)
        return
    answer = ask(home, "status", arguments)
    emit(answer, lambda: render(answer, of_files=bool(paths)), json)


def _watch(home: Home, arguments: Json, *, json: bool) -> None:
    import time

    if json:
        while True:
            print_json(ask(home, "status", arguments))
            time.sleep(_WATCH_SECONDS)
    from rich.live import Live

    def now() -> RenderableType:
        return render(ask(home, "status", arguments), of_files=bool(arguments["paths"]))

    with Live(now(), auto_refresh=False) as live:
        while True:
            time.sleep(_WATCH_SECONDS)
            live.update(now(), refresh=True)


def render(answer: Json, *, of_files: bool) -> RenderableType:
    """The answer as a person reads it."""
    from rich.table import Table

    if of_files:
        table = Table.grid(padding=(0, 2))
        for file in answer["files"]:
            table.add_row(file["state"], file["path"])
        if answer["more"]:
            table.add_row("", "… and more: name fewer")
        return table
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    for name, value in _rows(answer):
        table.add_row(name, value)
    return table


def _rows(answer: Json) -> list[tuple[str, str]]:
    drive = answer["drive"]
    rows = [
        ("Folder", answer["mount"]["point"] + (" (read-only)" if answer["mount"]["read_only"] else "")),
        ("Connection", _connection(drive)),
        ("To upload", describe_queue(drive["queue"])),
    ]
    rows += [("", _queued(queued)) for queued in drive["queue"]["first"]]
    rows += _warnings(drive)
    if not drive["listing"]["finished"]:
        listing = drive["listing"]
        rows.append(("First listing", f"{listing['entries']} of about {listing['total'] or '?'} entries"))
    speeds, cache, counters = drive["speeds"], drive["cache"], drive["counters"]
    rows += [
        (
            "Link",
            f"up {human_rate(speeds['upload'])} in {counted(speeds['parallel_uploads'], 'transfer')}, "
            f"down {human_rate(speeds['download'])} in {counted(speeds['parallel_downloads'], 'transfer')}",
        ),
        ("Cache", f"{human_size(cache['used'])} of {human_size(cache['limit'])}, {human_size(cache['pinned'])} pinned"),
        ("Account", f"{human_size(drive['used'])} of {human_size(drive['quota'])}" if drive["quota"] else "not known yet"),
        (
            "Since the start",
            f"sent {counted(counters['objects_sent'], 'object')} ({human_size(counters['bytes_sent'])}), "
            f"fetched {counters['objects_fetched']} ({human_size(counters['bytes_fetched'])}), "
            f"reused {counters['objects_reused']}; {counted(counters['commits'], 'commit')}, "
            f"{counted(counters['conflicts'], 'conflict')}",
        ),
    ]
    return rows


def _connection(drive: Json) -> str:
    text = str(drive["connection"])
    why = drive["stopped_because"] or (drive["last_error"] if text == "unreachable" else None)
    if why:
        text += f": {why}"
    if drive["stopped_because"]:
        text += " (`aloft reconnect` says more)"
    return f"{text}, paused" if drive["paused"] else text


def _queued(queued: Json) -> str:
    problem = f": {queued['error']}" if queued["error"] else ""
    return f"{queued['path']} ({human_size(queued['size'])}){problem}"


def _warnings(drive: Json) -> list[tuple[str, str]]:
    rows = [
        (
            "Stopped",
            f"{breaker['files']} of {breaker['of']} files are about to disappear ({breaker['direction']}): "
            "`aloft confirm-deletes` lets them, `aloft undo-deletes` brings them back",
        )
        for breaker in drive["breakers"]
    ]
    rows += [("Failing", f"{failure['task']}: {failure['error']}") for failure in drive["failures"]]
    rows += [("Trying again", why) for why in drive["trying_again"]]
    if drive["fetch_error"]:
        rows.append(("Not fetched", drive["fetch_error"]))
    rows += [("Refused", problem) for problem in drive["problems"]]
    rows += [("Recovered", path) for path in drive["recovered"]]
    return rows
