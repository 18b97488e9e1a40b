"""`aloft notifications`: what happened, and of what one wants to hear."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fs.cli.accounts import PANEL
from fs.cli.login import checked
from fs.cli.output import ExitCode, JsonOption, emit, fail, print_json, printable, say
from fs.cli.remotefiles import run_with_files
from fs.cli.wording import moment

if TYPE_CHECKING:
    from rich.table import Table

    from remote.files import Files
    from remote.notices import Notices
    from remote.notificationapi import ChosenPreferences, Notification, NotificationList, Unread

R = TypeVar("R")

_SHOWN = 50


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="What happened: new devices, conflicts, quota, failed uploads.", invoke_without_command=True)
    group.callback()(list_by_default)
    group.command("list")(list_notifications)
    group.command("read")(read)
    group.command("watch")(watch)
    group.command("topics")(topics)
    group.command("choose")(choose)
    group.command("digest")(digest)
    app.add_typer(group, name="notifications", rich_help_panel=PANEL)


def list_by_default(context: typer.Context, json: JsonOption = False) -> None:
    if context.invoked_subcommand is None:
        list_notifications(json=json)


def list_notifications(
    unread: Annotated[bool, typer.Option("--unread", help="Only those that were not marked as read.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=200, help="How many.")] = _SHOWN,
    json: JsonOption = False,
) -> None:
    """List the latest notifications."""
    found = _ask(lambda notices: notices.newest(limit, unread=unread))
    emit(found.model_dump(mode="json"), functools.partial(_table, found) if found.notifications else "there is nothing new", json)


def read(
    numbers: Annotated[list[int] | None, typer.Argument(metavar="[NUMBER...]", help="As listed.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that there are.")] = False,
    json: JsonOption = False,
) -> None:
    """Mark notifications as read."""
    if bool(numbers) == everything:
        fail("say which: by their numbers, or --all", ExitCode.USAGE)

    async def work(notices: Notices) -> Unread:
        up_to = (await notices.newest(1)).latest if everything else 0
        return await notices.mark_read(numbers or [], up_to)

    left = _ask(work)
    emit(left.model_dump(mode="json"), f"{left.unread} unread", json)


def watch(json: JsonOption = False) -> None:
    """Print each notification as it comes, until Ctrl-C."""

    async def work(notices: Notices) -> None:
        known = (await notices.newest(1)).latest
        while True:
            page = await notices.next(known)
            known = min(known, page.latest)
            for notification in page.notifications:
                known = notification.id
                if json:
                    print_json(notification.model_dump(mode="json"))
                else:
                    say(_line(notification))

    _ask(work)


def topics(json: JsonOption = False) -> None:
    """List the topics, and what is done with the notifications of each."""
    found = _ask(lambda notices: notices.preferences())
    emit(found.model_dump(mode="json"), functools.partial(_topics_table, found), json)


def choose(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="As `aloft notifications topics` lists them.")],
    kept: Annotated[bool | None, typer.Option("--on/--off", help="Whether there are any.", show_default=False)] = None,
    desktop: Annotated[bool | None, typer.Option("--desktop/--no-desktop", help="Show them at once.", show_default=False)] = None,
    email: Annotated[bool | None, typer.Option("--email/--no-email", help="In the daily digest.", show_default=False)] = None,
    json: JsonOption = False,
) -> None:
    """Choose what is done with the notifications of a topic."""
    from remote.notificationapi import Preferences

    chosen = checked(Preferences, topics={topic: {"kept": kept, "desktop": desktop, "email": email}})
    found = _ask(lambda notices: notices.choose(chosen))
    emit(found.model_dump(mode="json"), functools.partial(_topics_table, found), json)


def digest(
    state: Annotated[str, typer.Argument(metavar="on|off", help="Whether an e-mail a day says what is unread.")],
    json: JsonOption = False,
) -> None:
    """Turn the daily e-mail on or off."""
    from remote.notificationapi import Preferences

    if state not in ("on", "off"):
        fail(f"say on or off, not {state}", ExitCode.USAGE)
    found = _ask(lambda notices: notices.choose(Preferences(digest=state == "on")))
    emit(found.model_dump(mode="json"), f"The daily digest is {'on' if found.digest else 'off'}.", json)


def _ask(call: Callable[[Notices], Awaitable[R]]) -> R:
    async def work(files: Files) -> R:
        from remote.notices import Notices

        return await call(Notices(files.service))

    return run_with_files(work)


def _line(notification: Notification) -> str:
    return f"{moment(notification.at_ns)}  {printable(notification.text)}"


def _table(found: NotificationList) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("number", "when", "", "what", title=f"{found.unread} unread", title_justify="left")
    for each in found.notifications:
        new = "new" if each.read_ns is None else ""
        table.add_row(str(each.id), moment(each.at_ns), new, Text(printable(each.text)))
    return table


def _topics_table(found: ChosenPreferences) -> Table:
    from rich.table import Table

    table = Table("topic", "kept", "desktop", "digest", title=f"daily digest: {'on' if found.digest else 'off'}")
    for topic, each in found.topics.items():
        table.add_row(str(topic), *("yes" if wanted else "no" for wanted in (each.kept, each.desktop, each.email)))
    return table
