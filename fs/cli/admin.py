"""`aloft admin`: what the administrator of a service does, on the machine where its configuration is."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli import adminstore
from fs.cli.audit import Before, Limit, audit_table
from fs.cli.output import ExitCode, JsonOption, emit, fail, note, printable
from fs.cli.serve import Config, Data, DatabaseUrl, DryRun, load_settings
from fs.cli.wording import human_size, moment

if TYPE_CHECKING:
    from rich.table import Table

    from remote.server.database.accounts import AccountLine


def add_to(app: typer.Typer) -> None:
    admin = typer.Typer(help="Care for a service, while it runs or not: on its machine, with its settings.", no_args_is_help=True)
    admin.command("invite")(invite)
    admin.command("reset-password")(reset_password)
    admin.command("audit")(audit)
    admin.command("users")(users)
    admin.command("recount")(recount)
    admin.command("rotate-keys")(rotate_keys)
    adminstore.add_to(admin)
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


def users(config: Config = None, data: Data = None, database: DatabaseUrl = None, json: JsonOption = False) -> None:
    """List the accounts: tier, what they store, devices, last log-in."""
    from remote.server.folder import DataFolderError
    from remote.server.service import list_accounts

    settings = load_settings(config, {"data": data, "database": database})
    try:
        found = list_accounts(settings)
    except DataFolderError as error:
        fail(str(error))
    emit({"accounts": [asdict(account) for account in found]}, functools.partial(_accounts_table, found), json)


def recount(
    dry_run: DryRun = False,
    config: Config = None,
    data: Data = None,
    database: DatabaseUrl = None,
    json: JsonOption = False,
) -> None:
    """Add up what each account stores, and mend what is written down where that differs. Safe while the service runs."""
    from remote.server.folder import DataFolderError
    from remote.server.service import recount_usage

    settings = load_settings(config, {"data": data, "database": database})
    try:
        wrong = recount_usage(settings, dry_run=dry_run)
    except DataFolderError as error:
        fail(str(error))
    verb = "should be" if dry_run else "is now"
    lines = [f"{email}: {human_size(one.told)} was written down, {verb} {human_size(one.found)}" for email, one in wrong]
    found = [{"email": email, "told": one.told, "found": one.found} for email, one in wrong]
    emit({"wrong": found, "mended": not dry_run}, "\n".join(printable(line) for line in lines) or "all accounts are right", json)


def rotate_keys(
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Only these: tokens, or objects (the embedded store's links)."),
    ] = None,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Drop the old keys now, as after a leak: what they signed is refused.")
    ] = False,
    dry_run: DryRun = False,
    config: Config = None,
    data: Data = None,
    database: DatabaseUrl = None,
    json: JsonOption = False,
) -> None:
    """Make new keys, which sign tokens and links from then on. Safe while the service runs; nobody is logged out.

    Within a quarter of a minute all processes of the service sign with the new keys. The old ones are good until everything
    that they signed has ended, a little more than an hour. With --at-once they are refused within five seconds: devices get
    new tokens by themselves; links that were given out have to be asked for again, and downloads by public links begin anew.
    """
    from remote.server.folder import DataFolderError
    from remote.server.service import rotate_keys as rotate

    settings = load_settings(config, {"data": data, "database": database})
    try:
        rotations = rotate(settings, names, at_once=at_once, dry_run=dry_run)
    except ValueError as error:
        fail(f"--name: {error}", ExitCode.USAGE)
    except DataFolderError as error:
        fail(str(error))
    would = "would sign" if dry_run else "signs"
    lines = []
    for each in rotations:
        old = "is refused from now on" if each.good_until_ns is None else f"is good until {moment(each.good_until_ns)}"
        lines.append(f"{each.name}: a new key {would} from {moment(each.signs_from_ns)}; what others signed {old}")
    emit({"keys": [asdict(each) for each in rotations], "at_once": at_once, "dry_run": dry_run}, "\n".join(lines), json)


def _accounts_table(found: Sequence[AccountLine]) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for title in ("e-mail", "name", "tier", "stored", "devices", "created", "last log-in"):
        table.add_column(title, justify="right" if title in ("stored", "devices") else "left", overflow="fold")
    for account in found:
        table.add_row(
            printable(account.email),
            printable(account.name),
            account.tier,
            human_size(account.used_bytes),
            str(account.devices),
            moment(account.created_ns),
            moment(account.last_login_ns),
        )
    return table
