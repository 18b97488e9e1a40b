"""The service's keys: rows of the database, which all of its processes share, and which are replaced while they run. Blocking.

A key that is replaced signs on until every process has had the time to look, `SPREAD_NS`; then the new one does. The old one is
good for as long as what it signed may last, and is forgotten after that. So no process meets a signature of a key that it could
not know. The exception is a rotation at once, which is for a key that leaked: the old one goes with the transaction, the new one
signs from then on, and whoever does not know its id looks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from remote.crashpoints import crash_point
from remote.protocol import ProblemType
from remote.server.config import ServerConfig
from remote.server.contentorigin import CONTENT_TICKET_SECONDS
from remote.server.database import keys as rows
from remote.server.database.engine import Database
from remote.server.database.keys import KeyRow
from remote.server.folder import DataFolder
from remote.server.keys import Key, new_key
from remote.server.problems import Refused
from remote.server.publiclinks import TICKET_SECONDS
from remote.server.tokens import ACCESS_SECONDS

TOKENS, OBJECTS = "tokens", "objects"
_SECOND_NS = 10**9
_NEVER_NS = 2**63
FRESH_NS = 5 * _SECOND_NS
"""How long a process goes by what it knows: within this, a key that was dropped is refused everywhere."""
SPREAD_NS = 3 * FRESH_NS
LEEWAY_NS = 60 * _SECOND_NS
"""For clocks of processes that differ."""
LOOKS = 20
"""At most so many times within `FRESH_NS` a process looks for ids that it does not know."""
_ABSENT_MAX = 1000


class KeyRing:
    """The keys of one name, as this process knows them. Threads share it."""

    def __init__(self, database: Database, name: str, life_ns: int, clock: Callable[[], int]) -> None:
        """`life_ns`: how long what these keys sign may be good."""
        self._database = database
        self._name = name
        self._life_ns = life_ns
        self._clock = clock
        self._loading = threading.Lock()
        self._known: Sequence[KeyRow] = ()
        self._loaded_ns: int | None = None
        self._looks = 0
        self._absent: set[str] = set()
        """Ids that were looked for: they are random, so what was not there will never be."""

    def signing(self) -> Key:
        now = self._clock()
        return signing_row(self._fresh(now), now).key

    def verifying(self, kid: str) -> Key | None:
        """`Refused` (unavailable): so many unknown ids came that this one cannot be looked for now."""
        now = self._clock()
        found = self._among(self._fresh(now), kid, now)
        if found is not None or kid in self._absent:
            return found
        return self._look_for(kid, now)

    def _fresh(self, now: int) -> Sequence[KeyRow]:
        """What is known, looked up anew if that is old. While one thread does so, the others go by what there is."""
        if self._is_fresh(now) or not self._loading.acquire(blocking=not self._known):
            return self._known
        try:
            if not self._is_fresh(now):
                self._load()
                self._loaded_ns, self._looks = now, 0
            return self._known
        finally:
            self._loading.release()

    def _is_fresh(self, now: int) -> bool:
        return self._loaded_ns is not None and 0 <= now - self._loaded_ns < FRESH_NS

    def _look_for(self, kid: str, now: int) -> Key | None:
        with self._loading:
            if self._among(self._known, kid, now) is None:
                if self._looks >= LOOKS:
                    raise Refused(ProblemType.UNAVAILABLE, "This signature cannot be checked now.", retry_after_seconds=1)
                self._looks += 1
                self._load()
            found = self._among(self._known, kid, now)
            if found is None:
                if len(self._absent) >= _ABSENT_MAX:
                    self._absent.clear()
                self._absent.add(kid)
            return found

    def _load(self) -> None:
        with self._database.read() as connection:
            self._known = rows.load(connection, self._name)

    def _among(self, known: Sequence[KeyRow], kid: str, now: int) -> Key | None:
        return next((row.key for row in known if row.key.kid == kid and not has_ended(row, self._life_ns, now)), None)


def signing_row(known: Sequence[KeyRow], now: int) -> KeyRow:
    """Of those that are not retired yet the one that will be first: the newest has its turn when the others had theirs."""
    return min((row for row in known if _retired_ns(row) > now), key=_retired_ns)


def has_ended(row: KeyRow, life_ns: int, now: int) -> bool:
    return row.retired_ns is not None and now >= row.retired_ns + life_ns + LEEWAY_NS


def _retired_ns(row: KeyRow) -> int:
    return _NEVER_NS if row.retired_ns is None else row.retired_ns


def lives_ns(config: ServerConfig) -> dict[str, int]:
    """How long what is signed by the keys of each name may be good."""
    return {
        TOKENS: max(ACCESS_SECONDS, TICKET_SECONDS, CONTENT_TICKET_SECONDS) * _SECOND_NS,
        OBJECTS: config.link_seconds * _SECOND_NS,
    }


def open_ring(
    config: ServerConfig,
    folder: DataFolder,
    database: Database,
    name: str,
    clock: Callable[[], int],
    random: Callable[[int], bytes],
) -> KeyRing:
    """The keys called `name`; the first is made, or taken over from the file in which older versions kept it."""
    with database.alone() as connection:
        if not rows.load(connection, name):
            rows.add(connection, name, folder.old_key(name) or new_key(random), clock())
    crash_point("service.start.keys")
    folder.forget_old_key(name)
    return KeyRing(database, name, lives_ns(config)[name], clock)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What became of the keys of one name."""

    name: str
    kid: str | None
    """Of the new key; None: it was not made."""
    signs_from_ns: int
    replaced: list[str]
    """The keys before it that are, or were, good."""
    good_until_ns: int | None
    """The last of those; None: they are good no more."""


def rotate(
    database: Database,
    config: ServerConfig,
    names: Sequence[str],
    clock: Callable[[], int],
    random: Callable[[int], bytes],
    *,
    at_once: bool = False,
    dry_run: bool = False,
) -> list[Rotation]:
    """Make new keys of these names, of those that the service has. Asked again, it replaces the new ones, too."""
    now, lives = clock(), lives_ns(config)
    rotations = []
    with database.alone() as connection:
        for name in (name for name in rows.names(connection) if name in names):
            known = rows.load(connection, name)
            good = [row.key.kid for row in known if not has_ended(row, lives[name], now)]
            fresh, starts = new_key(random), now if at_once else now + SPREAD_NS
            until = None if at_once else starts + lives[name] + LEEWAY_NS
            rotations.append(Rotation(name, None if dry_run else fresh.kid, starts, good, until))
            if dry_run:
                continue
            if at_once:
                rows.remove(connection, name, [row.key.kid for row in known])
            else:
                rows.retire(connection, name, starts)
            rows.add(connection, name, fresh, now)
    return rotations


def forget_ended(database: Database, config: ServerConfig, clock: Callable[[], int]) -> int:
    """Remove the keys that are good for nothing any more; how many."""
    now, count = clock(), 0
    with database.alone() as connection:
        for name, life_ns in lives_ns(config).items():
            ended = [row.key.kid for row in rows.load(connection, name) if has_ended(row, life_ns, now)]
            if ended:
                rows.remove(connection, name, ended)
            count += len(ended)
    return count
