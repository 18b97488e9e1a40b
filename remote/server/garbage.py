"""Garbage: what nothing names any more is removed, in an order in which a late word still finds what it speaks of. Blocking.

1. Upload sessions that nobody went on with end; their copies that no content took over are *dead*.
2. Manifests that no version names and no inode holds are removed, and the account's usage with them.
3. Objects that then no manifest of any space of their owner names are dead. Which those are is found by reading all manifests,
   without a lock; what commits named meanwhile is looked through with the space locked, before anything is unnamed.
4. Copies that have been dead for `GRACE_NS` are deleted from the store, and only then forgotten; their generations are never
   given away again.

So a copy is dead in the database before it is gone from the store: whoever asks whether it is there after that hears that it is
not, and sends it again, under another generation; links that were given out before are good until the grace is over. Each
step is a transaction that looks anew at what it decides by, so it may stop anywhere, and run in two processes at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from remote.crashpoints import crash_point
from remote.manifest import decode_manifest
from remote.server.database import contents as content_rows
from remote.server.database import garbage as rows
from remote.server.database.accounts import add_used
from remote.server.database.engine import Database
from remote.server.database.garbage import SpaceToSweep
from remote.server.database.tree import batches, lock_space, revision
from remote.server.objects.store import ObjectStore, object_key
from remote.server.quota import SESSION_NS

log = logging.getLogger(__name__)

DAY_NS = 24 * 3600 * 10**9
GRACE_NS = DAY_NS
"""Between a copy's death and its deletion: longer than any link to it is good, and any transfer takes."""
ABANDONED_NS = 2 * SESSION_NS
"""After so long without use an upload session ends; it does not count since `SESSION_NS`, by any process's clock."""
CLOSED_NS = 30 * DAY_NS
"""How long what a closed account stored is kept."""
STEP = 500
"""Rows that one transaction removes: others who write wait no longer than for that."""
PAGE = 1000
"""Manifests that are read at a time."""
AT_ONCE = 500_000
"""Objects that are looked for in one reading of the manifests; their ids are kept in memory."""


@dataclass(slots=True)
class Report:
    """What was removed, or (`dry_run`) would be."""

    sessions: int = 0
    manifests: int = 0
    manifest_bytes: int = 0
    dead: int = 0
    """Copies of objects that nothing leads to since now."""
    dead_bytes: int = 0
    deleted: int = 0
    """Copies that are gone from the store since now."""
    deleted_bytes: int = 0
    waiting: int = 0
    """Dead copies that are still in the store."""
    waiting_bytes: int = 0


