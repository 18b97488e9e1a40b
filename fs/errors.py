"""Every errno that an application can see, in one table, and the guard around each handler.

Nothing else in the project maps an exception to an errno. An exception other than `FUSEError` that left a handler would
end the mount, so `guarded` turns whatever is not in the table into EIO, with its traceback in the log.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import trio
from pyfuse3 import FUSEError

from cache import errors
from cache.disk import as_disk_error

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class NotUnicode(errors.CacheError):
    """A name, target or attribute name that is not UTF-8: other devices could not show it."""


class Superseded(errors.CacheError):
    """The kernel uses a number whose content was replaced: it looks the name up again when it hears ESTALE."""


class Unsupported(errors.CacheError):
    """A kind of extended attribute that is not kept."""


ERRNO: dict[type[Exception], int] = {
    errors.NoEntry: errno.ENOENT,
    errors.EntryExists: errno.EEXIST,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.NotAFile: errno.EINVAL,
    errors.DirectoryNotEmpty: errno.ENOTEMPTY,
    errors.InvalidName: errno.EINVAL,
    errors.ReservedName: errno.EPERM,
    errors.NameTooLong: errno.ENAMETOOLONG,
    errors.InvalidMove: errno.EINVAL,
    errors.NoSuchAttribute: errno.ENODATA,
    errors.AttributeTooLarge: errno.ENOSPC,  # what setxattr(2) says when the file's attributes are full
    errors.AnotherSpace: errno.EXDEV,  # applications then copy and delete
    errors.ReadOnly: errno.EROFS,
    errors.DiskFull: errno.ENOSPC,
    errors.DiskFailed: errno.EIO,
    errors.DiskError: errno.EIO,
    errors.FileTooLarge: errno.EFBIG,
    errors.Offline: errno.ENETDOWN,
    errors.TimedOut: errno.ETIMEDOUT,
    errors.CorruptData: errno.EIO,
    errors.NotAllowed: errno.EACCES,
    errors.Busy: errno.EBUSY,
    errors.Unavailable: errno.EIO,
    NotUnicode: errno.EILSEQ,
    Superseded: errno.ESTALE,
    Unsupported: errno.EOPNOTSUPP,
    trio.TooSlowError: errno.ETIMEDOUT,
}

_LOCAL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})
"""What the local disk or the process's limits say that an application can act upon."""


def errno_of(error: Exception) -> int | None:
    """The errno for `error`; None for what should never have reached a handler."""
    for kind in type(error).__mro__:
        code = ERRNO.get(kind)
        if code is not None:
            return code
    if isinstance(error, OSError) and error.errno in _LOCAL_DISK:
        return error.errno
    refused = as_disk_error(error)
    return None if refused is None else ERRNO[type(refused)]


def guarded(handler: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """A handler that raises nothing but `FUSEError`."""

    @functools.wraps(handler)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(*args, **kwargs)
        except FUSEError:
            raise
        except Exception as error:
            code = errno_of(error)
            if code is None:
                log.exception("%s failed", handler.__name__)
                code = errno.EIO
            raise FUSEError(code) from error

    return answer


def silent(handler: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, Coroutine[Any, Any, None]]:
    """A handler that has nobody to answer (FORGET) and may raise nothing at all."""

    @functools.wraps(handler)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await handler(*args, **kwargs)
        except Exception:
            log.exception("%s failed", handler.__name__)

    return answer
