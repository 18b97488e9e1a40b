"""`aloft reconnect`: a person's word to go on after the drive stopped exchanging changes with the server."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fs.cli.asking import ask
from fs.cli.output import JsonOption, emit, fail, note
from fs.cli.wording import counted

PANEL = "Drive"
_STEPS = {
    "service": (
        "Everything is listed anew. What this device has and the server lost is sent again; contents that differ on both "
        "are kept, one of them as a conflicted copy; what was deleted or renamed shortly before comes back under its old name. "
        "Nothing is deleted, here or there, unless somebody deleted it on the server as it is now.",
        "Other devices have to be told the same, each for itself. If the server is not the one that you expect, do not go on.",
    ),
    "home": (
        "What this device missed comes from the server as ever, and what is only here is sent. Contents that differ on both are "
        "kept, one of them as a conflicted copy.",
        "If the same home is in use on another machine, stop it there first: two devices need two homes.",
    ),
}


def add_to(app: typer.Typer) -> None:
    app.command("reconnect", rich_help_panel=PANEL)(reconnect)


def reconnect(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Go on without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what stopped it, and what going on would do.")] = False,
    json: JsonOption = False,
) -> None:
    """Go on after the drive stopped because the server, or this device's own state, is an older one (see `aloft status`)."""
    from fs.home import open_home

    home = open_home()
    found = ask(home, "reconnect", {"go_on": False})
    if found["reason"] is None:
        emit({**found, "reconnected": False}, "Nothing is stopped; there is nothing to do", json)
        return
    steps = " ".join(_STEPS[found["by"]])
    explained = f"Stopped: {found['reason']}.\nThis device knows {counted(found['files'], 'file')}. {steps}"
    if dry_run:
        emit({**found, "reconnected": False, "would": steps}, explained, json)
        return
    if not yes:
        note(explained)
        if not sys.stdin.isatty():
            fail("nothing was changed: there is nobody to ask; give --yes to go on")
        if not typer.confirm("Go on?", err=True):
            fail("nothing was changed; the drive stays stopped")
    found = ask(home, "reconnect", {"go_on": True})
    emit({**found, "reconnected": True}, "Going on: `aloft status` shows what is sent again", json)
