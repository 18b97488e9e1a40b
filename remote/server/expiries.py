"""Files and folders that go to the trash at a time that somebody chose, of which they are told a day before. Blocking.

An expiry belongs to the inode, wherever that is moved and whatever is written to it. When its time has come it is deleted as by
a plain client, in the name of the device that chose the time: devices hear of it within a minute.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import Connection

from remote.fileapi import EXPIRIES_MAX, Expiry, ExpiryList, SetExpiry
from remote.notificationapi import Topic
from remote.protocol import Kind, ProblemType
from remote.server import edits
from remote.server.access import writer_of
from remote.server.database import expiries as rows
from remote.server.database.engine import Database
from remote.server.database.expiries import ExpiryRow
from remote.server.devices import ALL_SCOPES, Caller
from remote.server.edits import Changes
from remote.server.files import open_path, open_trees
from remote.server.namespace import Edit, Namespace
from remote.server.news import News, post
from remote.server.paths import find, place_of, reach, split_path
from remote.server.problems import Refused, not_found
from remote.server.tree import Tree

log = logging.getLogger("aloft.server")

WARN_NS = 24 * 3600 * 10**9
STEP = 100


class Expiries:
    def __init__(
        self, database: Database, namespace: Namespace, clock: Callable[[], int], random: Callable[[int], bytes]
    ) -> None:
        self._database = database
        self._namespace = namespace
        self._clock = clock
        self._random = random

    def choose(self, caller: Caller, request: SetExpiry) -> Expiry:
        names, now = split_path(request.path), self._clock()
        expires_ns = request.expires_ns if request.after_seconds is None else now + request.after_seconds * 10**9
        if expires_ns is None or expires_ns <= now:
            raise Refused(ProblemType.INVALID, "That time has gone by: delete it, or choose a later one.", field="expires_ns")
        with self._database.read() as connection:
            found = reach(connection, caller, names)
        space = found.space

        def make(connection: Connection, tree: Tree) -> Edit[Expiry]:
            place, row = find(tree, found.names)
            if row.kind is Kind.MOUNT:
                raise Refused(ProblemType.INVALID, "A shared folder does not expire: choose what is in it.", field="path")
            if place.is_root:
                raise Refused(ProblemType.INVALID, "The root folder cannot expire.", field="path")
            if rows.count(connection, space, but=row.id) >= EXPIRIES_MAX:
                raise Refused(ProblemType.FORBIDDEN, f"{EXPIRIES_MAX} files and folders have an expiry already.")
            rows.put(connection, ExpiryRow(space, row.id, expires_ns, caller.account, caller.device))
            return Edit(None, lambda: Expiry(id=row.id, path=place.path, expires_ns=expires_ns))

        return self._namespace.edit(caller, space, make, prefix=found.prefix)

    def forget(self, caller: Caller, path: str) -> None:
        """`Refused` (not found) if it has none."""
        names = split_path(path)
        with self._database.write() as connection:
            tree, inner = open_path(connection, caller, names)
            writer_of(connection, caller, tree.root)
            if not rows.forget(connection, tree.root, find(tree, inner)[1].id):
                raise not_found("It does not expire.")

    def listing(self, caller: Caller, path: str | None) -> ExpiryList:
        """All, the next ones first, or that of one file or folder."""
        names = None if path is None else split_path(path)
        with self._database.read() as connection:
            places = []
            if names is None:
                for tree in open_trees(connection, caller):
                    found = rows.of_space(connection, tree.root, EXPIRIES_MAX)
                    tree.prefetch([], [row.inode for row in found])
                    places += [(row, place_of(tree, row.inode)) for row in found]
                places.sort(key=lambda each: each[0].expires_ns)
            else:
                tree, inner = open_path(connection, caller, names)
                one = rows.find(connection, tree.root, find(tree, inner)[1].id)
                places = [] if one is None else [(one, place_of(tree, one.inode))]
        return ExpiryList(
            expiries=[
                Expiry(id=row.inode, path=place.path, expires_ns=row.expires_ns) for row, place in places if place is not None
            ]
        )

    # ------------------------------------------------------------------------------------------------------ by itself

    def warn(self, proceed: Callable[[], None] = lambda: None) -> int:
        """Tell of what expires within a day; how many they were."""
        count = 0
        while True:
            proceed()
            with self._database.read() as connection:
                found = rows.unwarned(connection, self._clock() + WARN_NS, STEP)
            for row in found:
                with self._database.write() as connection:
                    place = place_of(Tree(connection, row.space_id), row.inode)
                    if rows.warned(connection, row, self._clock()) and place is not None:
                        text = f"{place.path} goes to the trash within a day, as you chose (aloft expire)."
                        news = News(Topic.EXPIRY, text, path=place.path, inode=row.inode)
                        post(connection, row.account_id, [news], self._clock())
                        count += 1
            if len(found) < STEP:
                return count

    def remove_due(self, proceed: Callable[[], None] = lambda: None) -> int:
        """Move what is due to the trash; how many files and folders it took, those in folders counted."""
        count = 0
        while True:
            with self._database.read() as connection:
                found = rows.due(connection, self._clock(), STEP)
            failed = 0
            for row, owner in found:
                try:
                    count += self._remove(row, Caller(owner, row.device_id, ALL_SCOPES), proceed)
                except Refused as error:
                    failed += 1
                    log.error("what has expired could not be moved to the trash: %s", error)
            if len(found) < STEP or failed == STEP:
                return count

    def _remove(self, row: ExpiryRow, caller: Caller, proceed: Callable[[], None]) -> int:
        """A part in each transaction; the expiry goes with the last, so that whoever is stopped before goes on."""

        def make(connection: Connection, tree: Tree) -> Edit[tuple[int, bool]]:
            now, place = rows.find(connection, row.space_id, row.inode), place_of(tree, row.inode)
            if now is None or now.expires_ns > self._clock():
                return Edit(None, lambda: (0, True))
            if place is None or place.inode is None:
                rows.forget(connection, row.space_id, row.inode)
                return Edit(None, lambda: (0, True))
            changes = Changes(self._clock(), self._random)
            done = edits.delete(connection, tree, changes, place, place.inode, recursive=True, partial=True)
            if done.complete:
                rows.forget(connection, row.space_id, row.inode)
            return Edit(changes.group(), lambda: (done.removed, done.complete))

        count, complete = 0, False
        while not complete:
            proceed()
            try:
                removed, complete = self._namespace.edit(caller, row.space_id, make)
            except Refused as error:
                if error.type is not ProblemType.NOT_FOUND:
                    raise
                with self._database.write() as connection:  # its account was closed
                    rows.forget(connection, row.space_id, row.inode)
                return count
            count += removed
        return count
