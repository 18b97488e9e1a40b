"""The command `aloft`: puts the command modules together and turns whatever they raise into an exit code.

A command module has `add_to(app)`, which registers its commands, and imports what is heavy (httpx, trio, the service)
inside them, so that `aloft --help` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from fs.cli import (
    accounts,
    admin,
    expire,
    files,
    history,
    links,
    mount,
    notifications,
    passwords,
    profile,
    reconnect,
    remotefiles,
    rewind,
    search,
    serve,
    shares,
    status,
    syncs,
    tier,
    tokens,
    transfers,
    version,
)
from fs.cli.output import EXIT_CODES, ExitCode, note, print_json, report

COMMAND_MODULES = (
    accounts,
    profile,
    passwords,
    tokens,
    tier,
    notifications,
    mount,
    status,
    files,
    reconnect,
    transfers,
    remotefiles,
    search,
    history,
    rewind,
    expire,
    syncs,
    shares,
    links,
    serve,
    admin,
    version,
)
"""In the order in which `aloft --help` shows them."""

_HELP = """A cloud drive that is a folder.

[bold]To begin:[/bold] aloft register --server URL --email E, then aloft mount ~/Aloft

All state of one client is in $ALOFT_HOME (default: the platform's data folder). Two homes are two devices.
"""
_EPILOG = "\n".join(["[bold]Exit codes:[/bold]", *(f"{int(code)}  {text}" for code, text in EXIT_CODES.items())])


def build_app() -> typer.Typer:
    app = typer.Typer(
        name="aloft",
        help=_HELP,
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for module in COMMAND_MODULES:
        module.add_to(app)
    return app


def run(arguments: Sequence[str]) -> int:
    """One command; returns its exit code."""
    json = "--json" in _before_separator(arguments)
    try:
        result = build_app()(args=list(arguments) or ["--help"], prog_name="aloft", standalone_mode=False)
    except typer.TyperException as error:
        return _usage(error, json=json)
    except (typer.Abort, KeyboardInterrupt):
        note("aloft: interrupted")
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain about that once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.FAILED)
    except Exception as error:  # noqa: BLE001 - `report` raises again what nobody expected
        return report(_innermost(error), json=json)
    return result if isinstance(result, int) else int(ExitCode.OK)


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def _usage(error: typer.TyperException, *, json: bool) -> int:
    message = " ".join(error.format_message().split())
    note(f"aloft: {message} (see `aloft --help`, or --help of the command)")
    if json:
        print_json({"error": {"message": message, "code": error.exit_code}})
    return error.exit_code


def _innermost(error: Exception) -> Exception:
    """What trio's nurseries wrapped, if it is one thing."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _before_separator(arguments: Sequence[str]) -> Sequence[str]:
    return arguments[: list(arguments).index("--")] if "--" in arguments else arguments


if __name__ == "__main__":
    main()
