"""`aloft fsck`: what the rows say, held against each other, against the drafts' files and against the chunk cache.

Runs beside a mount or on a home that nobody uses. Everything is read in worker threads over a connection of their own, which
sees one state of the replica however long it takes; repairs are made by the connection that owns the replica. Never deletes
content: chunks that turn out to be damaged are dropped from the cache, because the service has them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
from pydantic import ValidationError

from cache.chunks import Chunks
from cache.extents import BadExtents, Extents
from cache.home import HomePaths
from cache.recovery import draft_id, fault_of
from cache.store import check
from cache.store.check import Snapshot
from cache.store.database import Database
from cache.store.restart import RestartStore
from cache.store.tree import decode_xattrs
from remote.manifest import BadManifest, decode_manifest, manifest_id
from remote.names import BadName, check_name
from remote.protocol import CommitRequest

_NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class Problem:
    """`rule`: what should hold. `repaired`: it does now."""

    rule: str
    detail: str
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class FsckReport:
    problems: tuple[Problem, ...]
    inodes: int = 0
    drafts: int = 0
    manifests: int = 0
    chunks: int = 0

    @property
    def clean(self) -> bool:
        """Nothing is wrong (any more)."""
        return all(problem.repaired for problem in self.problems)


async def check_home(paths: HomePaths, *, repair: bool) -> FsckReport:
    """Check a home that nobody uses; the caller holds its lock. Raises `DatabaseUnusable`."""
    if not paths.database.exists():
        return FsckReport(())
    paths.drafts.mkdir(mode=0o700, exist_ok=True)
    with closing(Database.open(paths.database)) as database, closing(Chunks(paths.cache, _NO_LIMIT)) as chunks:
        return await run(database, paths.drafts, chunks, repair=repair)


async def run(database: Database, drafts: Path, chunks: Chunks, *, repair: bool) -> FsckReport:
    """Check everything of one home. Without `repair` nothing is changed, but that damaged chunks leave the cache."""
    try:
        snapshot = await trio.to_thread.run_sync(Snapshot, database.path)
        with closing(snapshot):
            damage = await trio.to_thread.run_sync(snapshot.damage)
            if damage is not None:
                return FsckReport((Problem("the replica's file is sound", damage),))
            return await _check(database, snapshot, drafts, chunks, repair=repair)
    except sqlite3.DatabaseError as error:
        return FsckReport((Problem("the replica's file is sound", str(error)),))


async def _check(database: Database, snapshot: Snapshot, drafts: Path, chunks: Chunks, *, repair: bool) -> FsckReport:
    findings = await trio.to_thread.run_sync(snapshot.findings)
    broken = {finding.invariant for finding in findings}
    if repair and broken:
        check.repair(database, broken)
    problems = [Problem(f.invariant.name, f.detail, repair and f.invariant.repair is not None) for f in findings]
    for look in (_names, _xattrs, _manifests, _drafts_in_rows, _commits):
        problems += await trio.to_thread.run_sync(partial(_all, look, snapshot))
    problems += await _files(database, snapshot, drafts)
    looked_at, dropped = await chunks.verify()
    if dropped:
        problems.append(Problem("chunks have their checksum", f"{dropped} were dropped from the cache", repaired=True))
    return FsckReport(tuple(problems), snapshot.count("inode"), snapshot.count("draft"), snapshot.count("manifest"), looked_at)


def _all(look: Callable[[Snapshot], Iterator[Problem]], snapshot: Snapshot) -> list[Problem]:
    return list(look(snapshot))


def _names(snapshot: Snapshot) -> Iterator[Problem]:
    for parent, name in snapshot.names():
        try:
            check_name(name)
        except BadName as bad:
            yield Problem("names are names", f"in folder {parent}: {bad}")


def _xattrs(snapshot: Snapshot) -> Iterator[Problem]:
    for ino, text in snapshot.xattrs():
        try:
            decode_xattrs(text)
        except (ValueError, AttributeError) as error:
            yield Problem("extended attributes can be read", f"{ino}: {error}")


def _manifests(snapshot: Snapshot) -> Iterator[Problem]:
    sizes = snapshot.sizes_of_manifests()
    for id_, encoded in snapshot.manifests():
        try:
            size = decode_manifest(encoded).size
        except BadManifest as bad:
            yield Problem("manifests can be read", f"{id_.hex()}: {bad}")
            continue
        if manifest_id(encoded) != id_:
            yield Problem("manifests have their hash", id_.hex())
        elif sizes.get(id_, size) != size:
            yield Problem("sizes are those of the manifests", f"{id_.hex()}: {size}, and the row says {sizes[id_]}")


def _drafts_in_rows(snapshot: Snapshot) -> Iterator[Problem]:
    for id_, packed, data in snapshot.drafts_in_rows():
        try:
            end = Extents.unpack(packed).data_end
        except BadExtents as bad:
            yield Problem("drafts can be read", f"draft {id_}: its extents: {bad}")
            continue
        if end > len(data):
            yield Problem("drafts can be read", f"draft {id_} has {len(data)} bytes, and {end} were written")


def _commits(snapshot: Snapshot) -> Iterator[Problem]:
    for number, body in snapshot.outstanding_commits():
        try:
            request = CommitRequest.model_validate_json(body)
        except ValidationError as error:
            yield Problem("the outstanding commit can be read", str(error).splitlines()[0])
            continue
        if request.number != number:
            yield Problem("the outstanding commit has its number", f"{request.number}, and the row says {number}")


async def _files(database: Database, snapshot: Snapshot, folder: Path) -> list[Problem]:
    """What is wrong in the folder of drafts; looked at twice, because it may change while the snapshot does not."""
    suspects = await trio.to_thread.run_sync(_suspect_drafts, snapshot, folder)
    now = {draft.id: draft for draft in RestartStore(database).drafts_in_files()} if suspects else {}
    problems = []
    for id_ in suspects:
        fault = fault_of(folder, now[id_]) if id_ in now else None
        if fault is not None:
            problems.append(Problem("drafts have their files", f"draft {id_} of inode {now[id_].ino}: {fault}"))
    given_away = RestartStore(database).last_draft_id()
    for path in await trio.to_thread.run_sync(_strays, snapshot, folder):
        number = draft_id(path)
        if number is None or number > given_away:
            problems.append(Problem("files in drafts/ have rows", f"{path.name}: comes back in the tree at the next start"))
    return problems


def _suspect_drafts(snapshot: Snapshot, folder: Path) -> list[int]:
    return [draft.id for draft in snapshot.drafts_in_files() if fault_of(folder, draft) is not None]


def _strays(snapshot: Snapshot, folder: Path) -> list[Path]:
    """Files that were never drafts. A dropped draft's, which has had a row, is only about to be unlinked."""
    last = snapshot.last_draft_id()
    return [path for path in sorted(folder.iterdir()) if (id_ := draft_id(path)) is None or id_ > last]
