"""`aloft serve`: the service, embedded. The only client code that imports it, and only when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.output import ExitCode, JsonOption, emit, fail, print_json, say

if TYPE_CHECKING:
    from remote.server.config import ServerConfig


Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings of the service, as for `aloft serve`.")]
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The service's data (default: as for `aloft serve`).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")]
DatabaseUrl = Annotated[str | None, typer.Option("--database", metavar="URL", help="As for `aloft serve`.")]


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
    check: Annotated[
        bool,
        typer.Option("--check", help="Try out configuration, database, object store, clock and TLS, say what to mend, and end."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run the service: accounts, metadata and objects, in one folder if nothing else is said. Stops at Ctrl-C or SIGTERM."""
    from remote.server.app import CannotListen, run
    from remote.server.folder import DataFolderError
    from remote.server.logs import configure
    from remote.server.objects.opening import master_key_of
    from remote.server.objects.store import BadStoreSettings

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
    settings = load_settings(config, given)
    for file in (settings.tls_cert, settings.tls_key):
        if file is not None and not file.is_file():
            fail(f"there is no file {file}", ExitCode.USAGE)
    configure(settings.log_format)
    if check:
        check_settings(settings, json)
        return
    folder = settings.data.absolute()
    key = master_key_of(settings).absolute() if settings.s3 is None and settings.objects.encrypt else None

    def say_where(url: str) -> None:
        says = f"The service listens on {url}, its data is in {folder}"
        if key is not None:
            says += f"\nIts objects are encrypted: keep a copy of {key} elsewhere, because nothing else opens them"
        emit({"url": url, "data": folder, "master_key": key}, says, json)
        sys.stdout.flush()

    try:
        run(settings, on_ready=say_where)
    except (DataFolderError, BadStoreSettings) as error:
        fail(str(error))
    except CannotListen as error:
        fail(f"cannot listen on {settings.host}, port {settings.port}: {error}; choose another --host or --port")


def load_settings(config: Path | None, given: Mapping[str, object]) -> ServerConfig:
    """What the file, the environment and the options (None: not given) say; the command fails if that cannot be."""
    import platformdirs

    from remote.server.settings import BadSettings, load_config

    try:
        return load_config(config, os.environ, given, default_data=platformdirs.user_data_path("aloft-service"))
    except BadSettings as error:
        fail(str(error), ExitCode.USAGE)


def check_settings(settings: ServerConfig, json: bool) -> None:
    """Print what `--check` finds, as it finds it. Exit code 1 if the service cannot be relied upon."""
    from remote.server.examine import examine
    from remote.server.findings import State

    findings = []
    for finding in examine(settings):
        findings.append(finding)
        if not json:
            say(f"{finding.state:8}{finding.subject}: {finding.says}")
            if finding.mend is not None:
                say(f"{'':8}to mend: {finding.mend}")
    failures = sum(finding.state is State.FAILED for finding in findings)
    if json:
        print_json({"ok": not failures, "findings": [asdict(finding) for finding in findings]})
    if failures:
        raise typer.Exit(ExitCode.FAILED)
