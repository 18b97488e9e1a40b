"""`aloft put` and `aloft get`: files to and from the service without a mount."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.output import ExitCode, JsonOption, emit, fail, note, printable
from fs.cli.remotefiles import PANEL, choose_place, join, last_name, parse_on_conflict, remote_path, run_with_files

if TYPE_CHECKING:
    from cache.lanes import Lanes
    from fs.cli.jobs import Job
    from remote.fileapi import FileDownload, FileInfo
    from remote.files import Files

Parallel = Annotated[int, typer.Option("--parallel", "-P", metavar="N", min=1, max=64, help="Chunks that move at a time.")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Folders, too, with all that is in them.")]


def add_to(app: typer.Typer) -> None:
    app.command("put", rich_help_panel=PANEL)(put)
    app.command("get", rich_help_panel=PANEL)(get)


# ----------------------------------------------------------------------------------------------------------------- put


def put(
    paths: Annotated[list[str], typer.Argument(metavar="LOCAL... REMOTE", help="Local files, and where they go in the drive.")],
    recursive: Recursive = False,
    on_conflict: Annotated[
        str, typer.Option(metavar="HOW", help="If the name is taken: replace (the former content stays a version), rename, fail.")
    ] = "replace",
    parallel: Parallel = 8,
    json: JsonOption = False,
) -> int:
    """Send local files to the drive, without a mount.

    Only chunks that the service does not have are sent. Stopped or killed, the same command goes on where it was, also on
    another machine.
    """
    from cache import putting
    from fs.cli import jobs as running

    *sources, target = paths
    if not sources:
        fail("give what to send, and where: aloft put FILE /FOLDER/", ExitCode.USAGE)
    how = parse_on_conflict(on_conflict)
    jobs: list[Job[FileInfo]] = []

    async def work(files: Files) -> None:
        place = await choose_place(files, target, many=len(sources) > 1)
        for source in map(Path, sources):
            folders, found = _local_files(source, place(source.absolute().name), recursive=recursive)
            for folder in folders:
                await files.make_folder(folder, parents=True)
            jobs.extend(found)

        async def one(job: Job[FileInfo], lanes: Lanes) -> FileInfo:
            return await putting.put(files, Path(job.source), job.target, how, lanes, job.progress)

        await running.run(jobs, one, parallel, "sending", shown=not json)

    run_with_files(work)
    put_ = [(job, job.result) for job in jobs if job.result is not None]
    described = {"path", "id", "size", "version", "sha256", "revision", "content_revision"}
    data = {
        "files": [
            {"local": job.source, "sent_bytes": job.progress.moved, **info.model_dump(include=described)} for job, info in put_
        ],
        "failed": running.failures(jobs),
    }
    emit(data, _lines(f"{info.path}  ({running.how_much(job.progress, 'sent')})" for job, info in put_), json)
    return running.tell_failures(jobs)


def _local_files(source: Path, target: str, *, recursive: bool) -> tuple[list[str], list[Job[FileInfo]]]:
    """The folders to make, those above before those below, and the files to send."""
    from fs.cli.jobs import Job
    from remote.names import BadName, check_name

    if not source.is_dir():
        return [], [Job(str(source), target)]
    if not recursive:
        fail(f"{source} is a folder: give -r to send what is in it")
    folders = [target]
    jobs: list[Job[FileInfo]] = []
    for entry in sorted(source.iterdir()):
        try:
            below = join(target, check_name(entry.name))
        except BadName as error:
            jobs.append(Job(str(entry), target, error=error))
            continue
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            _leave_out(str(entry))
            continue
        more_folders, more_jobs = _local_files(entry, below, recursive=True)
        folders += more_folders
        jobs += more_jobs
    return folders, jobs


# ----------------------------------------------------------------------------------------------------------------- get


def get(
    paths: Annotated[
        list[str], typer.Argument(metavar="REMOTE... [LOCAL]", help="Files in the drive, and where they go (default: here).")
    ],
    recursive: Recursive = False,
    parallel: Parallel = 8,
    json: JsonOption = False,
) -> int:
    """Fetch files of the drive, without a mount.

    A file is NAME.part until all of it is there and verified. Stopped or killed, the same command goes on where it was; if the
    file was changed on the service meanwhile, it begins anew.
    """
    from cache import getting
    from fs.cli import jobs as running

    *sources, last = paths if len(paths) > 1 else [*paths, "."]
    target = Path(last)
    into = target.is_dir()
    if not into and (len(sources) > 1 or last.endswith("/")):
        fail(f"{last} is no folder: make it first, for what goes into it", ExitCode.USAGE)
    jobs: list[Job[FileDownload]] = []

    async def work(files: Files) -> None:
        for source in map(remote_path, sources):
            place = target / last_name(source) if into else target
            jobs.extend(await _remote_files(files, source, place, recursive=recursive))

        async def one(job: Job[FileDownload], lanes: Lanes) -> FileDownload:
            return await getting.get(files, job.source, Path(job.target), lanes, job.progress)

        await running.run(jobs, one, parallel, "fetching", shown=not json)

    run_with_files(work)
    got = [(job, job.result) for job in jobs if job.result is not None]
    data = {
        "files": [
            {
                "local": job.target,
                "path": job.source,
                "fetched_bytes": job.progress.moved,
                **page.model_dump(include={"id", "size", "version", "sha256"}),
            }
            for job, page in got
        ],
        "failed": running.failures(jobs),
    }
    emit(data, _lines(f"{job.target}  ({running.how_much(job.progress, 'fetched')})" for job, _ in got), json)
    return running.tell_failures(jobs)


async def _remote_files(files: Files, path: str, target: Path, *, recursive: bool) -> list[Job[FileDownload]]:
    """The files to fetch, when the folders for them are made."""
    from fs.cli.jobs import Job
    from remote.names import check_name
    from remote.protocol import Kind

    if (await files.metadata(path)).kind is not Kind.DIRECTORY:
        return [Job(path, str(target))]
    if not recursive:
        fail(f"{path} is a folder: give -r to fetch what is in it")
    jobs: list[Job[FileDownload]] = []
    pending = [(path, target)]
    while pending:
        folder, place = pending.pop()
        place.mkdir(exist_ok=True)
        for entry in await files.listing(folder):
            below = join(folder, check_name(entry.name))  # what a service says must not lead out of the folder
            if entry.kind is Kind.DIRECTORY:
                pending.append((below, place / entry.name))
            elif entry.kind is Kind.FILE:
                jobs.append(Job(below, str(place / entry.name)))
            else:
                _leave_out(below)
    return jobs


def _leave_out(path: str) -> None:
    note(f"aloft: left out {printable(path)}: it is neither a file nor a folder")


def _lines(lines: Iterable[str]) -> str | None:
    return "\n".join(map(printable, lines)) or None
