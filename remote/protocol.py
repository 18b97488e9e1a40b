"""The wire: what requests and answers are made of, and all that devices say to the service about a space, as pydantic models.
JSON over HTTP, version 1. What is said about accounts stands in `accountapi`, plain clients' files in `fileapi`.

Ids and hashes are lower-case hex, manifests base64, times nanoseconds since 1970, sizes bytes. Requests refuse unknown
fields; answers ignore them, so that an old client understands a newer service.

    POST   /v1/spaces/{space}/commit           CommitRequest     -> CommitAnswer
    GET    /v1/changes?cursor=&wait=&limit=&removed=             -> ChangesPage      (410 reset: begin again without a cursor)
    GET    /v1/spaces/{space}/folders/{inode}?after=&limit=      -> FolderPage
    POST   /v1/spaces/{space}/uploads          UploadRequest     -> UploadPlan       (507: over quota, before any byte is sent)
    POST   /v1/spaces/{space}/downloads        DownloadRequest   -> DownloadPlan
    POST   /v1/spaces/{space}/manifests        ManifestsRequest  -> ManifestsAnswer

Errors are problem documents (RFC 9457), see `Problem`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from remote.manifest import SIZE_MAX
from remote.names import MAX_NAME_BYTES, MAX_TARGET_BYTES, check_name

INODE_ID_BYTES = 16
HASH_BYTES = 32
MAX_GROUPS = 2000
MAX_COMMIT_BYTES = 32 * 2**20
MAX_OBJECTS_PER_PLAN = 512
MAX_MANIFESTS_PER_REQUEST = 256
MAX_XATTR_BYTES = 64 * 1024
RIDE_ALONG_MAX = 1024
"""Manifests of at most so many bytes travel in the feed; longer ones are fetched when they are needed."""


def _from_hex(value: object) -> object:
    if isinstance(value, str):
        try:
            return bytes.fromhex(value)
        except ValueError:
            raise ValueError("not a hexadecimal string") from None
    return value


def _from_base64(value: object) -> object:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error:
            raise ValueError("not base64") from None
    return value


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


_HEX = (BeforeValidator(_from_hex), PlainSerializer(bytes.hex, return_type=str, when_used="json"))

Id = Annotated[
    bytes,
    Field(min_length=INODE_ID_BYTES, max_length=INODE_ID_BYTES),
    *_HEX,
    WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{32}$"}),
]
"""An inode, space, account or device: 128 random bits. A space's root folder has the space's own id."""
Hash = Annotated[
    bytes,
    Field(min_length=HASH_BYTES, max_length=HASH_BYTES),
    *_HEX,
    WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{64}$"}),
]
"""A SHA-256."""
Md5 = Annotated[
    bytes,
    Field(min_length=16, max_length=16),
    *_HEX,
    WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{32}$"}),
]
Blob = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    PlainSerializer(_to_base64, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]


def _check_text(value: str) -> str:
    """Text that file systems and databases can hold."""
    if "\0" in value:
        raise ValueError("it contains a NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("it is not valid Unicode") from None
    return value


def _without_parameters(value: object) -> object:
    return value.partition(";")[0].strip().lower() if isinstance(value, str) else value


Count = Annotated[int, Field(ge=0, le=SIZE_MAX)]
Seconds = Annotated[int, Field(ge=0, le=10**9)]
Token = Annotated[str, Field(min_length=1, max_length=8192, pattern=r"^[\x21-\x7e]+$")]
"""What a header can carry."""
Target = Annotated[str, Field(min_length=1, max_length=MAX_TARGET_BYTES), AfterValidator(_check_text)]
XattrName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_check_text)]
DeviceNumber = Annotated[int, Field(ge=0, le=SIZE_MAX)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_BYTES), AfterValidator(check_name)]
ContentType = Annotated[
    str, Field(max_length=255, pattern=r"^[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+$"), BeforeValidator(_without_parameters)
]
"""A media type, `image/png`; parameters are dropped."""
Revision = Annotated[int, Field(ge=0, le=SIZE_MAX)]
Epoch = Annotated[str, Field(min_length=1, max_length=64)]
"""Names a stretch of the service's history without a break: a service that was restored to an older state begins another."""
Nanoseconds = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
NumericOwner = Annotated[int, Field(ge=0, le=2**32 - 2)]


class Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


# ---------------------------------------------------------------------------------------------------- rows of a space


class Kind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER = "character"
    BLOCK = "block"
    MOUNT = "mount"
    """Where a shared folder stands in a personal space; its target is the shared space's id. Only the service makes one."""


class Attributes(BaseModel):
    """All attributes, or (in a change) those fields that are set: `model_fields_set` tells.

    `uid` and `gid` null: the account itself, shown as the mounting user on every device. In a change, an extended
    attribute of null is removed, and one that is not named stays.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    mode: Annotated[int, Field(ge=0, le=0o7777)] = 0o644
    uid: NumericOwner | None = None
    gid: NumericOwner | None = None
    mtime_ns: Nanoseconds = 0
    xattrs: Annotated[dict[XattrName, Blob | None], Field(max_length=1000)] = {}

    @model_validator(mode="after")
    def _limit_xattrs(self) -> Attributes:
        if sum(len(value or b"") for value in self.xattrs.values()) > MAX_XATTR_BYTES:
            raise ValueError(f"more than {MAX_XATTR_BYTES} bytes of extended attributes")
        return self

    def changed(self, change: Attributes) -> Attributes:
        """These attributes with the fields that are set in `change`."""
        update: dict[str, Any] = {name: getattr(change, name) for name in change.model_fields_set}
        if "xattrs" in update:
            merged = {**self.xattrs, **change.xattrs}
            update["xattrs"] = {name: value for name, value in merged.items() if value is not None}
        return self.model_copy(update=update)

    def change_from(self, base: Attributes) -> Attributes:
        """The smallest change that makes these attributes out of `base`."""
        fields: dict[str, Any] = {
            name: getattr(self, name) for name in ("mode", "uid", "gid", "mtime_ns") if getattr(self, name) != getattr(base, name)
        }
        xattrs: Mapping[str, bytes | None] = {
            name: self.xattrs.get(name)
            for name in self.xattrs.keys() | base.xattrs.keys()
            if self.xattrs.get(name) != base.xattrs.get(name)
        }
        if xattrs:
            fields["xattrs"] = dict(xattrs)
        return Attributes.model_construct(_fields_set=set(fields), **{**_NO_ATTRIBUTES, **fields})


_NO_ATTRIBUTES: dict[str, Any] = {"mode": 0o644, "uid": None, "gid": None, "mtime_ns": 0, "xattrs": {}}


class Content(Answer):
    """One content of a file, as the service holds it."""

    manifest_id: Hash
    size: Annotated[int, Field(ge=0, le=SIZE_MAX)]
    sha256: Hash | None = None
    """Of the whole content; null where it was too costly to compute (a small edit of a large, mostly absent file)."""
    manifest: Blob | None = None
    """The manifest itself, if it is small enough to ride along."""


class InodeState(Answer):
    id: Id
    rev: Revision
    kind: Kind
    attributes: Attributes
    target: Target | None = None
    """Of a symlink."""
    device_number: DeviceNumber | None = None
    """`st_rdev` of a device node."""
    content: Content | None = None
    """Of a file; a file always has one."""
    content_rev: Revision = 0
    """The revision in which the content last changed."""


class EntryState(Answer):
    parent: Id
    name: Name
    inode: Id | None
    """Null: a tombstone."""
    rev: Revision


# --------------------------------------------------------------------------------------------------------------- commit


class ContentChange(Request):
    manifest: Blob
    sha256: Hash | None = None
    base: Revision
    """The `content_rev` that this content was made from; 0 for a new or revived file."""
    content_type: ContentType | None = None
    """What it is said to be, where somebody says it: a tier may take some types only. Not kept."""


class FullRow(Request):
    """What a new (or revived) inode is, beyond its attributes and content."""

    kind: Kind
    target: Target | None = None
    device_number: DeviceNumber | None = None


class InodeChange(Request):
    id: Id
    full: FullRow | None = None
    attributes: Attributes = Field(default_factory=lambda: Attributes.model_construct(_fields_set=set(), **_NO_ATTRIBUTES))
    content: ContentChange | None = None


class EntryChange(Request):
    parent: Id
    name: Name
    base: Id | None
    inode: Id | None


class SeenContent(Request):
    inode: Id
    content_rev: Revision


class Group(Request):
    """Changes that apply whole or not at all. `seen` and `last` are about inodes that lose a name here."""

    entries: list[EntryChange] = []
    inodes: list[InodeChange] = []
    seen: list[SeenContent] = []
    last: list[Id] = []


class CommitRequest(Request):
    number: Annotated[int, Field(ge=1, le=SIZE_MAX)]
    """Counts the commits of this replica to this space. Repeated with the same body, it gets the recorded outcome; a lower
    one, or the same with another body, is refused (`stale-commit`)."""
    replica: Id
    """Made with the replica. Each counts for itself, so that one that is begun anew on the same device begins at 1."""
    epoch: Epoch
    """In which the commit was made. A service in another one refuses it (`other-epoch`) unless its outcome is recorded."""
    known: Revision = 0
    """The newest revision of the space that the device knows of. A service that is not there yet went back: it refuses the
    commit (`behind`), and records nothing."""
    groups: Annotated[list[Group], Field(min_length=1, max_length=MAX_GROUPS)]


class ConflictKind(StrEnum):
    ENTRY = "entry"
    ALREADY_NAMED = "already named"
    CONTENT = "content"
    UNKNOWN = "unknown"
    TRASHED = "trashed"
    NOT_EMPTY = "not empty"
    LAST_NAME = "last name"
    EDITED = "edited"
    TWO_NAMES = "two names"
    NO_PARENT = "no parent"
    CYCLE = "cycle"


class InodeRevisions(Answer):
    rev: Revision
    content_rev: Revision


class GroupOutcome(Answer):
    """`ok`: the rows' revisions, in the order of the group. `conflict`: pull, merge, push again. `missing`: the object
    store does not hold `objects`; upload them again. `quota`: no room. `refused`: never right, see `detail`."""

    result: Literal["ok", "conflict", "missing", "quota", "refused"]
    entries: list[Revision] = []
    inodes: list[InodeRevisions] = []
    conflict: ConflictKind | None = None
    objects: list[Hash] = []
    detail: str = ""


class CommitAnswer(Answer):
    epoch: Epoch
    """That of the commit."""
    number: int
    revision: Revision
    """The space's revision after this commit."""
    outcomes: list[GroupOutcome]


