"""`aloft search`: files by what they are called, what they are, and what is in them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.output import ExitCode, JsonOption, emit, fail, note, printable
from fs.cli.remotefiles import PANEL, remote_path, run_with_files
from fs.cli.wording import human_size, moment, parse_size, parse_time

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from remote.files import Files
    from remote.searchapi import SearchHit, SearchPage, Snippet

_HITS_MAX = 1000


def add_to(app: typer.Typer) -> None:
    app.command("search", rich_help_panel=PANEL)(search)


def search(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORDS]...", help="In a name, or in a content.", show_default=False)
    ] = None,
    type_: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Like pdf, application/pdf, image/*; or file, folder, symlink.")
    ] = None,
    larger: Annotated[str | None, typer.Option(metavar="SIZE", help="Of at least this size, like 10M.")] = None,
    smaller: Annotated[str | None, typer.Option(metavar="SIZE", help="Of at most this size.")] = None,
    after: Annotated[str | None, typer.Option(metavar="TIME", help="Modified then or later, like 2026-11-20 (local).")] = None,
    before: Annotated[str | None, typer.Option(metavar="TIME", help="Modified then or earlier.")] = None,
    inside: Annotated[str | None, typer.Option("--in", metavar="FOLDER", help="Only what is in this folder.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=_HITS_MAX, help="So many at most.")] = 50,
    json: JsonOption = False,
) -> None:
    """Find files and folders of the drive, the best hits first.

    All words have to be in the name, or all in the content (text, source, PDF, office documents). Capitals and accents do not
    matter; "quoted words" stand together, and the last word may go on. Without words, the other options choose.
    """
    asked: dict[str, str | int] = {"q": " ".join(words or ())}
    kinds = {"file": "file", "folder": "directory", "symlink": "symlink"}
    if type_ is not None:
        asked |= {"kind": kinds[type_]} if type_ in kinds else {"type": type_}
    if larger is not None:
        asked["size_min"] = _size("--larger", larger)
    if smaller is not None:
        asked["size_max"] = _size("--smaller", smaller)
    if after is not None:
        asked["modified_after"] = _time("--after", after)
    if before is not None:
        asked["modified_before"] = _time("--before", before)
    if inside is not None:
        asked["under"] = remote_path(inside)
    if asked == {"q": ""}:
        fail("say what to look for: words, or --type, --larger, --after …", ExitCode.USAGE)

    async def work(files: Files) -> SearchPage:
        return await files.search(asked, limit)

    found = run_with_files(work)
    if not json:
        if not found.up_to_date:
            note("What changed in the last moments may be missing: the index still follows.")
        if found.next is not None:
            note(f"There is more: these are the best {len(found.hits)}.")
    emit(found.model_dump(mode="json"), functools.partial(_table, found) if found.hits else "nothing fits", json)


def _size(option: str, text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        fail(f"{option}: {error}", ExitCode.USAGE)


def _time(option: str, text: str) -> int:
    try:
        return parse_time(text)
    except ValueError as error:
        fail(f"{option}: {error}", ExitCode.USAGE)


def _table(found: SearchPage) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    for hit in found.hits:
        size = human_size(hit.size) if hit.kind == "file" else hit.kind.value
        table.add_row(size, moment(hit.mtime_ns), _shown(hit))
    return table


def _shown(hit: SearchHit) -> Text:
    from rich.text import Text

    shown = Text(printable(hit.path) + ("/" if hit.kind == "directory" else ""))
    if hit.snippet is not None:
        shown.append("\n  ").append_text(_snippet(hit.snippet))
    return shown


def _snippet(snippet: Snippet) -> Text:
    from rich.text import Text

    shown, at = Text(), 0
    for start, end in snippet.marks:
        shown.append(printable(snippet.text[at:start]), "dim").append(printable(snippet.text[start:end]), "bold")
        at = end
    return shown.append(printable(snippet.text[at:]), "dim")
