"""The index for search follows the tree: names, and the texts of contents, in short transactions of its own. Blocking.

A commit does nothing for it. What changed since the revision that the index has reached is found by the revisions of entries and
inodes, as the feed finds it. Names come first; contents are noted as waiting, and read one by one, with no transaction open. Each
step looks anew at what it writes, so it may stop anywhere, and be done twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping

from sqlalchemy import Connection

from remote.protocol import Kind
from remote.server.database import search as rows
from remote.server.database import tree as tree_rows
from remote.server.database.engine import Database
from remote.server.database.search import Behind, KnownContent, TextState, Waiting
from remote.server.database.tree import Key
from remote.server.extraction import is_document, may_have_text, text_of
from remote.server.filedownloads import FileDownloads, Found, content_of
from remote.server.objects.store import StoreUnavailable
from remote.server.problems import Refused

log = logging.getLogger(__name__)

STEP = 2000
"""Changes that one transaction follows."""
AT_ONCE = 10
"""Contents of one space that are read before others have their turn, and before new names are looked for."""
PAUSE_NS = 60 * 10**9
"""After the object store did not answer, or no process could be started."""

Proceed = Callable[[], None]


class Indexing:
    def __init__(self, database: Database, downloads: FileDownloads, clock: Callable[[], int]) -> None:
        self._database = database
        self._downloads = downloads
        self._clock = clock
        self._paused_until_ns = 0

    def is_wanted(self) -> bool:
        with self._database.read() as connection:
            return bool(rows.behind(connection)) or (not self._is_paused() and rows.any_waiting(connection))

    def run(self, proceed: Proceed = lambda: None) -> None:
        """Until there is nothing new. `proceed` is called between steps, and may raise to stop."""
        some = True
        while some:
            self._follow(proceed)
            try:
                some = not self._is_paused() and self._read_some(proceed)
            except (StoreUnavailable, OSError) as error:
                log.warning("contents cannot be read for the index now, and are tried again in a while: %s", error)
                self._paused_until_ns = self._clock() + PAUSE_NS

    def _is_paused(self) -> bool:
        return self._clock() < self._paused_until_ns

    # ---------------------------------------------------------------------------------------------------------- names

    def _follow(self, proceed: Proceed) -> None:
        with self._database.read() as connection:
            waiting = rows.behind(connection)
        for space in waiting:
            at = space.indexed
            while at < space.revision:
                proceed()
                at = self._database.repeat(self._step, space)

    def _step(self, behind: Behind) -> int:
        """How far the index is then."""
        space = behind.space
        with self._database.write() as connection:
            at = rows.lock(connection, space)
            if at >= behind.revision:
                return at
            end = rows.end_of_step(connection, space, at, behind.revision, STEP)
            changed = rows.changed_names(connection, space, at, end)
            known = rows.known_names(connection, space, at, end)
            here: set[Key] = {key for key, inode in changed.items() if inode is not None}
            rows.remove_names(connection, [id_ for key, id_ in known.items() if key not in here])
            rows.add_names(connection, space, [key for key in here if key not in known])
            renamed = {inode for inode in changed.values() if inode is not None}
            contents = rows.known_contents(connection, space, at, end)
            ids = {*renamed, *rows.changed_inodes(connection, space, at, end)}
            self._note_contents(connection, space, ids, renamed, contents)
            rows.set_indexed(connection, space, end)
        return end

    def _note_contents(
        self,
        connection: Connection,
        space: bytes,
        ids: Collection[bytes],
        renamed: Collection[bytes],
        known: Mapping[bytes, KnownContent],
    ) -> None:
        found = tree_rows.load_inodes(connection, space, ids)
        files = {id_: row.manifest_id for id_, row in found.items() if row.kind is Kind.FILE and row.manifest_id is not None}
        names = tree_rows.load_names(connection, space, files)
        old, new = [], []
        for id_, manifest in files.items():
            named, before = sorted(name for _, name in names.get(id_, ())), known.get(id_)
            if before is not None:
                is_read = before.state is not TextState.NONE or not (id_ in renamed and any(map(is_document, named)))
                if before.manifest_id == manifest and is_read:
                    continue
                old.append(before.id)
            if any(may_have_text(name, found[id_].size or 0) for name in named):
                new.append((id_, manifest))
        rows.remove_contents(connection, old)
        rows.add_contents(connection, space, new)

    # ------------------------------------------------------------------------------------------------------- contents

    def _read_some(self, proceed: Proceed) -> bool:
        """Whether there was one."""
        with self._database.read() as connection:
            waiting = rows.waiting(connection, AT_ONCE)
        for content in waiting:
            proceed()
            text = self._text(content)
            self._database.repeat(self._finish, content, text)
        return bool(waiting)

    def _finish(self, content: Waiting, text: str | None) -> None:
        with self._database.write() as connection:
            rows.finish(connection, content, text)

    def _text(self, content: Waiting) -> str | None:
        with self._database.read() as connection:
            same = rows.text_of_same(connection, content)
            if same is not None:
                return same
            row = tree_rows.load_inodes(connection, content.space, [content.inode]).get(content.inode)
            names = tree_rows.load_names(connection, content.space, [content.inode]).get(content.inode)
            if row is None or not names:
                return None
            name = min((name for _, name in names), key=lambda name: (not is_document(name), name))
            try:
                found = content_of(connection, content.space, content.owner, None, row, content.manifest_id)
            except Refused:
                return None  # it is not kept any more
        try:
            return text_of(name, found.size, lambda count: b"".join(self._bytes(found, min(count, found.size))))
        except Refused as error:
            if isinstance(error.__cause__, StoreUnavailable):
                raise error.__cause__ from error
            log.warning("the content of a file could not be read for the index: %s", error)
            return None

    def _bytes(self, found: Found, count: int) -> Iterator[bytes]:
        """The first `count`."""
        if found.manifest.inline is not None:
            yield found.manifest.inline[:count]
            return
        for piece in self._downloads.pieces(found, 0, count):
            yield self._downloads.read(piece)
