"""Time to live: former versions, what is in the trash, and what names held go when the owner's tier keeps them no longer.
Blocking.

A version's time begins when another one takes its place; the one that a file holds has none. Only names are removed here:
contents that nothing names any more are `garbage`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from remote.accountapi import TierName
from remote.server.database import contents as content_rows
from remote.server.database import formernames as name_rows
from remote.server.database import garbage as garbage_rows
from remote.server.database import trash as trash_rows
from remote.server.database.engine import Database
from remote.server.database.tree import lock_space
from remote.server.garbage import DAY_NS
from remote.server.quota import TierOf

STEP = 500
"""Rows that one transaction removes."""


@dataclass(slots=True)
class Expired:
    versions: int = 0
    trash: int = 0


def expire(
    database: Database, tier_of: TierOf, clock: Callable[[], int], *, proceed: Callable[[], None] = lambda: None
) -> Expired:
    """Remove what is over. `proceed` is called between steps, and may raise to stop."""
    expired = Expired()
    with database.read() as connection:
        spaces = garbage_rows.spaces_by_tier(connection)
    for space, tier in spaces:
        before = clock() - tier_of(TierName(tier)).kept_days * DAY_NS
        expired.trash += _expire_trash(database, space, before, proceed)
        expired.versions += _expire_versions(database, space, before, proceed)
        _expire_names(database, space, before, proceed)
    return expired


def _expire_trash(database: Database, space: bytes, before: int, proceed: Callable[[], None]) -> int:
    count = 0
    while True:
        proceed()
        with database.read() as connection:
            old = trash_rows.removed_before(connection, space, before, STEP)
        if old:
            with database.write() as connection:
                lock_space(connection, space)
                name_rows.forget_before(connection, space, before)
                count += trash_rows.purge(connection, space, old, before)
        if len(old) < STEP:
            return count


def _expire_versions(database: Database, space: bytes, before: int, proceed: Callable[[], None]) -> int:
    count, after = 0, None
    while True:
        proceed()
        with database.read() as connection:
            old = content_rows.replaced_before(connection, space, before, after, STEP)
        if old:
            after = old[-1]
            with database.write() as connection:
                lock_space(connection, space)
                name_rows.forget_before(connection, space, before)
                content_rows.remove_versions(connection, space, old)
        count += len(old)
        if len(old) < STEP:
            return count


def _expire_names(database: Database, space: bytes, before: int, proceed: Callable[[], None]) -> None:
    removed = STEP
    while removed == STEP:
        proceed()
        with database.read() as connection:
            if not name_rows.has_before(connection, space, before):
                return
        with database.write() as connection:
            lock_space(connection, space)
            name_rows.forget_before(connection, space, before)
            removed = name_rows.remove_before(connection, space, before, STEP)
