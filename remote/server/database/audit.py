"""Statements about the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, and_, insert, or_, select

from remote.server.database.schema import accounts, audit, devices, personal_tokens


@dataclass(frozen=True, slots=True)
class AuditRow:
    at_ns: int
    id: bytes
    account_id: bytes | None
    caller_id: bytes | None
    address: str
    action: str
    subject: str
    result: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Named:
    """A row, with the names that belong to its ids (empty: none, or not known)."""

    row: AuditRow
    email: str
    caller_name: str


def is_there(connection: Connection, row: AuditRow) -> bool:
    here = (audit.c.at_ns == row.at_ns) & (audit.c.id == row.id)
    return connection.execute(select(audit.c.id).where(here)).one_or_none() is not None


def add(connection: Connection, row: AuditRow) -> None:
    connection.execute(insert(audit).values(asdict(row)))


def page(
    connection: Connection, account: bytes | None, action: str | None, before: tuple[int, bytes] | None, limit: int
) -> Sequence[Named]:
    """The last rows before a point (of an account; of an action; None: of all), the newest first."""
    query = (
        select(audit, accounts.c.email, devices.c.name, personal_tokens.c.name.label("token_name"))
        .outerjoin(accounts, accounts.c.id == audit.c.account_id)
        .outerjoin(devices, and_(devices.c.account_id == audit.c.account_id, devices.c.id == audit.c.caller_id))
        .outerjoin(
            personal_tokens,
            and_(personal_tokens.c.account_id == audit.c.account_id, personal_tokens.c.id == audit.c.caller_id),
        )
        .order_by(audit.c.at_ns.desc(), audit.c.id.desc())
        .limit(limit)
    )
    if account is not None:
        query = query.where(audit.c.account_id == account)
    if action is not None:
        query = query.where(audit.c.action == action)
    if before is not None:
        at_ns, id_ = before
        query = query.where(or_(audit.c.at_ns < at_ns, and_(audit.c.at_ns == at_ns, audit.c.id < id_)))
    columns = [column.name for column in audit.columns]
    return [
        Named(AuditRow(**{name: row._mapping[name] for name in columns}), row.email or "", row.name or row.token_name or "")
        for row in connection.execute(query)
    ]
