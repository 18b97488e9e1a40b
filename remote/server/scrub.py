"""The scrubber: reads every stored object again, and says which do not have the bytes that they should. Blocking.

An object is what its name says, its SHA-256, or it is damaged; so is one that is not there. What is damaged is written down until
it is found good again, or mended from a backup, which is verified in the same way first. Garbage that goes meanwhile is no loss.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from remote.server.database import scrub as rows
from remote.server.database.engine import Database
from remote.server.database.scrub import Position, ScrubbedObject
from remote.server.objects.store import ObjectStore, object_key

STEP = 200
"""Objects that are looked up at one time."""

ReadBackup = Callable[[str, int], bytes | None]
"""(key, length) -> the stored bytes in the backup; None: it has none."""


@dataclass(frozen=True, slots=True)
class Damage:
    key: str
    why: str
    mended: bool


@dataclass
class ScrubReport:
    objects: int = 0
    bytes: int = 0
    damaged: list[Damage] = field(default_factory=list)
    copied: int = 0
    """Copies that lacked or were damaged, where another one was good."""
    removed: int = 0
    """Copies that lay where they do not belong any more."""

    @property
    def left(self) -> int:
        """How many are damaged still."""
        return sum(not each.mended for each in self.damaged)


class Scrubber:
    """`rate`: bytes a second at most; None: as fast as it goes."""

    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        clock: Callable[[], int],
        *,
        rate: int | None = None,
        proceed: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._rate = rate
        self._proceed = proceed

    def total(self) -> int:
        """How many objects there are."""
        with self._database.read() as connection:
            return rows.count(connection)

    def run(
        self,
        *,
        read_backup: ReadBackup | None = None,
        dry_run: bool = False,
        told: Callable[[ScrubReport], None] = lambda report: None,
    ) -> ScrubReport:
        """All objects, from the first on. `dry_run`: nothing is written down or mended. `StoreUnavailable`."""
        report = ScrubReport()
        for some in self._steps(Position()):
            self._look_at(some, report, read_backup, dry_run=dry_run)
            told(report)
        return report

    def go_on(self, bytes_max: int) -> ScrubReport:
        """Some of them, from where the last run ended, and from the first on after the last. `StoreUnavailable`."""
        report = ScrubReport()
        with self._database.read() as connection:
            at = rows.position(connection)
        for some in self._steps(at):
            self._look_at(some, report, None, dry_run=False)
            with self._database.write() as connection:
                rows.put_position(connection, Position(some[-1].owner, some[-1].object_id))
            if report.bytes >= bytes_max:
                return report
        with self._database.write() as connection:
            rows.put_position(connection, Position())
        return report

    def _steps(self, at: Position) -> Iterator[list[ScrubbedObject]]:
        while True:
            self._proceed()
            with self._database.read() as connection:
                some = rows.after(connection, at, STEP)
            if not some:
                return
            yield some
            at = Position(some[-1].owner, some[-1].object_id)

    def _look_at(self, some: list[ScrubbedObject], report: ScrubReport, read_backup: ReadBackup | None, *, dry_run: bool) -> None:
        began, before = time.monotonic(), report.bytes
        good: list[ScrubbedObject] = []
        for each in some:
            self._proceed()
            found = self._store.check(_key(each), each.object_id, each.length, mend=not dry_run)
            report.copied += found.lacking
            report.removed += found.surplus
            why = found.wrong
            report.objects += 1
            report.bytes += each.length
            if why is None:
                good.append(each)
            elif self._is_there_still(each):
                mended = not dry_run and read_backup is not None and self._mend(each, read_backup)
                report.damaged.append(Damage(_key(each), why, mended))
                if mended:
                    good.append(each)
                elif not dry_run:
                    with self._database.write() as connection:
                        rows.note_damage(connection, each, why, self._clock())
            self._pause(report.bytes - before, began)
        if not dry_run:
            with self._database.write() as connection:
                rows.forget_damage(connection, good)

    def _is_there_still(self, each: ScrubbedObject) -> bool:
        """Not as garbage that went while it was being looked at."""
        with self._database.read() as connection:
            return rows.has(connection, each)

    def _mend(self, each: ScrubbedObject, read_backup: ReadBackup) -> bool:
        body = read_backup(_key(each), each.length)
        if body is None or not _is(body, each):
            return False
        self._store.write(_key(each), each.object_id, body)
        return self._store.check(_key(each), each.object_id, each.length, mend=False).wrong is None

    def _pause(self, read: int, began: float) -> None:
        if self._rate is not None:
            time.sleep(max(read / self._rate - (time.monotonic() - began), 0))


def _key(each: ScrubbedObject) -> str:
    return object_key(each.owner, each.object_id, each.generation)


def _is(body: bytes, each: ScrubbedObject) -> bool:
    return len(body) == each.length and hashlib.sha256(body).digest() == each.object_id
