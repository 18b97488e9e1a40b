"""`aloft serve`: the service, embedded. The only client code that imports it, and only when it runs."""

from __future__ import annotations

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
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="All state (default: in the platform's data folder).")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8427,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", metavar="F", help="PEM certificate; with --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="F", help="PEM key; with --tls-cert.")] = None,
    public_url: Annotated[
        str | None, typer.Option("--public-url", metavar="U", help="Address by which clients reach the objects.")
    ] = None,
    registration: Annotated[Registration, typer.Option("--registration", help="Who may create accounts.")] = Registration.OPEN,
    json: JsonOption = False,
) -> None:
    """Run the service: accounts, metadata and objects in one folder. Stops at Ctrl-C or SIGTERM."""
    import logging

    import platformdirs

    from remote.server.app import CannotListen, run
    from remote.server.config import ServerConfig
    from remote.server.folder import DataFolderError

    if (tls_cert is None) != (tls_key is None):
        fail("--tls-cert and --tls-key go together", ExitCode.USAGE)
    for file in (tls_cert, tls_key):
        if file is not None and not file.is_file():
            fail(f"there is no file {file}", ExitCode.USAGE)
    config = ServerConfig(
        data=(data or platformdirs.user_data_path("aloft-service")).absolute(),
        host=host,
        port=port,
        tls_cert=tls_cert,
        tls_key=tls_key,
        public_url=public_url,
        registration=registration.value,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)

    def say_where(url: str) -> None:
        emit({"url": url, "data": config.data}, f"The service listens on {url}, its data is in {config.data}", json)
        sys.stdout.flush()

    try:
        run(config, on_ready=say_where)
    except DataFolderError as error:
        fail(str(error))
    except CannotListen as error:
        fail(f"cannot listen on {host}, port {port}: {error}; choose another --host or --port")
