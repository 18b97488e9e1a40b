"""The wire for plain clients, which have no replica: files and folders by path, resumable uploads and downloads. As `protocol`.

A path is absolute in the account's personal space, `/` being its root; symlinks are never followed. `version` names a content:
the same version is the same bytes, for ever. It is also the ETag, so `If-Match: "VERSION"` makes a request conditional.

    GET    /v1/files?path=&sort=&order=&limit=&after=                -> FileList       (a folder, in pages)
    DELETE /v1/files?path=&recursive=&partial=                       -> Deleted        (If-Match)
    GET    /v1/files/metadata?path=&replicas=                        -> FileInfo
    POST   /v1/files/folder                              CreateFolder -> FileInfo
    POST   /v1/files/move                                MoveRequest -> FileInfo       (If-Match: of what is moved)
    POST   /v1/files/copy                                CopyRequest -> FileInfo       (If-Match: of what is copied)
    GET    /v1/files/versions?path=|id=                              -> VersionList    (the newest first)
    POST   /v1/files/versions/restore                 RestoreVersion -> FileInfo
    POST   /v1/files/rewind                       RewindRequest -> Rewound        (again, until it is complete)
    GET    /v1/trash?limit=&after=                                   -> TrashList      (in pages, the latest first)
    POST   /v1/trash/restore                          RestoreRequest -> Restored
    DELETE /v1/trash?id=                                             -> Emptied        (all, or one entry)
    GET    /v1/files/expiry?path=                                    -> ExpiryList
    POST   /v1/files/expiry                                SetExpiry -> Expiry
    DELETE /v1/files/expiry?path=                                    -> 204
    POST   /v1/files/upload                              BeginUpload -> FileUpload     (or the one in progress)
    GET    /v1/files/upload?fingerprint=                             -> FileUploadList (those in progress)
    GET    /v1/files/upload/{upload}                                 -> FileUpload     (asks the object store)
    POST   /v1/files/upload/{upload}/chunks/{chunk}      ChunkLink   -> UploadedChunk  (a fresh link)
    PATCH  /v1/files/upload/{upload}/chunks/{chunk}      ChunkReport -> UploadedChunk  (asks the object store)
    POST   /v1/files/upload/{upload}/complete            CompleteUpload -> FileUpload     (If-Match: of what it replaces)
    DELETE /v1/files/upload/{upload}                                 -> 204
    GET    /v1/files/download?path=|id=&version=&start=&end=         -> FileDownload   (in pages)
    GET    /v1/files/download/chunks/{chunk}?path=|id=&version=      -> Link           (a fresh one)
    GET    /v1/files/content?path=|id=&version=&inline=              -> the bytes      (Range, If-Range)
    HEAD   /v1/files/content?path=|id=&version=&inline=
    GET    /content?ticket=&inline=                                  -> the bytes      (where contents have their own origin)
    HEAD   /content?ticket=&inline=

To upload, cut the file into chunks, and encode them or not; an object is named by the SHA-256 of what is stored. Begin the
upload, PUT each missing chunk to its link, ask which are missing until none is, and complete it. That a chunk is there is
believed to the object store alone. After a crash, begin again: the same path and content find the upload, wherever it began.

To download, get the chunks of a file, each by its link, and give its `id` and `version` from then on: they are the same bytes
whatever happens to the path. The content as one body goes through the service; where contents have an origin of their own, it
answers 307 to an address there that is good for five minutes and wants no token. Of a file that may change, the rest after a
beginning (`Range: bytes=N-`) is sent only to who says of which version: by `version`, `If-Range` or `If-Match`. Others get
the whole, so that nobody puts two versions together.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from remote.manifest import INLINE_MAX, OBJECT_PLAIN_MAX, OBJECT_STORED_MAX
from remote.protocol import (
    MAX_OBJECTS_PER_PLAN,
    Answer,
    Blob,
    ContentType,
    Count,
    Hash,
    Id,
    Kind,
    Link,
    Md5,
    Nanoseconds,
    Request,
    Revision,
    Seconds,
)

MAX_ENTRIES = 1000
"""Entries that one request may copy or delete."""
LIST_DEFAULT = 200
LIST_MAX = 1000
MAX_CHUNKS = 65_536
"""Of one upload: 256 GiB in chunks of 4 MiB."""
MAX_OPEN_UPLOADS = 1000
"""Of one account; those that were not used for a day do not count."""
EXPIRIES_MAX = 1000
"""Files and folders of an account that expire."""
EXPIRY_MAX_SECONDS = 10 * 366 * 24 * 3600
LINKS_MAX = MAX_OBJECTS_PER_PLAN
"""In one answer."""

PATH_MAX = 16 * 1024
Path = Annotated[str, Field(min_length=1, max_length=PATH_MAX)]
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


class Replicas(Answer):
    """Where the objects of a file lie."""

    objects: Count
    """That were looked for: of a large file those of its beginning."""
    places: dict[str, Count]
    """How many of them each folder of the embedded store holds, by its id; empty: an object store that does not say."""


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
    shared_space: Id | None = None
    """Of the place of a shared folder: the space that it leads to. What is in it is listed by its path."""
    replicas: Replicas | None = None
    """Of a file, where they were asked for."""


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


# --------------------------------------------------------------------------------------------------- versions and trash


class FormerVersion(Answer):
    """A content that a file had, or has."""

    version: Hash
    size: Count
    sha256: Hash | None
    mtime_ns: Nanoseconds
    created_ns: Nanoseconds
    """When it came to the service."""
    replaced_ns: Nanoseconds | None
    """When another one took its place; null: none did. It is kept for as long after that as the owner's tier says."""
    device: Id
    """By which device, or personal access token, it came."""


