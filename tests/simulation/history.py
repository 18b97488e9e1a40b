"""Who wrote which content, having seen which: the descent of every content of a simulation. Pure.

A content is known by the SHA-256 of its bytes. It descends from what its writer saw of the file, and so on. Contents of one
file are written one after the other by devices that do not know of each other, so descent is what tells an edit that replaces
another from one that would silently overwrite it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

EMPTY = hashlib.sha256(b"").digest()
"""Nobody misses the content of an empty file, and everybody may write it again: it has no descent."""


def id_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@dataclass(slots=True)
class Written:
    """One content. Written more than once (equal contents), it has the writers and the parents of all."""

    data: bytes
    writes: int = 0
    writers: set[str] = field(default_factory=set)
    parents: set[bytes] = field(default_factory=set)
    promised: bool = False
    """`close` or `fsync` returned on it: it must not be lost."""
    deleted: bool = False
    """The last name of a file with this content was removed by somebody who saw it there."""
    forgiven: str | None = None
    """Why it may be lost nevertheless: the fault that took it."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a crash interrupted: the states of a file since its content was last promised, that one first."""

    device: str
    states: tuple[bytes, ...]
    judged: set[bytes] = field(default_factory=set)
    """Ids of contents that need no other look: the states, and what was compared with them."""

    def explains(self, id_: bytes, data: bytes) -> bool:
        """Whether this crash may have left `data`, asked for the first time."""
        if id_ in self.judged:
            return False
        self.judged.add(id_)
        return self.may_be(data)

    def may_be(self, data: bytes) -> bool:
        """Whether `data` is one of the states, or what a crash between them can leave: each byte and the size of any."""
        if len(data) not in {len(state) for state in self.states}:
            return False
        padded = [state.ljust(len(data), b"\0") for state in self.states]
        return all(any(state[at] == byte for state in padded) for at, byte in enumerate(data))


class History:
    def __init__(self) -> None:
        self.contents: dict[bytes, Written] = {EMPTY: Written(b"")}
        self._unfinished: list[Unfinished] = []
        self._mixtures: set[bytes] = set()
        """What crashes left that nobody wrote."""

    def write(self, writer: str, data: bytes, saw: Iterable[bytes]) -> bytes:
        """`data` is what the file is after a write by `writer`, who saw the contents `saw` in it. Returns its id."""
        id_ = id_of(data)
        written = self.contents.setdefault(id_, Written(data))
        written.writes += 1
        written.writers.add(writer)
        for parent in saw:
            if parent not in (id_, EMPTY) and id_ != EMPTY:
                written.parents.add(parent)
        return id_

    def interrupted(self, device: str, states: Iterable[bytes]) -> None:
        """A crash came while a file went through these contents (ids)."""
        ids = list(states)
        self._unfinished.append(Unfinished(device, tuple(self.contents[state].data for state in ids), set(ids)))

    def adopt(self, data: bytes) -> bytes | None:
        """The id of a content that was found; None if nobody wrote it, and no crash explains it.

        A crash may leave a content that somebody wrote before: what was written over the bytes of a patch can be what was there
        before it. Then that content replaced what it was a mixture of, too.
        """
        id_ = id_of(data)
        if id_ == EMPTY:
            return id_
        for unfinished in self._unfinished:
            if unfinished.explains(id_, data):
                self._mixtures.add(id_)
                return self.write(unfinished.device, data, [id_of(state) for state in unfinished.states])
        return id_ if id_ in self.contents else None

    def outlives(self, young: bytes, old: bytes) -> bool:
        """Whether `old` is what a crash left of contents from all of which `young` descends: its writer did not look first."""
        return old in self._mixtures and all(self.descends(young, parent) for parent in self.contents[old].parents)

    def descends(self, young: bytes, old: bytes) -> bool:
        """Whether whoever wrote `young` had seen `old`, or something that descends from it. A content descends from itself."""
        return old in (young, EMPTY) or self._reaches(young, old, lambda written: True)

    def surely_descends(self, young: bytes, old: bytes) -> bool:
        """The same, but false where a content on the way was written more than once, so that its descent is not one."""
        return old != EMPTY and self._reaches(young, old, lambda written: written.writes == 1)

    def is_surely_related(self, one: bytes, other: bytes) -> bool:
        return self.surely_descends(one, other) or self.surely_descends(other, one)

    def _reaches(self, young: bytes, old: bytes, counts: Callable[[Written], bool]) -> bool:
        found: set[bytes] = {young}
        waiting = [young]
        while waiting:
            written = self.contents.get(waiting.pop())
            if written is None or not counts(written):
                continue
            if old in written.parents:
                return counts(self.contents[old])
            waiting.extend(written.parents - found)
            found |= written.parents
        return False

    def lost(self, found: set[bytes]) -> list[bytes]:
        """The promised contents that are neither `found`, nor deleted, nor superseded by one that is accounted for."""
        accounted = {id_ for id_, written in self.contents.items() if id_ in found or written.deleted or written.forgiven}
        waiting = list(accounted)
        while waiting:
            parents = self.contents[waiting.pop()].parents - accounted
            accounted |= parents
            waiting.extend(parents)
        return [id_ for id_, written in self.contents.items() if written.promised and id_ not in accounted and id_ != EMPTY]
