"""The commit: numbered, checked, and applied in one transaction with the space locked (docs/design.md). Blocking.

What is costly and needs no lock comes first: parsing, decoding manifests, asking the object store for what was uploaded. The
transaction looks again at everything that may have changed meanwhile.

An edit is what the service itself makes of a plain client's request: one group, built from the tree as it is when the space is
locked, and checked and applied as a device's are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from remote.copynames import MARK
from remote.crashpoints import crash_point
from remote.names import RESERVED_IN_ROOT
from remote.notificationapi import Topic
from remote.protocol import (
    MAX_XATTR_BYTES,
    Attributes,
    CommitAnswer,
    CommitRequest,
    ConflictKind,
    Group,
    GroupOutcome,
    InodeChange,
    InodeRevisions,
    Kind,
    ProblemType,
)
from remote.server import filelimits
from remote.server.access import writer_of
from remote.server.check import Check, NewContent, PreparedGroup, is_as_asked
from remote.server.config import TierConfig
from remote.server.contents import Contents, prepare
from remote.server.database import epochs
from remote.server.database import formernames as former_rows
from remote.server.database import trash as trash_rows
from remote.server.database import tree as rows
from remote.server.database.contents import Version
from remote.server.database.engine import Database
from remote.server.database.formernames import FormerName
from remote.server.database.tree import InodeRow, Key, Reached, RecordedCommit
from remote.server.devices import Caller
from remote.server.news import News, post, quota_news
from remote.server.paths import child, place_of, prefix_of
from remote.server.problems import Refused
from remote.server.quota import TierOf, load_budget
from remote.server.tree import Tree
from remote.server.uploads import Uploads

_TWO_CHANGED = "Two devices changed one file:"
MAX_XATTRS = 1000
"""Of one inode, as in `Attributes`."""
CLOCK_STEP_NS = 3600 * 10**9
"""By so much a clock may be put back, and still the times of commits rise."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Committed:
    answer: bytes
    """A serialized `CommitAnswer`."""
    changed: bool
    """Whether the space has a new revision, so that others should look."""


@dataclass(frozen=True, slots=True)
class Edit(Generic[T]):
    """What a request comes to in a tree."""

    group: Group | None
    """None: everything is as it was asked for."""
    result: Callable[[], T]
    """Called at the end of the transaction, when the tree is as the group left it."""
    mounts: bool = False
    """Whether the group may make, change and remove mounts: only sharing does."""
    reached: int = 0
    """A revision that `make` wrote rows of; the space's goes on from there."""


