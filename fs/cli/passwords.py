"""`aloft password`: change it, or get back in after it was forgotten."""

from __future__ import annotations

from typing import Annotated

import typer

from fs.cli.accounts import PANEL
from fs.cli.asking import logged_in_service
from fs.cli.login import (
    CertificateAuthority,
    Email,
    Insecure,
    PasswordStdin,
    Server,
    ask_new_password,
    ask_password,
    checked,
    find_endpoint,
    needed,
)
from fs.cli.output import JsonOption, emit


def add_to(app: typer.Typer) -> None:
    password = typer.Typer(help="Change the password, or replace a forgotten one.", no_args_is_help=True)
    password.command("change")(change)
    password.command("forgotten")(forgotten)
    password.command("new")(new)
    app.add_typer(password, name="password", rich_help_panel=PANEL)
    app.command("passwd", hidden=True)(change)


def change(
    log_out_others: Annotated[
        bool, typer.Option("--log-out-others", help="Log all other devices and all tokens out: somebody may know the old one.")
    ] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the present and the new one from two lines of stdin.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Change the password of the account that is logged in here.

    Both are asked for, or read from stdin (--password-stdin), or $ALOFT_PASSWORD and $ALOFT_NEW_PASSWORD.
    """
    import trio

    from remote.accountapi import PasswordChange
    from remote.myaccount import MyAccount

    present = ask_password(password_stdin, what="Present password")
    request = checked(
        PasswordChange, password=present, new_password=ask_new_password(password_stdin), log_out_others=log_out_others
    )

    async def ask() -> None:
        async with logged_in_service() as service:
            await MyAccount(service).change_password(request)

    trio.run(ask)
    others = " All other devices and tokens are logged out." if log_out_others else ""
    emit({"changed": True, "logged_out_others": log_out_others}, f"The password is changed.{others}", json)


def forgotten(
    server: Server = None,
    email: Email = None,
    ca: CertificateAuthority = None,
    insecure: Insecure = False,
    json: JsonOption = False,
) -> None:
    """Have a code sent by e-mail, for `aloft password new`. What is not given is as at the last log-in here."""
    import trio

    from fs.home import open_home
    from fs.session import Session
    from remote.accountapi import ForgottenPassword
    from remote.accounts import Accounts

    last = Session(open_home()).last()
    endpoint = find_endpoint(server, ca, insecure, last)
    email = needed(email or (last.account.email if last is not None else None), "--email E")
    trio.run(Accounts(endpoint).forgotten_password, checked(ForgottenPassword, email=email))
    says = f"If there is an account of {email}, an e-mail with a code is on its way. Next: aloft password new --code CODE"
    emit({"asked": email}, says, json)


def new(
    code: Annotated[str, typer.Option("--code", metavar="CODE", help="From the e-mail, or from the administrator.")],
    server: Server = None,
    ca: CertificateAuthority = None,
    insecure: Insecure = False,
    password_stdin: PasswordStdin = False,
    json: JsonOption = False,
) -> None:
    """Replace a forgotten password. All devices and tokens of the account are logged out.

    The new one is asked for, or read from stdin (--password-stdin) or $ALOFT_NEW_PASSWORD.
    """
    import trio

    from fs.home import open_home
    from fs.session import Session
    from remote.accountapi import NewPassword
    from remote.accounts import Accounts

    endpoint = find_endpoint(server, ca, insecure, Session(open_home()).last())
    request = checked(NewPassword, code=code, new_password=ask_new_password(password_stdin))
    trio.run(Accounts(endpoint).new_password, request)
    emit({"changed": True}, "The password is changed, and all devices are logged out. Next: aloft login", json)
