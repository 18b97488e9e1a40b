"""`aloft account`: what the account says of itself, its settings, and its end."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fs.cli.accounts import PANEL
from fs.cli.asking import logged_in_service
from fs.cli.audit import Before, Limit, audit_table
from fs.cli.login import PasswordStdin, ask_password, checked
from fs.cli.output import ExitCode, JsonOption, emit, fail, note, printable
from fs.cli.wording import human_size, moment

if TYPE_CHECKING:
    from rich.table import Table

    from remote.accountapi import AccountChange, AccountInfo, AuditPage


def add_to(app: typer.Typer) -> None:
    account = typer.Typer(help="Show the account and its log, change its settings, or close it.", invoke_without_command=True)
    account.callback()(show_by_default)
    account.command("show")(show)
    account.command("set")(change)
    account.command("log")(log)
    account.command("close")(close)
    app.add_typer(account, name="account", rich_help_panel=PANEL)
    app.command("profile", hidden=True)(show)  # what people type who come from elsewhere
    app.command("close-account", hidden=True)(close)


def show_by_default(context: typer.Context, json: JsonOption = False) -> None:
    if context.invoked_subcommand is None:
        show(json)


def show(json: JsonOption = False) -> None:
    """Show name, e-mail address, last log-in and settings."""
    import trio

    info = trio.run(_ask, None)
    emit(_data(info), functools.partial(_table, info), json)


def change(
    name: Annotated[str | None, typer.Option("--name", metavar="N", help="Your name, as others see it.")] = None,
    language: Annotated[str | None, typer.Option("--language", metavar="TAG", help="Like en or pt-BR.")] = None,
    time_zone: Annotated[str | None, typer.Option("--time-zone", metavar="TZ", help="Like Europe/Berlin.")] = None,
    json: JsonOption = False,
) -> None:
    """Change the name or the settings; what is not given stays."""
    import trio

    from remote.accountapi import AccountChange, SettingsChange

    chosen = {key: value for key, value in (("language", language), ("time_zone", time_zone)) if value is not None}
    request: dict[str, Any] = {} if name is None else {"name": name}
    if chosen:
        request["settings"] = checked(SettingsChange, **chosen)
    if not request:
        fail("nothing was changed: give --name, --language or --time-zone", ExitCode.USAGE)
    info = trio.run(_ask, checked(AccountChange, **request))
    emit(_data(info), functools.partial(_table, info), json)


def close(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Close it without asking.")] = False,
    keep_drafts: Annotated[bool, typer.Option("--keep-drafts", help="Even if changes are only on this device.")] = False,
    password_stdin: PasswordStdin = False,
    json: JsonOption = False,
) -> None:
    """Close the account for good: all devices and tokens are logged out, and what it stored can be reached no more.

    Nobody can undo it. The password is asked for, or read from stdin (--password-stdin) or $ALOFT_PASSWORD.
    """
    import trio

    from fs.home import open_home
    from fs.session import Session

    session = Session(open_home())
    email = session.credentials().account.email
    if not yes:
        if not sys.stdin.isatty():
            fail("nothing was closed: there is nobody to ask; give --yes to close the account")
        note(f"The account of {email} and all that it stored will be gone for good.")
        if not typer.confirm("Close it?", err=True):
            fail("nothing was closed")
    password = ask_password(password_stdin)
    trio.run(functools.partial(session.close_account, password, keep_drafts=keep_drafts))
    emit({"closed": email}, f"The account of {email} is closed.", json)


def log(limit: Limit = 50, before: Before = None, json: JsonOption = False) -> None:
    """Show what was done with the account, or tried: log-ins, devices, tokens, passwords."""
    import trio

    from remote.myaccount import MyAccount

    async def ask() -> AuditPage:
        async with logged_in_service() as service:
            return await MyAccount(service).audit(before, limit)

    page = trio.run(ask)
    emit(page.model_dump(), functools.partial(audit_table, page, of_all=False), json)


async def _ask(request: AccountChange | None) -> AccountInfo:
    from remote.myaccount import MyAccount

    async with logged_in_service() as service:
        account = MyAccount(service)
        return await account.info() if request is None else await account.change(request)


def _data(info: AccountInfo) -> dict[str, Any]:
    return info.model_dump(include={"account", "created_ns", "last_login_ns", "settings", "quota_bytes", "used_bytes"})


def _table(info: AccountInfo) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    for name, value in (
        ("E-mail", info.account.email),
        ("Name", info.account.name),
        ("Created", moment(info.created_ns)),
        ("Last log-in", moment(info.last_login_ns)),
        ("Storage", f"{human_size(info.used_bytes)} of {human_size(info.quota_bytes)}"),
        ("Language", info.settings.language),
        ("Time zone", info.settings.time_zone),
    ):
        table.add_row(name, Text(printable(value)))
    return table
