"""Named points in the write paths at which a process can be made to die, so that tests see what a crash there leaves behind.

`crash_point(name)` does nothing (some 60 ns) unless something is installed. `ALOFT_CRASH_AT=name[:nth]` in the environment
makes the process kill itself there (SIGKILL: no clean-up of any kind) when it passes the point for the nth time; the file
that `ALOFT_CRASH_NOTE` names then says where it died. A simulation of several devices in one process installs a hook of its
own instead. A point says what has happened when it is passed, and what has not; there is no other list of them.

At the bottom of the imports: everything that writes may use it, and it knows nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

CRASH_AT = "ALOFT_CRASH_AT"
CRASH_NOTE = "ALOFT_CRASH_NOTE"

CLIENT_POINTS = {
    # --- what an application writes
    "draft.writing": "a draft has its row; the bytes of a write are not in its file yet",
    "draft.written": "the bytes are in the draft's file; its row does not know them",
    "draft.spilling": "a draft has outgrown its row: its file is there and empty, the row holds the bytes",
    "draft.spilled": "the file holds the bytes, too; the row still says that they are in it",
    "draft.saving": "the draft's row is written, in a transaction that is not committed",
    "draft.saved": "close() was asked for: the row is committed; the call has not returned",
    "fsync.bytes-synced": "fsync() was asked for: the bytes are synced; the row may not know them",
    "fsync.row-saved": "the row is committed; the WAL is not synced",
    "fsync.durable": "bytes, row and WAL are synced; the call has not returned",
    "truncate.saving": "the row of a shorter draft is written, and not committed",
    "truncate.saved": "the shorter row is committed; the file still has its old length",
    "truncate.cut": "the file is cut, too; the call has not returned",
    "names.creating": "a new name and its inode are written, and not committed",
    "names.created": "they are committed; the call has not returned",
    "names.removing": "a name is taken away, and not committed",
    "names.removed": "it is gone; the call has not returned",
    "names.renaming": "a rename (over another file) is written, and not committed",
    "names.renamed": "it is committed; the call has not returned",
    "attributes.changing": "new attributes are written, and not committed",
    "attributes.changed": "they are committed; the call has not returned",
    "files.saved-open": "a merge is about to begin: what open files hold is in their rows",
    # --- a content goes up
    "upload.sealing": "the row of a draft says that it is sealed, and is not committed",
    "upload.sealed": "a draft is sealed; nothing of it was sent",
    "plan.asking": "chunks are cut and encoded; the service was not asked which are missing",
    "plan.answered": "the service has reserved room for what is missing; nothing was sent",
    "put.sending": "a link for an object is here; nothing of the object was sent",
    "put.sent": "the object store has the object; nothing here says so",
    "upload.chunks-known": "the replica remembers that the service has these chunks; the draft is not complete",
    "upload.completing": "the row says that the content is complete on the service, and is not committed",
    "upload.completed": "it is committed; no commit speaks of the content",
    "upload.squashed": "a draft took over what lay below it, in its file; both rows are as before",
    "upload.squash-saved": "its row says so, and the lower row is gone; the lower file is not unlinked",
    "upload.doubted": "the service lacks objects of a commit: nothing here says any more that it has them; nothing is sent again",
    # --- a commit
    "commit.storing": "a commit is written into the replica, and not committed there",
    "commit.stored": "the commit is stored; it may not survive a power cut",
    "commit.sending": "the commit is durable; nothing was sent",
    "commit.answered": "the service has applied the commit and answered; nothing of that is recorded",
    "commit.recording": "the answer is recorded in a transaction that is not committed",
    "commit.recorded": "the answer is recorded, the drafts' rows are gone; their files are not unlinked",
    "draft.unlinking": "a draft's row is gone for good; its file is there",
    "draft.unlinked": "the file is gone, too",
    # --- what others changed
    "page.staging": "a page and its cursor are written, and not committed",
    "page.staged": "the page and its cursor are stored; nothing of it is merged",
    "listing.shown": "a part of the very first listing is shown; the rest is staged or still to come",
    "merge.merging": "the merge is written, and not committed",
    "merge.merged": "the merge is committed; open files and the kernel were not told",
    "merge.told": "open files were told, too",
    "kernel.telling": "the kernel is about to be told of a change",
    "kernel.told": "the kernel was told of one change; others may wait",
    # --- a service that lost something
    "reconnect.deciding": "a person's word to go on is written down, and not committed",
    "reconnect.decided": "it is committed; the exchange is still stopped",
    "reconnect.forgetting": "base is what the service still has, in a transaction that is not committed",
    "reconnect.forgotten": "it is committed; what the service has is not merged",
    # --- the chunk cache
    "download.arrived": "an object came and was verified; nothing of it is on the disk",
    "chunk.made": "a file of the chunk cache is there, and empty",
    "chunk.written": "the file holds the chunk; the cache's index does not know it",
    "chunk.indexed": "the chunk is in the cache; nobody was told",
    "chunk.forgotten": "a chunk was evicted from the index; its file is there",
    "chunk.evicted": "the file is gone, too",
    "chunk.in-both": "a chunk that is pinned (or let go) is in both caches",
    "pin.recorded": "a pin is recorded; nothing was fetched for it",
    "pin.released": "a pin is gone; what it kept is still among the pinned chunks",
    # --- the replica
    "replica.making": "a new replica is complete under another name",
    "replica.clearing": "what an earlier replica left beside its name is out of the way; the new one has not its name yet",
    "replica.made": "the new replica has its name; the name may not survive a power cut",
    "replica.space-added": "the replica knows its account; nothing was listed",
    "durable.syncing": "transactions are committed; the WAL is about to be synced",
    "checkpoint.moving": "the WAL is about to be moved into the replica",
    "checkpoint.moved": "the WAL's content is in the replica; the WAL is as long as before",
    "sweep.purging": "rows that nobody needs any more are deleted, and not committed",
    "sweep.purged": "they are gone",
    # --- start-up after a crash
    "recovery.unlinking": "a file of a draft that has no row any more is about to be unlinked",
    "recovery.unlinked": "such files are gone; lost ones are not surfaced",
    "recovery.surfacing": "lost drafts have rows and names again, and are not committed",
    "recovery.surfaced": "they are back in the tree; new files that were never closed are not published",
    "recovery.settled": "what was not synced before another boot lies beside its files; new files without content have none yet",
    "recovery.published": "those are published; damaged drafts are not marked",
    "recovery.marked": "those are marked; superfluous rows are not swept",
    "recovery.finished": "recovery is through; nothing runs yet",
    # --- the account
    "installation.written": "the id of this installation is in a temporary file",
    "installation.named": "it has its name, too; the temporary one is still there",
    "account.registered": "the service has the account; this device is not logged in",
    "login.answered": "the service has logged this device in; the tokens are nowhere here",
    "login.stored": "the credentials are stored; the command has not said so",
    "logout.told": "the service has ended the session; the tokens are still here",
    "token.answered": "the service has given new tokens; they are nowhere here",
    "token.stored": "the new tokens are stored; none was used",
    "credentials.written": "new credentials are in a temporary file",
    "credentials.replaced": "they have taken the place of the old ones; their name may not survive a power cut",
    "set-aside.drafts": "another account logs in: files that the last one's drafts left are out of the way; its replica is here",
    "set-aside.replica": "its replica is gone, too; its chunks are here",
    "set-aside.finished": "all of it is gone, durably; the new credentials are not stored",
    # --- a shared folder ends
    "share.copied": "what was not sent is in a recovered file that has no name yet",
    "share.recovering": "it gets its name, and the draft goes, in a transaction that is not committed",
    "share.recovered": "it is committed; the next file is not looked at",
    "share.dropping": "some rows of the folder are gone",
}

SERVICE_POINTS = {
    "service.object.receiving": "a part of an object is in a temporary file",
    "service.object.verified": "all of it, and its SHA-256 is right; nothing is synced",
    "service.object.synced": "the temporary file is whole and durable; the object has no name",
    "service.object.renamed": "the object has its name; the name may not survive a power cut",
    "service.object.stored": "the object is durable; the client has no answer",
    "service.object.copied": "a copy that lacked is where it belongs; those that lie elsewhere are not removed",
    # --- a new master key
    "service.rewrap.begun": "a new master key is stored; no object's key is wrapped by it",
    "service.rewrap.wrapped": "an object's key is wrapped by the new one, and by the former",
    "service.rewrap.dropping": "the folders of objects say that they do not need the former master key; it is still there",
    "service.plan.session-begun": "an upload session is written, as there is none that is not over, and not committed",
    "service.plan.reserving": "room for objects is reserved in a transaction that is not committed",
    "service.plan.reserved": "room is reserved; the client has no links",
    "service.commit.verified": "the object store was asked for a commit's objects; nothing is written",
    "service.commit.applied": "the groups of a commit are applied, and not committed; the outcome is not recorded",
    "service.commit.recorded": "the outcome is recorded in the same transaction, which is not committed",
    "service.commit.committed": "the commit is durable; the client has no answer",
    "service.account.adding": "a new account is written, and not committed",
    "service.account.added": "the account is there; the client has no answer",
    "service.login.writing": "a device and its tokens are written, and not committed",
    "service.login.written": "the device is logged in; the client has no answer",
    "service.tokens.rotating": "a new refresh token is written, and not committed",
    "service.tokens.rotated": "the new refresh token is good; the client has no answer",
    "service.tokens.confirming": "the first use of a token retires the older ones, and is not committed",
    "service.tokens.confirmed": "the older ones are retired; the request that used it is not answered",
    "service.device.removing": "a device is removed, and not committed",
    "service.device.removed": "the device is removed; nobody has an answer",
    "service.collect.noting": "a note of what a space has reached is written, and not committed",
    "service.collect.noted": "the note is committed; nothing is forgotten",
    "service.collect.forgetting": "old tombstones are deleted, and how far that goes is written, and not committed",
    "service.collect.forgotten": "they are gone; others may wait",
    "service.garbage.emptying": "part of what a closed account had is deleted, and not committed",
    "service.garbage.ending": "an abandoned upload is ended, its copies are dead, and nothing of it is committed",
    "service.garbage.unnaming": "manifests that nothing names are deleted, and not committed",
    "service.garbage.burying": "objects that nothing names are dead, and not committed",
    "service.garbage.buried": "they are dead; the store has them",
    "service.garbage.deleted": "the store has them no more; they are still written down as dead",
    "service.garbage.forgetting": "they are forgotten, and that is not committed",
    "service.epoch.beginning": "a restored service begins a new epoch, in a transaction that is not committed",
    "service.epoch.begun": "the new epoch has begun; the service was not started",
    "service.start.migrating": "the schema is new, in a transaction that is not committed",
    "service.start.migrated": "the schema is new; the database has no epoch if it had none",
    "service.start.epoch": "the epoch is stored; left-over uploads are not cleared",
    "service.start.keys": "a key that signs is stored; a file in which it was before is still there",
    "service.start.clearing": "a left-over of a broken upload is about to be removed",
    "service.start.opened": "the service is open; it does not listen",
}

POINTS = CLIENT_POINTS | SERVICE_POINTS

Hook = Callable[[str], None]
_hook: Hook | None = None


def crash_point(name: str) -> None:
    """What `POINTS` says of `name` is so now."""
    if _hook is not None:
        _hook(name)


def install(hook: Hook | None) -> Hook | None:
    """Call `hook` with the name of every point that is passed, in whatever thread passes it. None: nothing happens any more.

    Returns what was installed before. What `hook` raises comes out of the point.
    """
    global _hook
    before, _hook = _hook, hook
    return before


class Killer:
    """Kills this process when it passes `point` for the `nth` time (from 1)."""

    def __init__(self, point: str, nth: int = 1, note: str | None = None) -> None:
        if point not in POINTS:
            raise ValueError(f"there is no crash point {point!r}")
        self._point = point
        self._left = nth
        self._note = note
        self._lock = threading.Lock()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Killer | None:
        asked = environ.get(CRASH_AT)
        if not asked:
            return None
        point, _, nth = asked.partition(":")
        return cls(point, int(nth or 1), environ.get(CRASH_NOTE))

    def __call__(self, name: str) -> None:
        if name != self._point:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._die()

    def _die(self) -> NoReturn:
        if self._note is not None:
            descriptor = os.open(self._note, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(descriptor, f"{self._point}\n".encode())
            os.close(descriptor)
        while True:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1)


_hook = Killer.from_environment(os.environ)