class Namespace:
    def __init__(self, database: Database, uploads: Uploads, tier_of: TierOf, clock: Callable[[], int]) -> None:
        self._database = database
        self._uploads = uploads
        self._tier_of = tier_of
        self._clock = clock

    def commit(self, caller: Caller, space: bytes, body: bytes) -> Committed:
        """`pydantic.ValidationError` for a body that is no `CommitRequest`; `Refused`."""
        request = CommitRequest.model_validate_json(body)
        body_hash = hashlib.sha256(body).digest()
        with self._database.read() as connection:
            owner = writer_of(connection, caller, space).owner
            recorded = self._recorded(connection, caller, space, request, body_hash)
            if recorded is not None:
                return recorded
            _check_history(request, epochs.current(connection), rows.revision(connection, space))
            groups = [prepare(group) for group in request.groups]
            uploads = self._uploads.find(connection, caller.account, owner, _objects(groups))
        proven = self._uploads.ask_store(owner, (upload for some in uploads.values() for upload in some))
        crash_point("service.commit.verified")
        with self._database.write() as connection:
            owner = writer_of(connection, caller, space).owner
            before = rows.lock_space(connection, space)
            recorded = self._recorded(connection, caller, space, request, body_hash)
            if recorded is not None:
                return recorded
            epoch = epochs.current(connection)
            _check_history(request, epoch, before.rev)
            tree = Tree(connection, space)
            outcomes, reached = self._apply(connection, caller, owner, tree, groups, proven, before)
            answer = CommitAnswer(
                epoch=epoch, number=request.number, revision=reached, outcomes=outcomes
            ).model_dump_json().encode()  # fmt: skip
            self._record(connection, caller, space, request, RecordedCommit(request.number, body_hash, answer))
            crash_point("service.commit.recorded")
        crash_point("service.commit.committed")
        return Committed(answer, reached != before.rev)

    def edit(
        self,
        caller: Caller,
        space: bytes,
        make: Callable[[Connection, Tree], Edit[T]],
        objects: Collection[bytes] = (),
        prefix: str = "",
        *,
        gives_back: bool = False,
    ) -> T:
        """Make an edit with the space locked, and apply it whole; `Refused` if it cannot be, and then nothing was done.

        `objects`: those that it may bring and that no content of the space names yet. `make` may write rows of its own.
        `prefix`: the path of the space's root (`Tree`).
        `gives_back`: the space had all of it, so it is not asked whether the tier would take it now.
        """
        proven: set[tuple[bytes, int]] = set()
        if objects:
            with self._database.read() as connection:
                owner = writer_of(connection, caller, space).owner
                uploads = self._uploads.find(connection, caller.account, owner, objects)
            proven = self._uploads.ask_store(owner, (upload for some in uploads.values() for upload in some))
        with self._database.write() as connection:
            return self.edit_within(connection, caller, space, make, proven, prefix, gives_back=gives_back)

    def edit_within(
        self,
        connection: Connection,
        caller: Caller,
        space: bytes,
        make: Callable[[Connection, Tree], Edit[T]],
        proven: Collection[tuple[bytes, int]] = (),
        prefix: str = "",
        *,
        gives_back: bool = False,
    ) -> T:
        """An edit as a part of a transaction. Whoever edits several spaces in one locks them first, in the order of their ids."""
        owner = writer_of(connection, caller, space).owner
        before = rows.lock_space(connection, space)
        tree = Tree(connection, space, prefix)
        edit = make(connection, tree)
        if edit.group is not None:
            before = replace(before, rev=max(before.rev, edit.reached))
            groups = [prepare(edit.group)]
            outcomes, _ = self._apply(
                *(connection, caller, owner, tree, groups, proven, before), mounts=edit.mounts, gives_back=gives_back
            )
            _require_accepted(outcomes[0])
        return edit.result()

    def _apply(
        self,
        connection: Connection,
        caller: Caller,
        owner: bytes,
        tree: Tree,
        groups: Sequence[PreparedGroup],
        proven: Collection[tuple[bytes, int]],
        before: Reached,
        *,
        mounts: bool = False,
        gives_back: bool = False,
    ) -> tuple[list[GroupOutcome], int]:
        """What becomes of the groups, and the revision that the space then has. It is locked, and was at `before`."""
        now = self._clock()
        at_ns = _time_after(before.changed_ns, now)
        budget = load_budget(connection, self._tier_of, owner, now)
        used = budget.used
        uploads = self._uploads.find(connection, caller.account, owner, _objects(groups))
        contents = Contents(connection, tree.root, owner, caller.account, groups, uploads, proven, budget)
        tier = replace(budget.tier, largest_file_bytes=None, content_types=(filelimits.ANY,)) if gives_back else budget.tier
        application = Application(tree, contents, tier, caller.device, before.rev, at_ns, mounts=mounts)
        outcomes = application.run(groups)
        contents.flush(now)
        trash_rows.update(connection, tree.root, application.lost(), application.named_anew, caller.device, now)
        conflicts = _conflict_news(tree, groups, outcomes, caller.device)
        if conflicts and not tree.prefix:
            prefix = prefix_of(connection, owner, tree.root)
            conflicts = [
                replace(news, path=f"{prefix}{news.path}", text=f"{_TWO_CHANGED} {prefix}{news.path}") for news in conflicts
            ]
        news = quota_news(budget.quota, used, budget.used) + conflicts
        post(connection, owner, news, now)
        crash_point("service.commit.applied")
        if application.revision != before.rev:
            former_rows.add(connection, tree.root, application.revision, at_ns, application.former_names())
            rows.set_reached(connection, tree.root, Reached(application.revision, at_ns))
        return outcomes, application.revision

    def _recorded(
        self, connection: Connection, caller: Caller, space: bytes, request: CommitRequest, body_hash: bytes
    ) -> Committed | None:
        last = rows.last_commit(connection, space, caller.device, request.replica)
        if last is None or request.number > last.number:
            return None
        if request.number == last.number and body_hash == last.body_hash:
            return Committed(last.answer, changed=False)
        what = "is recorded already" if request.number < last.number else "was another one"
        raise Refused(ProblemType.STALE_COMMIT, f"This device's commit {last.number} {what}.", field="number")

    def _record(
        self, connection: Connection, caller: Caller, space: bytes, request: CommitRequest, commit: RecordedCommit
    ) -> None:
        first = rows.last_commit(connection, space, caller.device, request.replica) is None
        rows.record_commit(connection, space, caller.device, request.replica, commit, first=first)


