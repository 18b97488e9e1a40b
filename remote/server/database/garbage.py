"""Statements about what nothing names any more: manifests, objects, uploads that nobody goes on with, closed accounts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, except_, func, insert, select, union, update

from remote.server.database import formernames
from remote.server.database.schema import (
    accounts,
    dead_objects,
    entries,
    expiries,
    file_uploads,
    inodes,
    manifests,
    members,
    objects,
    space_objects,
    spaces,
    trash,
    upload_objects,
    upload_sessions,
    versions,
)
from remote.server.database.tree import batches


@dataclass(frozen=True, slots=True)
class SpaceToSweep:
    id: bytes
    owner: bytes


@dataclass(frozen=True, slots=True)
class DeadObject:
    """A stored copy that nothing leads to."""

    owner: bytes
    object_id: bytes
    generation: int
    length: int


def all_spaces(connection: Connection) -> list[SpaceToSweep]:
    rows = connection.execute(select(spaces.c.id, spaces.c.owner).order_by(spaces.c.id))
    return [SpaceToSweep(row.id, row.owner) for row in rows]


def spaces_by_tier(connection: Connection) -> list[tuple[bytes, str]]:
    """All spaces, with the tier of their owner."""
    query = select(spaces.c.id, accounts.c.tier).join_from(spaces, accounts, accounts.c.id == spaces.c.owner)
    return [(row.id, row.tier) for row in connection.execute(query.order_by(spaces.c.id))]


def lock_account(connection: Connection, account: bytes) -> None:
    """After the space, if that is locked too: the order of a commit."""
    connection.execute(select(accounts.c.id).where(accounts.c.id == account).with_for_update(key_share=True))


# ---------------------------------------------------------------------------------------------------------- manifests


def unnamed_manifests(connection: Connection, space: bytes) -> list[bytes]:
    """The manifests that no version names, and no inode holds."""
    query = except_(
        select(manifests.c.id).where(manifests.c.space_id == space),
        select(versions.c.manifest_id).where(versions.c.space_id == space),
        select(inodes.c.manifest_id).where(inodes.c.space_id == space, inodes.c.manifest_id.is_not(None)),
    )
    return list(connection.execute(query).scalars())


def manifests_named_since(connection: Connection, space: bytes, rev: int) -> set[bytes]:
    """Those that commits after this revision named, whatever became of that since. For whoever has locked the space."""
    changed = (inodes.c.space_id == space) & (inodes.c.rev > rev)
    held = select(inodes.c.manifest_id).where(changed, inodes.c.manifest_id.is_not(None))
    kept = (
        select(versions.c.manifest_id)
        .join_from(inodes, versions, (versions.c.space_id == inodes.c.space_id) & (versions.c.inode == inodes.c.id))
        .where(changed, versions.c.content_rev > rev)
    )
    return set(connection.execute(union(held, kept)).scalars())


def remove_manifests(connection: Connection, space: bytes, ids: Collection[bytes]) -> tuple[int, int]:
    """How many were there, and their bytes. The space remembers that its objects have to be swept."""
    count = length = 0
    for some in batches(ids):
        here = (manifests.c.space_id == space) & manifests.c.id.in_(some)
        found = connection.execute(select(func.count(), func.coalesce(func.sum(manifests.c.length), 0)).where(here)).one()
        count, length = count + found[0], length + int(found[1])
        connection.execute(delete(manifests).where(here))
    connection.execute(update(spaces).where(spaces.c.id == space).values(unswept=spaces.c.unswept + 1))
    return count, length


def manifest_pages(connection: Connection, space: bytes, after: bytes, limit: int) -> Sequence[tuple[bytes, bytes]]:
    """(id, body) in the order of ids, from the first after `after` on."""
    query = (
        select(manifests.c.id, manifests.c.body)
        .where(manifests.c.space_id == space, manifests.c.id > after)
        .order_by(manifests.c.id)
        .limit(limit)
    )
    return [(row.id, row.body) for row in connection.execute(query)]


def unswept(connection: Connection, space: bytes) -> int:
    """How many steps removed manifests since the space was swept."""
    return int(connection.execute(select(spaces.c.unswept).where(spaces.c.id == space)).scalar_one())


def swept(connection: Connection, space: bytes, steps: int) -> None:
    """All that manifests removed in these `steps` had named is looked through; not so if more were removed since."""
    here = (spaces.c.id == space) & (spaces.c.unswept == steps)
    connection.execute(update(spaces).where(here).values(unswept=0))


# ------------------------------------------------------------------------------------------------------------ objects


def count_named(connection: Connection, space: bytes) -> int:
    return int(connection.execute(select(func.count()).where(space_objects.c.space_id == space)).scalar_one())


def named_between(connection: Connection, space: bytes, after: bytes, until: bytes, limit: int) -> list[bytes]:
    """Objects that the space names, in the order of ids: from the first after `after` to `until`, that one included."""
    query = (
        select(space_objects.c.object_id)
        .where(space_objects.c.space_id == space, space_objects.c.object_id > after, space_objects.c.object_id <= until)
        .order_by(space_objects.c.object_id)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def unname_objects(connection: Connection, space: bytes, ids: Collection[bytes]) -> None:
    for some in batches(ids):
        connection.execute(delete(space_objects).where(space_objects.c.space_id == space, space_objects.c.object_id.in_(some)))


def named_nowhere(connection: Connection, owner: bytes, ids: Collection[bytes], besides: bytes | None = None) -> list[DeadObject]:
    """Of the owner's stored objects those that none of its spaces names, `besides` left out."""
    named = (
        select(space_objects.c.object_id)
        .join_from(space_objects, spaces, spaces.c.id == space_objects.c.space_id)
        .where(spaces.c.owner == owner, space_objects.c.object_id == objects.c.object_id)
    )
    if besides is not None:
        named = named.where(space_objects.c.space_id != besides)
    found: list[DeadObject] = []
    for some in batches(ids):
        query = select(objects).where(objects.c.owner == owner, objects.c.object_id.in_(some), ~named.exists())
        found += [DeadObject(owner, row.object_id, row.generation, row.length) for row in connection.execute(query)]
    return found


