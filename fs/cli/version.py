"""`aloft version`."""

from __future__ import annotations

import typer

from fs.cli.output import JsonOption, emit


def add_to(app: typer.Typer) -> None:
    app.command("version", rich_help_panel="Service")(show_version)


def show_version(json: JsonOption = False) -> None:
    """Print the version of this program."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("aloft")
    except PackageNotFoundError:
        number = "of a source tree that is not installed"
    emit({"version": number}, f"aloft {number}", json)
