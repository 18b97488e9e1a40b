"""`aloft admin`: what the administrator of a service does, on the machine where its configuration is."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from fs.cli.audit import Before, Limit, audit_table
from fs.cli.output import JsonOption, emit, fail, note
from fs.cli.serve import load_settings

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings of the service, as for `aloft serve`.")]
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The service's data (default: as for `aloft serve`).")]
DatabaseUrl = Annotated[str | None, typer.Option("--database", metavar="URL", help="As for `aloft serve`.")]


def add_to(app: typer.Typer) -> None:
    admin = typer.Typer(help="Care for a service, while it runs or not: on its machine, with its settings.", no_args_is_help=True)
    admin.command("invite")(invite)
    admin.command("reset-password")(reset_password)
    admin.command("audit")(audit)
    app.add_typer(admin, name="admin", rich_help_panel="Service")


def invite(config: Config = None, data: Data = None, database: DatabaseUrl = None, json: JsonOption = False) -> None:
    """Print an invitation, good for one registration where `registration` is `invite`."""
    from remote.server.folder import DataFolderError
    from remote.server.service import create_invitation

    settings = load_settings(config, {"data": data, "database": database})
    try:
        code = create_invitation(settings)
    except DataFolderError as error:
        fail(str(error))
    emit({"invitation": code}, code, json)


def reset_password(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="Of the account whose password is forgotten.")],
    config: Config = None,
    data: Data = None,
    database: DatabaseUrl = None,
    json: JsonOption = False,
) -> None:
    """Print a code by which a forgotten password is replaced: once, within half an hour. Nothing changes until it is used.

    Whoever gets it runs `aloft password new --server URL --code CODE`. Be sure that it is the account's owner.
    """
    from remote.server.folder import DataFolderError
    from remote.server.service import create_password_code

    settings = load_settings(config, {"data": data, "database": database})
    try:
        code = create_password_code(settings, email)
    except DataFolderError as error:
        fail(str(error))
    if code is None:
        fail(f"there is no account of {email} in {settings.database_name}")
    if not json:
        note(f"For the owner of {email}: aloft password new --server URL --code CODE")
    emit({"email": email, "code": code}, code, json)


def audit(
    email: Annotated[str | None, typer.Option("--email", metavar="E", help="Of this account only.")] = None,
    action: Annotated[str | None, typer.Option("--action", metavar="A", help="Only these, like device.login.")] = None,
    limit: Limit = 50,
    before: Before = None,
    config: Config = None,
    data: Data = None,
    database: DatabaseUrl = None,
    json: JsonOption = False,
) -> None:
    """Show the audit log of all accounts: who did what, from where, with which result."""
    from remote.server.folder import DataFolderError
    from remote.server.problems import Refused
    from remote.server.service import audit_page

    settings = load_settings(config, {"data": data, "database": database})
    try:
        page = audit_page(settings, email=email, action=action, before=before, limit=limit)
    except (DataFolderError, Refused) as error:
        fail(str(error))
    if page is None:
        fail(f"there is no account of {email} in {settings.database_name}")
    emit(page.model_dump(), functools.partial(audit_table, page, of_all=True), json)
