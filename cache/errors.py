"""Everything that the cache layer can refuse. `fs.errors` turns each into an errno, in one place.

CacheError
├── NoEntry               there is no such name or inode
├── EntryExists
├── NotADirectory / IsADirectory / NotAFile / DirectoryNotEmpty
├── InvalidName           names that no directory may hold; NameTooLong is its own case
├── ReservedName          kept for what a mount shows
├── InvalidMove           a folder into itself
├── NoSuchAttribute / AttributeTooLarge
├── AnotherSpace          renames and links end at the border of a space
├── ReadOnly / NotAllowed
├── Busy                  a shared folder stands there
├── DiskError             the disk of this device; nothing was changed
│   ├── DiskFull
│   └── DiskFailed        it gives or takes no bytes, or has become read-only
├── FileTooLarge
└── Unavailable           bytes that are not here cannot be had now
    ├── Offline           known at once: no connection
    ├── TimedOut          the I/O budget is spent
    └── CorruptData       fetched twice, wrong twice; or a draft that is damaged

Beside them, because no application of a mount can meet it: `NotTransferred`.
"""

from __future__ import annotations


class CacheError(Exception):
    pass


class NotTransferred(Exception):
    """A file was not put or got without a mount. The text is for a person, and says what to do."""


class NoEntry(CacheError):
    pass


class EntryExists(CacheError):
    pass


class NotADirectory(CacheError):
    pass


class IsADirectory(CacheError):
    pass


class NotAFile(CacheError):
    pass


class DirectoryNotEmpty(CacheError):
    pass


class InvalidName(CacheError):
    pass


class ReservedName(CacheError):
    pass


class NameTooLong(CacheError):
    pass


class InvalidMove(CacheError):
    pass


class NoSuchAttribute(CacheError):
    pass


class AttributeTooLarge(CacheError):
    pass


class AnotherSpace(CacheError):
    pass


class ReadOnly(CacheError):
    pass


class NotAllowed(CacheError):
    """A viewer of a shared folder changes nothing in it."""


class Busy(CacheError):
    """A shared folder stands here: sharing brings it and takes it away."""


class DiskError(CacheError):
    pass


class DiskFull(DiskError):
    pass


class DiskFailed(DiskError):
    pass


class FileTooLarge(CacheError):
    pass


class Unavailable(CacheError):
    pass


class Offline(Unavailable):
    pass


class TimedOut(Unavailable):
    pass


class CorruptData(Unavailable):
    pass


def first_cause(error: BaseException) -> BaseException:
    """What a nursery's group holds first, however deep; an error that is no group is its own cause."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
