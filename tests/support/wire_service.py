"""The reference service behind the client's own interface: what a device sees of it, with a link that a test can break."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from cache.signal import Signal
from remote.accountapi import AccountInfo, DeviceList
from remote.api import Behind, OtherEpoch, ResetRequired, StaleCommit, Unreachable
from remote.historyapi import TrashPage, VersionsPage
from remote.manifest import decode_manifest, manifest_id
from remote.protocol import (
    Attributes,
    ChangesPage,
    CommitAnswer,
    CommitRequest,
    Content,
    DownloadPlan,
    EntryState,
    EpochStart,
    FileToUpload,
    FolderPage,
    Group,
    GroupOutcome,
    InodeRevisions,
    InodeState,
    Link,
    ManifestsAnswer,
    ObjectToUpload,
    SpaceChanges,
    SpaceStart,
    UploadPlan,
    WantedManifest,
)
from tests.support.reference_service import NOT_SENT, Outcome, PlainGroup, ReferenceService, Row, RowChange

SPACE = bytes(range(16))


@dataclass(frozen=True)
class Held:
    """A content as the service holds it."""

    manifest: bytes
    sha256: bytes | None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Held):
            return False
        return self.manifest == other.manifest or (self.sha256 is not None and self.sha256 == other.sha256)

    def __hash__(self) -> int:
        return hash(self.sha256)


class WireService:
    """One service for several `Link`s."""

    def __init__(self) -> None:
        self.tree = ReferenceService(SPACE)
        self.tree.rows[SPACE].attributes = {"mode": 0o755, "uid": None, "gid": None, "mtime_ns": 0}
        self.epoch = "epoch"
        self.last_bodies: dict[tuple[str, bytes], tuple[int, bytes]] = {}
        self.history: list[EpochStart] = []
        self.began: list[SpaceStart] = []
        self.shapes: dict[bytes, tuple[str | None, int | None]] = {}
        self.manifests: dict[bytes, bytes] = {}
        self.news = Signal()
        self.outcomes: dict[bytes, GroupOutcome] = {}
        """Inode id -> what a group that sends this inode's row is answered, whatever the tree says."""

    def link(self, device: str) -> DeviceLink:
        return DeviceLink(self, device)

    def commit(self, device: str, request: CommitRequest) -> CommitAnswer:
        recorded, _ = self.tree.last.get((device, request.replica), (0, []))
        if request.number > recorded and request.epoch != self.epoch:
            raise OtherEpoch("the service was restored")
        if request.number > recorded and request.known > self.tree.revision:
            raise Behind("the service went back")
        forced = [self._forced(group) for group in request.groups]
        if any(forced):
            groups = [group for group, answer in zip(request.groups, forced, strict=True) if answer is None]
            outcomes = iter([self._outcome(g, o) for g, o in zip(groups, self._apply(device, request, groups), strict=True)])
            answers = [answer or next(outcomes) for answer in forced]
        else:
            applied = self._apply(device, request, request.groups)
            answers = [self._outcome(group, outcome) for group, outcome in zip(request.groups, applied, strict=True)]
        self.news.notify()
        return CommitAnswer(epoch=request.epoch, number=request.number, revision=self.tree.revision, outcomes=answers)

    def _apply(self, device: str, request: CommitRequest, groups: Sequence[Group]) -> list[Outcome]:
        for group in groups:
            for change in group.inodes:
                if change.full is not None:
                    self.shapes[change.id] = (change.full.target, change.full.device_number)
                if change.content is not None:
                    self.manifests[manifest_id(change.content.manifest)] = change.content.manifest
        plain = [plain_group(group, self.tree) for group in groups]
        outcomes = self.tree.commit(device, request.number, plain, request.replica)
        if outcomes is None:
            raise StaleCommit("an old number")
        return outcomes

    def _forced(self, group: Group) -> GroupOutcome | None:
        return next((self.outcomes[change.id] for change in group.inodes if change.id in self.outcomes), None)

    def _outcome(self, group: Group, outcome: Outcome) -> GroupOutcome:
        if not outcome.ok:
            return GroupOutcome(result="conflict", conflict=outcome.conflict)
        return GroupOutcome(
            result="ok",
            entries=[outcome.entries[entry.parent, entry.name] for entry in group.entries],
            inodes=[
                InodeRevisions(rev=outcome.inodes[change.id][0], content_rev=outcome.inodes[change.id][1])
                for change in group.inodes
            ],
        )

    def restore(self, copy: WireService) -> None:
        """Be what `copy` (of `copy.deepcopy`) was, in a new epoch."""
        before = [*copy.history, EpochStart(epoch=copy.epoch, spaces=copy.began)]
        self.tree, self.shapes, self.manifests = copy.tree, copy.shapes, copy.manifests
        self.history, self.epoch = before, f"{self.epoch}'"
        self.began = [SpaceStart(space=SPACE, revision=copy.tree.revision)]
        self.news.notify()

    def page(self, cursor: str, limit: int, *, removed: bool = False) -> ChangesPage:
        """Rows after a cursor in the order of their revisions, whole revisions at a time."""
        tree = self.tree
        epoch, after, start, full = self.epoch, 0, tree.horizon if removed else tree.revision, True
        if cursor:
            epoch, *numbers = cursor.split()
            after, start, full = map(int, numbers)
        history = [*self.history, EpochStart(epoch=self.epoch, spaces=self.began)] if removed or epoch != self.epoch else []
        if epoch != self.epoch and not self._is_shared(epoch, max(after, start if full else 0)):
            return ChangesPage(epoch=self.epoch, cursor=cursor, has_more=False, spaces=[], history=history)
        if cursor and (start if full else after) < tree.horizon:
            raise ResetRequired("the cursor is too old")
        rows: list[tuple[int, EntryState | InodeState]] = [
            (rev, EntryState(parent=key[0], name=key[1], inode=ino, rev=rev))  # type: ignore[arg-type]
            for key, (ino, rev) in tree.entries.items()
            if (rev > after or not cursor) and not (full and ino is None and rev <= start)
        ]
        rows += [
            (row.rev, self._state(ino, row))
            for ino, row in tree.rows.items()
            if row.rev > after or (cursor == "" and ino == SPACE)
        ]
        revisions = sorted({rev for rev, _ in rows})
        taken: set[int] = set()
        for rev in revisions:
            if taken and sum(1 for other, _ in rows if other in taken) >= limit:
                break
            taken.add(rev)
        more = len(taken) < len(revisions)
        sent = [row for rev, row in rows if rev in taken]
        at = max(taken) if more else tree.revision
        changes = SpaceChanges(
            space=SPACE,
            revision=tree.revision,
            has_more=more,
            full=full,
            inodes=[row for row in sent if isinstance(row, InodeState)],
            entries=[row for row in sent if isinstance(row, EntryState)],
            total_entries=len(tree.entries) if full else None,
            collected=tree.horizon,
        )
        next_ = f"{self.epoch} {at} {start if more and full else 0} {int(more and full)}"
        return ChangesPage(epoch=self.epoch, cursor=next_, has_more=more, spaces=[changes], history=history)

    def _is_shared(self, epoch: str, revision: int) -> bool:
        known = [each.epoch for each in self.history]
        if epoch not in known:
            return False
        later = [*self.history, EpochStart(epoch=self.epoch, spaces=self.began)][known.index(epoch) + 1 :]
        return all(revision <= each.spaces[0].revision for each in later)

    def folder(self, inode: bytes, after: str, limit: int) -> FolderPage:
        tree = self.tree
        live = sorted((key[1], ino, rev) for key, (ino, rev) in tree.entries.items() if key[0] == inode and ino is not None)
        found = [entry for entry in live if entry[0] > after]
        sent = found[:limit]
        return FolderPage(
            epoch=self.epoch,
            revision=tree.revision,
            inodes=[self._state(ino, tree.rows[ino]) for ino in dict.fromkeys(ino for _, ino, _ in sent)],
            entries=[EntryState(parent=inode, name=name, inode=ino, rev=rev) for name, ino, rev in sent],  # type: ignore[arg-type]
            next=sent[-1][0] if len(found) > limit else None,
        )

    def _state(self, ino: Any, row: Row) -> InodeState:
        target, device_number = self.shapes.get(ino, (None, None))
        content = None
        if row.content is not None:
            manifest = row.content.manifest
            size = decode_manifest(manifest).size
            content = Content(manifest_id=manifest_id(manifest), size=size, sha256=row.content.sha256, manifest=manifest)
        return InodeState(
            id=ino,
            rev=row.rev,
            kind=row.kind,
            attributes=unflattened(row.attributes),
            target=target,
            device_number=device_number,
            content=content,
            content_rev=row.content_rev,
        )