class VersionList(Answer):
    id: Id
    path: str | None
    """Null: the file is in the trash."""
    current: Hash | None
    versions: list[FormerVersion]


class RestoreVersion(Request):
    """Of the file at `path`, or with this `id`."""

    path: Path | None = None
    id: Id | None = None
    version: Hash

    @model_validator(mode="after")
    def _check(self) -> RestoreVersion:
        if (self.path is None) == (self.id is None):
            raise ValueError("say which file: by path, or by id")
        return self


class TrashEntry(Answer):
    """A file, or a folder with what went with it."""

    id: Id
    path: str
    """Where it was; where it would go."""
    kind: Kind
    size: Count
    """Of a file."""
    deleted_ns: Nanoseconds
    device: Id
    """Which device, or personal access token, deleted it."""


class TrashList(Answer):
    """`next`: what to give as `after` to go on; null: this was the last one."""

    entries: list[TrashEntry]
    next: str | None = None


class RestoreRequest(Request):
    id: Id
    """Of an entry of the trash."""
    target: Path | None = None
    """Where it goes; null: where it was, or beside what is there now."""


class Restored(Answer):
    file: FileInfo
    restored: int
    """Entries, those in a folder and the folder itself counted."""
    complete: bool
    """False: the folder holds more, which is in the trash under entries of its own."""


class Emptied(Answer):
    removed: int
    complete: bool
    """False: there is more; ask again."""


# -------------------------------------------------------------------------------------------------------------- rewind


class RewindRequest(Request):
    """Make a folder, with all that is in it, what it was. Names and contents are brought back; modes, extended attributes, and
    the times of folders have no history."""

    path: Path
    """Where the folder is now, wherever it was then."""
    to_ns: Nanoseconds
    dry_run: bool = False
    """Change nothing, and say what would be, of 20,000 changes at most."""


class RewindWhat(StrEnum):
    RESTORED = "restored"
    """Had been deleted, and has its name again."""
    MOVED = "moved"
    """Is where it was."""
    REMOVED = "removed"
    """Was not there: it is in the trash, or lost a name that it did not have."""
    CONTENT = "content"
    """Holds what it held."""
    LEFT = "left"
    """Could not go where it was, and is where it is, or beside."""
    GONE = "gone"
    """Cannot come back: it was removed from the trash for good, or the folder that it was in is not back in its place."""


class RewindChange(Answer):
    path: str
    what: RewindWhat


class Rewound(Answer):
    """What one request did. `left` and `gone` are counted anew by each request; when it is complete, of all."""

    id: Id
    path: str
    to_ns: Nanoseconds
    restored: Count
    moved: Count
    removed: Count
    contents: Count
    left: Count
    gone: Count
    changes: list[RewindChange]
    """Some of the paths: the first hundred of each kind."""
    complete: bool
    """False: there is more; ask again. Of a dry run: there is more than it counted."""
    undo_ns: Nanoseconds | None
    """To rewind the folder to this time undoes what this request did, and what later ones did; null: it did nothing."""


# -------------------------------------------------------------------------------------------------------------- expiry


class SetExpiry(Request):
    """A time, or how long from now."""

    path: Path
    expires_ns: Nanoseconds | None = None
    after_seconds: Annotated[int, Field(ge=1, le=EXPIRY_MAX_SECONDS)] | None = None

    @model_validator(mode="after")
    def _check(self) -> SetExpiry:
        if (self.expires_ns is None) == (self.after_seconds is None):
            raise ValueError("say when: at a time, or after so many seconds")
        return self


class Expiry(Answer):
    """It goes to the trash then, with all that is in it by then, whatever it is called and whatever was written to it."""

    id: Id
    path: str
    expires_ns: Nanoseconds


