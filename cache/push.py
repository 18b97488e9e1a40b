"""Telling the service what changed here: one numbered commit at a time, stored before it is sent, resent until answered.

Owns the life of a commit: built, stored with what it acknowledges, made durable, sent byte for byte until an answer is
recorded, its drafts unlinked after that. Knows nothing of rows on the wire (`cache.commits`) or of what a page means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from cache.commits import Commit, CommitBuilder, Held, Made, base_after, encoded
from cache.connection import Connection, Stop
from cache.guards import WENT_BACK, Contradiction, check_revision
from cache.merger import Merger, OpenFiles
from cache.pages import RESTORED
from cache.store.content import ContentStore
from cache.store.schema import PERSONAL
from cache.store.sides import CompleteContent
from cache.store.sync import Outstanding, SpaceRow, SyncStore
from cache.store.tree import TreeStore
from remote.api import Behind, Forbidden, Nonsense, NotThere, OtherEpoch, Rejected, RemoteError, Service, StaleCommit
from remote.crashpoints import crash_point
from remote.manifest import decode_manifest, manifest_id
from remote.protocol import (
    MAX_MANIFESTS_PER_REQUEST,
    CommitAnswer,
    CommitRequest,
    Group,
    GroupOutcome,
    InodeChange,
    InodeRevisions,
    Kind,
    WantedManifest,
)
from remote.retry import Backoff

QUIET_SECONDS = 0.03
"""Changes come in bunches: a commit waits for the end of one,"""
GATHER_SECONDS = 0.5
"""but not longer than this, so that a busy device sends few large commits and not one for each file."""
REST_FACTOR = 5
"""A search that found nothing to send is followed by a rest so many times as long, of a second at most: while thousands of
files wait for their bytes, looking at them is not to keep the loop busy."""
PULL_PATIENCE = 60.0
"""Seconds that push waits, after a conflict, for the pull that resolves it."""
HELD_SECONDS = 30.0
"""What the service has no room for, or refuses, is offered again after this."""
GONE = "the service does not have this version any more, and its bytes are not on this device"


class UploadQueue(Protocol):
    def objects_missing(self, ino: int, object_ids: Iterable[bytes]) -> None:
        """The service lost these objects of a file's content: they have to go up again."""


@dataclass(frozen=True, slots=True)
class PushStatus:
    """Since the start. `problems`: what the service refuses, fit to show."""

    commits: int
    groups: int
    conflicts: int
    problems: tuple[str, ...]
    error: str | None