def bury(connection: Connection, dead: Collection[DeadObject], now_ns: int) -> None:
    """From now on nothing leads to these stored copies."""
    if not dead:
        return
    here = (objects.c.owner == bindparam("of")) & (objects.c.object_id == bindparam("the_id"))
    connection.execute(delete(objects).where(here), [{"of": each.owner, "the_id": each.object_id} for each in dead])
    add_dead(connection, dead, now_ns)


def add_dead(connection: Connection, dead: Collection[DeadObject], now_ns: int) -> None:
    if dead:
        connection.execute(
            insert(dead_objects),
            [
                {
                    "owner": each.owner,
                    "object_id": each.object_id,
                    "generation": each.generation,
                    "length": each.length,
                    "since_ns": now_ns,
                }
                for each in dead
            ],
        )


def dead_before(connection: Connection, before_ns: int, limit: int) -> list[DeadObject]:
    """The copies that have been dead since then at least; none that an account's objects still name, which cannot be."""
    alive = (
        select(objects.c.object_id)
        .where(
            objects.c.owner == dead_objects.c.owner,
            objects.c.object_id == dead_objects.c.object_id,
            objects.c.generation == dead_objects.c.generation,
        )
        .exists()
    )
    query = (
        select(dead_objects).where(dead_objects.c.since_ns <= before_ns, ~alive).order_by(dead_objects.c.since_ns).limit(limit)
    )
    return [DeadObject(row.owner, row.object_id, row.generation, row.length) for row in connection.execute(query)]


def count_dead(connection: Connection) -> tuple[int, int]:
    """How many copies wait for their deletion, and their bytes."""
    count, length = connection.execute(select(func.count(), func.coalesce(func.sum(dead_objects.c.length), 0))).one()
    return int(count), int(length)


def forget_dead(connection: Connection, owner: bytes, dead: Collection[DeadObject]) -> None:
    """They are deleted. No key of the owner gets one of their generations again. The account is locked."""
    highest = max(each.generation for each in dead)
    connection.execute(
        update(accounts).where(accounts.c.id == owner, accounts.c.next_generation <= highest).values(next_generation=highest + 1)
    )
    here = (
        (dead_objects.c.owner == bindparam("of"))
        & (dead_objects.c.object_id == bindparam("the_id"))
        & (dead_objects.c.generation == bindparam("the_generation"))
    )
    keys = [{"of": each.owner, "the_id": each.object_id, "the_generation": each.generation} for each in dead]
    connection.execute(delete(dead_objects).where(here), keys)


# ------------------------------------------------------------------------------------------------------------ uploads


def old_sessions(connection: Connection, before_ns: int, limit: int) -> list[tuple[bytes, bytes, bytes]]:
    """(space, session, owner) of upload sessions that were last used before then."""
    query = (
        select(upload_sessions.c.space_id, upload_sessions.c.id, upload_sessions.c.owner)
        .where(upload_sessions.c.last_used_ns < before_ns)
        .order_by(upload_sessions.c.last_used_ns)
        .limit(limit)
    )
    return [(row.space_id, row.id, row.owner) for row in connection.execute(query)]


def count_old_sessions(connection: Connection, before_ns: int) -> int:
    return int(connection.execute(select(func.count()).where(upload_sessions.c.last_used_ns < before_ns)).scalar_one())


