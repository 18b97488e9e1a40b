"""What makes a device stop instead of doing harm: a service that contradicts itself (P6), and deletions in bulk.

The decisions are pure; the breaker keeps what it showed to the person in the replica's single values, so that a restart
changes nothing. Knows nothing of the network.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from cache.merge import Key, Side
from remote.protocol import Kind

FILES_MAX = 500
"""So many files may always disappear at once."""
SHARE_MAX = 5
"""Beyond that, not more than one of so many."""


class Contradiction(Exception):
    """The service says what cannot be true, or takes back what it said: nothing more is pushed or pulled (P6)."""


class Values(Protocol):
    """The replica's single values."""

    def meta(self, key: str, default: object = None) -> object: ...

    def set_meta(self, key: str, value: object) -> None: ...


def is_mass_deletion(files: int, of: int) -> bool:
    return files > FILES_MAX and files * SHARE_MAX > of


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


def check_revision(space: str, revision: int, known: int) -> None:
    if revision < known:
        raise Contradiction(
            f"the service is at revision {revision} of space {space}, but was at {known} before: it lost data, or was restored "
            f"to an older state"
        )


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


class Breaker:
    """Stops deletions in bulk of one space and direction until the person says what is to be done.

    A confirmation is good for the files that were shown, and no others: what is deleted later counts anew.
    """

    def __init__(self, values: Values, space: int, direction: Direction) -> None:
        self._values = values
        self._direction = direction
        self._key = f"breaker {direction} {space}"

    def admit(self, files: Collection[int], of: int) -> frozenset[int]:
        """Which of the files that are about to disappear may not. Empty: go on."""
        shown, confirmed, _ = self._state()
        unconfirmed = frozenset(files) - confirmed
        if shown:
            shown &= unconfirmed
        if not shown and is_mass_deletion(len(unconfirmed), of):
            shown = unconfirmed
        self._keep(shown, confirmed & frozenset(files), of)
        return unconfirmed if shown else frozenset()

    def tripped(self) -> Tripped | None:
        shown, _, of = self._state()
        return Tripped(self._direction, len(shown), of) if shown else None

    def shown(self) -> frozenset[int]:
        return self._state()[0]

    def confirm(self) -> int:
        """Let the files that were shown disappear; how many they are."""
        shown, confirmed, of = self._state()
        self._keep(frozenset(), confirmed | shown, of)
        return len(shown)

    def reset(self) -> None:
        self._keep(frozenset(), frozenset(), 0)

    def _state(self) -> tuple[frozenset[int], frozenset[int], int]:
        kept = self._values.meta(self._key)
        if not isinstance(kept, dict):
            return frozenset(), frozenset(), 0
        return frozenset(kept["shown"]), frozenset(kept["confirmed"]), kept["of"]

    def _keep(self, shown: frozenset[int], confirmed: frozenset[int], of: int) -> None:
        new = {"shown": sorted(shown), "confirmed": sorted(confirmed), "of": of} if shown or confirmed else None
        if new != self._values.meta(self._key):
            self._values.set_meta(self._key, new)
