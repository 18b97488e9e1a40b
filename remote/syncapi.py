"""The wire for who wants to know how far things are: devices, files, conflicts, and changes in terms of paths. As `protocol`.

    GET    /v1/sync/status?path=|id=                                 -> SyncStatus
    POST   /v1/sync/status                               DeviceReport -> 204           (from a device, about itself)
    GET    /v1/sync/conflicts                                        -> ConflictList
    POST   /v1/sync/conflict/resolve                  ResolveConflict -> Resolved
    GET    /v1/sync?since=|cursor=&limit=                            -> FileChanges    (in pages)
    GET    /v1/changes/files/{inode}                                 -> FileHistory

A device that has asked for what follows a revision has all before it. It says so with each poll, which the service notes every
few seconds at most. What a device has not sent yet, only the device knows: it reports that.

A program that keeps no revisions asks for all changes since a time, and then since the cursor of the answer, which is one of
`/v1/changes`. Each change says what is at a path now, or that nothing is; of a folder that was moved, not what is in it. The
service notes now and then which revision it has reached, so more may come than was asked for, never less.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from remote.fileapi import FileInfo, Path
from remote.protocol import Answer, Count, Hash, Id, Nanoseconds, Request, Revision

REPORTED_MAX = 100
CONFLICTS_MAX = 1000
CHANGES_DEFAULT, CHANGES_MAX = 500, 1000
Text = Annotated[str, Field(max_length=500)]


class SyncState(StrEnum):
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    FAILED = "failed"


class ReportedFile(Request):
    """A file whose content a device has yet to send."""

    path: Path
    size: Count
    error: Text | None = None
    """Why it did not go up; it is tried again."""


class DeviceReport(Request):
    files: Count
    """How many wait to be sent."""
    bytes: Count
    changes: Count
    """Names and attributes that wait."""
    first: Annotated[list[ReportedFile], Field(max_length=REPORTED_MAX)] = Field(default_factory=list)
    """Some of the files: those with errors, then the others."""


class PendingFile(Answer):
    path: str
    size: Count
    state: SyncState
    error: str | None


class DeviceSync(Answer):
    device: Id
    name: str
    current: bool
    """It is the one that asks."""
    last_seen_ns: Nanoseconds
    revision: Revision | None
    """What it has all of; null: it has not told yet."""
    lag: Count | None
    """Revisions that it has not asked for yet."""
    last_synced_ns: Nanoseconds | None
    """When it said so."""
    state: SyncState
    """`failed`: some file did not go up. `in-progress`: it lags behind, or has something to send."""
    waiting_files: Count
    waiting_bytes: Count
    waiting_changes: Count
    reported_ns: Nanoseconds | None
    """From when the last four are; null: it has not reported since it logged in."""
    pending: list[PendingFile]
    file: SyncState | None
    """Of the file that was asked for: whether the device has heard of its present state, and has nothing newer itself."""


class SyncStatus(Answer):
    revision: Revision
    """Of the personal space."""
    file: FileInfo | None
    """That was asked for, if it has a name."""
    devices: list[DeviceSync]
    uploads: Count
    """Of plain clients, under way."""


class Conflict(Answer):
    """A conflicted copy, by its name: two devices changed one file, and neither had seen the other's change."""

    copied: FileInfo
    original: FileInfo | None
    """Beside it; null: nothing has its name now."""
    device: str
    """Whose change the copy holds, as it was called then."""


class ConflictList(Answer):
    conflicts: list[Conflict]
    complete: bool
    """False: there are more."""


class ResolveConflict(Request):
    id: Id
    """The copy's."""
    keep: Literal["original", "copy", "both"]
    """`copy`: its content becomes the original's newest version. `both`: it gets a name of its own. What is not kept is in the
    trash, or among the versions."""
    copy_version: Hash | None = None
    original_version: Hash | None = None
    """As they were looked at; if one has changed meanwhile, nothing happens."""


class Resolved(Answer):
    file: FileInfo
    """What was kept, or the copy under its new name."""


class FileChange(Answer):
    path: str
    file: FileInfo | None
    """Null: nothing is there any more."""


class FileChanges(Answer):
    """Each path once in a page. `cursor`: where to go on."""

    changes: list[FileChange]
    cursor: str
    has_more: bool


class FileEvent(Answer):
    at_ns: Nanoseconds
    what: Literal["content", "deleted"]
    version: Hash | None
    size: Count
    device: Id
    device_name: str
    """Empty: a program's token, or a device that nobody remembers."""


class FileHistory(Answer):
    """The newest first, as far as versions are kept."""

    id: Id
    path: str | None
    """Null: it is in the trash."""
    events: list[FileEvent]
