"""A tree in another space, by reference: rows are copied, no byte is moved. Both spaces have one owner, and are locked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, insert, select, update

from remote.manifest import Encoding, decode_manifest
from remote.server.database import contents as content_rows
from remote.server.database.schema import entries, expiries, inodes, public_links, trash, versions
from remote.server.database.tree import batches

_BODIES_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class TreeCopy:
    """`ids`: all inodes that are copied, with the ids that they get; entries are those of copied folders.

    `revision`: of the copied rows; None: as they have it. That of a content stays in any case, and with it the versions.
    """

    source: bytes
    target: bytes
    ids: Mapping[bytes, bytes]
    revision: int | None = None

    def run(self, connection: Connection) -> int:
        """How many bytes of manifests the target has more than before."""
        added = self._manifests(connection)
        self._rows(connection, inodes, inodes.c.id, ("id",), rev=True)
        self._rows(connection, versions, versions.c.inode, ("inode",), rev=False)
        self._rows(connection, entries, entries.c.parent, ("parent", "inode"), rev=True)
        self._rows(connection, trash, trash.c.inode, ("inode", "parent"), rev=False)
        for table in (expiries, public_links):
            self._lead(connection, table)
        return added

    def _rows(self, connection: Connection, table: Table, key: Any, mapped: tuple[str, ...], *, rev: bool) -> None:
        for some in batches(self.ids):
            new: list[dict[str, Any]] = []
            for row in connection.execute(select(table).where(table.c.space_id == self.source, key.in_(some))).mappings():
                copied = {**row, "space_id": self.target, **{name: self.ids.get(row[name]) for name in mapped}}
                if None in [copied[name] for name in mapped]:  # a tombstone
                    continue
                if rev and self.revision is not None:
                    copied["rev"] = self.revision
                new.append(copied)
            if new:
                connection.execute(insert(table), new)

    def _manifests(self, connection: Connection) -> int:
        added = 0
        for ids in _some(sorted(self._manifest_ids(connection)), _BODIES_AT_ONCE):
            missing = set(ids) - content_rows.known_manifests(connection, self.target, ids)
            bodies = content_rows.manifest_bodies(connection, self.source, missing)
            content_rows.add_manifests(connection, self.target, bodies.items())
            added += sum(len(body) for body in bodies.values())
            named = {
                chunk.object_id
                for body in bodies.values()
                for chunk in decode_manifest(body).chunks
                if chunk.encoding is not Encoding.ZEROS
            }
            content_rows.name_objects(connection, self.target, named - content_rows.named_objects(connection, self.target, named))
        return added

    def _manifest_ids(self, connection: Connection) -> set[bytes]:
        found: set[bytes] = set()
        for some in batches(self.ids):
            for table, key in ((inodes, inodes.c.id), (versions, versions.c.inode)):
                query = select(table.c.manifest_id).where(
                    table.c.space_id == self.source, key.in_(some), table.c.manifest_id.is_not(None)
                )
                found.update(connection.execute(query).scalars())
        return found

    def _lead(self, connection: Connection, table: Table) -> None:
        """What was chosen for the inodes goes with them."""
        for some in batches(self.ids):
            here = (table.c.space_id == self.source) & table.c.inode.in_(some)
            for inode in connection.execute(select(table.c.inode).where(here).distinct()).scalars().all():
                one = (table.c.space_id == self.source) & (table.c.inode == inode)
                connection.execute(update(table).where(one).values(space_id=self.target, inode=self.ids[inode]))


def _some(all_: Sequence[bytes], size: int) -> Iterator[Collection[bytes]]:
    for start in range(0, len(all_), size):
        yield all_[start : start + size]


def all_inodes(connection: Connection, space: bytes) -> list[bytes]:
    """All inodes of a space."""
    return list(connection.execute(select(inodes.c.id).where(inodes.c.space_id == space)).scalars())
