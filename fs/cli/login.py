"""What commands have in common that speak to a service with an e-mail address and a password: their options, and asking."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from fs.cli.output import ExitCode, fail

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from remote.credentials import Credentials
    from remote.endpoint import Endpoint

    M = TypeVar("M", bound=BaseModel)

PASSWORD_VARIABLE = "ALOFT_PASSWORD"
NEW_PASSWORD_VARIABLE = "ALOFT_NEW_PASSWORD"

Server = Annotated[str | None, typer.Option("--server", metavar="URL", help="Address of the service.", show_default=False)]
Email = Annotated[str | None, typer.Option("--email", metavar="E", help="The account's e-mail address.", show_default=False)]
CertificateAuthority = Annotated[Path | None, typer.Option("--ca", metavar="F", help="PEM file of an authority to trust, too.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow http:// to other machines: everybody can listen.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin.")]


def find_endpoint(server: str | None, ca: Path | None, insecure: bool, last: Credentials | None) -> Endpoint:
    """The service that is named, or that of the last log-in."""
    from remote.endpoint import Endpoint

    if server is None and last is not None:
        server, ca, insecure = last.server, ca or (Path(last.ca) if last.ca else None), insecure or last.insecure
    return Endpoint.parse(needed(server, "--server URL"), ca=ca, insecure=insecure)


def needed(value: str | None, option: str) -> str:
    if not value:
        fail(f"give {option}", ExitCode.USAGE)
    return value


def ask_password(from_stdin: bool, *, what: str = "Password", variable: str = PASSWORD_VARIABLE, confirm: bool = False) -> str:
    """From the next line of stdin, the environment, or the person at the terminal."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    given = os.environ.get(variable)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        fail(f"no password: give --password-stdin, or set ${variable}, or run this in a terminal", ExitCode.USAGE)
    return str(typer.prompt(what, hide_input=True, confirmation_prompt=confirm, err=True))


def ask_new_password(from_stdin: bool) -> str:
    return ask_password(from_stdin, what="New password", variable=NEW_PASSWORD_VARIABLE, confirm=True)


def checked(model: type[M], **fields: Any) -> M:
    """A request for the service, or the usage error that says which option is wrong."""
    from pydantic import ValidationError

    try:
        return model(**fields)
    except ValidationError as error:
        _refuse(error)


def _refuse(error: ValidationError) -> NoReturn:
    """Says what is wrong, and never what was typed: it may be a password."""
    detail = error.errors(include_input=False, include_url=False)[0]
    where = " ".join(str(part).replace("_", " ") for part in detail["loc"])
    what = "is not an e-mail address" if where == "email" else detail["msg"].replace("String should", "should")
    fail(f"the {where} {what}", ExitCode.USAGE)
