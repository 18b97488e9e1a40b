"""What devices show of the past: the versions of a file and what is in the trash, by space and inode. Blocking.

Reads only; only for members of the space. Plain clients have paths for the same (`trash`), devices have inodes.
"""

from __future__ import annotations

from remote.historyapi import PastVersion, TrashedInode, TrashPage, VersionsPage
from remote.protocol import Kind
from remote.server.access import member_of
from remote.server.database import contents as content_rows
from remote.server.database import trash as trash_rows
from remote.server.database.engine import Database
from remote.server.database.trash import TrashRow
from remote.server.database.tree import InodeRow, load_inodes
from remote.server.devices import Caller
from remote.server.problems import not_found
from remote.server.trash import page_after, parse_after


class History:
    def __init__(self, database: Database) -> None:
        self._database = database

    def versions(self, caller: Caller, space: bytes, inode: bytes, before: int | None, limit: int) -> VersionsPage:
        """`before`: a revision. `Refused` (not found) if the space has no such file, nor ever had."""
        with self._database.read() as connection:
            member_of(connection, caller, space)
            row = load_inodes(connection, space, [inode]).get(inode)
            if row is None or row.kind is not Kind.FILE:
                raise not_found("There is no such file.")
            found, next_ = content_rows.page_of_versions(connection, space, inode, before, limit)
        versions = [
            PastVersion.model_construct(
                revision=each.content_rev,
                version=each.manifest_id,
                size=each.size,
                mtime_ns=each.mtime_ns,
                created_ns=each.created_ns,
            )
            for each in found
        ]
        return VersionsPage.model_construct(versions=versions, next=next_)

    def trash(self, caller: Caller, space: bytes, folder: bytes | None, after: str | None, limit: int) -> TrashPage:
        """`Refused` (not found) if the folder is not in the trash."""
        keyset = None if after is None else parse_after(after)
        with self._database.read() as connection:
            member_of(connection, caller, space)
            if folder is None:
                found = trash_rows.page(connection, [space], keyset, limit + 1)
            else:
                row = trash_rows.find(connection, space, folder)
                if row is None or row.kind is not Kind.DIRECTORY:
                    raise not_found("There is no such folder in the trash.")
                found = trash_rows.inside(connection, space, folder, row.deleted_ns, limit + 1, keyset)
            inodes = load_inodes(connection, space, [each.inode for each in found[:limit]])
        entries = [_trashed(each, inodes[each.inode]) for each in found[:limit]]
        return TrashPage.model_construct(entries=entries, next=page_after(found, limit))


def _trashed(row: TrashRow, inode: InodeRow) -> TrashedInode:
    return TrashedInode.model_construct(
        id=row.inode,
        name=row.key[1],
        kind=row.kind,
        mode=inode.attributes.mode,
        size=row.size,
        mtime_ns=inode.attributes.mtime_ns,
        deleted_ns=row.deleted_ns,
        version=inode.manifest_id,
        target=inode.target,
        device_number=inode.device_number,
    )