@dataclass
class DeviceLink:
    """`remote.api.Service` as one device sees it."""

    service: WireService
    device: str
    down: bool = False
    answers_to_lose: int = 0
    """So many commits are applied, and their answers lost."""
    page_limit: int | None = None
    bodies: list[bytes] = field(default_factory=list)
    polls: int = 0
    folders: list[bytes] = field(default_factory=list)
    """The folders that were asked for, once for each page."""
    feed_ends_after: int | None = None
    """So many answers of the feed come; the next one is held until `let_go`."""
    let_go: trio.Event = field(default_factory=trio.Event)
    held: bool = False
    """It is being held."""

    def set_down(self, down: bool) -> None:
        self.down = down
        self.service.news.notify()

    async def _begin(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.down:
            raise Unreachable("the cable is out")

    async def commit(self, space: bytes, body: bytes) -> CommitAnswer:
        await self._begin()
        self.bodies.append(body)
        request = CommitRequest.model_validate_json(body)
        number, before = self.service.last_bodies.get((self.device, request.replica), (0, body))
        if number == request.number and body != before:
            raise StaleCommit("another commit had this number")
        answer = self.service.commit(self.device, request)
        self.service.last_bodies[self.device, request.replica] = request.number, body
        await trio.lowlevel.checkpoint()
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            raise Unreachable("the answer was lost")
        return answer

    async def changes(self, cursor: str, *, wait_seconds: int, limit: int, removed: bool = False) -> ChangesPage:
        await self._begin()
        if self.polls == self.feed_ends_after:
            self.held = True
            await self.let_go.wait()
            self.held = False
        self.polls += 1
        page = self.service.page(cursor, self.page_limit or limit, removed=removed)
        news = cursor.partition(" ")[0] not in ("", page.epoch) or any(one.inodes or one.entries for one in page.spaces)
        if wait_seconds and not news:
            revision = self.service.tree.revision
            with trio.move_on_after(wait_seconds):
                await self.service.news.wait_for(lambda: self.down or self.service.tree.revision != revision)
            await self._begin()
            page = self.service.page(cursor, self.page_limit or limit, removed=removed)
        return page

    async def folder(self, space: bytes, inode: bytes, *, after: str, limit: int) -> FolderPage:
        await self._begin()
        self.folders.append(inode)
        return self.service.folder(inode, after, self.page_limit or limit)

    async def manifests(self, space: bytes, wanted: Sequence[WantedManifest]) -> ManifestsAnswer:
        await self._begin()
        return ManifestsAnswer(manifests=[self.service.manifests.get(one.manifest_id) for one in wanted])

    async def plan_uploads(self, space: bytes, objects: Sequence[ObjectToUpload], file: FileToUpload | None = None) -> UploadPlan:
        raise NotImplementedError

    async def plan_downloads(self, space: bytes, objects: Sequence[bytes]) -> DownloadPlan:
        raise NotImplementedError

    async def put_object(self, link: Link, body: bytes) -> None:
        raise NotImplementedError

    async def get_object(self, link: Link, length: int) -> bytearray:
        raise NotImplementedError

    async def versions(self, space: bytes, inode: bytes, *, before: int | None, limit: int) -> VersionsPage:
        raise NotImplementedError

    async def trash(self, space: bytes, folder: bytes | None, *, after: str | None, limit: int) -> TrashPage:
        raise NotImplementedError

    async def account(self) -> AccountInfo:
        raise NotImplementedError

    async def devices(self) -> DeviceList:
        raise NotImplementedError

    async def remove_device(self, device: bytes) -> None:
        raise NotImplementedError


def flattened(attributes: Attributes) -> dict[str, Any]:
    """The fields that are set, one by one, so that each extended attribute is a field."""
    fields = {name: getattr(attributes, name) for name in attributes.model_fields_set if name != "xattrs"}
    return {**fields, **{f"xattr {name}": value for name, value in attributes.xattrs.items()}}


def unflattened(fields: dict[str, Any]) -> Attributes:
    plain = {name: value for name, value in fields.items() if not name.startswith("xattr ")}
    xattrs = {name.removeprefix("xattr "): value for name, value in fields.items() if name.startswith("xattr ") and value}
    return Attributes(**plain, xattrs=xattrs)


def plain_group(group: Group, tree: ReferenceService) -> PlainGroup:
    plain = PlainGroup(
        {(entry.parent, entry.name): (entry.base, entry.inode) for entry in group.entries},
        {},
        {seen.inode: seen.content_rev for seen in group.seen},
        set(group.last),
    )
    for change in group.inodes:
        kind = change.full.kind if change.full is not None else tree.rows[change.id].kind if change.id in tree.rows else None
        content = NOT_SENT if change.content is None else Held(change.content.manifest, change.content.sha256)
        plain.inodes[change.id] = RowChange(
            kind,  # type: ignore[arg-type]
            flattened(change.attributes),
            content,
            change.full is not None,
            change.content.base if change.content is not None else 0,
        )
    return plain