class Application:
    """One commit's groups, checked and applied one after the other; written to the database by `run` at its end."""

    def __init__(
        self,
        tree: Tree,
        contents: Contents,
        tier: TierConfig,
        device: bytes,
        revision: int,
        now_ns: int,
        *,
        mounts: bool,
    ) -> None:
        """`tier`: that of the space's owner. `mounts`: as in `Edit`."""
        self._tree = tree
        self._contents = contents
        self._tier = tier
        self._device = device
        self.revision = revision
        self._now_ns = now_ns
        self._mounts = mounts
        self._rooted: set[bytes] = {tree.root}
        self._lost: dict[bytes, Key] = {}  # what lost a name, and which it was last
        self._held: dict[Key, bytes | None] = {}  # what the names that were changed held before
        self.named_anew: set[bytes] = set()
        """Inodes that had no name, and got one."""

    def lost(self) -> dict[bytes, Key]:
        """Inodes that lost their last name, and which that was; but mounts, which are not brought back."""
        return {id_: key for id_, key in self._lost.items() if not self._tree.names(id_) and not self._is_mount(id_)}

    def _is_mount(self, id_: bytes) -> bool:
        row = self._tree.inode(id_)
        return row is not None and row.kind is Kind.MOUNT

    def former_names(self) -> list[FormerName]:
        """What names held before, for those that want to know later."""
        found = []
        for key, before in self._held.items():
            after = self._tree.entry(key).inode
            if after != before and (before is not None or (after is not None and not self._is_new(after))):
                row = None if before is None else self._tree.inode(before)
                found.append(FormerName(key, before, None if row is None else row.created_ns))
        return found

    def _is_new(self, id_: bytes) -> bool:
        row = self._tree.inode(id_)
        return row is not None and row.created_ns == self._now_ns

    def run(self, groups: Sequence[PreparedGroup]) -> list[GroupOutcome]:
        self._prefetch(groups)
        outcomes = [self._group(group) for group in groups]
        self._tree.flush()
        return outcomes

    def _prefetch(self, groups: Sequence[PreparedGroup]) -> None:
        keys = {key for group in groups for key in group.changes}
        ids = {id_ for group in groups for id_ in group.inodes}
        for group in groups:
            for entry in group.group.entries:
                ids.update(id_ for id_ in (entry.base, entry.inode) if id_ is not None)
        self._tree.prefetch(keys, ids)

    def _group(self, group: PreparedGroup) -> GroupOutcome:
        if group.refusal is not None:
            return _refused(group.refusal)
        if is_as_asked(group, self._tree):
            return self._keep_contents(group) or self._accepted(group)
        check = Check(group, self._tree, self._rooted)
        conflict = check.run()
        if conflict is not None:
            return GroupOutcome(result="conflict", conflict=ConflictKind(conflict))
        refusal = self._mount_refusal(group, check) or self._refusal(group) or self._beyond_tier(group, check)
        if refusal is not None:
            return _refused(refusal)
        kept = self._keep_contents(group)
        if kept is not None:
            return kept
        named_anew = check.named_anew()
        self.named_anew |= named_anew
        revived = named_anew - group.inodes.keys()
        check.update_rooted(self._rooted)
        self._apply(group, revived)
        return self._accepted(group)

    def _mount_refusal(self, group: PreparedGroup, check: Check) -> str | None:
        """Mounts are made and removed by sharing; whoever sees one may move it."""
        if self._mounts:
            return None
        for id_, change in group.inodes.items():
            if self._is_mount(id_) or (change.full is not None and change.full.kind is Kind.MOUNT):
                return "a shared folder is neither copied nor changed here: share it, or change what is in it"
        for id_ in check.touched():
            if self._is_mount(id_) and (len(check.names_after(id_)) != 1 or not self._tree.names(id_)):
                return "a shared folder is not deleted: leave it, or end its sharing (aloft unshare)"
        return None

    def _refusal(self, group: PreparedGroup) -> str | None:
        """Why the rows can never be right, as far as that depends on what the space holds."""
        for entry in group.group.entries:
            is_new = entry.inode not in (None, entry.base)
            if is_new and (entry.parent, entry.name) == (self._tree.root, RESERVED_IN_ROOT):
                return f"{RESERVED_IN_ROOT} is a reserved name in this folder: choose another one"
        for id_, change in group.inodes.items():
            row = self._tree.inode(id_)
            kind = row.kind if row is not None else change.full.kind if change.full is not None else None
            if row is not None and change.full is not None and change.full.kind is not row.kind:
                return f"the inode {id_.hex()} is a {row.kind}, and stays one"
            if change.content is not None and kind is not Kind.FILE:
                return f"the inode {id_.hex()} is no file, so it has no content"
            if row is not None and not _has_room_for_xattrs(row, change):
                return f"the inode {id_.hex()} would have too many extended attributes"
            if row is None and change.content is None and kind is Kind.FILE:
                return f"the new file {id_.hex()} has no content"
        return None

    def _beyond_tier(self, group: PreparedGroup, check: Check) -> str | None:
        """Why the owner's tier does not take a file as the group makes it. What is there already may stay, under such names."""
        for content in group.contents.values():
            large = filelimits.too_large(self._tier, content.size)
            if large is not None:
                return large
        if filelimits.ANY in self._tier.content_types:
            return None
        for id_ in {*group.contents, *check.gained}:
            row, change = self._tree.inode(id_), group.inodes.get(id_)
            sent = change.content if change is not None else None
            if sent is None and (row is None or row.kind is not Kind.FILE):
                continue
            types = _types(check.names_after(id_), sent.content_type if sent is not None else None)
            wrong = filelimits.wrong_type(self._tier, types if sent is not None else types - _types(self._tree.names(id_)))
            if wrong is not None:
                return wrong
        return None

    def _keep_contents(self, group: PreparedGroup) -> GroupOutcome | None:
        """Keep the contents that the group brings; or the outcome, if they cannot be kept."""
        if not group.contents:
            return None
        needs = self._contents.judge(list(group.contents.values()))
        if needs.wrong is not None:
            return _refused(needs.wrong)
        if needs.missing:
            return GroupOutcome(result="missing", objects=sorted(needs.missing))
        if not self._contents.fits(needs):
            return GroupOutcome(result="quota", detail=f"{needs.added} more bytes do not fit")
        self._contents.keep(needs)
        for id_, content in group.contents.items():
            row = self._tree.inode(id_)
            if row is not None and row.manifest_id != content.manifest_id and content.equals(row):
                self._keep_twin(row, content)
        return None

    def _keep_twin(self, row: InodeRow, content: NewContent) -> None:
        """The bytes that the inode has, chunked differently: its sender may rely on them too, so they become a version."""
        if not self._contents.has_version(row.id, content.manifest_id):
            self._add_version(row, content, row.content_rev)

    def _apply(self, group: PreparedGroup, revived: set[bytes]) -> None:
        self.revision += 1
        for key, inode in group.changes.items():
            old = self._tree.entry(key).inode
            self._held.setdefault(key, old)
            if old is not None and old != inode:
                self._lost[old] = key
            self._tree.put_entry(key, inode, self.revision)
        for id_ in revived:
            row = self._tree.inode(id_)
            if row is not None:  # so that the feed shows the row to those who skipped it while it had no name
                self._tree.put_inode(replace(row, rev=self.revision))
        for id_, change in group.inodes.items():
            self._apply_row(change, group.contents.get(id_))

    def _apply_row(self, change: InodeChange, content: NewContent | None) -> None:
        old = self._tree.inode(change.id)
        row = self._new_row(change) if old is None else old
        fields: dict[str, Any] = {"rev": self.revision}
        if change.full is not None:
            fields |= {"target": change.full.target, "device_number": change.full.device_number}
        if change.attributes.model_fields_set:
            fields["attributes"] = row.attributes.changed(change.attributes)
        differs = content is not None and not content.equals(row)
        if content is not None and differs:
            fields |= {"manifest_id": content.manifest_id, "size": content.size, "sha256": content.sha256}
            fields["content_rev"] = self.revision
        row = replace(row, **fields)
        self._tree.put_inode(row)
        if content is not None and differs:
            self._add_version(row, content, self.revision)

    def _new_row(self, change: InodeChange) -> InodeRow:
        if change.full is None:
            raise ValueError("the check lets no unknown inode pass without its full row")
        return InodeRow(
            id=change.id,
            rev=self.revision,
            kind=change.full.kind,
            attributes=Attributes(),
            target=None,
            device_number=None,
            manifest_id=None,
            size=None,
            sha256=None,
            content_rev=0,
            created_ns=self._now_ns,
        )

    def _add_version(self, row: InodeRow, content: NewContent, content_rev: int) -> None:
        self._contents.add_version(
            Version(
                inode=row.id,
                content_rev=content_rev,
                manifest_id=content.manifest_id,
                size=content.size,
                sha256=content.sha256,
                mtime_ns=row.attributes.mtime_ns,
                device=self._device,
                created_ns=self._now_ns,
            )
        )

    def _accepted(self, group: PreparedGroup) -> GroupOutcome:
        entries = [self._tree.entry((entry.parent, entry.name)).rev for entry in group.group.entries]
        inodes = []
        for change in group.group.inodes:
            row = self._tree.inode(change.id)
            if row is not None:
                inodes.append(InodeRevisions.model_construct(rev=row.rev, content_rev=row.content_rev))
        return GroupOutcome.model_construct(result="ok", entries=entries, inodes=inodes, conflict=None, objects=[], detail="")


