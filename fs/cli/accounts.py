"""`aloft register`, `login`, `logout`, `whoami` and `devices`: the account, and this home's place in it."""

from __future__ import annotations

import functools
import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fs.cli.asking import logged_in_service, tell
from fs.cli.login import (
    CertificateAuthority,
    Email,
    Insecure,
    PasswordStdin,
    Server,
    ask_password,
    checked,
    find_endpoint,
    needed,
)
from fs.cli.output import ExitCode, JsonOption, emit, fail, note, printable
from fs.cli.syncs import device_status
from fs.cli.wording import counted, moment

if TYPE_CHECKING:
    from rich.table import Table

    from fs.session import Session
    from remote.accountapi import AccountInfo, DeviceList
    from remote.credentials import Credentials
    from remote.protocol import Device

PANEL = "Account"

DeviceName = Annotated[str | None, typer.Option("--device", metavar="NAME", help="This device's name (default: the host's).")]


def add_to(app: typer.Typer) -> None:
    app.command("register", rich_help_panel=PANEL)(register)
    app.command("login", rich_help_panel=PANEL)(login)
    app.command("logout", rich_help_panel=PANEL)(logout)
    app.command("whoami", rich_help_panel=PANEL)(whoami)
    devices = typer.Typer(help="List the devices of the account, or log some out.", invoke_without_command=True)
    devices.callback()(list_devices_by_default)
    devices.command("list")(list_devices)
    devices.command("status")(device_status)
    devices.command("remove")(remove_device)
    app.add_typer(devices, name="devices", rich_help_panel=PANEL)


# ------------------------------------------------------------------------------------------------------ register, log in


def register(
    server: Server = None,
    email: Email = None,
    name: Annotated[str, typer.Option("--name", metavar="N", help="Your name, as others see it.")] = "",
    device: DeviceName = None,
    invitation: Annotated[str | None, typer.Option("--invitation", metavar="CODE", help="If the service asks for one.")] = None,
    ca: CertificateAuthority = None,
    insecure: Insecure = False,
    password_stdin: PasswordStdin = False,
    json: JsonOption = False,
) -> None:
    """Create an account and log this device in.

    The password is asked for twice, or read from stdin (--password-stdin) or $ALOFT_PASSWORD.
    """
    import trio

    from remote.accountapi import RegisterRequest
    from remote.accounts import Accounts
    from remote.problems import AlreadyExists

    endpoint = find_endpoint(server, ca, insecure, None)
    email = needed(email, "--email E")
    session = _session()
    password = ask_password(password_stdin, confirm=True)
    request = checked(RegisterRequest, email=email, password=password, name=name, invitation=invitation)
    try:
        credentials = trio.run(session.register, Accounts(endpoint), request, _device_name(device))
    except AlreadyExists as error:
        fail(f"{str(error).rstrip('.')}: run `aloft login --server {endpoint.url} --email {email}`", kind="exists")
    emit(_identity(credentials), f"Welcome, {email}. This device is {credentials.device.name}. Next: aloft mount ~/Aloft", json)


def login(
    server: Server = None,
    email: Email = None,
    device: DeviceName = None,
    replace: Annotated[
        str | None, typer.Option("--replace", metavar="ID", help="Log this device out if all slots are taken.")
    ] = None,
    ca: CertificateAuthority = None,
    insecure: Insecure = False,
    password_stdin: PasswordStdin = False,
    json: JsonOption = False,
) -> None:
    """Log this device in. From the same home it is the same device as before.

    The password is asked for, or read from stdin (--password-stdin) or $ALOFT_PASSWORD.

    What is not given is as it was last time.
    """
    import trio

    from fs.home import open_home
    from remote.accountapi import LoginRequest
    from remote.accounts import Accounts

    session = _session()
    last = session.last()
    endpoint = find_endpoint(server, ca, insecure, last)
    if last is not None:
        email = email or last.account.email
        device = device or last.device.name
    email = needed(email, "--email E")
    if replace is not None and not _is_id_prefix(replace):
        fail(
            f"{replace} is not a device's id; `aloft login` without --replace lists them when all slots are taken", ExitCode.USAGE
        )
    password = ask_password(password_stdin)
    checked(LoginRequest, email=email, password=password, device={"installation": bytes(16), "name": _device_name(device)})
    run = functools.partial(session.log_in, Accounts(endpoint), email, password, _device_name(device), replace)
    credentials = trio.run(run)
    tell(open_home(), "logged-in")
    emit(_identity(credentials), f"Logged in as {credentials.account.email}, device {credentials.device.name}.", json)