def end_session(
    connection: Connection, space: bytes, session: bytes, owner: bytes, before_ns: int, limit: int
) -> tuple[list[DeadObject], bool]:
    """At most `limit` copies of a session that is still old, which are its no more, and whether it has ended with them.

    The owner's account is locked: nobody goes on with the session meanwhile.
    """
    here = (upload_sessions.c.space_id == space) & (upload_sessions.c.id == session)
    if connection.execute(select(upload_sessions.c.id).where(here, upload_sessions.c.last_used_ns < before_ns)).first() is None:
        return [], True
    mine = (upload_objects.c.space_id == space) & (upload_objects.c.session_id == session)
    rows = connection.execute(select(upload_objects).where(mine).order_by(upload_objects.c.object_id).limit(limit)).all()
    dead = [DeadObject(owner, row.object_id, row.generation, row.length) for row in rows]
    for some in batches([each.object_id for each in dead]):
        connection.execute(delete(upload_objects).where(mine, upload_objects.c.object_id.in_(some)))
    if len(rows) < limit:
        connection.execute(delete(upload_sessions).where(here))
    return dead, len(rows) < limit


def forget_file_uploads(connection: Connection, before_ns: int) -> int:
    """Uploads of plain clients that were last used before then, complete or not."""
    return connection.execute(delete(file_uploads).where(file_uploads.c.last_used_ns < before_ns)).rowcount


# ----------------------------------------------------------------------------------------------------------- accounts


def closed_spaces(connection: Connection, before_ns: int) -> list[tuple[bytes, bytes]]:
    """(space, owner) of accounts that were closed before then, and of shared folders that are none any more, as long as there
    is something in them."""
    filled = select(inodes.c.id).where(inodes.c.space_id == spaces.c.id).exists()
    is_followed = select(members.c.account_id).where(members.c.space_id == spaces.c.id).exists()
    query = (
        select(spaces.c.id, spaces.c.owner)
        .join_from(spaces, accounts, accounts.c.id == spaces.c.owner)
        .where((accounts.c.closed_ns < before_ns) | (accounts.c.closed_ns.is_(None) & ~is_followed), filled)
        .order_by(spaces.c.id)
    )
    return [(row.id, row.owner) for row in connection.execute(query)]


def empty_space(connection: Connection, space: bytes, limit: int) -> int:
    """Remove at most `limit` former names, and then inodes with all that hangs on them; how many of the ones or the others.
    For a space without members."""
    names = formernames.remove_of(connection, space, limit)
    if names == limit:
        return names
    here = inodes.c.space_id == space
    ids = list(connection.execute(select(inodes.c.id).where(here).order_by(inodes.c.id).limit(limit)).scalars())
    for some in batches(ids):
        connection.execute(delete(entries).where(entries.c.space_id == space, entries.c.parent.in_(some)))
        connection.execute(delete(versions).where(versions.c.space_id == space, versions.c.inode.in_(some)))
        connection.execute(delete(trash).where(trash.c.space_id == space, trash.c.inode.in_(some)))
        connection.execute(delete(expiries).where(expiries.c.space_id == space, expiries.c.inode.in_(some)))
        connection.execute(delete(inodes).where(here, inodes.c.id.in_(some)))
    return len(ids)


def forget_names_of_closed(connection: Connection, before_ns: int) -> None:
    closed = (accounts.c.closed_ns < before_ns) & ((accounts.c.email != "") | (accounts.c.name != ""))
    connection.execute(update(accounts).where(closed).values(email="", name="", settings="{}"))


# -------------------------------------------------------------------------------------------------------------- usage


def all_accounts(connection: Connection) -> list[bytes]:
    return list(connection.execute(select(accounts.c.id).order_by(accounts.c.id)).scalars())


def used(connection: Connection, account: bytes) -> tuple[int, int]:
    """What is written down as used, and what the rows add up to. With the account locked they are of one moment."""
    told = connection.execute(select(accounts.c.used_bytes).where(accounts.c.id == account)).scalar_one()
    stored = select(func.coalesce(func.sum(objects.c.length), 0)).where(objects.c.owner == account)
    described = (
        select(func.coalesce(func.sum(manifests.c.length), 0))
        .join_from(manifests, spaces, spaces.c.id == manifests.c.space_id)
        .where(spaces.c.owner == account)
    )
    return int(told), int(connection.execute(stored).scalar_one()) + int(connection.execute(described).scalar_one())


def set_used(connection: Connection, account: bytes, used_bytes: int) -> None:
    connection.execute(update(accounts).where(accounts.c.id == account).values(used_bytes=used_bytes))


def each_owner(dead: Collection[DeadObject]) -> Iterator[tuple[bytes, list[DeadObject]]]:
    owners: dict[bytes, list[DeadObject]] = {}
    for each in dead:
        owners.setdefault(each.owner, []).append(each)
    yield from owners.items()