def _time_after(last_ns: int, clock_ns: int) -> int:
    """The time of a commit: later than the last one's, so that a time names one state of the space. Only a clock that was put
    back by much is followed: until it has caught up, its times are ambiguous."""
    return last_ns + 1 if 0 <= last_ns - clock_ns < CLOCK_STEP_NS else clock_ns


def _check_history(request: CommitRequest, epoch: str, revision: int) -> None:
    """Whether the commit was made for what this service has: else it belongs to a future that a restore took away."""
    if request.epoch != epoch:
        raise Refused(ProblemType.OTHER_EPOCH, "The service was restored since this commit was made.", field="epoch")
    if request.known > revision:
        raise Refused(
            ProblemType.BEHIND, f"The space is at revision {revision}, and the device knows {request.known}.", field="known"
        )


def _has_room_for_xattrs(row: InodeRow, change: InodeChange) -> bool:
    if "xattrs" not in change.attributes.model_fields_set:
        return True
    xattrs = row.attributes.changed(change.attributes).xattrs
    return len(xattrs) <= MAX_XATTRS and sum(len(value or b"") for value in xattrs.values()) <= MAX_XATTR_BYTES


def _objects(groups: Sequence[PreparedGroup]) -> set[bytes]:
    return {id_ for group in groups for content in group.contents.values() for id_ in content.objects}


