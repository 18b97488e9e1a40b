"""The wire for a mount's `.aloft` folder: what a space's files held, and what was deleted from it, by inode. As `protocol`.

A version's bytes are got like any content's: its manifest by inode and id, and then the objects that it names.

    GET    /v1/spaces/{space}/versions/{inode}?before=&limit=    -> VersionsPage     (the newest first)
    GET    /v1/spaces/{space}/trash?folder=&after=&limit=        -> TrashPage        (the latest first)
"""

from __future__ import annotations

from remote.protocol import Answer, Count, DeviceNumber, Hash, Id, Kind, Name, Nanoseconds, Revision, Target


class PastVersion(Answer):
    """A content that a file had, or has."""

    revision: Revision
    """In which it came: of one file, a later version has a higher one."""
    version: Hash
    """The id of its manifest."""
    size: Count
    mtime_ns: Nanoseconds
    created_ns: Nanoseconds
    """When it came to the service."""


class VersionsPage(Answer):
    """`next`: what to give as `before` to go on; null: this was the last one."""

    versions: list[PastVersion]
    next: Revision | None = None


class TrashedInode(Answer):
    """What was removed by itself, or, of a folder in the trash, what went with it."""

    id: Id
    name: Name
    """That it had last."""
    kind: Kind
    mode: int
    size: Count
    """Of a file."""
    mtime_ns: Nanoseconds
    deleted_ns: Nanoseconds
    version: Hash | None = None
    """Of a file: the id of its manifest."""
    target: Target | None = None
    """Of a symlink."""
    device_number: DeviceNumber | None = None


class TrashPage(Answer):
    """`next`: what to give as `after` to go on; null: this was the last one."""

    entries: list[TrashedInode]
    next: str | None = None
