"""`aloft share`, `aloft unshare` and `aloft invitations`: folders that several accounts have."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.links import PANEL
from fs.cli.login import checked
from fs.cli.output import ExitCode, JsonOption, emit, fail, printable
from fs.cli.remotefiles import remote_path, run_with_files
from fs.cli.wording import moment

if TYPE_CHECKING:
    from rich.table import Table

    from remote.files import Files
    from remote.sharingapi import Invitation, InvitationList, Share, ShareList

Name = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="The folder, as listed; not needed for the only one.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    app.command("share", rich_help_panel=PANEL)(share)
    app.command("unshare", rich_help_panel=PANEL)(unshare)
    group = typer.Typer(help="List what others would share with you; accept or decline it.", invoke_without_command=True)
    group.callback()(list_invitations)
    group.command("accept")(accept)
    group.command("decline")(decline)
    app.add_typer(group, name="invitations", rich_help_panel=PANEL)


def share(
    path: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="A folder or file in the drive.", show_default=False)
    ] = None,
    email: Annotated[
        str | None, typer.Argument(metavar="[EMAIL]", help="With whom: the address of an account.", show_default=False)
    ] = None,
    viewer: Annotated[bool, typer.Option("--viewer", help="They may look at it, and change nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Share a folder with another account, change what a member may do, or list what is shared.

    Without arguments it lists all, with a path the members of one. With an address it invites somebody, or makes a member an
    editor (with --viewer: a viewer). It is your storage that counts. A file gets a folder of its own, which is shared.
    """
    if path is None or email is None:
        _list(path, json=json)
        return
    from remote.sharingapi import Role, ShareRequest

    role = Role.VIEWER if viewer else Role.EDITOR
    request = checked(ShareRequest, path=remote_path(path), email=email, role=role)

    async def work(files: Files) -> tuple[Share, bool]:
        known = [each for each in (await files.shares()).shares if each.path == request.path]
        members = {member.email for one in known for member in one.members}
        invited = {each.email for one in known for each in one.invited}
        if request.email in members | invited:
            return await files.change_role(request), False
        return await files.share(request), True

    done, invited = run_with_files(work)
    who, where = printable(request.email), printable(done.path or request.path)
    text = f"Invited {who} to {where} as {role}." if invited else f"{who} is {role} of {where}."
    emit(done.model_dump(mode="json"), text, json)


def unshare(
    path: Annotated[str, typer.Argument(metavar="PATH", help="The shared folder.")],
    email: Annotated[
        str | None, typer.Argument(metavar="[EMAIL]", help="Only for this member, or invitation.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Stop sharing a folder of yours, with all or with one; or leave one that somebody shares with you.

    What is in a folder of yours stays with you. Who loses it keeps what was not sent yet, in a folder "Recovered files".
    """
    from remote.sharingapi import MemberRequest, Role

    where = remote_path(path)

    async def find(files: Files) -> Share:
        known = [each for each in (await files.shares()).shares if each.path == where]
        if not known:
            fail(f"{printable(where)} is not shared: `aloft share` lists what is", ExitCode.USAGE)
        return known[0]

    found = run_with_files(find)
    if email is not None:
        request = checked(MemberRequest, path=where, email=email)

        async def remove(files: Files) -> Share:
            return await files.remove_member(request)

        left = run_with_files(remove)
        emit(left.model_dump(mode="json"), f"{printable(where)} is not shared with {printable(email)} any more.", json)
        return
    mine = found.role is Role.OWNER
    if not yes and sys.stdin.isatty():
        others = len(found.members) - 1
        question = f"Stop sharing {printable(where)} with {others} others?" if mine else f"Leave {printable(where)}?"
        if not typer.confirm(question, err=True):
            raise typer.Exit(ExitCode.USAGE)

    async def end(files: Files) -> None:
        await (files.unshare(where) if mine else files.leave_share(where))

    run_with_files(end)
    text = f"{printable(where)} is yours alone." if mine else f"You left {printable(where)}."
    emit({"path": where, "ended": mine, "left": not mine}, text, json)


def list_invitations(context: typer.Context, json: JsonOption = False) -> None:
    if context.invoked_subcommand is not None:
        return

    async def work(files: Files) -> InvitationList:
        return await files.invitations()

    found = run_with_files(work)
    emit(found.model_dump(mode="json"), functools.partial(_invitations, found), json)


def accept(name: Name = None, json: JsonOption = False) -> None:
    """Have the folder among your files."""

    async def work(files: Files) -> Share:
        return await files.accept_invitation((await _choose(files, name)).space)

    done = run_with_files(work)
    emit(done.model_dump(mode="json"), f"It is at {printable(done.path or '?')}; you are its {done.role}.", json)


def decline(name: Name = None, json: JsonOption = False) -> None:
    """Do not have it."""

    async def work(files: Files) -> Invitation:
        chosen = await _choose(files, name)
        await files.decline_invitation(chosen.space)
        return chosen

    declined = run_with_files(work)
    emit(declined.model_dump(mode="json"), f"Declined {printable(declined.name)} of {printable(declined.owner_email)}.", json)


async def _choose(files: Files, name: str | None) -> Invitation:
    found = (await files.invitations()).invitations
    fitting = [each for each in found if name is None or name in (each.name, each.space.hex())]
    if len(fitting) != 1:
        many = "several invitations fit: name one, or its id (--json shows them)" if fitting else "there is no such invitation"
        fail(f"{many}: see `aloft invitations`", ExitCode.USAGE)
    return fitting[0]


def _list(path: str | None, *, json: bool) -> None:
    only = None if path is None else remote_path(path)

    async def work(files: Files) -> ShareList:
        found = await files.shares()
        return found.model_copy(update={"shares": [each for each in found.shares if only in (None, each.path)]})

    found = run_with_files(work)
    if only is not None and not found.shares:
        fail(f"{printable(only)} is not shared: say with whom (aloft share {printable(only)} EMAIL)", ExitCode.USAGE)
    emit(found.model_dump(mode="json"), functools.partial(_shares, found), json)


def _shares(found: ShareList) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("folder", "who", "role", title=f"{len(found.shares)} shared folders", title_justify="left")
    for one in found.shares:
        where = one.path or "?"
        for member in one.members:
            table.add_row(Text(printable(where)), Text(printable(member.email)), member.role)
            where = ""
        for invited in one.invited:
            table.add_row("", Text(printable(invited.email)), f"{invited.role}, invited")
    return table


def _invitations(found: InvitationList) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("folder", "from", "as", "invited", title=f"{len(found.invitations)} invitations", title_justify="left")
    for each in found.invitations:
        table.add_row(Text(printable(each.name)), Text(printable(each.owner_email)), each.role, moment(each.created_ns))
    return table
