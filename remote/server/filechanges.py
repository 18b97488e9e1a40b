"""What changed, in terms of paths, for programs that keep no revisions; and what happened to one file. Blocking."""

from __future__ import annotations

from sqlalchemy import Connection

from remote.protocol import ProblemType
from remote.server.cursor import BadCursor, Cursor, Position, Table, decode, encode
from remote.server.database import collection as collection_rows
from remote.server.database import contents as content_rows
from remote.server.database import devices as device_rows
from remote.server.database import epochs
from remote.server.database import trash as trash_rows
from remote.server.database.engine import Database
from remote.server.database.tree import Key, revision_and_collected
from remote.server.devices import Caller
from remote.server.feed import next_rows
from remote.server.files import file_info, open_tree
from remote.server.paths import child, place_of
from remote.server.problems import Refused, not_found
from remote.server.tree import Tree
from remote.syncapi import FileChange, FileChanges, FileEvent, FileHistory


class FileFeed:
    def __init__(self, database: Database) -> None:
        self._database = database

    def since(self, caller: Caller, since_ns: int, limit: int) -> FileChanges:
        """All that changed since then, and perhaps what changed shortly before."""
        with self._database.read() as connection:
            tree = open_tree(connection, caller)
            return self._page(connection, tree, Position(collection_rows.revision_at(connection, tree.root, since_ns)), limit)

    def after(self, caller: Caller, text: str, limit: int) -> FileChanges:
        try:
            cursor = decode(text)
        except BadCursor as error:
            raise Refused(ProblemType.INVALID, f"{error}: begin again with a time", field="cursor") from error
        with self._database.read() as connection:
            tree = open_tree(connection, caller)
            at = cursor.positions.get(tree.root)
            if at is None or cursor.epoch.hex() != epochs.current(connection):
                raise Refused(ProblemType.RESET, "The service was restored since: begin again with a time.")
            return self._page(connection, tree, at, limit)

    def history(self, caller: Caller, inode: bytes) -> FileHistory:
        """`Refused` (not found) if the caller's space never had it."""
        with self._database.read() as connection:
            tree = open_tree(connection, caller)
            if tree.inode(inode) is None:
                raise not_found("There is no such file.")
            place = place_of(tree, inode)
            versions = content_rows.versions_of(connection, tree.root, inode)
            gone = trash_rows.find(connection, tree.root, inode)
            names = device_rows.names(connection, caller.account)
        events = [
            FileEvent(
                at_ns=version.created_ns,
                what="content",
                version=version.manifest_id,
                size=version.size,
                device=version.device,
                device_name=names.get(version.device, ""),
            )
            for version in versions
        ]
        if gone is not None:
            deleted = FileEvent(
                at_ns=gone.deleted_ns,
                what="deleted",
                version=None,
                size=gone.size or 0,
                device=gone.device,
                device_name=names.get(gone.device, ""),
            )
            events.insert(0, deleted)
        return FileHistory(id=inode, path=None if place is None else place.path, events=events)

    def _page(self, connection: Connection, tree: Tree, at: Position, limit: int) -> FileChanges:
        now, collected = revision_and_collected(connection, tree.root)
        if at.told_until < collected:
            raise Refused(ProblemType.RESET, "What was removed since is not remembered any more: list the folders anew.")
        rows, after, more = next_rows(connection, tree.root, at, limit, now)
        keys = [(row.parent, row.name) for table, row in rows if table is Table.ENTRIES]
        ids = [row.id for table, row in rows if table is Table.INODES]
        tree.prefetch(keys, ids)
        named = [key for id_ in ids for key in sorted(tree.names(id_)) if key[0]]
        changes = [_change(tree, key) for key in dict.fromkeys([*keys, *named])]
        cursor = Cursor(bytes.fromhex(epochs.current(connection)), {tree.root: after})
        return FileChanges(changes=[each for each in changes if each is not None], cursor=encode(cursor), has_more=more)


def _change(tree: Tree, key: Key) -> FileChange | None:
    """None: nobody can say where it was, because its folder is gone, too."""
    folder = place_of(tree, key[0])
    if folder is None:
        return None
    place = child(tree, folder, key[1])
    return FileChange(path=place.path, file=None if place.inode is None else file_info(place, place.inode))
