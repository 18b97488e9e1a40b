"""The index for search follows the tree: names, and the texts of contents, in short transactions of its own. Blocking.

A commit does nothing for it. What changed since the revision that the index has reached is found by the revisions of entries and
inodes, as the feed finds it. Each step looks anew at what it writes, so it may stop anywhere, and be done twice.
"""

from __future__ import annotations

from collections.abc import Callable

from remote.server.database import search as rows
from remote.server.database.engine import Database
from remote.server.database.search import Behind
from remote.server.database.tree import Key

STEP = 2000
"""Changes that one transaction follows."""


class Indexing:
    def __init__(self, database: Database) -> None:
        self._database = database

    def is_wanted(self) -> bool:
        with self._database.read() as connection:
            return bool(rows.behind(connection))

    def follow(self, proceed: Callable[[], None] = lambda: None) -> int:
        """Until there is nothing new; how many names changed. `proceed` is called between steps, and may raise to stop."""
        with self._database.read() as connection:
            waiting = rows.behind(connection)
        count = 0
        for space in waiting:
            at = space.indexed
            while at < space.revision:
                proceed()
                at, changed = self._database.repeat(self._step, space)
                count += changed
        return count

    def _step(self, space: Behind) -> tuple[int, int]:
        """How far the index is then, and how many names that were."""
        with self._database.write() as connection:
            at = rows.lock(connection, space.space)
            end = rows.end_of_step(connection, space.space, at, space.revision, STEP)
            changed = rows.changed_names(connection, space.space, at, end)
            known = rows.known_names(connection, space.space, changed)
            here: set[Key] = {key for key, inode in changed.items() if inode is not None}
            rows.remove_names(connection, [id_ for key, id_ in known.items() if key not in here])
            rows.add_names(connection, space.space, [key for key in here if key not in known])
            rows.set_indexed(connection, space.space, max(at, end))
        return max(at, end), len(changed)
