"""Bugs to be planted into the real code: each takes away one rule that keeps contents from being lost, or the tree from breaking.

A bug is a function that changes the code through a `MonkeyPatch`. They reach into privates, because that is where the rules are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio

from cache import commits, groups, merge, merger, pull, push
from cache.drafts import DraftFolder
from cache.files import Files
from cache.merge import Fate
from cache.openfile import File
from cache.store.content import ContentStore
from cache.store.merging import MergeStore
from cache.store.sync import Replacing
from remote.api import RemoteError
from remote.copynames import CopyNames
from remote.protocol import ConflictKind
from remote.server import check
from remote.server.namespace import Namespace

Bug = Callable[[pytest.MonkeyPatch], None]


def replaced(owner: Any, name: str, new: Any) -> Bug:
    return lambda patch: patch.setattr(owner, name, new)


def conflict_is_passed_over(name: str, kind: ConflictKind) -> Bug:
    """The service's check does not know one kind of conflict."""
    original = getattr(check.Check, name)

    def run(self: Any, *arguments: Any) -> Any:
        found = original(self, *arguments)
        return None if found is kind else found

    return replaced(check.Check, name, run)


def merge_rule_is_missing(rule: str) -> Bug:
    """The decision on names against deletion, without one of its rows."""
    original = merge._Merge.names_against_deletion

    def decide(self: Any, ino: int, service: Any, local: Any) -> Any:
        before = self.rules[rule]
        names = original(self, ino, service, local)
        return set() if self.rules[rule] > before else names

    return replaced(merge._Merge, "names_against_deletion", decide)


def merges_without(condition: str) -> Bug:
    def is_ready(self: Any, space: Any) -> bool:
        ready = {
            "caught up": space.caught_up,
            "as new as acknowledged": space.snapshot >= space.acknowledged,
            "nothing outstanding": self._store.outstanding(space.number) is None,
        }
        if not all(holds for name, holds in ready.items() if name != condition):
            return False
        return bool(space.listing or not space.listed or self._store.has_staged(space.number))

    return replaced(merger.Merger, "_is_ready", is_ready)


# ------------------------------------------------------------------------------------------------------------ the service


def entries_are_not_compared(patch: pytest.MonkeyPatch) -> None:
    original = check.Check._entries

    def entries(self: Any) -> Any:
        view = self._view
        for change in self._group.group.entries:
            object.__setattr__(change, "base", view.entry((change.parent, change.name)).inode)
        return original(self)

    patch.setattr(check.Check, "_entries", entries)


def numbers_are_not_compared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Namespace, "_recorded", lambda *_: None)


def content_revision_is_the_rows(patch: pytest.MonkeyPatch) -> None:
    """The service compares the revision of the row, which attributes advance, and says it in its answers and feeds."""
    original = check.Check._rows

    def rows(self: Any) -> Any:
        view = self._view

        class Advanced:
            def __getattr__(self, name: str) -> Any:
                return getattr(view, name)

            def inode(self, id_: bytes) -> Any:
                row = view.inode(id_)
                return None if row is None else replace(row, content_rev=row.rev)

        self._view = Advanced()
        try:
            return original(self)
        finally:
            self._view = view

    patch.setattr(check.Check, "_rows", rows)


# ---------------------------------------------------------------------------------------------------------------- the push


def attributes_advance_the_content(patch: pytest.MonkeyPatch) -> None:
    """An answer's revision of the content is taken as seen, though no content was sent."""
    original = push.Push._acknowledge_inode

    def acknowledge(self: Any, change: Any, revisions: Any) -> Any:
        result = original(self, change, revisions)
        ino = self._ino(change.id)
        self._store.database.sql.execute("UPDATE inode SET content_rev = ? WHERE ino = ?", (revisions.content_rev, ino))
        return result

    patch.setattr(push.Push, "_acknowledge_inode", acknowledge)


def acknowledgement_writes_local(patch: pytest.MonkeyPatch) -> None:
    """What was renamed while the commit was under way is what was sent again."""
    original = push.Push._acknowledge

    def acknowledge(self: Any, group: Any, outcome: Any, gone: Any) -> int:
        highest: int = original(self, group, outcome, gone)
        for entry, rev in zip(group.entries, outcome.entries, strict=True):
            parent = self._ino(entry.parent)
            ino = None if entry.inode is None else self._ino(entry.inode)
            self._tree.set_entry_states(parent, entry.name, base=ino, rev=rev, local=ino)
        return highest

    patch.setattr(push.Push, "_acknowledge", acknowledge)


