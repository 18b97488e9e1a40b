"""Statements about upload sessions: what an account said it would send, and how far that is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from remote.server.database.schema import accounts, dead_objects, objects, upload_objects, upload_sessions
from remote.server.database.tree import batches


class UploadState(IntEnum):
    PLANNED = 0
    STORED = 1
    """The object store said so."""
    SURPLUS = 2
    """A content names the object, but another stored copy of it: this one is garbage, and no longer counts as reserved."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An object of an open session."""

    space: bytes
    session: bytes
    object_id: bytes
    generation: int
    length: int
    state: UploadState


def open_session(connection: Connection, space: bytes, account: bytes, since_ns: int) -> bytes | None:
    """The session of the account in this space that was used after `since_ns`."""
    mine = (upload_sessions.c.space_id == space) & (upload_sessions.c.account_id == account)
    query = select(upload_sessions.c.id).where(mine, upload_sessions.c.last_used_ns > since_ns).limit(1)
    return connection.execute(query).scalar_one_or_none()


def add_session(connection: Connection, space: bytes, session: bytes, account: bytes, owner: bytes, now_ns: int) -> None:
    row = {"space_id": space, "id": session, "account_id": account, "owner": owner, "last_used_ns": now_ns}
    connection.execute(insert(upload_sessions).values(**row))


def use_session(connection: Connection, space: bytes, session: bytes, now_ns: int) -> None:
    here = (upload_sessions.c.space_id == space) & (upload_sessions.c.id == session)
    connection.execute(update(upload_sessions).where(here).values(last_used_ns=now_ns))


def find_uploads(
    connection: Connection, account: bytes, owner: bytes, ids: Collection[bytes], since_ns: int
) -> dict[bytes, list[Upload]]:
    """What the account has in its open sessions of this owner's spaces, by object."""
    found: dict[bytes, list[Upload]] = {}
    who = {"owner": owner, "account": account, "since": since_ns}
    for some in batches(ids):
        for row in connection.execute(_OPEN_UPLOADS, {**who, "ids": some}):
            state = UploadState(row.state)
            upload = Upload(row.space_id, row.session_id, row.object_id, row.generation, row.length, state)
            found.setdefault(row.object_id, []).append(upload)
    return found


def next_generations(connection: Connection, owner: bytes, ids: Collection[bytes]) -> dict[bytes, int]:
    """For each object a generation that no key of this owner has had. The owner's account is locked."""
    if not ids:
        return {}
    first = connection.execute(select(accounts.c.next_generation).where(accounts.c.id == owner)).scalar_one()
    latest = dict.fromkeys(ids, first - 1)
    for table in (objects, upload_objects, dead_objects):
        for some in batches(ids):
            query = (
                select(table.c.object_id, func.max(table.c.generation))
                .where(table.c.owner == owner, table.c.object_id.in_(some))
                .group_by(table.c.object_id)
            )
            for id_, generation in connection.execute(query):
                latest[id_] = max(latest[id_], generation)
    return {id_: generation + 1 for id_, generation in latest.items()}


def add_uploads(connection: Connection, owner: bytes, new: Sequence[Upload]) -> None:
    if new:
        connection.execute(
            insert(upload_objects),
            [
                {
                    "space_id": upload.space,
                    "session_id": upload.session,
                    "object_id": upload.object_id,
                    "owner": owner,
                    "generation": upload.generation,
                    "length": upload.length,
                    "state": int(upload.state),
                }
                for upload in new
            ],
        )


def set_uploads(connection: Connection, changed: Sequence[Upload]) -> None:
    """Write length and state."""
    if changed:
        here = (
            (upload_objects.c.space_id == bindparam("this_space"))
            & (upload_objects.c.session_id == bindparam("this_session"))
            & (upload_objects.c.object_id == bindparam("this_object"))
        )
        connection.execute(
            update(upload_objects).where(here).values(length=bindparam("length"), state=bindparam("state")),
            [
                {
                    "this_space": upload.space,
                    "this_session": upload.session,
                    "this_object": upload.object_id,
                    "length": upload.length,
                    "state": int(upload.state),
                }
                for upload in changed
            ],
        )


def forget_uploads(connection: Connection, gone: Sequence[Upload]) -> None:
    """They became stored objects of their owner, and are known as such from now on."""
    if gone:
        here = (
            (upload_objects.c.space_id == bindparam("this_space"))
            & (upload_objects.c.session_id == bindparam("this_session"))
            & (upload_objects.c.object_id == bindparam("this_object"))
        )
        keys = [{"this_space": upload.space, "this_session": upload.session, "this_object": upload.object_id} for upload in gone]
        connection.execute(delete(upload_objects).where(here), keys)


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account may use, and uses, in bytes. `reserved`: what open sessions announced and nothing names yet."""

    tier: str
    own_quota: int | None
    used: int
    reserved: int


def usage(connection: Connection, owner: bytes, since_ns: int, *, lock: bool) -> Usage:
    tier, own_quota, used = connection.execute(_ACCOUNT_LOCKED if lock else _ACCOUNT, {"owner": owner}).one()
    reserved = connection.execute(_RESERVED, {"owner": owner, "since": since_ns}).scalar_one()
    return Usage(tier, own_quota, used, int(reserved))


# Built once: every commit asks, and building a statement takes longer than running it.
_SAME_SESSION = (upload_sessions.c.space_id == upload_objects.c.space_id) & (upload_sessions.c.id == upload_objects.c.session_id)
_OPEN_UPLOADS = (
    select(upload_objects)
    .join_from(upload_objects, upload_sessions, _SAME_SESSION)
    .where(
        upload_objects.c.owner == bindparam("owner"),
        upload_sessions.c.account_id == bindparam("account"),
        upload_sessions.c.last_used_ns > bindparam("since"),
        upload_objects.c.object_id.in_(bindparam("ids", expanding=True)),
    )
)
_ACCOUNT = select(accounts.c.tier, accounts.c.own_quota_bytes, accounts.c.used_bytes).where(accounts.c.id == bindparam("owner"))
_ACCOUNT_LOCKED = _ACCOUNT.with_for_update(key_share=True)
_RESERVED = (
    select(func.coalesce(func.sum(upload_objects.c.length), 0))
    .join_from(upload_sessions, upload_objects, _SAME_SESSION)
    .where(
        upload_sessions.c.owner == bindparam("owner"),
        upload_sessions.c.last_used_ns > bindparam("since"),
        upload_objects.c.state != UploadState.SURPLUS,
    )
)
