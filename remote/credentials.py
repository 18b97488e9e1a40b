"""What a home knows of its login, as one small file: who, where, and the tokens. Owns the file and its lock.

The file is replaced as a whole and durably (temporary file, fsync, rename, fsync of the folder) and is for its owner
only. Processes of one home that change it take the lock first and read it again. Knows nothing of the network.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import trio
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from remote.accountapi import Account, Tokens
from remote.api import NotAuthenticated, Unreachable
from remote.crashpoints import crash_point
from remote.endpoint import BadAddress, Endpoint
from remote.protocol import Device, Id

LOCK_SECONDS = 45.0
"""A refresh elsewhere that takes longer than this has met a service that does not answer, as we would."""
_LOCK_POLL = 0.02
_LENGTH_MAX = 2**20
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
EARLY_SECONDS = 30.0
"""So long before its end a token is renewed (or a fifth of its life, if that is less), for clocks and ways that are slow."""


class TokenPair(BaseModel):
    """Unix times in seconds: the access token ends at `expires_at`, and is renewed when it is first used after `renew_at`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    refresh_token: str = Field(repr=False)
    access_token: str = Field(repr=False)
    renew_at: float
    expires_at: float

    @classmethod
    def granted(cls, tokens: Tokens, now: float) -> TokenPair:
        """Tokens that the service granted at the time `now`."""
        early = min(EARLY_SECONDS, tokens.expires_in / 5)
        expires_at = now + tokens.expires_in
        return cls(
            refresh_token=tokens.refresh_token,
            access_token=tokens.access_token,
            renew_at=expires_at - early,
            expires_at=expires_at,
        )


class Credentials(BaseModel):
    """`tokens` are None after a logout: the rest still says whose replica and drafts the home holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    server: str
    ca: str | None = None
    insecure: bool = False
    installation: Id
    account: Account
    device: Device
    tokens: TokenPair | None

    def endpoint(self) -> Endpoint:
        """The service's address, with certificate authorities that can be read. `NotAuthenticated` if that is not so any more."""
        try:
            endpoint = Endpoint.parse(self.server, ca=Path(self.ca) if self.ca else None, insecure=self.insecure)
            if endpoint.ca is not None:
                _ = endpoint.tls
            return endpoint
        except BadAddress as error:
            raise NotAuthenticated(f"{error}: log in again (aloft login)") from error


class CredentialStore:
    """The file at `path`; its lock is a file beside it, because a file that is replaced cannot be locked itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_path = path.with_name(path.name + ".lock")
        self._temporary = path.with_name(path.name + ".new")

    def read(self) -> Credentials | None:
        """None if nobody ever logged in here; `NotAuthenticated` if the file makes no sense."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                content = os.read(descriptor, _LENGTH_MAX)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NotAuthenticated(f"cannot read {self.path}: {error.strerror}") from error
        try:
            return Credentials.model_validate_json(content)
        except ValidationError:
            raise NotAuthenticated(f"{self.path} is damaged: log in again (aloft login)") from None

    def write(self, credentials: Credentials) -> None:
        """Durable when it returns; a crash at any point leaves the old file or the new one. The caller holds the lock: what lies
        under the temporary name was left by a process that was killed."""
        content = credentials.model_dump_json(indent=1).encode()
        self._temporary.unlink(missing_ok=True)
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            crash_point("credentials.written")
            self._temporary.replace(self.path)
            crash_point("credentials.replaced")
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise
        _sync_folder(self.path.parent)

    def clear_left_overs(self) -> None:
        """Remove what killed processes left of credentials that they were writing: there are tokens in it."""
        if not self._temporary.exists():
            return
        descriptor = os.open(self._lock_path, _LOCK_FLAGS, 0o600)
        try:
            if _try_lock(descriptor):  # else somebody is writing it now
                self._temporary.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    @asynccontextmanager
    async def locked(self, seconds: float = LOCK_SECONDS) -> AsyncIterator[None]:
        """Hold the lock against other processes (and other tasks). `Unreachable` if it is not free in time."""
        descriptor = os.open(self._lock_path, _LOCK_FLAGS, 0o600)
        try:
            with trio.move_on_after(seconds) as scope:
                # Asked for again and again rather than waited for in a thread: a wait in the kernel can be neither
                # bounded nor cancelled, and a lock that a forgotten thread got would never be given back.
                while not _try_lock(descriptor):  # noqa: ASYNC110 - the other side is another process
                    await trio.sleep(_LOCK_POLL)
            if scope.cancelled_caught:
                raise Unreachable(f"another process holds {self._lock_path} and does not let go")
            yield
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EINTR):
            return False
        raise
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
