"""`aloft link`: a file or folder for whoever has the address."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.history import SHORT
from fs.cli.login import ask_password, checked
from fs.cli.output import ExitCode, JsonOption, emit, fail, note, printable
from fs.cli.remotefiles import remote_path, run_with_files
from fs.cli.wording import moment

if TYPE_CHECKING:
    from rich.table import Table

    from remote.files import Files
    from remote.linkapi import NewPublicLink, PublicLink, PublicLinkList

PANEL = "Sharing"
PASSWORD_VARIABLE = "ALOFT_LINK_PASSWORD"
_DAYS = 30


def add_to(app: typer.Typer) -> None:
    link = typer.Typer(help="Make, list and revoke links that anybody can open.", no_args_is_help=True)
    link.command("create")(create)
    link.command("list")(list_links)
    link.command("revoke")(revoke)
    app.add_typer(link, name="link", rich_help_panel=PANEL)


def create(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder in the drive.")],
    days: Annotated[int, typer.Option("--days", metavar="N", min=1, help="How long it is good.")] = _DAYS,
    never_expires: Annotated[bool, typer.Option("--never-expires", help="Good until it is revoked.")] = False,
    password: Annotated[
        bool, typer.Option("--password", help=f"Whoever opens it has to know one: asked for, or ${PASSWORD_VARIABLE}.")
    ] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="The same, with the password from a line of stdin.")
    ] = False,
    max_downloads: Annotated[
        int | None, typer.Option("--max-downloads", metavar="N", min=1, help="It ends after so many.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a link, and print its address: this once, on stdout.

    A folder comes as a zip archive. The link goes with the file or folder when that is moved, and ends when it is deleted.
    """
    from remote.linkapi import LinkRequest

    request = checked(
        LinkRequest,
        path=remote_path(path),
        expires_in_days=None if never_expires else days,
        password=_ask_password(password_stdin) if password or password_stdin else None,
        downloads_max=max_downloads,
    )

    async def work(files: Files) -> NewPublicLink:
        return await files.make_link(request)

    made = run_with_files(work)
    if not json:
        note(f"Whoever has this address can open {printable(request.path)}; nobody can show it again:")
    emit(made.model_dump(mode="json"), made.url, json)


def list_links(
    path: Annotated[str | None, typer.Argument(metavar="[PATH]", help="Only those to it.", show_default=False)] = None,
    json: JsonOption = False,
) -> None:
    """List the links that are good."""

    async def work(files: Files) -> PublicLinkList:
        return await files.links(None if path is None else remote_path(path))

    found = run_with_files(work)
    emit(found.model_dump(mode="json"), functools.partial(_table, found), json)


def revoke(
    link: Annotated[str, typer.Argument(metavar="ID", help="The link's id, or its beginning, as listed.")],
    json: JsonOption = False,
) -> None:
    """Revoke a link: whoever opens it from now on finds nothing."""

    async def work(files: Files) -> PublicLink:
        fitting = [each for each in (await files.links()).links if each.id.hex().startswith(link.lower())]
        if len(fitting) != 1:
            many = "several links have" if fitting else "no link has"
            fail(f"{many} the id {printable(link)}: see `aloft link list`", ExitCode.USAGE)
        await files.revoke_link(fitting[0].id)
        return fitting[0]

    gone = run_with_files(work)
    emit({"revoked": gone.model_dump(mode="json")}, f"Revoked the link to {_target(gone)}.", json)


def _ask_password(from_stdin: bool) -> str:
    return ask_password(from_stdin, what="Password of the link", variable=PASSWORD_VARIABLE, confirm=True)


def _target(link: PublicLink) -> str:
    return "(in the trash)" if link.path is None else printable(link.path)


def _table(found: PublicLinkList) -> Table:
    from rich.table import Table
    from rich.text import Text

    title = f"{len(found.links)} of {found.limit} links"
    table = Table("id", "to", "expires", "password", "downloads", "last used", title=title, title_justify="left")
    for link in found.links:
        downloads = str(link.downloads) if link.downloads_max is None else f"{link.downloads} of {link.downloads_max}"
        table.add_row(
            link.id.hex()[:SHORT],
            Text(_target(link)),
            moment(link.expires_ns),
            "yes" if link.has_password else "no",
            downloads,
            moment(link.last_used_ns),
        )
    return table
