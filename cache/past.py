"""What the service keeps of the past, for who looks at it: versions of files, the trash, and the bytes of either.

Asked for when somebody looks, never before. An answer is kept for some seconds, so that a program which looks at every entry
of a folder makes one request; nothing is kept beyond that, and nothing of it comes into the replica. Who waits for the service
waits within the I/O budget; only so many wait at once. Bytes come through the chunk cache like any content's.

Raises `Unavailable` and its kinds, and `NoEntry`. Knows no kernel.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trio

from cache.chunks import Chunks
from cache.downloads import Downloads
from cache.errors import CorruptData, NoEntry, Offline, TimedOut
from cache.link import LinkDecisions, Reachability, asked
from cache.manifests import Manifests
from cache.pastnames import named, stamped
from cache.store.content import ContentStore
from cache.storedcontent import ReadBudget, StoredContent
from cache.waits import Waits
from remote.api import NotThere, Service
from remote.historyapi import PastVersion, TrashedInode
from remote.protocol import Kind

ANSWER_SECONDS = 3.0
"""How long an answer is good: what comes meanwhile from elsewhere is seen so much later."""
ANSWERS_MAX = 64
ASKED_AT_ONCE = 4
WAITING_MAX = 100
"""Requests that may wait for answers. Each occupies one of those that the mount handles at once, and all others need theirs."""
PAGE = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Version:
    """A content that a file had, or has. Bytes and nanoseconds."""

    space: bytes
    inode: bytes
    manifest_id: bytes
    revision: int
    size: int
    mtime_ns: int
    since_ns: int


@dataclass(frozen=True, slots=True)
class Trashed:
    """Something that was deleted. `manifest_id`: of a file."""

    space: bytes
    inode: bytes
    kind: Kind
    mode: int
    size: int
    mtime_ns: int
    deleted_ns: int
    manifest_id: bytes | None
    target: str | None
    device_number: int


class Past:
    def __init__(
        self,
        service: Service,
        reachability: Reachability,
        store: ContentStore,
        manifests: Manifests,
        chunks: Chunks,
        downloads: Downloads,
        decisions: LinkDecisions,
        waits: Waits,
        space: bytes,
    ) -> None:
        """`space`: the one whose trash is shown, the account's own."""
        self._service = service
        self._reachability = reachability
        self._store = store
        self._manifests = manifests
        self._chunks = chunks
        self._downloads = downloads
        self._decisions = decisions
        self._waits = waits
        self._space = space
        self._answers = _Answers()

    async def versions(self, ino: int, name: str) -> Mapping[str, Version]:
        """The contents that a file of the tree had and has, by names made of its own; none while the service does not know it."""
        row = self._store.file(ino)
        if row is None or row.kind != Kind.FILE:
            raise NoEntry(name)
        # With the content that the service has by what is known here: one that was sent just now is there at once.
        question = ("versions", row.inode_id, name, row.manifest_id)
        return await self._answer(question, lambda: self._ask_versions(row.space_id, row.inode_id, name))

    async def trash(self) -> Mapping[str, Trashed]:
        """What was deleted by itself, by names that begin with the time."""
        return await self._answer(("trash",), lambda: self._ask_trash(self._space, None))

    async def trash_in(self, folder: Trashed) -> Mapping[str, Trashed]:
        """What went with a folder, by its names."""
        question = ("trash", folder.space, folder.inode, folder.deleted_ns)
        return await self._answer(question, lambda: self._ask_trash(folder.space, folder.inode))

    def content(self, what: Version | Trashed) -> PastContent:
        """To read it; nothing is fetched yet."""
        if what.manifest_id is None:
            raise NoEntry("only files have a content")
        return PastContent(self, what, what.manifest_id, ReadBudget(self._downloads))

    async def stored(self, what: Version | Trashed, manifest_id: bytes, until: float) -> StoredContent:
        """For `PastContent`. `until` (trio's time): when to give up."""
        with trio.move_on_at(until):
            manifest = await self._manifests.of_past(what.space, what.inode, manifest_id)
            if manifest.size != what.size:
                raise CorruptData("the list of this version's chunks is that of a file of another size")
            return StoredContent(what.space, manifest, self._chunks, self._downloads, self._decisions)
        raise TimedOut("the service did not send the list of this version's chunks in time")

    # ---------------------------------------------------------------------------------------------------------- inside

    async def _answer(self, question: tuple[object, ...], ask: Callable[[], Awaitable[T]]) -> T:
        kept: T | None = self._answers.kept(question)
        if kept is not None:
            return kept
        if self._reachability.online:
            with trio.move_on_after(self._downloads.io_timeout), self._waits.one():
                return await self._answers.get(question, ask)
        if self._reachability.online:
            raise TimedOut("the service did not say in time what it keeps")
        raise Offline("what was before is on the service, and there is no connection")

    async def _ask_versions(self, space: bytes, inode: bytes, name: str) -> Mapping[str, Version]:
        found: list[PastVersion] = []
        before: int | None = None
        try:
            while True:
                page = await asked(self._reachability, self._service.versions(space, inode, before=before, limit=PAGE))
                found += page.versions
                before = page.next
                if before is None:
                    break
        except NotThere:  # it was never sent, or is gone for good
            return {}
        versions = [
            Version(space, inode, each.version, each.revision, each.size, each.mtime_ns, each.created_ns)
            for each in reversed(found)
        ]
        return named((stamped(name, each.since_ns), each) for each in versions)

    async def _ask_trash(self, space: bytes, folder: bytes | None) -> Mapping[str, Trashed]:
        found: list[TrashedInode] = []
        after: str | None = None
        try:
            while True:
                page = await asked(self._reachability, self._service.trash(space, folder, after=after, limit=PAGE))
                found += page.entries
                after = page.next
                if after is None:
                    break
        except NotThere as error:
            raise NoEntry("it is not in the trash any more") from error
        stamps = folder is None
        return named(
            (stamped(each.name, each.deleted_ns) if stamps else each.name, _trashed(space, each)) for each in reversed(found)
        )


