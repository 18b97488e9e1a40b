"""What makes a device stop instead of doing harm: a service that contradicts itself (P6), and deletions in bulk.

The decisions are pure; the breaker keeps what it showed to the person in the replica's single values, so that a restart
changes nothing. Knows nothing of the network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from cache.clock import Clock
from cache.merge import Key, Side
from remote.protocol import Kind

FILES_MAX = 500
"""So many files may always disappear within an hour."""
REPLACED_MAX = 10
"""So many if what they are deleted by is a listing that lacks them, and not what was told as it happened."""
SHARE_MAX = 5
"""Beyond that, not more than one of so many."""
WINDOW_MINUTES = 60


class Contradiction(Exception):
    """The service says what cannot be true, or takes back what it said: nothing more is pushed or pulled (P6)."""


class Values(Protocol):
    """The replica's single values."""

    def meta(self, key: str, default: object = None) -> object: ...

    def set_meta(self, key: str, value: object) -> None: ...


def is_mass_deletion(files: int, of: int, most: int = FILES_MAX) -> bool:
    return files > most and files * SHARE_MAX > of


def check_service_tree(
    service: Side, entries: Iterable[tuple[Key, int, Kind | None]], lost_a_name: Iterable[int], root: int
) -> None:
    """`Contradiction` unless what the service holds is a tree, as far as its news change it.

    `entries`: names that it gave, with their inodes, and what these are (None: it never said). `lost_a_name`: folders.
    """
    sound = {root}
    for key, ino, kind in entries:
        if kind is None:
            raise Contradiction("the service names an inode that it does not describe")
        if ino == root or (kind is Kind.DIRECTORY and len(service.names(ino)) != 1):
            raise Contradiction("the service gives a folder two names")
        _walk_to_root(service, key[0], sound)
    for ino in lost_a_name:
        if not service.names(ino) and next(iter(service.children(ino)), None):
            raise Contradiction("the service removed a folder, but not what is in it")


def _walk_to_root(service: Side, folder: int, sound: set[int]) -> None:
    walked: dict[int, None] = {}
    while folder not in sound:
        state, names = service.state(folder), service.names(folder)
        if folder in walked or state is None or not state.is_folder or len(names) != 1:
            raise Contradiction("the service sent a tree with parts that do not hang on its root")
        walked[folder] = None
        folder = next(iter(names))[0]
    sound.update(walked)


WENT_BACK = "the service does not have what it had before: it lost data, or was restored to an older state"


def check_revision(space: str, revision: int, known: int) -> None:
    if revision < known:
        raise Contradiction(f"{WENT_BACK} (it is at revision {revision} of space {space}, and was at {known})")


class Direction(StrEnum):
    PUSH = "push"
    """Deletions made here, about to go to the service."""
    APPLY = "apply"
    """Deletions made elsewhere, about to be applied here."""


@dataclass(frozen=True, slots=True)
class Tripped:
    """The breaker stands in the way of the disappearance of `files` files out of `of`."""

    direction: Direction
    files: int
    of: int


@dataclass(frozen=True, slots=True)
class _State:
    shown: frozenset[int] = frozenset()
    confirmed: frozenset[int] = frozenset()
    of: int = 0
    passed: Mapping[int, int] = field(default_factory=dict)
    """Files that disappeared without being confirmed, by the minute in which they did."""


class Minutes:
    """Wall-clock minutes that no jump of the clock reaches while the process lives."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_ns = clock.wall_ns()
        self._began = clock.monotonic()

    def now(self) -> int:
        return (self._began_ns + int((self._clock.monotonic() - self._began) * 1e9)) // 60_000_000_000


class Breaker:
    """Stops deletions in bulk of one space and direction until the person says what is to be done.

    What disappeared within the last hour counts too, so that many small portions are stopped like a large one. A
    confirmation is good for the files that were shown, and no others: what is deleted later counts anew.
    """

    def __init__(self, values: Values, space: int, direction: Direction, minutes: Minutes) -> None:
        self._values = values
        self._direction = direction
        self._minutes = minutes
        self._key = f"breaker {direction} {space}"

    def admit(self, files: Collection[int], count_files: Callable[[], int], most: int = FILES_MAX) -> frozenset[int]:
        """Which of the files that are about to disappear may not. Empty: go on.

        `count_files`: how many files there are, these included; asked only if it matters. `most`: how many may always.
        """
        state = self._state()
        if not files and state == _State():
            return frozenset()
        recent = sum(state.passed.values())
        unconfirmed = frozenset(files) - state.confirmed
        shown, of = state.shown & unconfirmed, state.of
        if not shown and len(unconfirmed) + recent > most:
            of = count_files() + recent
            if is_mass_deletion(len(unconfirmed) + recent, of, most):
                shown = unconfirmed
        self._keep(replace(state, shown=shown, confirmed=state.confirmed & frozenset(files), of=of))
        return unconfirmed if shown else frozenset()

    def passed(self, files: Collection[int]) -> None:
        """These files disappeared, as was admitted."""
        state = self._state()
        count = len(frozenset(files) - state.confirmed)
        if count:
            minute = self._minutes.now()
            self._keep(replace(state, passed={**state.passed, minute: state.passed.get(minute, 0) + count}))

    def show_all(self, files: Collection[int]) -> None:
        """If it has tripped, show all that wait by now: `files` are those about to disappear."""
        state = self._state()
        if state.shown:
            self._keep(replace(state, shown=frozenset(files) - state.confirmed))

    def tripped(self) -> Tripped | None:
        state = self._state()
        return Tripped(self._direction, len(state.shown), state.of) if state.shown else None

    def shown(self) -> frozenset[int]:
        return self._state().shown

    def confirm(self) -> int:
        """Let the files that were shown disappear; how many they are."""
        state = self._state()
        if state.shown:
            self._keep(replace(state, shown=frozenset(), confirmed=state.confirmed | state.shown, passed={}))
        return len(state.shown)

    def reset(self) -> None:
        self._keep(_State())

    def _state(self) -> _State:
        kept = self._values.meta(self._key)
        if not isinstance(kept, dict):
            return _State()
        now = self._minutes.now()
        passed = Counter[int]()
        for minute, count in kept["passed"].items():
            if now - int(minute) <= WINDOW_MINUTES:  # later than now: the clock was set back since
                passed[min(int(minute), now)] += count
        return _State(frozenset(kept["shown"]), frozenset(kept["confirmed"]), kept["of"], passed)

    def _keep(self, state: _State) -> None:
        if state != self._state():
            empty = not (state.shown or state.confirmed or state.passed)
            kept = {
                "shown": sorted(state.shown),
                "confirmed": sorted(state.confirmed),
                "of": state.of,
                "passed": dict(state.passed),
            }
            self._values.set_meta(self._key, None if empty else kept)
