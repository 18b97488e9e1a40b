"""The change feed: pages of rows after a cursor, in the order of their revisions. Blocking.

Rows hold their last state only, so the feed is one index scan for each space, and needs no log. A page is one snapshot. The
rows of one revision may be cut over two pages; clients merge only after a page that says there is no more.

Also pages of one folder, for a client that has to show it before the feed has brought it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row

from remote.names import BadName, check_name
from remote.protocol import (
    ChangesPage,
    Content,
    EntryState,
    EpochStart,
    FolderPage,
    InodeState,
    Kind,
    ProblemType,
    SpaceChanges,
    SpaceStart,
)
from remote.server.access import member_of
from remote.server.cursor import CURSOR_MAX, BadCursor, Cursor, Position, Table, decode, encode
from remote.server.database import accounts as account_rows
from remote.server.database import epochs
from remote.server.database import feed as rows
from remote.server.database.engine import Database
from remote.server.database.epochs import Began
from remote.server.database.tree import inode_row, load_inodes, revision, revision_and_collected
from remote.server.devices import Caller
from remote.server.epochs import shared_until
from remote.server.problems import Refused, not_found

LIMIT_DEFAULT = 1000
LIMIT_MAX = 5000


@dataclass(frozen=True, slots=True)
class FeedPage:
    answer: bytes
    """A serialized `ChangesPage`."""
    worth_sending: bool
    """Whether it says anything new: if not, a caller that wants to wait may."""
    topics: tuple[bytes, ...]
    """Whose news such a caller waits for: those of its spaces, of its account and of its device."""


class Feed:
    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, caller: Caller, text: str, limit: int, *, removed: bool = False) -> FeedPage:
        """`removed`: a listing from the beginning names what was removed, too, as far as that is remembered.

        `Refused` (reset) if what was removed after the cursor is not remembered any more.
        """
        cursor = _read_cursor(text)
        positions: dict[bytes, Position] = {}
        changes: list[SpaceChanges] = []
        more = False
        history: list[Began] = []
        with self._database.read() as connection:
            epoch = epochs.current(connection)
            mine = bytes.fromhex(epoch)
            spaces = [membership.space for membership in account_rows.memberships(connection, caller.account)]
            if (cursor is None and removed) or (cursor is not None and cursor.epoch != mine):
                history = epochs.history(connection, spaces)
            if cursor is not None and cursor.epoch != mine and not _is_shared(cursor, spaces, history):
                return FeedPage(_serialize(epoch, text, [], history, more=False), worth_sending=True, topics=())
            known = {} if cursor is None else cursor.positions
            for space in spaces:
                at = known.get(space)
                now, collected = revision_and_collected(connection, space)
                if at is not None and at.told_until < collected:
                    raise Refused(ProblemType.RESET, "What was removed after this cursor is not remembered any more.")
                if limit <= 0:  # no room on this page: the next one begins with this space
                    positions |= {} if at is None else {space: at}
                    more = True
                    continue
                start = min(collected, now) if removed else now
                at = at or Position(0, full=True, start=start, total=rows.count_entries(connection, space))
                changed, positions[space] = _space_page(connection, space, at, limit, now, collected)
                limit -= len(changed.inodes) + len(changed.entries)
                changes.append(changed)
                more = more or changed.has_more
        news = more or any(changed.inodes or changed.entries for changed in changes) or positions.keys() != known.keys()
        if cursor is not None and cursor.epoch != mine:
            news = True
        answer = _serialize(epoch, encode(Cursor(mine, positions)), changes, history, more=more)
        return FeedPage(answer, news, topics=(*positions, caller.account, caller.device))

    def folder(self, caller: Caller, space: bytes, folder: bytes, after: str, limit: int) -> bytes:
        """A serialized `FolderPage`. `Refused` (not found) if the space has no such folder, nor ever had."""
        if after != "":
            _check_name(after)
        with self._database.read() as connection:
            member_of(connection, caller, space)
            row = load_inodes(connection, space, [folder]).get(folder)
            if row is None or row.kind is not Kind.DIRECTORY:
                raise not_found("There is no such folder.")
            epoch, now = epochs.current(connection), revision(connection, space)
            found = rows.folder_rows(connection, space, folder, after, limit + 1)
        sent = found[:limit]
        page = FolderPage.model_construct(
            epoch=epoch,
            revision=now,
            inodes=[_inode_state(row) for row in {row.id: row for row in sent}.values()],
            entries=[EntryState.model_construct(parent=folder, name=row.name, inode=row.id, rev=row.entry_rev) for row in sent],
            next=sent[-1].name if len(found) > limit else None,
        )
        return page.model_dump_json().encode()


def _serialize(epoch: str, cursor: str, spaces: Sequence[SpaceChanges], history: Sequence[Began], *, more: bool) -> bytes:
    starts = [_epoch_start(each) for each in history]
    page = ChangesPage.model_construct(epoch=epoch, cursor=cursor, has_more=more, spaces=list(spaces), history=starts)
    return page.model_dump_json().encode()


def _read_cursor(text: str) -> Cursor | None:
    if text == "":
        return None
    try:
        if len(text) > CURSOR_MAX:
            raise BadCursor("too long")
        return decode(text)
    except BadCursor as error:
        raise Refused(ProblemType.INVALID, f"{error}: begin again without one", field="cursor") from error


def _check_name(text: str) -> None:
    try:
        check_name(text)
    except BadName as error:
        raise Refused(ProblemType.INVALID, f"{error}.", field="after") from error


def _is_shared(cursor: Cursor, spaces: Sequence[bytes], history: Sequence[Began]) -> bool:
    """Whether a cursor of an earlier epoch stands at what this service has had."""
    shared = shared_until(history, cursor.epoch.hex())
    if shared is None:
        return False
    return all(max(at.rev, at.start) <= shared.get(space, 0) for space, at in cursor.positions.items() if space in spaces)


def _epoch_start(began: Began) -> EpochStart:
    starts = [SpaceStart.model_construct(space=space, revision=rev) for space, rev in began.revisions.items()]
    return EpochStart.model_construct(epoch=began.epoch, spaces=starts)


def _space_page(
    connection: Connection, space: bytes, at: Position, limit: int, now: int, collected: int
) -> tuple[SpaceChanges, Position]:
    """The next rows of one space, at most `limit`, and the position after them. `now`: the space's revision."""
    sent, after, more = next_rows(connection, space, at, limit, now)
    changes = SpaceChanges.model_construct(
        space=space,
        revision=now,
        has_more=more,
        full=at.full,
        inodes=[_inode_state(row) for table, row in sent if table is Table.INODES],
        entries=[_entry_state(row) for table, row in sent if table is Table.ENTRIES],
        total_entries=at.total if at.full else None,
        collected=collected,
    )
    return changes, after


