"""Collection: tombstones of names that were removed long ago are forgotten. Blocking; safe at any time, beside everything else.

A tombstone says when only in revisions, so each run notes which revision every space has reached, and forgets what an old
enough note covers. How far a space was collected is written with each step, in its transaction: a device whose cursor is older
is told to list anew (`410 reset`), so a run may stop anywhere.

Inodes without a name stay: versions and the trash hang on them. Contents that nothing names any more are `garbage`.
"""

from __future__ import annotations

from collections.abc import Callable

from remote.crashpoints import crash_point
from remote.server.database import collection as rows
from remote.server.database.engine import Database

KEEP_NS = 90 * 24 * 3600 * 10**9
"""How long a device may stay away without having to list everything anew."""
STEP = 2000
"""Tombstones that are forgotten in one transaction: others who commit wait no longer than for that."""


def collect(
    database: Database, clock: Callable[[], int], *, keep_ns: int = KEEP_NS, proceed: Callable[[], None] = lambda: None
) -> int:
    """Forget the tombstones that are older than `keep_ns`, as far as earlier runs noted; how many they were.

    `proceed` is called between steps, and may raise to stop.
    """
    with database.read() as connection:
        spaces = rows.all_spaces(connection)
    count = 0
    for space in spaces:
        with database.write() as connection:
            rows.note_revision(connection, space, clock())
            horizon = rows.revision_before(connection, space, clock() - keep_ns)
            crash_point("service.collect.noting")
        crash_point("service.collect.noted")
        count += _forget(database, space, horizon, proceed)
    return count


def _forget(database: Database, space: bytes, horizon: int, proceed: Callable[[], None]) -> int:
    count = 0
    while True:
        proceed()
        with database.read() as connection:
            tombstones = rows.old_tombstones(connection, space, horizon, STEP)
        if tombstones:
            with database.write() as connection:
                rows.forget_tombstones(connection, space, tombstones)
                crash_point("service.collect.forgetting")
            crash_point("service.collect.forgotten")
        count += len(tombstones)
        if len(tombstones) < STEP:
            return count
