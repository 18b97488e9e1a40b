"""`aloft token`: personal access tokens, for what uses the API only."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fs.cli.accounts import PANEL
from fs.cli.asking import logged_in_service
from fs.cli.login import CertificateAuthority, Email, Insecure, PasswordStdin, Server, ask_password, checked, find_endpoint
from fs.cli.output import ExitCode, JsonOption, emit, fail, note, printable
from fs.cli.wording import moment

if TYPE_CHECKING:
    from rich.table import Table

    from remote.accountapi import PersonalTokenList
    from remote.myaccount import MyAccount

R = TypeVar("R")

_SCOPES = "files:read, files:write, account:read, account:write"
_DAYS = 90


def add_to(app: typer.Typer) -> None:
    token = typer.Typer(help="Make, list and revoke tokens for programs that use the API.", no_args_is_help=True)
    token.command("create")(create)
    token.command("list")(list_tokens)
    token.command("revoke")(revoke)
    app.add_typer(token, name="token", rich_help_panel=PANEL)


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for, as `aloft token list` shows it.")],
    scope: Annotated[list[str], typer.Option("--scope", metavar="S", help=f"What it may do, once for each: {_SCOPES}.")],
    days: Annotated[int, typer.Option("--days", metavar="N", min=1, help="How long it is good.")] = _DAYS,
    never_expires: Annotated[bool, typer.Option("--never-expires", help="Good until it is revoked.")] = False,
    email: Email = None,
    server: Server = None,
    ca: CertificateAuthority = None,
    insecure: Insecure = False,
    password_stdin: PasswordStdin = False,
    json: JsonOption = False,
) -> None:
    """Make a token, and print it: this once, on stdout.

    It is sent as `Authorization: Bearer TOKEN`. With --email, and a password as for `aloft login`, no device has to be logged in.
    """
    import trio

    from fs.home import open_home
    from fs.session import Session
    from remote.accountapi import TokenLogin, TokenRequest
    from remote.accounts import Accounts

    fields: dict[str, Any] = {"name": name, "scopes": scope, "expires_in_days": None if never_expires else days}
    if email is None:
        made = _ask(lambda account: account.make_personal_token(checked(TokenRequest, **fields)))
    else:
        endpoint = find_endpoint(server, ca, insecure, Session(open_home()).last())
        request = checked(TokenLogin, email=email, password=ask_password(password_stdin), **fields)
        made = trio.run(Accounts(endpoint).login_for_token, request)
    if not json:
        note("Nobody can show this token again:")
    emit(made.model_dump(), made.token, json)


def list_tokens(json: JsonOption = False) -> None:
    """List the tokens that are good."""
    found = _ask(lambda account: account.personal_tokens())
    emit(found.model_dump(), functools.partial(_table, found), json)


def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="The token's id, or its beginning, as listed.")],
    json: JsonOption = False,
) -> None:
    """Revoke a token: its next request is refused."""
    found = [
        known for known in _ask(lambda account: account.personal_tokens()).tokens if known.id.hex().startswith(token.lower())
    ]
    if len(found) != 1:
        fail(f"{'no token has' if not found else 'several tokens have'} the id {token}: see `aloft token list`", ExitCode.USAGE)
    _ask(lambda account: account.revoke_personal_token(found[0].id))
    emit({"revoked": found[0].model_dump()}, f"Revoked {printable(found[0].name)}.", json)


def _ask(call: Callable[[MyAccount], Awaitable[R]]) -> R:
    import trio

    from remote.myaccount import MyAccount

    async def ask() -> R:
        async with logged_in_service() as service:
            return await call(MyAccount(service))

    return trio.run(ask)


def _table(found: PersonalTokenList) -> Table:
    from rich.table import Table
    from rich.text import Text

    title = f"{len(found.tokens)} of {found.limit} tokens"
    table = Table("id", "name", "scopes", "expires", "last used", title=title, title_justify="left")
    for token in found.tokens:
        scopes = " ".join(token.scopes)
        table.add_row(
            token.id.hex()[:12], Text(printable(token.name)), scopes, moment(token.expires_ns), moment(token.last_used_ns)
        )
    return table
