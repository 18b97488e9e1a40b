"""`aloft ls`, `mkdir`, `mv`, `cp` and `rm`: files of the drive by path, without a mount."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fs.cli.asking import files_service
from fs.cli.output import ExitCode, JsonOption, emit, fail, printable
from fs.cli.wording import counted, human_size, moment

if TYPE_CHECKING:
    from rich.table import Table

    from remote.fileapi import FileInfo, OnConflict
    from remote.files import Files

T = TypeVar("T")

PANEL = "Files without a mount"

OnConflictOption = Annotated[str, typer.Option(metavar="HOW", help="If the name is taken: fail, replace (files only), rename.")]
Sources = Annotated[
    list[str], typer.Argument(metavar="FROM... TO", help="Paths in the drive; TO may be a folder to put them in.")
]


def add_to(app: typer.Typer) -> None:
    app.command("ls", rich_help_panel=PANEL)(ls)
    app.command("mkdir", rich_help_panel=PANEL)(mkdir)
    app.command("mv", rich_help_panel=PANEL)(mv)
    app.command("cp", rich_help_panel=PANEL)(cp)
    app.command("rm", rich_help_panel=PANEL)(rm)


def ls(
    path: Annotated[str, typer.Argument(metavar="[PATH]", help="A folder or file in the drive.")] = "/",
    long: Annotated[bool, typer.Option("--long", "-l", help="With sizes and times.")] = False,
    sort: Annotated[str, typer.Option(metavar="BY", help="name, size or modified.")] = "name",
    reverse: Annotated[bool, typer.Option("--reverse", help="The last first.")] = False,
    json: JsonOption = False,
) -> None:
    """List a folder of the drive, without a mount."""
    from remote.fileapi import Order, Sort
    from remote.protocol import Kind

    if sort not in list(Sort):
        fail(f"--sort is name, size or modified, not {sort}", ExitCode.USAGE)

    async def work(files: Files) -> list[FileInfo]:
        info = await files.metadata(remote_path(path))
        if info.kind is not Kind.DIRECTORY:
            return [info]
        return await files.listing(info.path, Sort(sort), Order.DESC if reverse else Order.ASC)

    found = run_with_files(work)
    data = {"entries": [info.model_dump(mode="json") for info in found]}
    emit(data, functools.partial(_table, found) if long else "\n".join(map(_shown, found)) or None, json)


def mkdir(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Folders to make in the drive.")],
    parents: Annotated[bool, typer.Option("--parents", "-p", help="Those above, too; no error if it is there.")] = False,
    json: JsonOption = False,
) -> None:
    """Make folders in the drive, without a mount."""

    async def work(files: Files) -> list[FileInfo]:
        return [await files.make_folder(remote_path(path), parents=parents) for path in paths]

    made = run_with_files(work)
    emit({"folders": [info.model_dump(mode="json") for info in made]}, None, json)


def mv(paths: Sources, on_conflict: OnConflictOption = "fail", json: JsonOption = False) -> None:
    """Move or rename files and folders in the drive, without a mount. No bytes move."""
    from remote.fileapi import MoveRequest

    async def one(files: Files, source: str, target: str, how: OnConflict) -> FileInfo:
        return await files.move(MoveRequest(source=source, target=target, on_conflict=how))

    _each_to(one, paths, on_conflict, json=json)


def cp(paths: Sources, on_conflict: OnConflictOption = "fail", json: JsonOption = False) -> None:
    """Copy files and folders in the drive, without a mount. No bytes move; folders of up to 1000 entries."""
    from remote.fileapi import CopyRequest

    async def one(files: Files, source: str, target: str, how: OnConflict) -> FileInfo:
        return await files.copy(CopyRequest(source=source, target=target, on_conflict=how))

    _each_to(one, paths, on_conflict, json=json)


def rm(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files or folders in the drive.")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Folders with all that is in them.")] = False,
    json: JsonOption = False,
) -> None:
    """Delete files and folders of the drive, without a mount."""

    async def work(files: Files) -> int:
        return sum([await files.delete(remote_path(path), recursive=recursive) for path in paths])

    removed = run_with_files(work)
    emit(
        {"removed": removed},
        f"Deleted {counted(removed, 'file or folder') if removed == 1 else f'{removed} files and folders'}",
        json,
    )


def _each_to(
    one: Callable[[Files, str, str, OnConflict], Awaitable[FileInfo]], paths: Sequence[str], on_conflict: str, *, json: bool
) -> None:
    *sources, target = paths
    if not sources:
        fail("give a path, and where it goes", ExitCode.USAGE)
    how = parse_on_conflict(on_conflict)

    async def work(files: Files) -> list[FileInfo]:
        place = await choose_place(files, target, many=len(sources) > 1)
        return [await one(files, path, place(last_name(path)), how) for path in map(remote_path, sources)]

    done = run_with_files(work)
    emit({"files": [info.model_dump(mode="json") for info in done]}, "\n".join(printable(info.path) for info in done), json)


# --------------------------------------------------------------------------------------------------------------- paths


def remote_path(text: str) -> str:
    """A path in the drive as the service wants it: absolute, and without `.` and `..`."""
    return posixpath.normpath("/" + text.lstrip("/"))


def last_name(path: str) -> str:
    return path.rpartition("/")[2]


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


async def choose_place(files: Files, target: str, *, many: bool) -> Callable[[str], str]:
    """Where something of a name goes: into the folder `target`, or to that path."""
    from remote.api import NotThere
    from remote.protocol import Kind

    path = remote_path(target)
    try:
        into = (await files.metadata(path)).kind is Kind.DIRECTORY
    except NotThere:
        into = False
    if not into and (many or target.endswith("/")):
        fail(f"there is no folder {path}: make it with `aloft mkdir {path}`")
    return (lambda name: join(path, name)) if into else (lambda _: path)


def parse_on_conflict(text: str) -> OnConflict:
    from remote.fileapi import OnConflict

    if text not in list(OnConflict):
        fail(f"--on-conflict is fail, replace or rename, not {text}", ExitCode.USAGE)
    return OnConflict(text)


def run_with_files(work: Callable[[Files], Awaitable[T]]) -> T:
    """What `work` makes of the service's files."""
    import trio

    from remote.files import Files

    async def run() -> T:
        async with files_service() as service:
            return await work(Files(service))

    try:
        return trio.run(run)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is not None:
            raise KeyboardInterrupt from None
        raise


def _shown(info: FileInfo) -> str:
    return printable(info.name or "/") + ("/" if info.kind == "directory" else "")


def _table(found: Sequence[FileInfo]) -> Table | None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    for info in found:
        size = human_size(info.size) if info.kind == "file" else info.kind.value
        name = _shown(info) + (f" -> {printable(info.target)}" if info.target is not None else "")
        table.add_row(size, moment(info.mtime_ns), Text(name))
    return table if found else None
