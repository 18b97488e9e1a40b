"""`aloft admin`: what the administrator of a service does, on the machine where its configuration is."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fs.cli.audit import Before, Limit, audit_table
from fs.cli.output import ExitCode, JsonOption, emit, fail, note, printable
from fs.cli.serve import load_settings
from fs.cli.wording import counted, human_size, moment, parse_size

if TYPE_CHECKING:
    from rich.table import Table

    from remote.server.backup import BackedUp
    from remote.server.database.accounts import AccountLine

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings of the service, as for `aloft serve`.")]
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The service's data (default: as for `aloft serve`).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")]
DatabaseUrl = Annotated[str | None, typer.Option("--database", metavar="URL", help="As for `aloft serve`.")]


def add_to(app: typer.Typer) -> None:
    admin = typer.Typer(help="Care for a service, while it runs or not: on its machine, with its settings.", no_args_is_help=True)
    admin.command("invite")(invite)
    admin.command("reset-password")(reset_password)
    admin.command("audit")(audit)
    admin.command("users")(users)
    admin.command("gc")(gc)
    admin.command("scrub")(scrub)
    admin.command("recount")(recount)
    admin.command("rotate-keys")(rotate_keys)
    admin.command("backup")(backup)
    admin.command("restore")(restore)
    app.add_typer(admin, name="admin", rich_help_panel="Service")


def invite(config: Config = None, data: Data = None, database: DatabaseUrl = None, json: JsonOption = False) -> None:
    """Print an invitation, good for one registration where `registration` is `invite`."""
    from remote.server.folder import DataFolderError
    from remote.server.service import create_invitation

    settings = load_settings(config, {"data": data, "database": database})
    try:
        code = create_invitation(settings)
    except DataFolderError as error:
        fail(str(error))
    emit({"invitation": code}, code, json)


def reset_password(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="Of the account whose password is forgotten.")],
    config: Config = None,
    data: Data = None,
    database: DatabaseUrl = None,
    json: JsonOption = False,
) -> None:
    """Print a code by which a forgotten password is replaced: once, within half an hour. Nothing changes until it is used.

    Whoever gets it runs `aloft password new --server URL --code CODE`. Be sure that it is the account's owner.
    """
    from remote.server.folder import DataFolderError
    from remote.server.service import create_password_code

    settings = load_settings(config, {"data": data, "database": database})
    try:
        code = create_password_code(settings, email)
    except DataFolderError as error:
        fail(str(error))
    if code is None:
        fail(f"there is no account of {email} in {settings.database_name}")
    if not json:
        note(f"For the owner of {email}: aloft password new --server URL --code CODE")
    emit({"email": email, "code": code}, code, json)


def audit(
    email: Annotated[str | None, typer.Option("--email", metavar="E", help="Of this account only.")] = None,
    action: Annotated[str | None, typer.Option("--action", metavar="A", help="Only these, like device.login.")] = None,
    limit: Limit = 50,
    before: Before = None,
    config: Config = None,
    data: Data = None,
    database: DatabaseUrl = None,
    json: JsonOption = False,
) -> None:
    """Show the audit log of all accounts: who did what, from where, with which result."""
    from remote.server.folder import DataFolderError
    from remote.server.problems import Refused
    from remote.server.service import audit_page

    settings = load_settings(config, {"data": data, "database": database})
    try:
        page = audit_page(settings, email=email, action=action, before=before, limit=limit)
    except (DataFolderError, Refused) as error:
        fail(str(error))
    if page is None:
        fail(f"there is no account of {email} in {settings.database_name}")
    emit(page.model_dump(), functools.partial(audit_table, page, of_all=True), json)


def users(config: Config = None, data: Data = None, database: DatabaseUrl = None, json: JsonOption = False) -> None:
    """List the accounts: tier, what they store, devices, last log-in."""
    from remote.server.folder import DataFolderError
    from remote.server.service import list_accounts

    settings = load_settings(config, {"data": data, "database": database})
    try:
        found = list_accounts(settings)
    except DataFolderError as error:
        fail(str(error))
    emit({"accounts": [asdict(account) for account in found]}, functools.partial(_accounts_table, found), json)


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
    lines.append(f"{counted(report.objects, 'object')} ({human_size(report.bytes)}) read, {report.left} damaged")
    emit({**asdict(report), "left": report.left}, "\n".join(lines), json)
    return ExitCode.FAILED if report.left else ExitCode.OK


def recount(
    dry_run: DryRun = False,
    config: Config = None,
    data: Data = None,
    database: DatabaseUrl = None,
    json: JsonOption = False,
) -> None:
    """Add up what each account stores, and mend what is written down where that differs. Safe while the service runs."""
    from remote.server.folder import DataFolderError
    from remote.server.service import recount_usage

    settings = load_settings(config, {"data": data, "database": database})
    try:
        wrong = recount_usage(settings, dry_run=dry_run)
    except DataFolderError as error:
        fail(str(error))
    verb = "should be" if dry_run else "is now"
    lines = [f"{email}: {human_size(one.told)} was written down, {verb} {human_size(one.found)}" for email, one in wrong]
    found = [{"email": email, "told": one.told, "found": one.found} for email, one in wrong]
    emit({"wrong": found, "mended": not dry_run}, "\n".join(printable(line) for line in lines) or "all accounts are right", json)


def rotate_keys(
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Only these: tokens, or objects (the embedded store's links)."),
    ] = None,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Drop the old keys now, as after a leak: what they signed is refused.")
    ] = False,
    dry_run: DryRun = False,
    config: Config = None,
    data: Data = None,
    database: DatabaseUrl = None,
    json: JsonOption = False,
) -> None:
    """Make new keys, which sign tokens and links from then on. Safe while the service runs; nobody is logged out.

    Within a quarter of a minute all processes of the service sign with the new keys. The old ones are good until everything
    that they signed has ended, a little more than an hour. With --at-once they are refused within five seconds: devices get
    new tokens by themselves; links that were given out have to be asked for again, and downloads by public links begin anew.
    """
    from remote.server.folder import DataFolderError
    from remote.server.service import rotate_keys as rotate

    settings = load_settings(config, {"data": data, "database": database})
    try:
        rotations = rotate(settings, names, at_once=at_once, dry_run=dry_run)
    except ValueError as error:
        fail(f"--name: {error}", ExitCode.USAGE)
    except DataFolderError as error:
        fail(str(error))
    would = "would sign" if dry_run else "signs"
    lines = []
    for each in rotations:
        old = "is refused from now on" if each.good_until_ns is None else f"is good until {moment(each.good_until_ns)}"
        lines.append(f"{each.name}: a new key {would} from {moment(each.signs_from_ns)}; what others signed {old}")
    emit({"keys": [asdict(each) for each in rotations], "at_once": at_once, "dry_run": dry_run}, "\n".join(lines), json)


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
    if config is None and database is None and data is None:
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
def _bar(verb: str, *, json: bool) -> Iterator[Callable[[int, int], None]]:
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


def _accounts_table(found: Sequence[AccountLine]) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for title in ("e-mail", "name", "tier", "stored", "devices", "created", "last log-in"):
        table.add_column(title, justify="right" if title in ("stored", "devices") else "left", overflow="fold")
    for account in found:
        table.add_row(
            printable(account.email),
            printable(account.name),
            account.tier,
            human_size(account.used_bytes),
            str(account.devices),
            moment(account.created_ns),
            moment(account.last_login_ns),
        )
    return table
