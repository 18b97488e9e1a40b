"""What the commands print, and how they end: human or JSON output, one-line errors, exit codes.

A command calls `emit` for its result and `fail` when it cannot go on. Whatever else is raised is turned into a message
and a code here, once, by `report`. Knows the other layers' exceptions, and nothing of what the commands do.
"""

from __future__ import annotations

import json as json_module
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Any, NoReturn

import typer


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_SAFE = 3
    NOT_LOGGED_IN = 4
    UNREACHABLE = 5
    NOT_MOUNTED = 6


EXIT_CODES: Mapping[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed; the line on stderr says why and what to do",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.NOT_SAFE: "not everything is safe on the server yet",
    ExitCode.NOT_LOGGED_IN: "not logged in, or no longer",
    ExitCode.UNREACHABLE: "the service cannot be reached",
    ExitCode.NOT_MOUNTED: "nothing is mounted",
}

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
"""The type of every command's `json` parameter; its default is False."""


class Failure(Exception):
    """The command cannot go on. `data` goes into the JSON document, beside `error`."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.data = dict(data or {})


def fail(message: str, code: ExitCode = ExitCode.FAILED, **data: Any) -> NoReturn:
    """End the command with one line on stderr that names the next step."""
    raise Failure(message, code, data)


def emit(data: Mapping[str, Any], human: Callable[[], object] | object, json: bool) -> None:
    """Print a result: `data` as one JSON document, or `human`, a renderable of rich (text, a table) or what makes one.

    Ids in `data` may be bytes; they are printed in hexadecimal, as in the protocol.
    """
    if json:
        print_json(data)
        return
    shown = human() if callable(human) else human
    if isinstance(shown, str):
        say(shown)
    elif shown is not None:
        from rich.console import Console

        Console(soft_wrap=not sys.stdout.isatty()).print(shown)


def say(text: str) -> None:
    """A plain line on stdout, exactly as it is."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """A line on stderr, for a person: a hint, a warning; nothing that a script would need."""
    sys.stderr.write(text + "\n")


def printable(text: str) -> str:
    """Text from elsewhere, as a terminal may be shown it: one line, no control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def print_json(data: Mapping[str, Any]) -> None:
    say(json_module.dumps(data, default=_plain, indent=2 if sys.stdout.isatty() else None))


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


# --------------------------------------------------------------------------------------------------------------- errors


@dataclass(frozen=True, slots=True)
class Reported:
    message: str
    code: ExitCode
    data: Mapping[str, Any] = field(default_factory=dict)


def report(error: Exception, *, json: bool) -> int:
    """Tell the person about `error`; returns the exit code."""
    reported = describe(error)
    note(f"aloft: {printable(reported.message)}")
    if json:
        print_json({"error": {"message": reported.message, "code": int(reported.code), **reported.data}})
    return int(reported.code)


def describe(error: Exception) -> Reported:
    """The message and the exit code that belong to an exception; re-raises one that nobody expected."""
    if isinstance(error, Failure):
        return Reported(error.message, error.code, error.data)
    remote = _describe_remote(error)
    if remote is not None:
        return remote
    from cache.errors import NotTransferred
    from fs.home import HomeError
    from fs.session import SessionRefused, UnpushedChanges

    if isinstance(error, UnpushedChanges):
        return Reported(str(error), ExitCode.NOT_SAFE, {"unpushed_changes": error.count})
    if isinstance(error, HomeError | SessionRefused | NotTransferred):
        return Reported(str(error), ExitCode.FAILED)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Reported(f"{where}{error.strerror or error}", ExitCode.FAILED)
    raise error


def _describe_remote(error: Exception) -> Reported | None:
    from remote.api import NotAuthenticated, RemoteError, TooManyDevices, Transient
    from remote.endpoint import BadAddress

    if isinstance(error, BadAddress):
        return Reported(str(error), ExitCode.USAGE)
    if not isinstance(error, RemoteError):
        return None
    text = str(error)
    if isinstance(error, NotAuthenticated):
        hint = "" if "aloft login" in text else ": run `aloft login`"
        return Reported(text.rstrip(".") + hint, ExitCode.NOT_LOGGED_IN)
    if isinstance(error, TooManyDevices):
        devices = [{"id": device.id, "name": device.name, "last_seen_ns": device.last_seen_ns} for device in error.devices]
        names = ", ".join(f"{device.id.hex()[:12]} {device.name}" for device in error.devices)
        hint = f"{text}: {names}. Give `--replace ID` to log one of them out"
        return Reported(hint, ExitCode.FAILED, {"devices": devices})
    if isinstance(error, Transient):
        return Reported(text, ExitCode.UNREACHABLE)
    return Reported(text, ExitCode.FAILED)