def logout(
    keep_drafts: Annotated[
        bool, typer.Option("--keep-drafts", help="Leave changes that are only here until you log in again.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Log this device out and free its slot. Refused while changes exist only here."""
    import trio

    done = trio.run(functools.partial(_session().log_out, keep_drafts=keep_drafts))
    if not done.told:
        note("aloft: the service could not be told: remove this device with `aloft devices remove` from another one")
    kept = f" Changes that wait here for your next login: {done.kept_changes}." if done.kept_changes else ""
    emit(
        {"email": done.email, "service_told": done.told, "unpushed_changes": done.kept_changes},
        f"Logged out {done.email}.{kept}",
        json,
    )


# ------------------------------------------------------------------------------------------------------ whoami, devices


def whoami(json: JsonOption = False) -> None:
    """Say who is logged in here. Exits with 0 only if the service agrees (4: not logged in; 5: cannot ask it)."""
    import trio

    from remote.api import Transient

    credentials = _session().credentials()

    async def ask() -> AccountInfo:
        async with logged_in_service() as service:
            return await service.account()

    try:
        info = trio.run(ask)
    except Transient as error:
        fail(
            f"logged in as {credentials.account.email} when the service was last reached; now {error}",
            ExitCode.UNREACHABLE,
            **_identity(credentials),
        )
    data = _identity(credentials) | {
        "email": info.account.email,
        "quota_bytes": info.quota_bytes,
        "used_bytes": info.used_bytes,
        "traffic": info.traffic.model_dump() if info.traffic is not None else None,
    }
    emit(data, f"{info.account.email} on {credentials.server}, device {credentials.device.name}", json)


def list_devices_by_default(context: typer.Context, json: JsonOption = False) -> None:
    if context.invoked_subcommand is None:
        list_devices(json)


def list_devices(json: JsonOption = False) -> None:
    """List the devices of the account."""
    devices = _ask_devices()
    data = {"devices": [_device(device) for device in devices.devices], "limit": devices.limit}
    emit(data, functools.partial(_table, devices), json)


def remove_device(
    device: Annotated[str | None, typer.Argument(metavar="[ID]", help="The device's id, or its beginning, as listed.")] = None,
    others: Annotated[bool, typer.Option("--others", help="All but this one.")] = False,
    json: JsonOption = False,
) -> None:
    """Log another device out, or all others, and free its slot. What it had not sent yet stays there."""
    import trio

    if others == (device is not None):
        fail("give the ID of a device, or --others", ExitCode.USAGE)
    if device is None:
        removed = [each for each in _ask_devices().devices if not each.current]
        trio.run(_remove_others)
        emit({"removed": [_device(each) for each in removed]}, f"Removed {counted(len(removed), 'device')}.", json)
        return
    found = [known for known in _ask_devices().devices if _is_id_prefix(device) and known.id.hex().startswith(device.lower())]
    if len(found) != 1:
        fail(f"{'no device has' if not found else 'several devices have'} the id {device}: see `aloft devices`")
    if found[0].current:
        fail("that is this device: run `aloft logout` instead")

    async def remove() -> None:
        async with logged_in_service() as service:
            await service.remove_device(found[0].id)

    trio.run(remove)
    emit({"removed": _device(found[0])}, f"Removed {found[0].name}.", json)


async def _remove_others() -> None:
    from remote.myaccount import MyAccount

    async with logged_in_service() as service:
        await MyAccount(service).remove_other_devices()


def _ask_devices() -> DeviceList:
    import trio

    async def ask() -> DeviceList:
        async with logged_in_service() as service:
            return await service.devices()

    return trio.run(ask)


def _table(devices: DeviceList) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("id", "name", "last seen", "", title=f"{len(devices.devices)} of {devices.limit} devices", title_justify="left")
    for device in devices.devices:
        seen, here = moment(device.last_seen_ns), "this one" if device.current else ""
        table.add_row(device.id.hex()[:12], Text(printable(device.name)), seen, here)
    return table


def _device(device: Device) -> dict[str, Any]:
    return device.model_dump(include={"id", "name", "created_ns", "last_seen_ns", "current"})


def _identity(credentials: Credentials) -> dict[str, Any]:
    return {
        "email": credentials.account.email,
        "account": credentials.account.id,
        "space": credentials.account.space,
        "device": {"id": credentials.device.id, "name": credentials.device.name},
        "server": credentials.server,
    }


# --------------------------------------------------------------------------------------------------------------- common


def _session() -> Session:
    from fs.home import open_home
    from fs.session import Session

    return Session(open_home())


def _device_name(chosen: str | None) -> str:
    return (chosen or socket.gethostname() or "device")[:100]


def _is_id_prefix(text: str) -> bool:
    return 0 < len(text) <= 32 and all(character in "0123456789abcdef" for character in text.lower())
