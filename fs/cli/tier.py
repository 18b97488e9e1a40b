"""`aloft tier`: what the account may store, and choosing more or less of it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.accounts import PANEL
from fs.cli.asking import logged_in_service, tell
from fs.cli.output import JsonOption, emit, printable
from fs.cli.wording import human_rate, human_size

if TYPE_CHECKING:
    from rich.table import Table

    from remote.accountapi import AccountTier, TierName


def add_to(app: typer.Typer) -> None:
    app.command("tier", rich_help_panel=PANEL)(tier)


def tier(
    name: Annotated[str | None, typer.Argument(metavar="[free|plus|pro]", help="Choose this one.", show_default=False)] = None,
    json: JsonOption = False,
) -> None:
    """What the account may store and what it does, or another tier for it.

    Another tier's storage is there at once. One that is too small for what is stored is refused.
    """
    import trio

    from fs.home import open_home
    from remote.accountapi import TierName

    chosen = None
    if name is not None:
        try:
            chosen = TierName(name.lower())
        except ValueError:
            raise typer.BadParameter(f"there is no tier {name}: it is one of {', '.join(TierName)}") from None
    found = trio.run(_ask, chosen)
    if chosen is not None:
        tell(open_home(), "account-changed")
    emit(found.model_dump(), functools.partial(_table, found), json)


async def _ask(chosen: TierName | None) -> AccountTier:
    from remote.myaccount import MyAccount

    async with logged_in_service() as service:
        account = MyAccount(service)
        return await account.tier() if chosen is None else await account.choose_tier(chosen)


def _table(found: AccountTier) -> Table:
    from rich.table import Table

    used = f"{human_size(found.used_bytes)} of {human_size(found.quota_bytes)} are used"
    if found.reserved_bytes:
        used += f", {human_size(found.reserved_bytes)} more are being uploaded"
    table = Table("tier", "storage", "largest file", "types", "versions and trash", "upload", title=used, title_justify="left")
    for each in found.tiers:
        largest = "any" if each.largest_file_bytes is None else human_size(each.largest_file_bytes)
        types = ", ".join(each.content_types)
        rate = "unlimited" if each.upload_bytes_per_second is None else human_rate(each.upload_bytes_per_second)
        name = f"{each.name} (yours)" if each.name == found.tier else each.name
        table.add_row(printable(name), human_size(each.quota_bytes), largest, printable(types), f"{each.kept_days} days", rate)
    return table
