"""The client's interface to the service, and everything that can go wrong with it.

`Service` is what the cache layer talks to: the real one is `remote.http.HttpService`; a simulation brings its own. Every
method is safe to repeat: commits by their number, uploads by their objects' names, the rest because they only read.

    RemoteError
    ├── Transient                 try again later, with back-off
    │   ├── Unreachable           no answer: refused, timed out, cut off
    │   ├── Overloaded            the service asked for patience (429, 503); `retry_after` seconds if it said
    │   └── StoreUnavailable      the object store cannot be reached, or asked for patience; says nothing of the service
    │       └── LinkExpired       it refuses a presigned link: too old (or a clock is wrong); ask for a new one
    └── Permanent                 trying again changes nothing
        ├── NotAuthenticated      log in again
        │   └── DeviceRevoked     this device was removed from the account
        ├── Forbidden
        ├── NotThere              404
        ├── TooManyDevices        `devices` holds the slots
        ├── QuotaExceeded
        ├── ResetRequired         the cursor is too old: list again from the beginning
        ├── StaleCommit           a later commit of this replica is recorded, or another one under the same number
        ├── OtherEpoch            the service was restored since the commit was made; it recorded nothing
        ├── Behind                the service has not reached what the commit was made for: it went back
        ├── Rejected              the service calls the request invalid
        ├── Corrupt               bytes that do not have the hash or the length they must have
        └── Nonsense              an answer that the protocol does not allow
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from remote.accountapi import AccountInfo, DeviceList
from remote.historyapi import TrashPage, VersionsPage
from remote.protocol import (
    ChangesPage,
    CommitAnswer,
    Device,
    DownloadPlan,
    FileToUpload,
    FolderPage,
    Link,
    ManifestsAnswer,
    ObjectToUpload,
    UploadPlan,
    WantedManifest,
)


class RemoteError(Exception):
    """Anything that went wrong beyond the wire; the text is fit to show to a person."""


class Transient(RemoteError):
    retry_after: float | None = None
    """Seconds that the service asked us to wait."""


class Unreachable(Transient):
    pass


class Overloaded(Transient):
    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreUnavailable(Transient):
    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LinkExpired(StoreUnavailable):
    pass


class Permanent(RemoteError):
    pass


class NotAuthenticated(Permanent):
    pass


class DeviceRevoked(NotAuthenticated):
    pass


class Forbidden(Permanent):
    pass


class NotThere(Permanent):
    pass


class TooManyDevices(Permanent):
    def __init__(self, message: str, devices: Sequence[Device]) -> None:
        super().__init__(message)
        self.devices = tuple(devices)


class QuotaExceeded(Permanent):
    pass


class ResetRequired(Permanent):
    pass


class StaleCommit(Permanent):
    pass


class OtherEpoch(Permanent):
    pass


class Behind(Permanent):
    pass


class Rejected(Permanent):
    pass


class Corrupt(Permanent):
    pass


class Nonsense(Permanent):
    pass


class Service(Protocol):
    """One logged-in device's view of the service. Every method may raise any `RemoteError`."""

    async def commit(self, space: bytes, body: bytes) -> CommitAnswer:
        """Send a serialized `CommitRequest`, byte for byte as it was stored."""

    async def changes(self, cursor: str, *, wait_seconds: int, limit: int, removed: bool = False) -> ChangesPage:
        """The next page of changes after `cursor` ("" begins a full listing); waits for one if there is none.

        `removed`: a full listing names what was removed, too, as far as the service remembers it.
        """

    async def folder(self, space: bytes, inode: bytes, *, after: str, limit: int) -> FolderPage:
        """What is in a folder now, in the order of names, after a name ("": from the first)."""

    async def plan_uploads(self, space: bytes, objects: Sequence[ObjectToUpload], file: FileToUpload | None = None) -> UploadPlan:
        """Which objects are missing, each with a link to send it by. Before any byte is sent: `QuotaExceeded`, or `Rejected` if
        the owner's tier takes no such file as they are for."""

    async def plan_downloads(self, space: bytes, objects: Sequence[bytes]) -> DownloadPlan: ...

    async def manifests(self, space: bytes, wanted: Sequence[WantedManifest]) -> ManifestsAnswer: ...

    async def versions(self, space: bytes, inode: bytes, *, before: int | None, limit: int) -> VersionsPage:
        """What a file held, the newest first: versions of revisions before that one (None: of all). `NotThere` if the service
        has never heard of the file."""

    async def trash(self, space: bytes, folder: bytes | None, *, after: str | None, limit: int) -> TrashPage:
        """What was deleted by itself, or what went with that folder, the latest first. `NotThere` if that is not in the trash."""

    async def put_object(self, link: Link, body: bytes) -> None:
        """Send an object's stored bytes. Repeating it is harmless."""

    async def get_object(self, link: Link, length: int) -> bytearray:
        """An object's stored bytes; `Corrupt` unless they have this length and the SHA-256 that `link.id` says."""

    async def account(self) -> AccountInfo: ...

    async def devices(self) -> DeviceList: ...

    async def remove_device(self, device: bytes) -> None: ...
