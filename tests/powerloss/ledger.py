"""What the workload did, when, and what was promised of it; and whether what is found after a cut keeps that. Pure.

A moment is a length of the recorder's log. A file has states and names, one after the other; a sync is a promise about the one
that it is in. After a cut it may show the last state that was promised before, or any later one that had begun, under the name
that it had then or a later one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

BLOCK = 512
SET_ASIDE = ("perhaps incomplete, power loss", "Recovered files")
"""Names that say that what is under them is not to be taken for good."""


class Promise(Enum):
    SYNCED = "fsync had returned"
    CLOSED = "close had returned"
    ACKNOWLEDGED = "aloft sync had returned"


@dataclass(frozen=True, slots=True)
class State:
    content: bytes | None
    """None: there is nothing under this path."""
    began: int
    least: int | None = None
    """A beginning of the content of at least this length may be found, too: it was written from there on. None: it may not."""
    fresh: bool = False
    """Written from nothing. Else blocks of the state before were overwritten in place, or it was cut or made longer."""
    renamed: bool = False
    """Another file was renamed over the one before."""


@dataclass(slots=True)
class _File:
    names: list[tuple[str, int]]
    """(path, since when)."""
    states: list[State] = field(default_factory=list)
    promises: list[tuple[Promise, int, int, int]] = field(default_factory=list)
    """(what was promised, when, of which state, under which name)."""


class Ledger:
    def __init__(self, position: Callable[[], int], others: Collection[str]) -> None:
        """`others`: files whose contents are not looked at."""
        self.others = others
        self._position = position
        self._files: dict[str, _File] = {}
        """By the latest name."""
        self._all: list[_File] = []

    @contextmanager
    def change(
        self, path: str, content: bytes | None, *, least: int | None = None, fresh: bool = False, renamed: bool = False
    ) -> Iterator[Callable[[], None]]:
        """The path gets this content inside; at the end it is closed. Call what is given when an fsync has returned."""
        known = self._files.get(path)
        if known is None:
            known = self._files[path] = _File([(path, self._position())])
            self._all.append(known)
        known.states.append(State(content, self._position(), least, fresh, renamed))
        yield lambda: self._promise(known, Promise.SYNCED)
        self._promise(known, Promise.CLOSED)

    @contextmanager
    def move(self, path: str, new: str) -> Iterator[Callable[[], None]]:
        """The file gets another name, which nothing has had before, inside."""
        known = self._files[new] = self._files.pop(path)
        known.names.append((new, self._position()))
        yield lambda: self._promise(known, Promise.SYNCED)
        self._promise(known, Promise.CLOSED)

    def acknowledged(self) -> None:
        """`aloft sync` has returned."""
        for known in self._files.values():
            self._promise(known, Promise.ACKNOWLEDGED)

    def now(self) -> int:
        return self._position()

    def content(self, path: str) -> bytes:
        content = self._files[path].states[-1].content
        assert content is not None
        return content

    def _promise(self, known: _File, promise: Promise) -> None:
        known.promises.append((promise, self._position(), len(known.states) - 1, len(known.names) - 1))

    # ----------------------------------------------------------------------------------------------------- after a cut

    def broken(self, found: Mapping[str, bytes], cut: int, promises: set[Promise], unseen: Collection[str] = ()) -> list[str]:
        """What of the promises before the cut is not kept by what is found. Empty: all is well. `unseen`: files that are there,
        and could not be read."""
        wrong = []
        for known in self._all:
            fault = _fault(known, found, cut, promises)
            if fault is not None and not any(name in unseen for name, _ in known.names):
                wrong.append(f"{known.names[-1][0]}: {fault}")
        names = {name for known in self._all for name, _ in known.names}
        ignored = (*SET_ASIDE, *self.others)
        strange = [path for path in found if path not in names and not any(mark in path for mark in ignored)]
        return wrong + [f"{path}: nobody made this" for path in strange]


def _fault(known: _File, tree: Mapping[str, bytes], cut: int, promises: set[Promise]) -> str | None:
    floor, first_name, why = -1, 0, "nothing was promised"
    for promise, when, number, name in known.promises:
        if promise in promises and when <= cut:
            floor, first_name, why = number, name, promise.value
    states = [state for number, state in enumerate(known.states) if number >= floor and state.began <= cut]
    names = [name for name, since in known.names[first_name:] if since <= cut]
    there = [tree[name] for name in names if name in tree]
    if len(there) > 1:
        return f"is there under {len(there)} names"
    found = there[0] if there else None
    if found is None:
        # For the service, what was replaced by rename and moved is one file that went and another that has yet to come.
        two_files = promises == {Promise.ACKNOWLEDGED} and len(names) > 1 and any(state.renamed for state in states[1:])
        gone = floor < 0 or two_files or any(state.content is None for state in states)
        return None if gone else f"is gone, and {why}"
    if floor < 0 and found == b"":
        return None
    if any(_shows(state, found) for state in states) or _is_mixed_in_place(states, found):
        return None
    return f"{len(found)} bytes that nobody wrote, and {why}; it was {[_size(state) for state in states]} bytes"


def _size(state: State) -> int | None:
    return None if state.content is None else len(state.content)


def _shows(state: State, found: bytes) -> bool:
    if state.content is None:
        return False
    return found == state.content or (state.least is not None and len(found) >= state.least and state.content.startswith(found))


def _is_mixed_in_place(states: list[State], found: bytes) -> bool:
    """Each block is that of some state, while none was fresh: what is overwritten in place is old or new, as in the files of a
    disk's file system."""
    run: list[bytes] = []
    for state in states:
        if state.fresh or state.content is None:
            run = []
        if state.content is not None:
            run.append(state.content)
        if any(len(found) == len(content) for content in run) and all(
            any(content.startswith(found[at : at + BLOCK], at) for content in run) for at in range(0, len(found), BLOCK)
        ):
            return True
    return False
