"""Every rule switched off in turn: a rule whose absence no seed notices is superfluous, or untested.

Takes minutes, so it runs with `--long`. It reaches into the merge and the groups, because that is where the
rules are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cache import groups, merge
from cache.merge import Fate
from tests.support import replicas, scenarios
from tests.support.reference_service import ReferenceService
from tests.support.scenarios import DEEP, DIRECTED, FINE, PHASED, Generator, failure

SEEDS = 4000
Patch = Callable[[pytest.MonkeyPatch], None]

pytestmark = pytest.mark.long


def replaced(owner: Any, name: str, new: Any) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, new)


def without_rule(rule: str, result: Callable[[Any], Any]) -> Patch:
    """The decision on names against deletion, without one of its rows."""
    original = merge._Merge.names_against_deletion

    def decide(self: Any, ino: int, service: Any, local: Any) -> Any:
        before = self.rules[rule]
        names = original(self, ino, service, local)
        return result(names) if self.rules[rule] > before else names

    return replaced(merge._Merge, "names_against_deletion", decide)


def copy_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    original = merge._Merge.decide_content

    def decide(self: Any, *states: Any) -> Fate:
        fate = original(self, *states)
        return Fate.REPLACE if fate is Fate.COPY else fate

    monkeypatch.setattr(merge._Merge, "decide_content", decide)


def equal_content_conflicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge.Content, "same", lambda self, other: self.manifest_id is not None and self == other)


def live_folders_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    original = merge._Merge.settle_claims

    def settle(self: Any, key: Any, claims: Any) -> None:
        service = self.service

        class Dead:
            def __getattr__(self, name: str) -> Any:
                return getattr(service, name)

            def names(self, ino: int) -> Any:
                return frozenset()

        self.service = Dead()
        try:
            original(self, key, claims)
        finally:
            self.service = service

    monkeypatch.setattr(merge._Merge, "settle_claims", settle)


def nothing_shared_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    def component(self: Any, key: Any) -> Any:
        known = self.component_of.get(key)
        if known is None:
            known = self.component_of[key] = groups._Component(keys=[key])
            known.held = self.waits_for_bytes(key)
        return known

    monkeypatch.setattr(groups._Planner, "component", component)


def circles_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    original = groups._Planner.visit

    def visit(self: Any, start: Any) -> Any:
        joined, self.group = self.group, lambda members: [type(self).group(self, [member]) for member in members]
        for split in original(self, start):
            yield from split
        self.group = joined

    monkeypatch.setattr(groups._Planner, "visit", visit)


def contacts_are_only_what_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    original = merge.find_contacts

    def find(base: Any, service: Any, local: Any, keys: Any, inodes: Any, root: int, is_dirty: Any) -> Any:
        found = original(base, service, local, (), inodes, root, is_dirty)
        return merge.Contacts(found.inodes, found.moved_folders)

    monkeypatch.setattr(replicas, "find_contacts", find)


def attributes_advance_the_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """One revision for a whole row, on both sides."""
    write_row, acknowledge = ReferenceService.write_row, replicas.Replica.acknowledge

    def write(self: Any, device: Any, ino: Any, *details: Any) -> None:
        write_row(self, device, ino, *details)
        self.rows[ino].content_rev = self.rows[ino].rev

    def record(self: Any, group: Any, outcome: Any) -> None:
        acknowledge(self, group, outcome)
        for ino in group.inodes:
            self.base.states[ino] = scenarios.replace(self.base.states[ino], content_rev=outcome.inodes[ino][0])

    monkeypatch.setattr(ReferenceService, "write_row", write)
    monkeypatch.setattr(replicas.Replica, "acknowledge", record)


def acknowledgement_takes_what_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    original = replicas.Replica.acknowledge

    def acknowledge(self: Any, group: Any, outcome: Any) -> None:
        original(self, group, outcome)
        for ino in group.inodes:
            if ino in self.local.states:
                state, rev = self.local.states[ino], self.base.states[ino].content_rev
                self.base.states[ino] = scenarios.replace(state, content_rev=rev)

    monkeypatch.setattr(replicas.Replica, "acknowledge", acknowledge)


def retries_get_a_new_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def start_push(self: Any) -> None:
        made = self.groups()
        if made:
            self.number += 1
            self.outstanding = (self.number, scenarios.copy.deepcopy(made))

    monkeypatch.setattr(replicas.Replica, "start_push", start_push)


def may_merge_without(condition: str) -> Patch:
    def may_merge(self: Any) -> bool:
        ready = {
            "caught up": self.caught_up,
            "nothing outstanding": self.outstanding is None,
            "as new as acknowledged": self.snapshot >= self.acknowledged,
        }
        staged = bool(self.staged_entries or self.staged_rows or self.listing)
        return staged and all(holds for name, holds in ready.items() if name != condition)

    return replaced(replicas.Replica, "may_merge", may_merge)


PLANTED: dict[str, Patch] = {
    "both moves stay": replaced(merge._Merge, "moves_to_undo", lambda *_: set()),
    "a local edit does not beat deletion": without_rule("local edit beats deletion", lambda _: set()),
    "the service's edit does not beat deletion": without_rule("service's edit beats deletion", lambda _: set()),
    "both unlinked means deleted": without_rule("both unlinked", lambda _: set()),
    "a conflicting content is replaced": copy_is_forgotten,
    "equal bytes conflict": equal_content_conflicts,
    "parents are not revived": replaced(merge._Merge, "revive_parents", lambda self: self.unchecked.clear()),
    "folders in use are not kept": replaced(merge._Merge, "keep_folder_in_use", lambda *_: None),
    "cycles stay": replaced(merge._Merge, "undo_a_cycle", lambda *_: False),
    "children are not redirected": replaced(merge._Merge, "redirect_children", lambda _: None),
    "names are not separated": replaced(merge._Merge, "separate_names", lambda _: False),
    "live folders are merged": live_folders_are_merged,
    "copy names are not free": replaced(replicas.CopyNames, "free_name", lambda self, name, folder, taken: name + "!"),
    "attributes are the service's": replaced(merge, "merge_attributes", lambda base, service, local: service),
    "entries of one inode go separately": nothing_shared_is_joined,
    "circles are split": circles_are_split,
    "nothing is held for bytes": replaced(groups._Planner, "waits_for_bytes", lambda *_: False),
    "no order": replaced(groups._Planner, "keys_before", lambda *_: iter(())),
    "rows are full only if unknown": replaced(
        groups._Planner, "needs_full_row", lambda self, ino: self.base.state(ino) is None
    ),
    "contacts by names are forgotten": contacts_are_only_what_was_sent,
    "attributes advance the content's revision": attributes_advance_the_content,
    "an acknowledgement takes what is local": acknowledgement_takes_what_is_local,
    "a retry has a new number": retries_get_a_new_number,
    "pages are merged early": may_merge_without("caught up"),
    "merged with a commit outstanding": may_merge_without("nothing outstanding"),
    "merged with an old snapshot": may_merge_without("as new as acknowledged"),
    "the service does not check names": replaced(ReferenceService, "check_names", lambda *_: None),
    "the service does not check parents": replaced(ReferenceService, "check_parents", lambda *_: None),
    "the service does not check rows": replaced(ReferenceService, "check_rows", lambda *_: None),
}  # fmt: skip


@pytest.mark.timeout(24 * 3600)
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[bug](monkeypatch)
    if any(failure(scenario) for scenario in DIRECTED.values()):
        return
    for seed in range(SEEDS):
        for family in (PHASED, FINE, DEEP):
            if failure(Generator(family + seed).scenario()):
                return
    pytest.fail(f"no seed of {3 * SEEDS} notices: {bug}")