class Garbage:
    """`proceed` is called between steps, and may raise to stop."""

    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        clock: Callable[[], int],
        *,
        proceed: Callable[[], None] = lambda: None,
        grace_ns: int = GRACE_NS,
        abandoned_ns: int = ABANDONED_NS,
        closed_ns: int = CLOSED_NS,
    ) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._proceed = proceed
        self._grace_ns = grace_ns
        self._abandoned_ns = abandoned_ns
        self._closed_ns = closed_ns

    def collect(self, *, dry_run: bool = False) -> Report:
        """All four, in this order. `StoreUnavailable`: the rest is for the next time."""
        report = Report()
        if dry_run:
            with self._database.read() as connection:
                report.sessions = rows.count_old_sessions(connection, self._clock() - self._abandoned_ns)
        else:
            self._empty_closed()
            self._end_sessions(report)
        with self._database.read() as connection:
            spaces = rows.all_spaces(connection)
        for space in spaces:
            self._collect_space(space, report, dry_run=dry_run)
        if not dry_run:
            self._delete_dead(report)
        with self._database.read() as connection:
            report.waiting, report.waiting_bytes = rows.count_dead(connection)
        return report

    # ------------------------------------------------------------------------------------------------- closed accounts

    def _empty_closed(self) -> None:
        before = self._clock() - self._closed_ns
        with self._database.write() as connection:
            rows.forget_names_of_closed(connection, before)
            spaces = rows.closed_spaces(connection, before)
        for space, _owner in spaces:
            removed = STEP
            while removed == STEP:
                self._proceed()
                with self._database.write() as connection:
                    lock_space(connection, space)
                    removed = rows.empty_space(connection, space, STEP)
                    crash_point("service.garbage.emptying")

    # ------------------------------------------------------------------------------------------------ abandoned uploads

    def _end_sessions(self, report: Report) -> None:
        before = self._clock() - self._abandoned_ns
        with self._database.write() as connection:
            rows.forget_file_uploads(connection, before)
        while True:
            with self._database.read() as connection:
                sessions = rows.old_sessions(connection, before, STEP)
            for space, session, owner in sessions:
                self._end_session(space, session, owner, before, report)
            if not sessions:
                return

    def _end_session(self, space: bytes, session: bytes, owner: bytes, before: int, report: Report) -> None:
        ended = False
        while not ended:
            self._proceed()
            with self._database.write() as connection:
                rows.lock_account(connection, owner)
                dead, ended = rows.end_session(connection, space, session, owner, before, STEP)
                rows.add_dead(connection, dead, self._clock())
                crash_point("service.garbage.ending")
            _count_dead(report, dead)
        report.sessions += 1

    # ------------------------------------------------------------------------------------------- manifests and objects

    def _collect_space(self, space: SpaceToSweep, report: Report, *, dry_run: bool) -> None:
        with self._database.read() as connection:
            at = revision(connection, space.id)
            unnamed = rows.unnamed_manifests(connection, space.id)
        for some in batches(unnamed):
            self._proceed()
            if dry_run:
                with self._database.read() as connection:
                    report.manifests += len(some)
                    report.manifest_bytes += content_rows.length_of_manifests(connection, space.id, some)
            else:
                self._remove_manifests(space, at, some, report)
        if dry_run:
            self._sweep(space, report, besides=frozenset(unnamed), dry_run=True)
            return
        with self._database.read() as connection:
            unswept = rows.unswept(connection, space.id)
        if unswept:
            self._sweep(space, report, besides=frozenset(), dry_run=False)
            with self._database.write() as connection:
                rows.swept(connection, space.id, unswept)

    def _remove_manifests(self, space: SpaceToSweep, at: int, unnamed: Collection[bytes], report: Report) -> None:
        with self._database.write() as connection:
            lock_space(connection, space.id)
            named = rows.manifests_named_since(connection, space.id, at)
            rows.lock_account(connection, space.owner)
            count, length = rows.remove_manifests(connection, space.id, [id_ for id_ in unnamed if id_ not in named])
            add_used(connection, space.owner, -length)
            crash_point("service.garbage.unnaming")
        report.manifests += count
        report.manifest_bytes += length

    def _sweep(self, space: SpaceToSweep, report: Report, *, besides: Collection[bytes], dry_run: bool) -> None:
        """Find the objects that only manifests named which are gone (or are `besides`), and unname them."""
        with self._database.read() as connection:
            at = revision(connection, space.id)
            parts = rows.count_named(connection, space.id) // AT_ONCE + 1
        for part in range(parts):
            first, last = part * 2**32 // parts, (part + 1) * 2**32 // parts - 1
            named = self._named_by_manifests(space.id, first, last, besides)
            after = first.to_bytes(4, "big") + bytes(28) if part else b""
            until = last.to_bytes(4, "big") + b"\xff" * 28
            for ids in self._pages_of_named(space.id, after, until):
                unnamed = [id_ for id_ in ids if _short(id_) not in named]
                for some in batches(unnamed):
                    self._proceed()
                    self._unname(space, at, some, report, dry_run=dry_run)

    def _named_by_manifests(self, space: bytes, first: int, last: int, besides: Collection[bytes]) -> set[int]:
        """The objects of a range that manifests of the space name, by their first eight bytes: one of two that begin alike is
        taken for named, which only keeps it."""
        named: set[int] = set()
        for id_, body in self._manifests(space):
            if id_ not in besides:
                named.update(_short(object_id) for object_id in _objects_of(body) if first <= _prefix(object_id) <= last)
        return named

    def _manifests(self, space: bytes) -> Iterator[tuple[bytes, bytes]]:
        after = b""
        while True:
            self._proceed()
            with self._database.read() as connection:
                page = rows.manifest_pages(connection, space, after, PAGE)
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def _pages_of_named(self, space: bytes, after: bytes, until: bytes) -> Iterator[list[bytes]]:
        while True:
            with self._database.read() as connection:
                ids = rows.named_between(connection, space, after, until, PAGE)
            yield ids
            if len(ids) < PAGE:
                return
            after = ids[-1]

    def _unname(self, space: SpaceToSweep, at: int, ids: Collection[bytes], report: Report, *, dry_run: bool) -> None:
        """Objects that no manifest named that was there at revision `at`."""
        if dry_run:
            with self._database.read() as connection:
                dead = rows.named_nowhere(connection, space.owner, ids, besides=space.id)
            _count_dead(report, dead)
            return
        with self._database.write() as connection:
            lock_space(connection, space.id)
            since = rows.manifests_named_since(connection, space.id, at)
            bodies = content_rows.manifest_bodies(connection, space.id, since)
            kept = {object_id for body in bodies.values() for object_id in _objects_of(body)}
            ids = [id_ for id_ in ids if id_ not in kept]
            rows.lock_account(connection, space.owner)
            rows.unname_objects(connection, space.id, ids)
            dead = rows.named_nowhere(connection, space.owner, ids)
            rows.bury(connection, dead, self._clock())
            add_used(connection, space.owner, -sum(each.length for each in dead))
            crash_point("service.garbage.burying")
        crash_point("service.garbage.buried")
        _count_dead(report, dead)

    # -------------------------------------------------------------------------------------------------------- the store

    def _delete_dead(self, report: Report) -> None:
        before = self._clock() - self._grace_ns
        while True:
            self._proceed()
            with self._database.read() as connection:
                dead = rows.dead_before(connection, before, STEP)
            if not dead:
                return
            self._store.delete([object_key(each.owner, each.object_id, each.generation) for each in dead])
            crash_point("service.garbage.deleted")
            for owner, some in rows.each_owner(dead):
                with self._database.write() as connection:
                    rows.lock_account(connection, owner)
                    rows.forget_dead(connection, owner, some)
                    crash_point("service.garbage.forgetting")
            report.deleted += len(dead)
            report.deleted_bytes += sum(each.length for each in dead)


