"""`aloft admin`, what is about stored objects: garbage, scrubbing, folders, encryption, backups."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.output import ExitCode, JsonOption, emit, fail, note
from fs.cli.serve import Config, Data, DatabaseUrl, DryRun, load_settings
from fs.cli.wording import counted, human_size, parse_size

if TYPE_CHECKING:
    from remote.server.backup import BackedUp


def add_to(admin: typer.Typer) -> None:
    admin.command("gc")(gc)
    admin.command("scrub")(scrub)
    admin.command("folders")(folders)
    admin.command("rewrap")(rewrap)
    admin.command("backup")(backup)
    admin.command("restore")(restore)


def gc(
    dry_run: DryRun = False,
    config: Config = None,
    data: Data = None,
    database: DatabaseUrl = None,
    json: JsonOption = False,
) -> None:
    """Remove what nothing names any more. The service does it by itself, every six hours; safe while it runs.

    Objects that no version of any file needs are deleted from the store a day after that was found.
    """
    from remote.server.folder import DataFolderError
    from remote.server.objects.store import StoreUnavailable
    from remote.server.service import collect_garbage

    settings = load_settings(config, {"data": data, "database": database})
    try:
        report = collect_garbage(settings, dry_run=dry_run)
    except DataFolderError as error:
        fail(str(error))
    except StoreUnavailable as error:
        fail(f"the object store cannot be reached: {error}; what was found is written down, so run this again later")
    would = "would be " if dry_run else ""
    lines = [
        f"{counted(report.sessions, 'abandoned upload')} {would}ended",
        f"{counted(report.manifests, 'manifest')} {would}removed ({human_size(report.manifest_bytes)})",
        f"{counted(report.dead, 'object')} without a name ({human_size(report.dead_bytes)})",
    ]
    if not dry_run:
        lines.append(f"{counted(report.deleted, 'object')} deleted from the store ({human_size(report.deleted_bytes)})")
    if report.waiting:
        lines.append(
            f"{counted(report.waiting, 'object')} to be deleted when the day is over ({human_size(report.waiting_bytes)})"
        )
    emit(asdict(report), "\n".join(lines), json)


def scrub(
    backup: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Mend what is damaged from this backup.", show_default=False),
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="SIZE", help="Read so much a second at most: 50M.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    config: Config = None,
    data: Data = None,
    database: DatabaseUrl = None,
    json: JsonOption = False,
) -> int:
    """Read all stored objects again, and say which do not have the bytes that they should. Safe while the service runs.

    The embedded store is read like this all the time, a part each hour; this reads all of it now. The exit code says whether
    something is damaged still.
    """
    from remote.server.folder import DataFolderError
    from remote.server.objects.store import StoreUnavailable
    from remote.server.service import scrub_objects

    settings = load_settings(config, {"data": data, "database": database})
    try:
        a_second = None if rate is None else parse_size(rate)
    except ValueError as error:
        fail(f"--rate: {error}", ExitCode.USAGE)
    if backup is not None and not (backup / "objects").is_dir():
        fail(f"{backup} is no backup of `aloft admin backup`", ExitCode.USAGE)
    try:
        with _bar("read", json=json) as told:
            report = scrub_objects(settings, backup=backup, rate=a_second, dry_run=dry_run, told=told)
    except DataFolderError as error:
        fail(str(error))
    except StoreUnavailable as error:
        fail(f"the object store cannot be reached: {error}")
    lines = [f"{each.key} is damaged: {each.why}{' (mended)' if each.mended else ''}" for each in report.damaged]
    if report.copied or report.removed:
        done = "would be put right" if dry_run else "put right"
        lines.append(f"copies that lacked: {report.copied}, that lay where they do not belong: {report.removed}; {done}")
    lines.append(f"{counted(report.objects, 'object')} ({human_size(report.bytes)}) read, {report.left} damaged")
    emit({**asdict(report), "left": report.left}, "\n".join(lines), json)
    return ExitCode.FAILED if report.left else ExitCode.OK


def folders(config: Config = None, data: Data = None, database: DatabaseUrl = None, json: JsonOption = False) -> None:
    """Show the folders in which the embedded store keeps objects: their ids, where they are, and what room there is."""
    from remote.server.folder import DataFolderError
    from remote.server.service import object_folders

    settings = load_settings(config, {"data": data, "database": database})
    try:
        found = object_folders(settings)
    except DataFolderError as error:
        fail(str(error))
    lines = []
    for each in found:
        room = "not there: is its disk mounted?" if each.free_bytes is None else f"{human_size(each.free_bytes)} free"
        lines.append(f"{each.id}  {each.path}  {room}")
    lines.append(f"copies of each object: {settings.objects.copies}")
    emit({"folders": [asdict(each) for each in found], "copies": settings.objects.copies}, "\n".join(lines), json)


def rewrap(
    finish: Annotated[
        bool, typer.Option("--finish", help="Make no new key: do what an interrupted run left, and drop former keys.")
    ] = False,
    dry_run: DryRun = False,
    config: Config = None,
    data: Data = None,
    database: DatabaseUrl = None,
    json: JsonOption = False,
) -> int:
    """Make a new master key for the objects of the embedded store, and wrap the key of each by it. Safe while the service runs.

    Objects that were stored before encryption are encrypted. The former key stays in the file for an hour, for what is being
    stored now; then --finish drops it. Keep a copy of the new file before you throw away that of the former one.
    """
    from remote.server.folder import DataFolderError
    from remote.server.objects.store import StoreUnavailable
    from remote.server.service import rewrap_objects

    settings = load_settings(config, {"data": data, "database": database})
    try:
        with _bar("rewrapped", json=json) as told:
            report = rewrap_objects(settings, finish=finish, dry_run=dry_run, told=lambda done: told(done, None))
    except (DataFolderError, OSError) as error:
        fail(f"not all objects were rewrapped: {error}")
    except StoreUnavailable as error:
        fail(f"not all objects were rewrapped: {error}; when that is mended, run this again with --finish")
    verb = "would be " if dry_run else ""
    lines = [
        f"{counted(report.files, 'file')}: {report.rewrapped} {verb}rewrapped, {report.encrypted} {verb}encrypted",
        *(f"{key} is damaged and was left: aloft admin scrub --from BACKUP mends it" for key in report.damaged),
        *(f"the master key {id_} was dropped" for id_ in report.dropped),
    ]
    if report.former and not dry_run:
        lines.append(f"former keys are still there ({', '.join(report.former)}): in an hour, run aloft admin rewrap --finish")
    emit(asdict(report), "\n".join(lines), json)
    return ExitCode.FAILED if report.damaged else ExitCode.OK


def backup(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="Where the backup is, or will be: on another disk.")],
    config: Config = None,
    data: Data = None,
    database: DatabaseUrl = None,
    json: JsonOption = False,
) -> None:
    """Back up the service's database, with its keys, and its objects; while it runs, and only what the last backup lacks.

    With PostgreSQL it needs pg_dump, of the server's version or a newer one. Objects that are in S3 are fetched from there, once.
    The keys are in it: whoever reads the backup can do what the service can. Interrupted, the last backup stays whole.
    """
    from remote.server.backup import back_up
    from remote.server.backupfolder import CannotBackUp
    from remote.server.folder import DataFolderError
    from remote.server.objects.store import BadStoreSettings, StoreUnavailable

    settings = load_settings(config, {"data": data, "database": database})
    with _bar("backed up", json=json) as told:
        try:
            report = back_up(settings, target, told)
        except (CannotBackUp, DataFolderError, BadStoreSettings, StoreUnavailable, OSError) as error:
            fail(f"no backup was made: {error}")
    _say(report, f"backed up to {target}", json=json)


def restore(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="The backup.")],
    config: Config = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="The new data folder: empty, or not there.", show_default=False)
    ] = None,
    database: DatabaseUrl = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove what is in the PostgreSQL database; without it, it has to be empty.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make a service of a backup. Devices that have seen more than is in it stop, and ask their person to reconnect.

    Of a data folder: into another one, --data. With PostgreSQL or S3: into the database and the bucket that --config names, with
    no service running; objects are put back that the bucket lacks. Interrupted, run it again: no service starts before that.
    """
    from remote.server.backup import restore as put_back
    from remote.server.backupfolder import CannotBackUp
    from remote.server.folder import DataFolderError
    from remote.server.objects.store import BadStoreSettings, StoreUnavailable

    settings = load_settings(config, {"data": data, "database": database})
    if data is None and config is None and settings.database is None and settings.s3 is None:
        fail("say where to: --data DIR, or the --config of the service that is to be", ExitCode.USAGE)
    with _bar("restored", json=json) as told:
        try:
            report = put_back(settings, source, overwrite=overwrite, told=told)
        except (CannotBackUp, DataFolderError, BadStoreSettings, StoreUnavailable, OSError) as error:
            fail(f"nothing was restored: {error}")
    serve = f"--config {config}" if config is not None else f"--data {settings.data}"
    if not json:
        note(f"Next: aloft serve {serve}; on devices that stop: aloft reconnect")
    _say(report, f"restored into {settings.database_name}", json=json)


@contextmanager
def _bar(verb: str, *, json: bool) -> Iterator[Callable[[int, int | None], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=json or not sys.stderr.isatty()) as bars:
        task = bars.add_task(f"objects {verb}", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _say(report: BackedUp, what: str, *, json: bool) -> None:
    text = f"{counted(report.objects, 'object')}, {report.copied} of them new ({human_size(report.copied_bytes)}), {what}"
    emit(asdict(report), text, json)
    if report.lost:
        fail(f"{counted(len(report.lost), 'object')} that files need cannot be read, the first is {report.lost[0]}")