def acknowledgement_takes_all_drafts(patch: pytest.MonkeyPatch) -> None:
    """What was written on top while the commit was under way goes with what it sent."""
    original = ContentStore.acknowledge

    def acknowledge(self: Any, ino: int, draft: Any, *content: Any) -> list[int]:
        return original(self, ino, None if draft is None else 2**62, *content)

    patch.setattr(ContentStore, "acknowledge", acknowledge)


def draft_goes_before_its_row(patch: pytest.MonkeyPatch) -> None:
    """The file of a draft is unlinked when its objects are on the service, before the commit that names them."""
    original = Files.__init__

    def init(self: Any, store: Any, tree: Any, folder: DraftFolder, *rest: Any) -> None:
        original(self, store, tree, folder, *rest)
        complete = store.complete

        def completed(draft: int, *content: Any) -> bool:
            done: bool = complete(draft, *content)
            (folder.path / str(draft)).unlink(missing_ok=True)
            return done

        store.complete = completed

    patch.setattr(Files, "__init__", init)


def retries_get_a_new_number(patch: pytest.MonkeyPatch) -> None:
    """An answer that did not come: what was sent is forgotten, and built again under the next number."""
    original = push.Push._send

    async def send(self: Any, space: Any, *rest: Any) -> None:
        try:
            await original(self, space, *rest)
        except RemoteError:
            self._store.close_commit(space.number, 0)
            raise

    patch.setattr(push.Push, "_send", send)


def base_is_the_rows_revision(patch: pytest.MonkeyPatch) -> None:
    original = commits._Rows._content

    def content(self: Any, commit: Any, ino: int, complete: Any, base: int) -> Any:
        row = self._tree.inode(ino)
        return original(self, commit, ino, complete, row.rev if base and row is not None else base)

    patch.setattr(commits._Rows, "_content", content)


def entries_of_an_inode_go_separately(patch: pytest.MonkeyPatch) -> None:
    def component(self: Any, key: Any) -> Any:
        known = self.component_of.get(key)
        if known is None:
            known = self.component_of[key] = groups._Component(keys=[key])
            known.held = self.waits_for_bytes(key)
        return known

    patch.setattr(groups._Planner, "component", component)


def circles_are_split(patch: pytest.MonkeyPatch) -> None:
    original = groups._Planner.visit

    def visit(self: Any, start: Any) -> Any:
        joined, self.group = self.group, lambda members: [type(self).group(self, [member]) for member in members]
        for split in original(self, start):
            yield from split
        self.group = joined

    patch.setattr(groups._Planner, "visit", visit)


# ---------------------------------------------------------------------------------------------------- the pull, the merge


def absence_is_deletion(patch: pytest.MonkeyPatch) -> None:
    """Every page is taken for a listing of all that there is."""
    original = MergeStore.drop_known

    def drop_known(self: Any, space: int) -> None:
        if self.database.sql.execute("SELECT listed FROM space WHERE number = ?", (space,)).fetchone()[0]:
            self.finish_listing(space, Replacing(collected=2**62))
        original(self, space)

    patch.setattr(MergeStore, "drop_known", drop_known)


def cursor_goes_before_its_page(patch: pytest.MonkeyPatch) -> None:
    original = pull.Pull._receive

    async def receive(self: Any, page: Any) -> None:
        self._store.set_cursor(page.cursor, page.epoch)
        await trio.sleep(0.2)
        await original(self, page)

    patch.setattr(pull.Pull, "_receive", receive)


def copy_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    original = merge._Merge.decide_content

    def decide(self: Any, *states: Any) -> Fate:
        fate = original(self, *states)
        return Fate.REPLACE if fate is Fate.COPY else fate

    patch.setattr(merge._Merge, "decide_content", decide)


def content_of_two_writers_is_the_last(patch: pytest.MonkeyPatch) -> None:
    """A conflicting content stays where it is, and is sent as if its writer had seen the other."""
    original = merge._Merge.decide_content

    def decide(self: Any, *states: Any) -> Fate:
        fate = original(self, *states)
        return Fate.KEEP if fate is Fate.COPY else fate

    patch.setattr(merge._Merge, "decide_content", decide)


def equal_bytes_conflict(patch: pytest.MonkeyPatch) -> None:
    """Two devices wrote the same, and one of them makes a copy of it."""
    original = merge._Merge.decide_content

    def decide(self: Any, ino: int, base: Any, service: Any, local: Any) -> Fate:
        fate = original(self, ino, base, service, local)
        both_wrote = service.content is not None and not local.same_content(base) and not service.same_content(base)
        named = self.local.names(ino) and self.service.names(ino)
        return Fate.COPY if fate is Fate.SETTLE and both_wrote and named else fate

    patch.setattr(merge._Merge, "decide_content", decide)


