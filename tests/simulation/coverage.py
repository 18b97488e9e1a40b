"""What came up in a simulation: rows of the merge table and rules of its fixpoint, operations, faults; and in how many seeds.

`observed` follows every merge of every device, without changing what it does: it counts what was decided, and lets the ledger
look at the copies and at the tree before and after. Whoever runs a series of seeds asks for what was `rare` in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from cache import merge as rules
from cache.merge import Contacts, FreeName, Merged, Side, State
from cache.store import merging
from cache.store.merging import Applied, MergeStore
from tests.simulation.invariants import check_local
from tests.simulation.ledger import Ledger
from tests.simulation.network import Fault
from tests.simulation.operations import OPERATIONS

Counts = Counter[str]
"""How often each thing came up in one seed, by `kind: name`."""

MERGE_ROWS = (
    "attribute: the local one is kept",
    "attribute: the service's is taken",
    "attribute: both changed it",
    "content: the service's is taken",
    "content: the local one is kept",
    "content: both wrote the same",
    "content: the service's is nameless, the local edit is kept",
    "content: a copy of the local one",
    "content: it is nameless here, no copy",
    "names: of both",
    "names: the local move is undone",
    "names: nameless there, named by both",
    "names: a folder with two",
    "names: the local edit beats the deletion",
    "names: the service's edit beats the deletion",
    "names: both unlinked another",
    "fixpoint: children are redirected",
    "fixpoint: a folder is revived",
    "fixpoint: a cycle is undone",
    "fixpoint: folders are merged",
    "fixpoint: an equal file is dropped",
    "fixpoint: one is renamed",
)
"""Every row of the merge table (sync.md) and every rule of the fixpoint."""

FAULTS = (
    *("offline", "cable", "crash", "crash in a request", "crash at a point"),
    *("service crash", "service crash at a point", "service restart"),
    *("collection", "home restored", "service restored"),
)
"""Beside those that meet single requests."""
_BY_RULE = {
    "move undone": "names: the local move is undone",
    "local edit beats deletion": "names: the local edit beats the deletion",
    "service's edit beats deletion": "names: the service's edit beats the deletion",
    "both unlinked": "names: both unlinked another",
    "folder revived": "fixpoint: a folder is revived",
    "cycle undone": "fixpoint: a cycle is undone",
    "folders merged": "fixpoint: folders are merged",
    "equal file dropped": "fixpoint: an equal file is dropped",
    "renamed": "fixpoint: one is renamed",
}
_ATTRIBUTES = ("mode", "uid", "gid", "mtime_ns", "xattrs")


# --------------------------------------------------------------------------------------------------------- one simulation


@contextmanager
def observed(ledger: Ledger, counts: Counts) -> Iterator[None]:
    """While this stands, every merge of the ledger's devices is counted and looked at."""
    observer = _Observer(ledger, counts)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(MergeStore, "merge", observer.around_merge(MergeStore.merge)))
        stack.enter_context(mock.patch.object(merging, "merge", observer.around_decision(merging.merge)))
        redirect = observer.around_redirection(rules._Merge.redirect_children)
        stack.enter_context(mock.patch.object(rules._Merge, "redirect_children", redirect))
        yield


