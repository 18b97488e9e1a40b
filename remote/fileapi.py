"""The wire for plain clients, which have no replica: files and folders by path, resumable uploads and downloads. As `protocol`.

A path is absolute in the account's personal space, `/` being its root; symlinks are never followed. `version` names a content:
the same version is the same bytes, for ever. It is also the ETag, so `If-Match: "VERSION"` makes a request conditional.

    GET    /v1/files?path=&sort=&order=&limit=&after=            -> FileList        (a folder, in pages)
    DELETE /v1/files?path=&recursive=&partial=                   -> Deleted         (If-Match)
    GET    /v1/files/metadata?path=                              -> FileInfo
    POST   /v1/files/folder                    CreateFolder      -> FileInfo
    POST   /v1/files/move                      MoveRequest       -> FileInfo        (If-Match: of what is moved)
    POST   /v1/files/copy                      CopyRequest       -> FileInfo        (If-Match: of what is copied)
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from remote.protocol import Answer, Count, Hash, Id, Kind, Nanoseconds, Request, Revision

MAX_ENTRIES = 1000
"""Entries that one request may copy or delete."""
LIST_DEFAULT = 200
LIST_MAX = 1000

Path = Annotated[str, Field(min_length=1, max_length=16 * 1024)]
"""Absolute, with slashes between its names."""


class OnConflict(StrEnum):
    """What to do if the name is taken: `replace` puts a file in the place of a file, never of a folder."""

    FAIL = "fail"
    REPLACE = "replace"
    RENAME = "rename"


class Sort(StrEnum):
    NAME = "name"
    SIZE = "size"
    MODIFIED = "modified"


class Order(StrEnum):
    ASC = "asc"
    DESC = "desc"


class FileInfo(Answer):
    """What is at a path now."""

    path: str
    name: str
    """Empty for the root."""
    id: Id
    """Of the inode: it stays when the file is moved or written."""
    kind: Kind
    size: Count = 0
    version: Hash | None = None
    """Of a file: names its content."""
    sha256: Hash | None = None
    """Of the whole content, where that is known."""
    content_type: str | None = None
    """Of a file, by its name."""
    mode: int
    mtime_ns: Nanoseconds
    revision: Revision
    """In which something of it last changed."""
    content_revision: Revision = 0
    target: str | None = None
    """Of a symlink."""


class FileList(Answer):
    """A page of a folder. `next`: what to give as `after` to go on; null: this was the last one."""

    folder: FileInfo
    entries: list[FileInfo]
    next: str | None = None


class CreateFolder(Request):
    path: Path
    parents: bool = False
    """Make the folders above, too, and be content with a folder that is there."""
    on_conflict: OnConflict = OnConflict.FAIL
    """`replace` is nothing that can be done to a folder."""


class MoveRequest(Request):
    source: Path
    target: Path
    """The new path, not the folder to move it into."""
    on_conflict: OnConflict = OnConflict.FAIL


class CopyRequest(MoveRequest):
    """Folders are copied with all that is in them, up to `MAX_ENTRIES` entries. No bytes move."""


class Deleted(Answer):
    removed: int
    """Entries, those in a folder and the folder itself counted."""
    complete: bool
    """False only if asked for with `partial`: there is more; ask again."""