def copies_are_one(patch: pytest.MonkeyPatch) -> None:
    original = CopyNames.free_name
    patch.setattr(CopyNames, "free_name", lambda self, name, is_folder, taken: original(self, name, is_folder, lambda _: False))


def open_files_are_not_saved(patch: pytest.MonkeyPatch) -> None:
    """A merge takes a file that is being written for one that nobody touched."""
    patch.setattr(Files, "save_open", lambda self: None)
    original = File._writable

    def writable(self: Any) -> Any:
        saved, self.base = self.base, replace(self.base, manifest_id=None)
        try:
            return original(self)
        finally:
            self.base = saved

    patch.setattr(File, "_writable", writable)
    replacement = Files.content_replaced

    def content_replaced(self: Any, ino: int) -> None:
        file = self._open.get(ino)
        if file is not None:
            file.discarded()
        replacement(self, ino)

    patch.setattr(Files, "content_replaced", content_replaced)


def old_handles_write_on(patch: pytest.MonkeyPatch) -> None:
    """An application goes on writing what it opened, over what the service put there meanwhile."""

    def content_replaced(self: Any, ino: int) -> None:
        file = self._open.get(ino)
        row = self.store.file(ino)
        if file is not None and row is not None:
            file._layers.clear()

    patch.setattr(Files, "content_replaced", content_replaced)


def sealed_drafts_are_written(patch: pytest.MonkeyPatch) -> None:
    original = File._writable

    def writable(self: Any) -> Any:
        return self._layers[-1] if self._layers and self.ino is not None else original(self)

    patch.setattr(File, "_writable", writable)


PLANTED: dict[str, Bug] = {
    # the service
    "no base check of contents": conflict_is_passed_over("_rows", ConflictKind.CONTENT),
    "no base check of names": entries_are_not_compared,
    "contents are compared by the row's revision": content_revision_is_the_rows,
    "seen is not checked": conflict_is_passed_over("_nameless", ConflictKind.EDITED),
    "the last name is not checked": conflict_is_passed_over("_nameless", ConflictKind.LAST_NAME),
    "folders go with what is in them": conflict_is_passed_over("_nameless", ConflictKind.NOT_EMPTY),
    "a full row replaces what has a name": conflict_is_passed_over("_rows", ConflictKind.ALREADY_NAMED),
    "numbers are not compared": numbers_are_not_compared,
    # push
    "base by the row's revision": base_is_the_rows_revision,
    "attributes advance the content's revision": attributes_advance_the_content,
    "an acknowledgement writes local": acknowledgement_writes_local,
    "an acknowledgement takes newer drafts": acknowledgement_takes_all_drafts,
    "a draft goes before its row": draft_goes_before_its_row,
    "a retry has a new number": retries_get_a_new_number,
    "a group is split": entries_of_an_inode_go_separately,
    "circles are split": circles_are_split,
    # pull
    "absence is deletion": absence_is_deletion,
    "the cursor goes before its page": cursor_goes_before_its_page,
    "pages are merged early": merges_without("caught up"),
    "merged with a commit outstanding": merges_without("nothing outstanding"),
    "merged with an old snapshot": merges_without("as new as acknowledged"),
    # merge
    "conflicted copies are lost": copy_is_forgotten,
    "the last writer wins": content_of_two_writers_is_the_last,
    "equal bytes conflict": equal_bytes_conflict,
    "copy names are not free": copies_are_one,
    "parents are not revived": replaced(merge._Merge, "revive_parents", lambda self: self.unchecked.clear()),
    "a local edit does not beat deletion": merge_rule_is_missing("local edit beats deletion"),
    "the service's edit does not beat deletion": merge_rule_is_missing("service's edit beats deletion"),
    "both unlinked means deleted": merge_rule_is_missing("both unlinked"),
    "both moves stay": replaced(merge._Merge, "moves_to_undo", lambda *_: set()),
    "cycles stay": replaced(merge._Merge, "undo_a_cycle", lambda *_: False),
    "children are not redirected": replaced(merge._Merge, "redirect_children", lambda _: None),
    # files
    "what open files hold is not known": open_files_are_not_saved,
    "old handles write on": old_handles_write_on,
    "sealed drafts are written": sealed_drafts_are_written,
}
