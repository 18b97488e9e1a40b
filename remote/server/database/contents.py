"""Statements about contents: manifests, versions, and the objects that they are made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, delete, exists, func, insert, literal, select, tuple_

from remote.server.database.schema import inodes, manifests, members, objects, space_objects, spaces, versions
from remote.server.database.tree import batches


@dataclass(frozen=True, slots=True)
class Version:
    inode: bytes
    content_rev: int
    manifest_id: bytes
    size: int
    sha256: bytes | None
    mtime_ns: int
    device: bytes
    created_ns: int


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of an owner: where its stored copy is, and how long that is."""

    object_id: bytes
    generation: int
    length: int


# ---------------------------------------------------------------------------------------------------------- manifests


def known_manifests(connection: Connection, space: bytes, ids: Collection[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    for some in batches(ids):
        query = select(manifests.c.id).where(manifests.c.space_id == space, manifests.c.id.in_(some))
        found.update(connection.execute(query).scalars())
    return found


def add_manifests(connection: Connection, space: bytes, bodies: Iterable[tuple[bytes, bytes]]) -> None:
    rows = [{"space_id": space, "id": id_, "length": len(body), "body": body} for id_, body in bodies]
    if rows:
        connection.execute(insert(manifests), rows)


def manifest_lengths(
    connection: Connection, space: bytes, wanted: Iterable[tuple[bytes, bytes]]
) -> dict[tuple[bytes, bytes], int]:
    """Of the (inode, manifest id) that this space holds or held, the manifests' lengths. The manifest may have come with another
    inode: a conflicted copy lies on what its original had, and the service does not know it yet."""
    found = {}
    for inode, manifest_id in wanted:
        here = (manifests.c.space_id == space) & (manifests.c.id == manifest_id)
        length = connection.execute(select(manifests.c.length).where(here)).scalar_one_or_none()
        if length is not None:
            found[inode, manifest_id] = int(length)
    return found


def manifest_sizes(connection: Connection, space: bytes, ids: Collection[bytes]) -> dict[bytes, int]:
    """The lengths of those that are there."""
    found: dict[bytes, int] = {}
    for some in batches(ids):
        query = select(manifests.c.id, manifests.c.length).where(manifests.c.space_id == space, manifests.c.id.in_(some))
        found.update((id_, length) for id_, length in connection.execute(query))
    return found


def length_of_manifests(connection: Connection, space: bytes, ids: Collection[bytes]) -> int:
    """Bytes of all of them together."""
    total = func.coalesce(func.sum(manifests.c.length), 0)
    return sum(
        int(connection.execute(select(total).where(manifests.c.space_id == space, manifests.c.id.in_(some))).scalar_one())
        for some in batches(ids)
    )


def manifest_bodies(connection: Connection, space: bytes, ids: Collection[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for some in batches(ids):
        query = select(manifests.c.id, manifests.c.body).where(manifests.c.space_id == space, manifests.c.id.in_(some))
        found.update((id_, body) for id_, body in connection.execute(query))
    return found


# ----------------------------------------------------------------------------------------------------------- versions


def has_version(connection: Connection, space: bytes, inode: bytes, manifest_id: bytes) -> bool:
    here = (versions.c.space_id == space) & (versions.c.inode == inode) & (versions.c.manifest_id == manifest_id)
    return connection.execute(select(versions.c.content_rev).where(here).limit(1)).first() is not None


def version(connection: Connection, space: bytes, inode: bytes, manifest_id: bytes) -> Version | None:
    """The latest version of the inode that has this content."""
    here = (versions.c.space_id == space) & (versions.c.inode == inode) & (versions.c.manifest_id == manifest_id)
    query = select(versions).where(here).order_by(versions.c.content_rev.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else version_row(row)


def version_row(row: Row[Any]) -> Version:
    return Version(row.inode, row.content_rev, row.manifest_id, row.size, row.sha256, row.mtime_ns, row.device_id, row.created_ns)


def versions_of(connection: Connection, space: bytes, inode: bytes) -> list[Version]:
    """All of an inode, the newest first; of contents that are equal, but chunked differently by two devices, one."""
    rows = connection.execute(_newest_first(space, inode))
    return list({row.content_rev: version_row(row) for row in reversed(rows.all())}.values())[::-1]


def page_of_versions(
    connection: Connection, space: bytes, inode: bytes, before: int | None, limit: int
) -> tuple[list[Version], int | None]:
    """The same, some of them: those of revisions before that one; and the revision before which the next are."""
    query = _newest_first(space, inode)
    if before is not None:
        query = query.where(versions.c.content_rev < before)
    rows = connection.execute(query.limit(limit + 1)).all()
    found = {row.content_rev: version_row(row) for row in reversed(rows[:limit])}
    return list(found.values())[::-1], rows[limit - 1].content_rev if len(rows) > limit else None


def _newest_first(space: bytes, inode: bytes) -> Select[Any]:
    here = (versions.c.space_id == space) & (versions.c.inode == inode)
    return select(versions).where(here).order_by(versions.c.content_rev.desc(), versions.c.created_ns, versions.c.manifest_id)


def replaced_before(
    connection: Connection, space: bytes, before_ns: int, after: tuple[bytes, int, bytes] | None, limit: int
) -> list[tuple[bytes, int, bytes]]:
    """(inode, content_rev, manifest) of versions in whose place another one came before then; none that an inode holds. In
    their order, from the first after `after`."""
    newer = versions.alias()
    replaced = exists().where(
        newer.c.space_id == versions.c.space_id,
        newer.c.inode == versions.c.inode,
        newer.c.content_rev > versions.c.content_rev,
        newer.c.created_ns <= before_ns,
    )
    held = exists().where(
        inodes.c.space_id == versions.c.space_id,
        inodes.c.id == versions.c.inode,
        inodes.c.manifest_id == versions.c.manifest_id,
    )
    keyset = versions.c.inode, versions.c.content_rev, versions.c.manifest_id
    query = select(*keyset).where(versions.c.space_id == space, replaced, ~held)
    if after is not None:
        query = query.where(tuple_(*keyset) > tuple_(*map(literal, after)))
    rows = connection.execute(query.order_by(*keyset).limit(limit))
    return [(row.inode, row.content_rev, row.manifest_id) for row in rows]


def remove_versions(connection: Connection, space: bytes, gone: Collection[tuple[bytes, int, bytes]]) -> None:
    """Those of them that no inode holds by now. The space is locked."""
    held = exists().where(
        inodes.c.space_id == versions.c.space_id,
        inodes.c.id == versions.c.inode,
        inodes.c.manifest_id == versions.c.manifest_id,
    )
    here = (
        (versions.c.space_id == space)
        & (versions.c.inode == bindparam("the_inode"))
        & (versions.c.content_rev == bindparam("the_rev"))
        & (versions.c.manifest_id == bindparam("the_manifest"))
    )
    keys = [{"the_inode": inode, "the_rev": rev, "the_manifest": manifest} for inode, rev, manifest in gone]
    if keys:
        connection.execute(delete(versions).where(here, ~held), keys)


def add_versions(connection: Connection, space: bytes, new: Sequence[Version]) -> None:
    if new:
        connection.execute(
            insert(versions),
            [
                {
                    "space_id": space,
                    "inode": version.inode,
                    "content_rev": version.content_rev,
                    "manifest_id": version.manifest_id,
                    "size": version.size,
                    "sha256": version.sha256,
                    "mtime_ns": version.mtime_ns,
                    "device_id": version.device,
                    "created_ns": version.created_ns,
                }
                for version in new
            ],
        )


# ------------------------------------------------------------------------------------------------------------ objects


def readable_objects(connection: Connection, account: bytes, owner: bytes, ids: Collection[bytes]) -> dict[bytes, int]:
    """Of the objects, with their stored lengths, those that a space of this owner names which the account may read."""
    readable = (
        select(members.c.space_id)
        .join_from(members, spaces, spaces.c.id == members.c.space_id)
        .where(members.c.account_id == account, spaces.c.owner == owner)
    )
    mine = connection.execute(readable).scalars().all()
    found: dict[bytes, int] = {}
    for space in mine:
        for some in batches([id_ for id_ in ids if id_ not in found]):
            query = (
                select(objects.c.object_id, objects.c.length)
                .join_from(space_objects, objects, objects.c.object_id == space_objects.c.object_id)
                .where(space_objects.c.space_id == space, space_objects.c.object_id.in_(some), objects.c.owner == owner)
            )
            found.update((id_, length) for id_, length in connection.execute(query))
    return found


def stored_objects(connection: Connection, owner: bytes, ids: Collection[bytes]) -> dict[bytes, StoredObject]:
    found = {}
    columns = select(objects.c.object_id, objects.c.generation, objects.c.length)
    for some in batches(ids):
        for id_, generation, length in connection.execute(columns.where(objects.c.owner == owner, objects.c.object_id.in_(some))):
            found[id_] = StoredObject(id_, generation, length)
    return found


def all_objects(connection: Connection) -> list[tuple[bytes, StoredObject]]:
    """All that are alive, with their owners."""
    found = connection.execute(
        select(objects.c.owner, objects.c.object_id, objects.c.generation, objects.c.length).order_by(
            objects.c.owner, objects.c.object_id
        )
    )
    return [(bytes(row.owner), StoredObject(bytes(row.object_id), row.generation, row.length)) for row in found]


def add_objects(connection: Connection, owner: bytes, new: Sequence[StoredObject], created_ns: int) -> None:
    if new:
        connection.execute(
            insert(objects),
            [
                {
                    "owner": owner,
                    "object_id": stored.object_id,
                    "generation": stored.generation,
                    "length": stored.length,
                    "created_ns": created_ns,
                }
                for stored in new
            ],
        )


def named_objects(connection: Connection, space: bytes, ids: Collection[bytes]) -> set[bytes]:
    """Those that a manifest of the space names."""
    found: set[bytes] = set()
    for some in batches(ids):
        here = (space_objects.c.space_id == space) & space_objects.c.object_id.in_(some)
        found.update(connection.execute(select(space_objects.c.object_id).where(here)).scalars())
    return found


def name_objects(connection: Connection, space: bytes, ids: Collection[bytes]) -> None:
    if ids:
        connection.execute(insert(space_objects), [{"space_id": space, "object_id": id_} for id_ in ids])