class ExpiryList(Answer):
    """The next ones first."""

    expiries: list[Expiry]


# -------------------------------------------------------------------------------------------------------------- upload


class UploadChunk(Request):
    """A piece of the file, in its order. A run of zeros needs no object, and so no id."""

    id: Hash | None = None
    """SHA-256 of what is stored."""
    size: Annotated[int, Field(ge=1, le=2**63 - 1)]
    """Plain bytes; at most 16 MiB, if it is not zeros."""
    stored_size: Annotated[int, Field(ge=1, le=OBJECT_STORED_MAX)] | None = None
    """Null: as `size`."""
    encoding: Literal["raw", "zstd", "zeros"] = "raw"

    @model_validator(mode="after")
    def _check(self) -> UploadChunk:
        if self.encoding == "zeros":
            if self.id is not None or self.stored_size is not None:
                raise ValueError("zeros are not stored")
        elif self.id is None or self.size > OBJECT_PLAIN_MAX:
            raise ValueError(f"a chunk has an id, and at most {OBJECT_PLAIN_MAX} bytes")
        elif self.encoding == "raw" and self.stored_size not in (None, self.size):
            raise ValueError("a raw chunk is stored as it is")
        return self


class SplitParameters(Request):
    """By which FastCDC cut the file (bytes), if it did: a device that edits it goes on with them."""

    minimum: Annotated[int, Field(ge=0, lt=2**32)]
    average: Annotated[int, Field(ge=0, lt=2**32)]
    maximum: Annotated[int, Field(ge=0, lt=2**32)]


class BeginUpload(Request):
    path: Path
    """The file's, not the folder's. The folder must be there."""
    size: Count
    fingerprint: Hash
    """SHA-256 of the file."""
    type: ContentType | None = None
    """Media type, as the client knows it."""
    mtime_ns: Nanoseconds | None = None
    """Null: when it is complete."""
    chunks: Annotated[list[UploadChunk], Field(max_length=MAX_CHUNKS)] = Field(default_factory=list)
    content: Annotated[Blob, Field(max_length=INLINE_MAX)] | None = None
    """All of a small file, instead of chunks: the upload is complete at once."""
    split: SplitParameters | None = None
    on_conflict: OnConflict = OnConflict.FAIL


class UploadHead(Answer):
    id: Id
    path: str
    size: Count
    fingerprint: Hash
    type: str | None = None
    state: Literal["open", "complete"]
    chunks: int
    """Different ones, zeros not counted."""
    created_ns: Nanoseconds


class FileUpload(UploadHead):
    missing_chunks: int
    """Not known to be in the object store."""
    missing: list[Link] = Field(default_factory=list)
    """Some of them, each with a link to send it by; when they were sent, ask for the next."""
    unsigned: list[Hash] = Field(default_factory=list)
    """Missing, too, but this object store takes chunks by links only that sign their MD5: get them one by one."""
    expires_in: Seconds
    """How long the links are good."""
    file: FileInfo | None = None
    """Of a complete upload: the file as it is now; null if it was deleted."""


class FileUploadList(Answer):
    uploads: list[UploadHead]


class ChunkLink(Request):
    md5: Md5 | None = None
    """Of what is stored; only for a chunk that is `unsigned`."""


class ChunkReport(Request):
    status: Literal["uploaded", "failed"]
    etag: Annotated[str, Field(max_length=200)] | None = None
    """As the object store answered it."""


class UploadedChunk(Answer):
    id: Hash
    state: Literal["uploaded", "missing"]
    link: Link | None = None
    """Of a missing chunk."""
    expires_in: Seconds


class CompleteUpload(Request):
    """What is not given is as it was when the upload began."""

    path: Path | None = None
    on_conflict: OnConflict | None = None


# ------------------------------------------------------------------------------------------------------------ download


class DownloadChunk(Answer):
    """Bytes of the file: a slice of an object's plain bytes, or zeros."""

    offset: Count
    """In the file."""
    size: Count
    encoding: Literal["raw", "zstd", "zeros"]
    id: Hash | None = None
    """Of the object: SHA-256 of its stored bytes. Null: zeros."""
    start: Count = 0
    """In the plain bytes of the object."""
    plain_size: Count = 0
    stored_size: Count = 0


class FileDownload(Answer):
    """A version of a file, or some of it, by its chunks: links are for whole objects, each of which is named once."""

    id: Id
    path: str | None
    """Null: the file has no name any more."""
    version: Hash
    size: Count
    sha256: Hash | None
    content_type: str
    mtime_ns: Nanoseconds
    content: Blob | None
    """All of a small file, which has no chunks."""
    chunks: list[DownloadChunk]
    links: list[Link]
    next: Count | None
    """Where the next page starts; null: this is all that was asked for."""
    expires_in: Seconds