class Push:
    """`wake` when there may be something to push. `random` in [0, 1) is for the back-off."""

    def __init__(
        self,
        service: Service,
        tree: TreeStore,
        contents: ContentStore,
        store: SyncStore,
        builder: CommitBuilder,
        merger: Merger,
        connection: Connection,
        files: OpenFiles,
        uploads: UploadQueue,
        random: Callable[[], float],
    ) -> None:
        self._service = service
        self._tree = tree
        self._contents = contents
        self._store = store
        self._builder = builder
        self._merger = merger
        self._connection = connection
        self._files = files
        self._uploads = uploads
        self._wake = trio.Event()
        self._held = Held()
        self._groups_max = 1000
        self._backoff = Backoff(base=0.5, cap=60.0, random=random)
        self._no_progress = Backoff(base=0.1, cap=60.0, random=random)
        self._problems: dict[str, float] = {}
        self._refused: set[int] = set()
        """Shared spaces that took no commit; asked again when something was merged."""
        self._commits = self._groups = self._conflicts = 0
        self._error: str | None = None
        self._searched_in_vain = 0.0

    def merged(self) -> None:
        """What the service refused before may be let in now."""
        if self._refused:
            self._error = None
        self._refused.clear()
        self.wake()

    def wake(self, space: int = 0) -> None:
        """Something changed here, or became complete on the service."""
        self._builder.start_over()
        self._wake.set()

    @property
    def status(self) -> PushStatus:
        now = trio.current_time()
        problems = tuple(text for text, until in self._problems.items() if until > now)
        return PushStatus(self._commits, self._groups, self._conflicts, problems, self._error)

    def is_idle(self) -> bool:
        """Whether no commit is outstanding."""
        return all(self._store.outstanding(space.number) is None for space in self._store.spaces())

    async def run(self) -> None:
        """Push for ever."""
        while True:
            await trio.lowlevel.checkpoint()
            await self._connection.wait_may_push()
            self._wake = trio.Event()
            try:
                worked = False
                for space in self._store.spaces():
                    worked |= await self._push(space)
            except (Contradiction, StaleCommit, Behind) as error:
                self._connection.stop(*_why_stopped(error))
                continue
            except RemoteError as error:
                self._error = str(error)
                self._connection.failed(error)
                with trio.move_on_after(self._backoff.next(getattr(error, "retry_after", None))):
                    await self._connection.wait_change()
                self._error = None
                continue
            self._backoff.reset()
            if not worked:
                await self._wait_for_work()
            await self._gather()
            await trio.sleep(min(1.0, REST_FACTOR * self._searched_in_vain))

    async def _wait_for_work(self) -> None:
        until = self._held.until()
        with trio.move_on_at(float("inf") if until is None else until):
            await self._wake.wait()

    async def _gather(self) -> None:
        """Until nothing has changed for a moment."""
        with trio.move_on_after(GATHER_SECONDS):
            while self._wake.is_set():
                self._wake = trio.Event()
                with trio.move_on_after(QUIET_SECONDS):
                    await self._wake.wait()

    async def _push(self, space: SpaceRow) -> bool:
        """One step for a space; false if there was nothing to do."""
        if not self._store.takes_changes(space.number) or space.number in self._refused:
            return False
        outstanding, request = self._store.outstanding(space.number), None
        if outstanding is None:
            if not space.listed or self._store.replacing(space.number) is not None:
                return False  # base is not what the service has
            self._held.expire(trio.current_time())
            began = trio.current_time()
            commit = self._builder.build(space, self._held, self._groups_max)
            self._settle(commit.settled)
            self._searched_in_vain = 0.0 if commit.groups else trio.current_time() - began
            if not commit.groups:
                fetched = await self._fetch_manifests(space, commit)
                return fetched or commit.unfinished or bool(commit.settled)
            outstanding, request = self._keep(space, commit)
        await trio.to_thread.run_sync(self._store.database.make_durable)
        crash_point("commit.sending")
        await self._send(space, outstanding, request)
        return True

    # ---------------------------------------------------------------------------------------------------------- sending

    def _keep(self, space: SpaceRow, commit: Commit) -> tuple[Outstanding, CommitRequest]:
        number = space.commit_number + 1
        epoch = self._store.epoch()
        assert epoch is not None, "a space was listed, and the service did not say its epoch"
        request = commit.request(number, Made(self._store.replica(), epoch, space.known))
        body = encoded(request)
        self._store.store_commit(space.number, number, body, commit.contents)
        crash_point("commit.stored")
        return Outstanding(number, body), request

    async def _send(self, space: SpaceRow, outstanding: Outstanding, request: CommitRequest | None) -> None:
        """`request`: what the body says, if that is known: to read a large one again would hold the loop."""
        try:
            answer = await self._service.commit(space.id, outstanding.body)
        except Rejected as error:
            self._connection.went_well()
            if self._store.outstanding(space.number) == outstanding:
                self._rejected(space, outstanding, error)
            return
        except (NotThere, Forbidden):
            if space.number == PERSONAL:
                raise
            self._connection.went_well()  # the feed says what became of the membership
            self._refused.add(space.number)
            self._error = "a shared folder takes no changes: what became of it is heard in a moment"
            return
        except OtherEpoch:
            self._connection.went_well()
            if not self._is_of_another_epoch(outstanding):
                raise  # until the feed says what that means
            if self._store.outstanding(space.number) == outstanding:
                self._give_up(space)
            return
        crash_point("commit.answered")
        self._connection.went_well()
        if self._store.outstanding(space.number) != outstanding:
            return  # a person had the exchange begun anew meanwhile
        request = request or CommitRequest.model_validate_json(outstanding.body)
        groups = request.groups
        self._check_answer(space, request, answer)
        progress = self._record(space, groups, answer)
        self._commits += 1
        self._groups_max = min(self._groups_max * 2, 1000)
        self._merger.try_merge()
        conflicts = [outcome for outcome in answer.outcomes if outcome.result == "conflict"]
        if progress:
            self._no_progress.reset()
        if conflicts:
            await self._wait_for_pull(space.number, answer)
        if not progress:
            await trio.sleep(self._no_progress.next())

    def _rejected(self, space: SpaceRow, outstanding: Outstanding, error: Rejected) -> None:
        """The service calls the commit as a whole invalid, and recorded nothing: find the group by sending fewer."""
        groups = CommitRequest.model_validate_json(outstanding.body).groups
        if len(groups) == 1:
            self._hold(groups[0], str(error))
        self._groups_max = max(1, len(groups) // 8)
        self._give_up(space)

    def _give_up(self, space: SpaceRow) -> None:
        """No commit is outstanding any more, and none was recorded: what it held up is merged now, and not with the next page."""
        self._store.close_commit(space.number, 0)
        self._merger.try_merge()

    def _is_of_another_epoch(self, outstanding: Outstanding) -> bool:
        """The service was restored, and this device had seen nothing of what it lost: what it refused is made anew."""
        return CommitRequest.model_validate_json(outstanding.body).epoch != self._store.epoch()

    def _check_answer(self, space: SpaceRow, request: CommitRequest, answer: CommitAnswer) -> None:
        if answer.epoch != request.epoch:
            raise Contradiction(RESTORED)
        if answer.number != request.number or len(answer.outcomes) != len(request.groups):
            raise Nonsense("the service answered another commit than the one that was sent")
        for group, outcome in zip(request.groups, answer.outcomes, strict=True):
            complete = len(outcome.entries) == len(group.entries) and len(outcome.inodes) == len(group.inodes)
            if outcome.result == "ok" and not complete:
                raise Nonsense("the service accepted a group without saying its revisions")
        check_revision(space.id.hex(), answer.revision, space.acknowledged)

    async def _wait_for_pull(self, space: int, answer: CommitAnswer) -> None:
        """Nothing that conflicts is worth sending again before it is merged. A service that was restored meanwhile never gets
        to that revision, or not to that one."""
        with trio.move_on_after(PULL_PATIENCE):
            await self._merger.merged.wait_for(
                lambda: self._store.epoch() != answer.epoch or self._merger.is_merged(space, answer.revision)
            )

    # -------------------------------------------------------------------------------------------------------- recording

    def _record(self, space: SpaceRow, groups: Sequence[Group], answer: CommitAnswer) -> bool:
        """Record an answer in one transaction; after it, tell open files and uploads. Whether anything was accepted."""
        gone: list[tuple[int, list[int]]] = []
        missing: list[tuple[int, frozenset[bytes]]] = []
        removed: list[int] = []
        accepted = 0
        with self._store.database.transaction():
            highest = 0
            for group, outcome in zip(groups, answer.outcomes, strict=True):
                if outcome.result == "ok":
                    highest = max(highest, self._acknowledge(group, outcome, gone))
                    removed += [self._ino(id_) for id_ in group.last]
                    accepted += 1
                elif outcome.result == "missing":
                    missing += self._contents_missing(group, frozenset(outcome.objects))
                elif outcome.result == "conflict":
                    self._conflicts += 1
                else:
                    self._hold(group, outcome.detail or outcome.result)
            self._store.close_commit(space.number, highest)
            self._builder.breaker(space.number).passed([ino for ino in removed if self._is_gone_file(ino)])
            crash_point("commit.recording")
        crash_point("commit.recorded")
        self._groups += accepted
        for ino, drafts in gone:
            self._files.acknowledged(ino, drafts)
        for ino, objects in missing:
            self._uploads.objects_missing(ino, objects)
        return accepted > 0

    def _is_gone_file(self, ino: int) -> bool:
        row = self._tree.inode(ino)
        return row is not None and row.kind is not Kind.DIRECTORY and not self._tree.base_names(ino)

    def _acknowledge(self, group: Group, outcome: GroupOutcome, gone: list[tuple[int, list[int]]]) -> int:
        for change, revisions in zip(group.inodes, outcome.inodes, strict=True):
            drafts = self._acknowledge_inode(change, revisions)
            if drafts:
                gone.append(drafts)
        for entry, rev in zip(group.entries, outcome.entries, strict=True):
            parent = self._ino(entry.parent)
            # Of a name that is gone, and whose tombstone was collected, the service knows no revision.
            rev = max(rev, self._tree.entry_rev(parent, entry.name)) if rev == 0 and entry.inode is None else rev
            if rev >= self._tree.entry_rev(parent, entry.name):
                base = None if entry.inode is None else self._ino(entry.inode)
                self._tree.set_entry_states(parent, entry.name, base=base, rev=rev, local=self._tree.child(parent, entry.name))
        return max([*outcome.entries, *(revisions.rev for revisions in outcome.inodes)], default=0)

    def _acknowledge_inode(self, change: InodeChange, revisions: InodeRevisions) -> tuple[int, list[int]] | None:
        """Base becomes what was sent; local stays, but for drafts that are now what the service has."""
        ino = self._ino(change.id)
        base = self._tree.base_inode(ino)
        sent = self._store.outstanding_content(ino) if change.content is not None else None
        new_base = base_after(base, change, sent)
        drafts: list[int] = []
        if sent is not None:
            drafts = self._contents.acknowledge(ino, sent.draft, sent.manifest_id, sent.size, sent.sha256)
        row = self._tree.inode(ino)
        assert row is not None, "an inode of the outstanding commit is gone"
        content_rev = revisions.content_rev if sent is not None else row.content_rev
        self._tree.set_inode_states(ino, base=new_base, rev=revisions.rev, content_rev=content_rev, local=row)
        return (ino, drafts) if drafts else None

    def _contents_missing(self, group: Group, objects: frozenset[bytes]) -> list[tuple[int, frozenset[bytes]]]:
        """Which files of a group need which of the objects that the service does not have."""
        missing = []
        for change in group.inodes:
            lost = objects & decode_manifest(change.content.manifest).object_ids() if change.content is not None else None
            if lost:
                missing.append((self._ino(change.id), lost))
        return missing

    def _settle(self, settled: list[tuple[int, CompleteContent]]) -> None:
        """Drafts with the content that the service has already."""
        for ino, content in settled:
            with self._store.database.transaction():
                base = self._tree.base_inode(ino)
                assert base is not None
                assert base.manifest_id is not None
                drafts = self._contents.acknowledge(ino, content.draft, base.manifest_id, base.manifest_size, base.sha256)
                row = self._tree.inode(ino)
                assert row is not None
                self._tree.set_inode_states(ino, base=base, rev=row.rev, content_rev=row.content_rev, local=row)
            self._files.acknowledged(ino, drafts)

    def _hold(self, group: Group, reason: str) -> None:
        """Do not offer a group again for a while, and show why."""
        until = trio.current_time() + HELD_SECONDS
        for entry in group.entries:
            self._held.names[self._ino(entry.parent), entry.name] = until
        for change in group.inodes:
            ino = self._ino(change.id)
            self._held.inodes[ino] = until
            self._contents.set_error(ino, reason)
        names = ", ".join(entry.name for entry in group.entries[:3]) or "a file"
        self._show(f"{names}: {reason}", until)

    def _show(self, problem: str, until: float) -> None:
        """In the status, until it was offered again."""
        self._problems = {text: end for text, end in self._problems.items() if end > trio.current_time()}
        self._problems[problem] = until + HELD_SECONDS

    def _ino(self, id_: bytes) -> int:
        ino = self._tree.ino_of(id_)
        assert ino is not None, "the outstanding commit names an inode that is not here"
        return ino

    # ------------------------------------------------------------------------------------------------------- manifests

    async def _fetch_manifests(self, space: SpaceRow, commit: Commit) -> bool:
        """Bring the manifests of contents that a commit has to name, and that never came here. Whether there were any."""
        wanted = list(commit.missing_manifests.items())[:MAX_MANIFESTS_PER_REQUEST]
        wanted = [(ino, id_) for ino, id_ in wanted if ino not in self._held.inodes]
        if not wanted:
            return False
        answer = await self._service.manifests(
            space.id, [WantedManifest(inode=self._tree.id_of(ino), manifest_id=id_) for ino, id_ in wanted]
        )
        if len(answer.manifests) != len(wanted):
            raise Nonsense("the service answered another number of manifests than were asked for")
        got = []
        for (ino, id_), data in zip(wanted, answer.manifests, strict=True):
            if data is None:
                self._held.inodes[ino] = until = trio.current_time() + HELD_SECONDS
                self._contents.set_error(ino, GONE)
                self._show(f"{', '.join(name for _, name in self._tree.names(ino)[:3])}: {GONE}", until)
            elif manifest_id(data) != id_:
                raise Nonsense("the service sent a manifest under another's name")
            else:
                got.append((id_, data))
        self._contents.put_manifests(got)
        return bool(got)


def _why_stopped(error: Exception) -> tuple[str, Stop]:
    if isinstance(error, StaleCommit):
        return (
            "this device already sent newer changes than it knows of: its home was restored from a backup, or is in use twice. "
            "Nothing was changed",
            Stop.HOME,
        )
    return f"{WENT_BACK} ({error})" if isinstance(error, Behind) else str(error), Stop.SERVICE
