"""`aloft serve`: the service, embedded. The only client code that imports it, and only when it runs."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fs.cli.output import ExitCode, JsonOption, emit, fail


class Registration(StrEnum):
    OPEN = "open"
    INVITE = "invite"
    CLOSED = "closed"


def add_to(app: typer.Typer) -> None:
    app.command("serve", rich_help_panel="Service")(serve)


def serve(
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings (TOML); those given here come before them.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="All state (default: in the platform's data folder).")
    ] = None,
    database: Annotated[
        str | None, typer.Option("--database", metavar="URL", help="postgresql://USER@HOST/NAME (default: SQLite, in --data).")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port to listen on (default: 8427); 0: any free one.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", metavar="F", help="PEM certificate; with --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="F", help="PEM key; with --tls-cert.")] = None,
    public_url: Annotated[
        str | None, typer.Option("--public-url", metavar="U", help="Address by which clients reach the objects.")
    ] = None,
    registration: Annotated[
        Registration | None, typer.Option("--registration", help="Who may create accounts (default: open).")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run the service: accounts, metadata and objects in one folder. Stops at Ctrl-C or SIGTERM."""
    import logging

    import platformdirs

    from remote.server.app import CannotListen, run
    from remote.server.folder import DataFolderError
    from remote.server.objects.store import BadStoreSettings
    from remote.server.settings import BadSettings, load_config

    given = {
        "data": data,
        "database": database,
        "host": host,
        "port": port,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "public_url": public_url,
        "registration": registration,
    }
    try:
        settings = load_config(config, os.environ, given, default_data=platformdirs.user_data_path("aloft-service"))
    except BadSettings as error:
        fail(str(error), ExitCode.USAGE)
    for file in (settings.tls_cert, settings.tls_key):
        if file is not None and not file.is_file():
            fail(f"there is no file {file}", ExitCode.USAGE)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)

    folder = settings.data.absolute()

    def say_where(url: str) -> None:
        emit({"url": url, "data": folder}, f"The service listens on {url}, its data is in {folder}", json)
        sys.stdout.flush()

    try:
        run(settings, on_ready=say_where)
    except (DataFolderError, BadStoreSettings) as error:
        fail(str(error))
    except CannotListen as error:
        fail(f"cannot listen on {settings.host}, port {settings.port}: {error}; choose another --host or --port")