def next_rows(
    connection: Connection, space: bytes, at: Position, limit: int, now: int
) -> tuple[Sequence[tuple[Table, Row[Any]]], Position, bool]:
    """The next rows of one space in their order, the position after them, and whether there are more."""
    inodes = rows.inode_rows(connection, space, at, limit + 1)
    bound = inodes[-1].rev if len(inodes) > limit else now
    entries = rows.entry_rows(connection, space, at, bound, limit + 1)
    order: list[tuple[int, Table, tuple[bytes, str], Row[Any]]] = [
        *((row.rev, Table.INODES, (row.id, ""), row) for row in inodes),
        *((row.rev, Table.ENTRIES, (row.parent, row.name), row) for row in entries),
    ]
    order.sort(key=lambda each: (each[0], each[1]))  # stable: within a table the database's order stays
    more = len(order) > limit
    sent = order[:limit]
    if more:
        rev, table, key, _ = sent[-1]
        after = replace(at, rev=rev, table=table, key=key)
    else:
        after = Position(max(now, at.rev))
    return [(table, row) for _, table, _, row in sent], after, more


def _inode_state(row: Row[Any]) -> InodeState:
    inode = inode_row(row)
    content = None
    if inode.manifest_id is not None:
        content = Content.model_construct(
            manifest_id=inode.manifest_id, size=inode.size, sha256=inode.sha256, manifest=row.manifest
        )
    return InodeState.model_construct(
        id=inode.id,
        rev=inode.rev,
        kind=inode.kind,
        attributes=inode.attributes,
        target=inode.target,
        device_number=inode.device_number,
        content=content,
        content_rev=inode.content_rev,
    )


def _entry_state(row: Row[Any]) -> EntryState:
    return EntryState.model_construct(parent=row.parent, name=row.name, inode=row.inode, rev=row.rev)
