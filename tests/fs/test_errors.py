"""Every exception of the layers below has an errno, and nothing but `FUSEError` leaves a handler."""

from __future__ import annotations

import errno
import inspect

import pytest
from pyfuse3 import FUSEError

from cache import errors
from fs.errors import ERRNO, errno_of, guarded, silent


def test_every_error_of_the_cache_layer_is_in_the_table() -> None:
    kinds = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.CacheError)}
    assert kinds - {errors.CacheError} <= ERRNO.keys()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Offline("x"), errno.ENETDOWN),
        (errors.TimedOut("x"), errno.ETIMEDOUT),
        (errors.CorruptData("x"), errno.EIO),
        (errors.DiskFull("x"), errno.ENOSPC),
        (errors.DiskFailed("x"), errno.EIO),
        (OSError(errno.EIO, "x"), errno.EIO),
        (OSError(errno.ENOSPC, "x"), errno.ENOSPC),
        (OSError(errno.EACCES, "x"), None),
        (ZeroDivisionError(), None),
    ],
)
def test_the_errno_of(error: Exception, code: int | None) -> None:
    assert errno_of(error) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [(errors.NoEntry("x"), errno.ENOENT), (FUSEError(errno.EPERM), errno.EPERM), (RuntimeError("bug"), errno.EIO)],
)
async def test_a_guarded_handler_raises_only_what_the_kernel_understands(error: Exception, code: int) -> None:
    @guarded
    async def handler() -> None:
        raise error

    with pytest.raises(FUSEError) as raised:
        await handler()
    assert raised.value.errno == code


async def test_a_bug_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    @guarded
    async def handler() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(FUSEError):
        await handler()
    assert "a bug" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_silent_handler_raises_nothing() -> None:
    @silent
    async def handler() -> None:
        raise RuntimeError("a bug")

    await handler()
