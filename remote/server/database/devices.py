"""Statements about devices and their refresh tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, union_all, update

from remote.server.database.schema import devices, personal_tokens, refresh_tokens


@dataclass(frozen=True, slots=True)
class DeviceRow:
    account: bytes
    id: bytes
    installation: bytes
    name: str
    created_ns: int
    last_seen_ns: int
    removed_ns: int | None
    session: bytes
    confirmed: int


@dataclass(frozen=True, slots=True)
class TokenRow:
    device: bytes
    serial: int
    account: bytes
    retired: bool


def find(connection: Connection, account: bytes, device: bytes, *, lock: bool = False) -> DeviceRow | None:
    """`lock`: nobody else changes the device, or its tokens, until this transaction ends."""
    query = select(devices).where(_is(account, device))
    row = connection.execute(query.with_for_update(key_share=True) if lock else query).one_or_none()
    return None if row is None else _device(row)


def find_installation(connection: Connection, account: bytes, installation: bytes) -> DeviceRow | None:
    """Locked, as by `find`."""
    same = (devices.c.account_id == account) & (devices.c.installation == installation)
    row = connection.execute(select(devices).where(same).with_for_update(key_share=True)).one_or_none()
    return None if row is None else _device(row)


def active(connection: Connection, account: bytes) -> Sequence[DeviceRow]:
    rows = connection.execute(
        select(devices)
        .where(devices.c.account_id == account, devices.c.removed_ns.is_(None))
        .order_by(devices.c.created_ns, devices.c.id)
    )
    return [_device(row) for row in rows]


def names(connection: Connection, account: bytes) -> dict[bytes, str]:
    """Of all that changed anything for the account: its devices, also former ones, and its personal access tokens."""
    query = union_all(
        select(devices.c.id, devices.c.name).where(devices.c.account_id == account),
        select(personal_tokens.c.id, personal_tokens.c.name).where(personal_tokens.c.account_id == account),
    )
    return {row.id: row.name for row in connection.execute(query)}


def had_any(connection: Connection, account: bytes) -> bool:
    """Whether a device has ever logged in."""
    return connection.execute(select(devices.c.id).where(devices.c.account_id == account).limit(1)).first() is not None


def put(connection: Connection, device: DeviceRow, *, known: bool) -> None:
    """Write the row: over the one of the same id if it is `known`."""
    values = {
        "installation": device.installation,
        "name": device.name,
        "created_ns": device.created_ns,
        "last_seen_ns": device.last_seen_ns,
        "removed_ns": device.removed_ns,
        "session": device.session,
        "confirmed": device.confirmed,
    }
    if known:
        connection.execute(update(devices).where(_is(device.account, device.id)).values(**values))
    else:
        connection.execute(insert(devices).values(account_id=device.account, id=device.id, **values))


def remove(connection: Connection, account: bytes, device: bytes, now_ns: int) -> bool:
    """Whether it was active."""
    here = _is(account, device) & devices.c.removed_ns.is_(None)
    return connection.execute(update(devices).where(here).values(removed_ns=now_ns)).rowcount == 1


def remove_all(connection: Connection, account: bytes, now_ns: int, *, but: bytes | None = None) -> None:
    here = (devices.c.account_id == account) & devices.c.removed_ns.is_(None)
    if but is not None:
        here &= devices.c.id != but
    connection.execute(update(devices).where(here).values(removed_ns=now_ns))


def seen(connection: Connection, account: bytes, device: bytes, now_ns: int) -> None:
    connection.execute(update(devices).where(_is(account, device)).values(last_seen_ns=now_ns))


def confirm(connection: Connection, account: bytes, device: bytes, serial: int) -> None:
    """The token `serial` has arrived: all others of the device are retired."""
    connection.execute(update(devices).where(_is(account, device)).values(confirmed=serial))
    others = (refresh_tokens.c.device_id == device) & (refresh_tokens.c.serial != serial)
    connection.execute(update(refresh_tokens).where(others).values(retired=True))


def revoke_tokens(connection: Connection, account: bytes, device: bytes, session: bytes) -> None:
    """No token of the device is good any more: its refresh tokens are gone, its access tokens are of another session."""
    connection.execute(delete(refresh_tokens).where(refresh_tokens.c.device_id == device))
    connection.execute(update(devices).where(_is(account, device)).values(session=session))


def find_token(connection: Connection, token_hash: bytes) -> TokenRow | None:
    row = connection.execute(select(refresh_tokens).where(refresh_tokens.c.token_hash == token_hash)).one_or_none()
    return None if row is None else _token(row)


def find_serial(connection: Connection, device: bytes, serial: int) -> TokenRow | None:
    here = (refresh_tokens.c.device_id == device) & (refresh_tokens.c.serial == serial)
    row = connection.execute(select(refresh_tokens).where(here)).one_or_none()
    return None if row is None else _token(row)


def add_token(connection: Connection, account: bytes, device: bytes, token_hash: bytes, keep: int) -> int:
    """The new token's serial. Of the retired ones the last `keep` are remembered, to notice their reuse."""
    last = connection.execute(select(func.max(refresh_tokens.c.serial)).where(refresh_tokens.c.device_id == device)).scalar()
    serial = int(last or 0) + 1
    connection.execute(
        insert(refresh_tokens).values(device_id=device, serial=serial, account_id=account, token_hash=token_hash, retired=False)
    )
    old = (refresh_tokens.c.device_id == device) & (refresh_tokens.c.serial < serial - keep) & refresh_tokens.c.retired.is_(True)
    connection.execute(delete(refresh_tokens).where(old))
    return serial


def _is(account: bytes, device: bytes) -> ColumnElement[bool]:
    return (devices.c.account_id == account) & (devices.c.id == device)


def _device(row: Row[tuple[object, ...]]) -> DeviceRow:
    return DeviceRow(
        row.account_id,
        row.id,
        row.installation,
        row.name,
        row.created_ns,
        row.last_seen_ns,
        row.removed_ns,
        row.session,
        row.confirmed,
    )


def _token(row: Row[tuple[object, ...]]) -> TokenRow:
    return TokenRow(row.device_id, row.serial, row.account_id, row.retired)