# ----------------------------------------------------------------------------------------------------------------- feed


class SpaceChanges(Answer):
    """A page of one space's rows, in the order of their revisions.

    `revision` is the space's revision when the page was read. `has_more` is about this space. `full`: the page belongs
    to a listing from the beginning, which replaces everything the client believed.
    """

    space: Id
    revision: Revision
    has_more: bool
    full: bool
    inodes: list[InodeState] = []
    entries: list[EntryState] = []
    total_entries: Revision | None = None
    """In a full listing: about how many entries there are, for a progress bar."""
    collected: Revision = 0
    """Of what was removed up to this revision, the service may have forgotten the tombstones. A listing with `removed` names
    all later ones: what it lacks, and was changed after this revision, was not removed but lost."""


class SpaceStart(Answer):
    space: Id
    revision: Revision


class EpochStart(Answer):
    """Where an epoch began: at which revision of each space that the caller may see (one that is not named: at 0)."""

    epoch: Epoch
    spaces: list[SpaceStart] = []


class FolderPage(Answer):
    """Some live entries of one folder in the order of their names' bytes, with the inodes that they name, as the feed has them.

    `revision` is the space's revision when the page was read. `next`: the name to go on after; null: these were the last.
    """

    epoch: Epoch
    revision: Revision
    inodes: list[InodeState]
    entries: list[EntryState]
    next: Name | None = None


