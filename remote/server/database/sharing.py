"""Statements about who shares what with whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, exists, func, insert, select, union_all, update

from remote.server.database.schema import (
    accounts,
    devices,
    entries,
    inodes,
    members,
    personal_tokens,
    public_links,
    share_invitations,
    spaces,
    versions,
)


@dataclass(frozen=True, slots=True)
class MemberRow:
    space_id: bytes
    account_id: bytes
    role: str
    mount: bytes | None
    since_ns: int | None
    told: int | None = None


@dataclass(frozen=True, slots=True)
class InvitationRow:
    space_id: bytes
    email_key: str
    email: str
    account_id: bytes | None
    role: str
    created_ns: int


@dataclass(frozen=True, slots=True)
class Person:
    account: bytes
    email: str
    name: str
    personal_space: bytes


# -------------------------------------------------------------------------------------------------------------- spaces


def add_space(connection: Connection, space: bytes, owner: bytes, revision: int, now_ns: int) -> None:
    """A shared space, which has no root folder yet."""
    times = {"created_ns": now_ns, "changed_ns": now_ns, "names_since_ns": now_ns}
    connection.execute(insert(spaces).values(id=space, owner=owner, kind="shared", rev=revision, **times))


def shared_by(connection: Connection, owner: bytes) -> Sequence[bytes]:
    """The shared spaces that the account owns and that have members, in the order of their ids."""
    query = select(spaces.c.id).join_from(spaces, members, (members.c.space_id == spaces.c.id) & (members.c.role == "owner"))
    return (
        connection.execute(query.where(spaces.c.owner == owner, spaces.c.kind == "shared").order_by(spaces.c.id)).scalars().all()
    )


# ------------------------------------------------------------------------------------------------------------- members


def add_member(connection: Connection, row: MemberRow) -> None:
    connection.execute(insert(members).values(asdict(row)))


def members_of(connection: Connection, space: bytes) -> Sequence[tuple[MemberRow, Person]]:
    """The owner first, then as they came."""
    query = (
        select(members, accounts.c.email, accounts.c.name, accounts.c.personal_space)
        .join_from(members, accounts, accounts.c.id == members.c.account_id)
        .where(members.c.space_id == space)
        .order_by(members.c.role != "owner", members.c.since_ns, members.c.account_id)
    )
    return [
        (
            MemberRow(row.space_id, row.account_id, row.role, row.mount, row.since_ns, row.told),
            Person(row.account_id, row.email, row.name, row.personal_space),
        )
        for row in connection.execute(query)
    ]


def mounts(connection: Connection, account: bytes) -> dict[bytes, MemberRow]:
    """The account's memberships of shared spaces, by the mount in its personal space."""
    here = (members.c.account_id == account) & members.c.mount.is_not(None)
    query = select(members).where(here).order_by(members.c.since_ns, members.c.space_id)
    return {
        row.mount: MemberRow(row.space_id, row.account_id, row.role, row.mount, row.since_ns, row.told)
        for row in connection.execute(query)
    }


def set_role(connection: Connection, space: bytes, account: bytes, role: str) -> None:
    here = (members.c.space_id == space) & (members.c.account_id == account)
    connection.execute(update(members).where(here).values(role=role))


def remove_member(connection: Connection, space: bytes, account: bytes) -> None:
    """With the public links that the account made there."""
    connection.execute(delete(members).where(members.c.space_id == space, members.c.account_id == account))
    connection.execute(delete(public_links).where(public_links.c.space_id == space, public_links.c.account_id == account))


@dataclass(frozen=True, slots=True)
class Behind:
    """A member who was not told yet of all that happened in a shared space."""

    space: bytes
    account: bytes
    told: int


def behind(connection: Connection) -> Sequence[Behind]:
    query = (
        select(members.c.space_id, members.c.account_id, members.c.told)
        .join_from(members, spaces, spaces.c.id == members.c.space_id)
        .where(members.c.told < spaces.c.rev)
        .order_by(members.c.space_id, members.c.account_id)
    )
    return [Behind(row.space_id, row.account_id, row.told) for row in connection.execute(query)]


def set_told(connection: Connection, space: bytes, account: bytes, revision: int) -> None:
    here = (members.c.space_id == space) & (members.c.account_id == account)
    connection.execute(update(members).where(here).values(told=revision))


def changed_by_others(connection: Connection, member: Behind, limit: int) -> Sequence[bytes]:
    """Files with a name whose content came since, and not from the member."""
    own = union_all(
        select(devices.c.id).where(devices.c.account_id == member.account),
        select(personal_tokens.c.id).where(personal_tokens.c.account_id == member.account),
    )
    named = exists().where(entries.c.space_id == inodes.c.space_id, entries.c.inode == inodes.c.id)
    theirs = exists().where(
        versions.c.space_id == inodes.c.space_id,
        versions.c.inode == inodes.c.id,
        versions.c.content_rev == inodes.c.content_rev,
        versions.c.device_id.not_in(own),
    )
    new = (inodes.c.space_id == member.space) & (inodes.c.rev > member.told) & (inodes.c.content_rev > member.told)
    query = select(inodes.c.id).where(new, named, theirs).order_by(inodes.c.rev, inodes.c.id)
    return connection.execute(query.limit(limit)).scalars().all()


# --------------------------------------------------------------------------------------------------------- invitations


def put_invitation(connection: Connection, row: InvitationRow) -> None:
    """In the place of one to the same address."""
    remove_invitation(connection, row.space_id, row.email_key)
    connection.execute(insert(share_invitations).values(asdict(row)))


def invitations_of(connection: Connection, space: bytes) -> Sequence[InvitationRow]:
    query = select(share_invitations).where(share_invitations.c.space_id == space)
    found = connection.execute(query.order_by(share_invitations.c.created_ns, share_invitations.c.email_key))
    return [InvitationRow(**row._mapping) for row in found]


def invitations_for(connection: Connection, account: bytes) -> Sequence[InvitationRow]:
    query = select(share_invitations).where(share_invitations.c.account_id == account)
    found = connection.execute(query.order_by(share_invitations.c.created_ns, share_invitations.c.space_id))
    return [InvitationRow(**row._mapping) for row in found]


def invitation(connection: Connection, space: bytes, account: bytes) -> InvitationRow | None:
    here = (share_invitations.c.space_id == space) & (share_invitations.c.account_id == account)
    row = connection.execute(select(share_invitations).where(here).limit(1)).one_or_none()
    return None if row is None else InvitationRow(**row._mapping)


def remove_invitation(connection: Connection, space: bytes, email_key: str) -> bool:
    """Whether there was one."""
    here = (share_invitations.c.space_id == space) & (share_invitations.c.email_key == email_key)
    return connection.execute(delete(share_invitations).where(here)).rowcount > 0


def remove_invitations(connection: Connection, space: bytes) -> None:
    connection.execute(delete(share_invitations).where(share_invitations.c.space_id == space))


def remove_invitations_for(connection: Connection, account: bytes) -> None:
    connection.execute(delete(share_invitations).where(share_invitations.c.account_id == account))


def count_members(connection: Connection, space: bytes) -> int:
    """Invitations counted."""
    inside = select(func.count()).select_from(members).where(members.c.space_id == space)
    asked = select(func.count()).select_from(share_invitations).where(share_invitations.c.space_id == space)
    return int(connection.execute(inside).scalar_one()) + int(connection.execute(asked).scalar_one())