def _require_accepted(outcome: GroupOutcome) -> None:
    """`Refused` for an edit that was not applied, which undoes its transaction."""
    if outcome.result == "missing":
        raise Refused(
            ProblemType.INCOMPLETE, f"{len(outcome.objects)} chunks are not in the object store yet.", missing=outcome.objects
        )
    if outcome.result == "quota":
        raise Refused(ProblemType.QUOTA, f"There is no room: {outcome.detail}.")
    if outcome.result != "ok":
        raise Refused(ProblemType.INVALID, f"That cannot be done: {outcome.detail or outcome.conflict}.")


def _types(names: Set[Key], claimed: str | None = None) -> set[str]:
    return filelimits.types_of((name for _, name in names), claimed)


def _conflict_news(tree: Tree, groups: Sequence[PreparedGroup], outcomes: Sequence[GroupOutcome], device: bytes) -> list[News]:
    """Of the conflicted copies that were accepted."""
    news = []
    for group, outcome in zip(groups, outcomes, strict=True):
        for entry in group.group.entries if outcome.result == "ok" else ():
            if entry.base is None and entry.inode is not None and MARK in entry.name:
                change, folder = group.inodes.get(entry.inode), place_of(tree, entry.parent)
                if change is not None and change.full is not None and folder is not None:
                    path = child(tree, folder, entry.name).path
                    text = f"{_TWO_CHANGED} {path}"
                    news.append(News(Topic.CONFLICT, text, path=path, inode=entry.inode, device=device))
    return news


def _refused(why: str) -> GroupOutcome:
    return GroupOutcome(result="refused", detail=why)