class _Observer:
    def __init__(self, ledger: Ledger, counts: Counts) -> None:
        self._ledger = ledger
        self._counts = counts
        self._device: str | None = None
        """Whose merge is under way; None of a drive that crashed already."""
        self._moving: dict[int, frozenset[bytes]] = {}
        """What is in the files whose content moves to a copy."""
        self._revived: list[int] = []
        """Folders that the service has no more, and that stay."""

    def around_merge(self, original: Any) -> Any:
        def merge(store: MergeStore, *arguments: Any) -> Applied:
            self._device = device = self._ledger.device_at(store.database.path)
            if device is None:
                applied: Applied = original(store, *arguments)
                return applied
            self._ledger.before_merge(device)
            before = self._ledger.picture(device) if self._ledger.single == device else None
            self._moving, self._revived = moving, revived = {}, []
            try:
                applied = original(store, *arguments)
            finally:
                self._device = None
            if self._ledger.device_at(store.database.path) is None:
                return applied  # it died in the middle of it
            for source, copy in applied.moved:
                self._ledger.copied(device, source, copy, moving[source])
            for folder in revived:
                self._ledger.folder_revived(device, folder)
            if before is not None and before != self._ledger.picture(device):
                self._ledger.fail(f"only {device} is used, and a merge changed its tree: {applied.changes}")
            check_local(self._ledger, device)
            return applied

        return merge

    def around_decision(self, original: Any) -> Any:
        def merge(base: Side, service: Side, local: Side, contacts: Contacts, root: int, free_name: FreeName) -> Merged:
            merged: Merged = original(base, service, local, contacts, root, free_name)
            if self._device is not None:
                for ino in merged.states:
                    self._counts.update(f"merge: {row}" for row in set(rows_of(ino, base, service, local)))
                self._counts.update({f"merge: {_BY_RULE[rule]}": n for rule, n in merged.rules.items() if n and rule in _BY_RULE})
                self._revived += [
                    ino
                    for ino, names in merged.names.items()
                    if names and not service.names(ino) and base.names(ino) and merged.states[ino].is_folder
                ]
                for copied in merged.copies:
                    self._moving[copied.source] = self._ledger.sees(self._device, copied.source)
                    self._ledger.check_copy(self._device, copied.source, _manifest(service.state(copied.source)))
            return merged

        return merge

    def around_redirection(self, original: Any) -> Any:
        def redirect_children(decision: Any) -> None:
            before = dict(decision.decided)
            original(decision)
            if self._device is not None and before != decision.decided:
                self._counts["merge: fixpoint: children are redirected"] += 1

        return redirect_children


def _manifest(state: State | None) -> bytes | None:
    return None if state is None or state.content is None else state.content.manifest_id


def rows_of(ino: int, base: Side, service: Side, local: Side) -> Iterator[str]:
    """Which rows of the merge table, but those that the merge counts itself, decide an inode."""
    was, there, here = base.state(ino), service.state(ino), local.state(ino)
    if there is not None and here is not None:
        yield from _attribute_rows(was, there, here)
        if here.content is not None and there.content is not None:
            yield _content_row(was, there, here, bool(service.names(ino)), bool(local.names(ino)))
    names, theirs, mine = base.names(ino), service.names(ino), local.names(ino)
    if theirs != names and mine != names:
        yield "names: of both"
        if not names and theirs and mine:
            yield "names: nameless there, named by both"
        if theirs and mine and mine != theirs and here is not None and here.is_folder:
            yield "names: a folder with two"


def _attribute_rows(was: State | None, there: State, here: State) -> Iterator[str]:
    for name in _ATTRIBUTES:
        old = None if was is None else getattr(was, name)
        mine, theirs = getattr(here, name), getattr(there, name)
        if mine != old and theirs not in (old, mine):
            yield "attribute: both changed it"
        elif mine != old and mine != theirs:
            yield "attribute: the local one is kept"
        elif theirs != mine:
            yield "attribute: the service's is taken"


def _content_row(was: State | None, there: State, here: State, named_there: bool, named_here: bool) -> str:
    if here.same_content(there):
        return "content: the local one is kept" if there.same_content(was) else "content: both wrote the same"
    if here.same_content(was):
        return "content: the service's is taken"
    if there.same_content(was):
        return "content: the local one is kept"
    if not named_here:
        return "content: it is nameless here, no copy"
    return "content: a copy of the local one" if named_there else "content: the service's is nameless, the local edit is kept"


# ------------------------------------------------------------------------------------------------------- a series of seeds


def expected() -> list[str]:
    """Everything that must come up in a series: rows of the merge table, rules of its fixpoint, operations, faults."""
    return [
        *(f"merge: {row}" for row in MERGE_ROWS),
        *(f"operation: {kind}" for kind in OPERATIONS),
        *(f"fault: {fault}" for fault in (*Fault, *FAULTS)),
    ]


def rare(seen_in: Mapping[str, int], seeds: int, minimum: float = 0.01) -> list[str]:
    """What is expected, and came up in less than that share of the seeds. `seen_in`: in how many of them each thing was."""
    return [name for name in expected() if seen_in.get(name, 0) < minimum * seeds]
