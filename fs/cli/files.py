"""Commands about what is kept here and when the drive works: pin, unpin, evict, offline, online, pause, resume, cache, fsck,
confirm-deletes, undo-deletes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.asking import ask, inside
from fs.cli.output import ExitCode, JsonOption, emit, fail
from fs.cli.wording import counted, human_size

if TYPE_CHECKING:
    from fs.control import Json
    from fs.home import Home

PANEL_FILES = "Files"
PANEL = "Drive"

Paths = Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files or folders in the drive.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    app.command("pin", rich_help_panel=PANEL_FILES)(pin)
    app.command("unpin", rich_help_panel=PANEL_FILES)(unpin)
    app.command("evict", rich_help_panel=PANEL_FILES)(evict)
    app.command("cache", rich_help_panel=PANEL_FILES)(cache)
    app.command("offline", rich_help_panel=PANEL)(offline)
    app.command("online", rich_help_panel=PANEL)(online)
    app.command("pause", rich_help_panel=PANEL)(pause)
    app.command("resume", rich_help_panel=PANEL)(resume)
    app.command("fsck", rich_help_panel=PANEL)(fsck)
    app.command("confirm-deletes", rich_help_panel=PANEL)(confirm_deletes)
    app.command("undo-deletes", rich_help_panel=PANEL)(undo_deletes)


def pin(paths: Paths, json: JsonOption = False) -> None:
    """Keep files and folders on this device, also what appears in them later."""
    _about_paths("pin", paths, "Kept on this device", json=json)


def unpin(paths: Paths, json: JsonOption = False) -> None:
    """Let what was pinned be evicted again."""
    _about_paths("unpin", paths, "No longer pinned", json=json)


def evict(paths: Paths, json: JsonOption = False) -> None:
    """Free the space that contents take here, as far as the server has them."""
    _about_paths("evict", paths, "Freed", json=json)


def offline(json: JsonOption = False) -> None:
    """Stop using the network until `aloft online`; what is cached or pinned still opens."""
    _simple("offline", "Offline: what is not on this device cannot be read until `aloft online`", json=json)


def online(json: JsonOption = False) -> None:
    """Use the network again."""
    _simple("online", "Online: changes go up and come down by themselves", json=json)


def pause(json: JsonOption = False) -> None:
    """Stop uploads and remote changes for now; reading still works."""
    _simple("pause", "Paused, until `aloft resume`", json=json)


def resume(json: JsonOption = False) -> None:
    """Go on after `aloft pause`."""
    _simple("resume", "Going on", json=json)


def confirm_deletes(json: JsonOption = False) -> None:
    """Let the many deletions happen that the drive stopped at (see `aloft status`)."""
    _simple("confirm-deletes", "The deletions go on", json=json)


def undo_deletes(json: JsonOption = False) -> None:
    """Bring back what the drive stopped from being deleted (see `aloft status`)."""
    _simple("undo-deletes", "The deletions are undone", json=json)


def cache(json: JsonOption = False) -> None:
    """How much the chunk cache holds."""
    from fs.home import open_home

    use = ask(open_home(), "status")["drive"]["cache"]
    emit(use, f"{human_size(use['used'])} of {human_size(use['limit'])} used, {human_size(use['pinned'])} pinned", json)


def fsck(
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be put right without losing anything.")] = False,
    json: JsonOption = False,
) -> int:
    """Check all that is kept on this device; works with and without a mount."""
    from fs.home import open_home

    home = open_home()
    mounted = home.mount_process() is not None
    report = ask(home, "fsck", {"repair": repair}) if mounted else _fsck_unmounted(home, repair)
    emit(report, lambda: _render_fsck(report), json)
    return ExitCode.OK if report["clean"] else ExitCode.FAILED


def _fsck_unmounted(home: Home, repair: bool) -> Json:
    from fs.background import MountFailed
    from fs.daemon import check_unmounted

    try:
        return check_unmounted(home, repair=repair)
    except MountFailed as error:
        fail(str(error))


def _render_fsck(report: Json) -> str:
    lines = [
        f"{'repaired' if problem['repaired'] else 'WRONG'}: {problem['rule']}: {problem['detail']}"
        for problem in report["problems"]
    ]
    looked_at = ", ".join(counted(report[what], what[:-1]) for what in ("inodes", "drafts", "manifests", "chunks"))
    lines.append(f"Checked {looked_at}: " + ("all is well" if report["clean"] else "see above; `aloft fsck --repair` may help"))
    return "\n".join(lines)


def _simple(command: str, text: str, *, json: bool) -> None:
    from fs.home import open_home

    emit(ask(open_home(), command), text, json)


def _about_paths(command: str, paths: list[Path], text: str, *, json: bool) -> None:
    from fs.home import open_home

    answer = ask(open_home(), command, {"paths": inside(paths)})
    emit(answer, f"{text}: {', '.join(map(str, paths))}", json)