class PastContent:
    """The bytes of a version, or of a deleted file. Needs no end."""

    def __init__(self, past: Past, what: Version | Trashed, manifest_id: bytes, budget: ReadBudget) -> None:
        self._past = past
        self._what = what
        self._manifest_id = manifest_id
        self._budget = budget
        self._stored: StoredContent | None = None

    async def read(self, offset: int, size: int) -> bytes:
        """Bytes from `offset`; fewer than `size` only at the end. Raises `Unavailable`, within the I/O budget."""
        end = min(offset + size, self._what.size)
        if offset >= end:
            return b""
        with self._budget.one() as until:
            stored = self._stored
            if stored is None:
                stored = self._stored = await self._past.stored(self._what, self._manifest_id, until)
            return await stored.read(offset, end, until)


def _trashed(space: bytes, row: TrashedInode) -> Trashed:
    return Trashed(
        space=space,
        inode=row.id,
        kind=row.kind,
        mode=row.mode,
        size=row.size,
        mtime_ns=row.mtime_ns,
        deleted_ns=row.deleted_ns,
        manifest_id=row.version,
        target=row.target,
        device_number=row.device_number or 0,
    )


@dataclass(eq=False, slots=True)
class _Answer:
    asking: trio.Lock = field(default_factory=trio.Lock)
    value: Any = None
    until: float = 0.0


class _Answers:
    """Each question is asked once for all who want to know; one that failed, or whose asker went away, by the next of them."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[object, ...], _Answer] = OrderedDict()
        self._at_once = trio.CapacityLimiter(ASKED_AT_ONCE)
        self._waiting = 0

    def kept(self, question: tuple[object, ...]) -> Any:
        answer = self._answers.get(question)
        return answer.value if answer is not None and trio.current_time() < answer.until else None

    async def get(self, question: tuple[object, ...], ask: Callable[[], Awaitable[T]]) -> T:
        if self._waiting >= WAITING_MAX:
            raise TimedOut("too many requests wait for what the service keeps")
        self._waiting += 1
        try:
            answer = self._answers.setdefault(question, _Answer())
            self._answers.move_to_end(question)
            async with answer.asking:
                kept: T | None = self.kept(question)
                if kept is not None:
                    return kept
                async with self._at_once:
                    asked: T = await ask()
                answer.value, answer.until = asked, trio.current_time() + ANSWER_SECONDS
                self._answers[question] = answer
            self._forget_old()
            return asked
        finally:
            self._waiting -= 1

    def _forget_old(self) -> None:
        """The oldest beyond so many, and those that are not good any more."""
        now = trio.current_time()
        for question, answer in list(self._answers.items()):
            if not answer.asking.locked() and (answer.until <= now or len(self._answers) > ANSWERS_MAX):
                del self._answers[question]