class ChangesPage(Answer):
    """A cursor of an earlier epoch is followed if it stands at what this service has had: what came after it in that epoch
    is unknown to the service then, and to the cursor. Otherwise the page has no rows, and `history` says why."""

    epoch: Epoch
    """Changes when the service was restored to an older state."""
    cursor: Annotated[str, Field(max_length=64 * 1024)]
    has_more: bool
    spaces: list[SpaceChanges]
    history: list[EpochStart] = []
    """All epochs in their order, the present one last; given in a listing with `removed`, and when the cursor is of another
    epoch."""


# ---------------------------------------------------------------------------------------------------- objects, manifests


class ObjectToUpload(Request):
    id: Hash
    length: Annotated[int, Field(ge=1, le=2**31)]
    """Stored length."""
    md5: Md5 | None = None
    """Of the stored bytes; only for a service that asked for it."""


class FileToUpload(Request):
    """What the objects are for, so that a file that its owner's tier does not take is refused before any byte is sent."""

    name: Name
    size: Count
    content_type: ContentType | None = None
    """What it is said to be, besides what its name says."""


class UploadRequest(Request):
    objects: Annotated[list[ObjectToUpload], Field(min_length=1, max_length=MAX_OBJECTS_PER_PLAN)]
    file: FileToUpload | None = None


class Link(Answer):
    """A presigned request for one object: the method and headers are part of the signature."""

    id: Hash
    method: Literal["GET", "PUT"]
    url: str
    headers: dict[str, str] = {}


class UploadPlan(Answer):
    missing: list[Link]
    """Those of the objects that have to be sent; the others are there."""
    unsigned: list[Hash] = []
    """They have to be sent, too, but the object store takes them only by links that sign the MD5: ask again, and say it."""
    expires_in: Seconds


class DownloadRequest(Request):
    objects: Annotated[list[Hash], Field(min_length=1, max_length=MAX_OBJECTS_PER_PLAN)]


class DownloadPlan(Answer):
    links: list[Link]
    """One for each object, in the order asked."""
    expires_in: Seconds


class WantedManifest(Request):
    inode: Id
    manifest_id: Hash


class ManifestsRequest(Request):
    wanted: Annotated[list[WantedManifest], Field(min_length=1, max_length=MAX_MANIFESTS_PER_REQUEST)]


class ManifestsAnswer(Answer):
    manifests: list[Blob | None]
    """In the order asked; null where that inode never had that manifest (or the version is gone)."""


# --------------------------------------------------------------------------------------------------------------- errors


class Device(Answer):
    id: Id
    name: str
    created_ns: Nanoseconds
    last_seen_ns: Nanoseconds
    current: bool = False


class ProblemType(StrEnum):
    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    REVOKED = "revoked"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    EXISTS = "exists"
    NOT_EMPTY = "not-empty"
    INCOMPLETE = "incomplete"
    PRECONDITION_FAILED = "precondition-failed"
    TOO_MANY_DEVICES = "too-many-devices"
    STALE_COMMIT = "stale-commit"
    OTHER_EPOCH = "other-epoch"
    BEHIND = "behind"
    RESET = "reset"
    TOO_LARGE = "too-large"
    CONTENT_TYPE = "content-type"
    QUOTA = "quota"
    RATE_LIMITED = "rate-limited"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class Problem(Answer):
    """An error, as `application/problem+json`."""

    type: str
    """A `ProblemType`; a client treats one that it does not know by the status alone."""
    title: str
    status: int
    detail: str = ""
    field: str | None = None
    devices: list[Device] = []
    """With `too-many-devices`: who holds the slots."""
    missing: list[Hash] = []
    """With `incomplete`: some of the chunks that are not in the object store."""
    quota_bytes: int | None = None
    used_bytes: int | None = None
    needed_bytes: int | None = None
