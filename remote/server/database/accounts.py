"""Statements about accounts, invitations and membership."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from remote.server.database.schema import (
    accounts,
    device_positions,
    device_reports,
    devices,
    expiries,
    inodes,
    invitations,
    mailboxes,
    members,
    notifications,
    password_codes,
    public_links,
    spaces,
)

ROOT_MODE = 0o755


@dataclass(frozen=True, slots=True)
class NewAccount:
    id: bytes
    email: str
    email_key: str
    name: str
    password_hash: str
    space: bytes
    tier: str
    created_ns: int


@dataclass(frozen=True, slots=True)
class Membership:
    """What an account is in a space."""

    space: bytes
    owner: bytes
    role: str

    @property
    def may_write(self) -> bool:
        return self.role in ("owner", "editor")


@dataclass(frozen=True, slots=True)
class AccountLine:
    """An account, as its administrator sees it in a list."""

    email: str
    name: str
    tier: str
    used_bytes: int
    devices: int
    created_ns: int
    last_login_ns: int | None


def by_email(connection: Connection, email_key: str) -> Row[tuple[object, ...]] | None:
    return connection.execute(select(accounts).where(accounts.c.email_key == email_key)).one_or_none()


def by_id(connection: Connection, account: bytes, *, lock: bool = False) -> Row[tuple[object, ...]]:
    query = select(accounts).where(accounts.c.id == account)
    return connection.execute(query.with_for_update(key_share=True) if lock else query).one()


def personal_space(connection: Connection, account: bytes) -> bytes:
    space: bytes = connection.execute(select(accounts.c.personal_space).where(accounts.c.id == account)).scalar_one()
    return space


def lock(connection: Connection, account: bytes, password_hash: str | None = None) -> bool:
    """Lock the account; whether it is open, and its password is (still) this one, if one is given."""
    row = by_id(connection, account, lock=True)
    return row.closed_ns is None and password_hash in (None, row.password_hash)


def add(connection: Connection, account: NewAccount) -> None:
    """The account with its personal space: the space, its owner as member, and its root folder."""
    connection.execute(
        insert(accounts).values(
            id=account.id,
            email=account.email,
            email_key=account.email_key,
            name=account.name,
            password_hash=account.password_hash,
            personal_space=account.space,
            tier=account.tier,
            used_bytes=0,
            created_ns=account.created_ns,
        )
    )
    connection.execute(
        insert(spaces).values(
            id=account.space,
            owner=account.id,
            kind="personal",
            rev=1,
            created_ns=account.created_ns,
            names_since_ns=account.created_ns,
        )
    )
    connection.execute(insert(members).values(space_id=account.space, account_id=account.id, role="owner"))
    connection.execute(
        insert(inodes).values(
            space_id=account.space,
            id=account.space,
            rev=1,
            kind="directory",
            mode=ROOT_MODE,
            mtime_ns=account.created_ns,
            content_rev=0,
            created_ns=account.created_ns,
        )
    )


def set_password_hash(connection: Connection, account: bytes, password_hash: str) -> None:
    connection.execute(update(accounts).where(accounts.c.id == account).values(password_hash=password_hash))


def change(connection: Connection, account: bytes, *, name: str | None, settings: str | None) -> None:
    """What is None stays."""
    values = {key: value for key, value in (("name", name), ("settings", settings)) if value is not None}
    if values:
        connection.execute(update(accounts).where(accounts.c.id == account).values(**values))


def logged_in(connection: Connection, account: bytes, now_ns: int) -> None:
    connection.execute(update(accounts).where(accounts.c.id == account).values(last_login_ns=now_ns))


def close(connection: Connection, account: bytes, now_ns: int) -> None:
    """Free its address, and take away the ways to what it stored: its password, and the members of its spaces."""
    nobody = {"closed_ns": now_ns, "email_key": f"closed {account.hex()}", "password_hash": ""}
    connection.execute(update(accounts).where(accounts.c.id == account).values(**nobody))
    owned = select(spaces.c.id).where(spaces.c.owner == account)
    connection.execute(delete(members).where((members.c.account_id == account) | members.c.space_id.in_(owned)))
    connection.execute(delete(password_codes).where(password_codes.c.account_id == account))
    for theirs in (device_positions, device_reports, expiries, notifications, mailboxes):
        connection.execute(delete(theirs).where(theirs.c.account_id == account))
    connection.execute(delete(public_links).where((public_links.c.account_id == account) | public_links.c.space_id.in_(owned)))


def add_password_code(connection: Connection, code_hash: bytes, account: bytes, expires_ns: int, now_ns: int) -> None:
    """And forget those that have expired."""
    connection.execute(delete(password_codes).where(password_codes.c.expires_ns <= now_ns))
    connection.execute(insert(password_codes).values(code_hash=code_hash, account_id=account, expires_ns=expires_ns))


def account_of_password_code(connection: Connection, code_hash: bytes, now_ns: int) -> bytes | None:
    good = (password_codes.c.code_hash == code_hash) & (password_codes.c.expires_ns > now_ns)
    return connection.execute(select(password_codes.c.account_id).where(good)).scalar()


def remove_password_codes(connection: Connection, account: bytes) -> None:
    connection.execute(delete(password_codes).where(password_codes.c.account_id == account))


def add_used(connection: Connection, account: bytes, used: int) -> None:
    connection.execute(update(accounts).where(accounts.c.id == account).values(used_bytes=accounts.c.used_bytes + used))


def set_tier(connection: Connection, account: bytes, tier: str) -> None:
    """From now on the quota is the tier's, too."""
    connection.execute(update(accounts).where(accounts.c.id == account).values(tier=tier, own_quota_bytes=None))


