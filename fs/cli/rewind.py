"""`aloft rewind`: a folder, or everything, as it was at a time."""

from __future__ import annotations

import functools
import re
import time
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.output import ExitCode, JsonOption, emit, fail, note, printable
from fs.cli.remotefiles import remote_path, run_with_files
from fs.cli.wording import counted, moment, parse_duration, parse_time

if TYPE_CHECKING:
    from remote.fileapi import Rewound
    from remote.files import Files

PANEL = "Versions and trash"
SHOWN = 20
"""Paths."""
_NANOSECONDS = re.compile(r"\d{16,19}")


def add_to(app: typer.Typer) -> None:
    app.command("rewind", rich_help_panel=PANEL)(rewind)


def rewind(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A folder in the drive; / is everything.")],
    to: Annotated[
        str, typer.Option("--to", metavar="TIME", help="2h (so long ago), 3d, 2026-11-20, or 2026-11-20T15:30 (local time).")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Make a folder, with all that is in it, what it was at a time.

    What was deleted since comes back, what was moved goes back, what was overwritten has its old content, and what was made
    since goes to the trash. Modes, extended attributes and the times of folders stay as they are. Try it with --dry-run. It
    can be undone: the command for that is printed at the end. Interrupted, it is run again.

    How far back that goes, says the account's tier (`aloft tier`). A single file: `aloft restore --at`.
    """
    wanted, to_ns = remote_path(path), _parse_to(to)
    if dry_run or not yes:
        found = run_with_files(lambda files: files.rewind(wanted, to_ns, dry_run=True))
        if dry_run:
            emit(found.model_dump(mode="json"), functools.partial(_shown, found, f"{printable(wanted)} would be", to_ns), json)
            return
        if not typer.confirm(f"Rewind {printable(wanted)} to {moment(to_ns)}: {_counts(found)}?", err=True):
            fail("nothing was changed")
    done = run_with_files(functools.partial(_rewind, path=wanted, to_ns=to_ns))
    emit(done.model_dump(mode="json"), functools.partial(_shown, done, f"{printable(wanted)} is", to_ns), json)
    if done.undo_ns is not None:
        note(_undo(wanted, done.undo_ns))


async def _rewind(files: Files, path: str, to_ns: int) -> Rewound:
    """All requests that it takes; what was done before one fails can be undone as well."""
    done: Rewound | None = None
    try:
        while done is None or not done.complete:
            answer = await files.rewind(path, to_ns)
            done = answer if done is None else _together(done, answer)
            if not done.complete:
                note(f"{_counts(done)} …")
    except BaseException:
        if done is not None and done.undo_ns is not None:
            note(f"it is not complete: {_counts(done)}. The same command goes on. {_undo(path, done.undo_ns)}")
        raise
    return done


def _together(before: Rewound, answer: Rewound) -> Rewound:
    """What several requests did: each counts what it did itself, and all that is left or gone."""
    counts = {name: getattr(before, name) + getattr(answer, name) for name in ("restored", "moved", "removed", "contents")}
    lasting = ("left", "gone")
    changes = [*(each for each in before.changes if each.what not in lasting), *answer.changes]
    undo_ns = answer.undo_ns if before.undo_ns is None else before.undo_ns
    return answer.model_copy(update={**counts, "changes": changes, "undo_ns": undo_ns})


def _parse_to(text: str) -> int:
    ago_ns = parse_duration(text)
    if ago_ns is not None:
        return time.time_ns() - ago_ns
    if _NANOSECONDS.fullmatch(text.strip()):  # as a rewind says how to undo it: exact
        return int(text)
    try:
        return parse_time(text)
    except ValueError:
        fail(f"--to is 2h, 3d, or a time like 2026-11-20T15:30, not {text}", ExitCode.USAGE)


def _undo(path: str, undo_ns: int) -> str:
    import shlex

    return f"To undo it: aloft rewind {shlex.quote(printable(path))} --to {undo_ns}"


def _counts(found: Rewound) -> str:
    parts = [
        f"{found.restored} restored" if found.restored else "",
        f"{found.moved} moved back" if found.moved else "",
        f"{found.removed} to the trash" if found.removed else "",
        f"{counted(found.contents, 'content')} set back" if found.contents else "",
        f"{found.left} left where they are" if found.left else "",
        f"{found.gone} gone for good" if found.gone else "",
    ]
    return ("" if found.complete else "at least ") + (", ".join(part for part in parts if part) or "nothing changes")


def _shown(found: Rewound, said: str, to_ns: int) -> str:
    lines = [f"{each.what:<8}  {printable(each.path)}" for each in found.changes[:SHOWN]]
    together = found.restored + found.moved + found.removed + found.contents + found.left + found.gone
    if together > len(lines):
        lines.append(f"          and {together - len(lines)} more")
    return "\n".join([*lines, f"{said} as it was at {moment(to_ns)}: {_counts(found)}"])
