"""How the audit log is shown: to the account (`aloft account log`), and to the administrator (`aloft admin audit`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.output import printable
from fs.cli.wording import moment

if TYPE_CHECKING:
    from rich.table import Table

    from remote.accountapi import AuditPage

Limit = Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=500, help="How many events, the newest first.")]
Before = Annotated[str | None, typer.Option("--before", metavar="POINT", help="Older ones: the point that a listing ended with.")]


def audit_table(page: AuditPage, *, of_all: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    more = "" if page.next is None else f"older ones: --before {page.next}"
    columns = ("when", *(("account",) if of_all else ()), "action", "result", "by", "from", "on")
    table = Table(*columns, box=None, pad_edge=False, caption=more, caption_justify="left")
    for event in page.events:
        by = event.caller_name or ("" if event.caller is None else event.caller.hex()[:12])
        email = (event.email,) if of_all else ()
        cells = (moment(event.at_ns), *email, event.action, event.result, by, event.address, event.subject[:12])
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table