@dataclass(frozen=True, slots=True)
class Usage:
    account: bytes
    told: int
    found: int


def recount(database: Database, *, dry_run: bool = False, proceed: Callable[[], None] = lambda: None) -> list[Usage]:
    """The accounts whose usage is not what their rows add up to; mended, unless it is a `dry_run`."""
    with database.read() as connection:
        accounts = rows.all_accounts(connection)
    wrong = []
    for account in accounts:
        proceed()
        with database.read() as connection:
            told, found = rows.used(connection, account)
        if told != found and not dry_run:
            with database.write() as connection:  # what commits do meanwhile is no mistake
                rows.lock_account(connection, account)
                told, found = rows.used(connection, account)
                rows.set_used(connection, account, found)
        if told != found:
            wrong.append(Usage(account, told, found))
    return wrong


def _count_dead(report: Report, dead: Collection[rows.DeadObject]) -> None:
    report.dead += len(dead)
    report.dead_bytes += sum(each.length for each in dead)


def _objects_of(body: bytes) -> frozenset[bytes]:
    return decode_manifest(body).object_ids()


def _prefix(object_id: bytes) -> int:
    return int.from_bytes(object_id[:4], "big")


def _short(object_id: bytes) -> int:
    return int.from_bytes(object_id[:8], "big")