def add_invitation(connection: Connection, code_hash: bytes, created_ns: int) -> None:
    connection.execute(insert(invitations).values(code_hash=code_hash, created_ns=created_ns))


def invitation_is_free(connection: Connection, code_hash: bytes) -> bool:
    free = (invitations.c.code_hash == code_hash) & invitations.c.used_by.is_(None)
    return (
        connection.execute(select(invitations.c.code_hash).where(free).with_for_update(key_share=True)).one_or_none() is not None
    )


def use_invitation(connection: Connection, code_hash: bytes, account: bytes) -> None:
    connection.execute(update(invitations).where(invitations.c.code_hash == code_hash).values(used_by=account))


def membership(connection: Connection, space: bytes, account: bytes) -> Membership | None:
    found = connection.execute(_MEMBERSHIP, {"space": space, "account": account}).one_or_none()
    return None if found is None else Membership(space, found.owner, found.role)


def memberships(connection: Connection, account: bytes) -> Sequence[Membership]:
    """Of all spaces of the account, in the order of their ids."""
    return [Membership(row.id, row.owner, row.role) for row in connection.execute(_MEMBERSHIPS, {"account": account})]


# Built once: every request asks, and building a statement takes longer than running it.
_MEMBERSHIPS = (
    select(spaces.c.id, spaces.c.owner, members.c.role)
    .join_from(members, spaces, spaces.c.id == members.c.space_id)
    .where(members.c.account_id == bindparam("account"))
    .order_by(spaces.c.id)
)
_MEMBERSHIP = (
    select(spaces.c.owner, members.c.role)
    .join_from(members, spaces, spaces.c.id == members.c.space_id)
    .where(members.c.space_id == bindparam("space"), members.c.account_id == bindparam("account"))
)


def email_of(connection: Connection, account: bytes) -> str:
    email: str = connection.execute(select(accounts.c.email).where(accounts.c.id == account)).scalar_one()
    return email


def all_accounts(connection: Connection) -> list[AccountLine]:
    """Those that are not closed, by their e-mail."""
    active = (
        select(func.count())
        .where(devices.c.account_id == accounts.c.id, devices.c.removed_ns.is_(None))
        .correlate(accounts)
        .scalar_subquery()
    )
    query = select(accounts, active.label("active")).where(accounts.c.closed_ns.is_(None)).order_by(accounts.c.email_key)
    return [
        AccountLine(row.email, row.name, row.tier, row.used_bytes, row.active, row.created_ns, row.last_login_ns)
        for row in connection.execute(query)
    ]
