"""Statements about how far devices are, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from remote.server.database.schema import device_positions as positions
from remote.server.database.schema import device_reports as reports
from remote.server.database.schema import devices


@dataclass(frozen=True, slots=True)
class DeviceProgress:
    id: bytes
    name: str
    last_seen_ns: int
    rev: int | None
    noted_ns: int | None
    report: str | None
    reported_ns: int | None


def progress(connection: Connection, account: bytes, space: bytes) -> Sequence[DeviceProgress]:
    """Of the account's active devices, in the space."""
    there = (positions.c.device_id == devices.c.id) & (positions.c.account_id == account) & (positions.c.space_id == space)
    said = (reports.c.device_id == devices.c.id) & (reports.c.account_id == account)
    query = (
        select(
            devices.c.id,
            devices.c.name,
            devices.c.last_seen_ns,
            positions.c.rev,
            positions.c.noted_ns,
            reports.c.body.label("report"),
            reports.c.reported_ns,
        )
        .select_from(devices.join(positions, there, isouter=True).join(reports, said, isouter=True))
        .where(devices.c.account_id == account, devices.c.removed_ns.is_(None))
        .order_by(devices.c.created_ns, devices.c.id)
    )
    return [DeviceProgress(**row._mapping) for row in connection.execute(query)]


def note_positions(connection: Connection, account: bytes, device: bytes, revisions: Mapping[bytes, int], now_ns: int) -> None:
    """The device's row is locked."""
    mine = (positions.c.account_id == account) & (positions.c.device_id == device)
    for space, rev in revisions.items():
        moved = update(positions).where(mine, positions.c.space_id == space).values(rev=rev, noted_ns=now_ns)
        if connection.execute(moved).rowcount == 0:
            row = {"account_id": account, "device_id": device, "space_id": space, "rev": rev, "noted_ns": now_ns}
            connection.execute(insert(positions).values(row))


def forget_positions(connection: Connection) -> None:
    """The service was restored: where devices stand now, nobody knows before they tell."""
    connection.execute(delete(positions))


def report_of(connection: Connection, account: bytes, device: bytes) -> str | None:
    mine = (reports.c.account_id == account) & (reports.c.device_id == device)
    return connection.execute(select(reports.c.body).where(mine)).scalar_one_or_none()


def put_report(connection: Connection, account: bytes, device: bytes, body: str, now_ns: int) -> None:
    """The device's row is locked."""
    mine = (reports.c.account_id == account) & (reports.c.device_id == device)
    if connection.execute(update(reports).where(mine).values(body=body, reported_ns=now_ns)).rowcount == 0:
        row = {"account_id": account, "device_id": device, "body": body, "reported_ns": now_ns}
        connection.execute(insert(reports).values(row))
