"""The embedded object store: files in a folder.

An object is one file: its bytes, then a trailer of 48 bytes (magic, length, SHA-256) by which the store can later say what it
holds without reading it all. A file appears under its name only when its bytes were checked and are durable; what an
interrupted PUT leaves lies in `incoming`, and goes at the next start. Files are spread over 4096 folders by the object's id.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from remote.crashpoints import crash_point
from remote.protocol import Link
from remote.server.folder import make_folder
from remote.server.keys import Keys
from remote.server.objects.names import DurableNames
from remote.server.objects.signing import Grant, sign, verify
from remote.server.objects.store import LISTED, LinkBase, Listed, NoSuchObject, Stored, StoreUnavailable

log = logging.getLogger("aloft.server")

PREFIX = "/objects/"
_KEY = re.compile(r"([0-9a-f]{32})/(([0-9a-f]{3})[0-9a-f]{61}\.[0-9]{1,18})")
_TRAILER = struct.Struct("<8sQ32s")
_MAGIC = b"ALOFTOB1"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}


class WrongBody(Exception):
    """The bytes are not those that the link was signed for."""


def path_of(folder: Path, key: str) -> Path:
    """Where an object lies in a store's folder. `NoSuchObject` for a key that none has."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise NoSuchObject(key)
    owner, name, shard = match.groups()
    return folder / owner / shard / name


class LocalStore:
    """`ObjectStore` on a folder, with the data plane's side (`incoming`, `open`) for the endpoint that serves it."""

    needs_md5 = False

    def __init__(
        self, folder: Path, keys: Keys, clock: Callable[[], int], random: Callable[[int], bytes], *, clear: bool = True
    ) -> None:
        """`clear`: nobody else is using the folder, so what a PUT left there goes."""
        self._folder = folder
        self._incoming = folder / "incoming"
        self._keys = keys
        self._clock = clock
        self._random = random
        self._names = DurableNames()
        make_folder(folder)
        make_folder(self._incoming)
        for left_over in self._incoming.iterdir() if clear else ():
            crash_point("service.start.clearing")
            left_over.unlink()

    # ------------------------------------------------------------------------------------------------ ObjectStore

    def sign_put(
        self, base: LinkBase, key: str, object_id: bytes, length: int, expires_in: int, md5: bytes | None = None
    ) -> Link:
        grant = Grant("PUT", key, self._expiry(expires_in), length, object_id, base.address)
        return Link(id=object_id, method="PUT", url=self._url(base, grant), headers={"Content-Length": str(length)})

    def sign_get(self, base: LinkBase, key: str, object_id: bytes, expires_in: int) -> Link:
        grant = Grant("GET", key, self._expiry(expires_in), address=base.address)
        return Link(id=object_id, method="GET", url=self._url(base, grant))

    def stat(self, keys: Sequence[str]) -> Mapping[str, Stored]:
        """What is found stays there through a power loss, also where another PUT of it is not finished yet."""
        found: dict[str, Stored] = {}
        for key in keys:
            try:
                with self.open(key) as stored:
                    found[key] = stored.what
            except NoSuchObject:
                continue
        for folder in {self._file(key).parent for key in found}:
            self._settle(folder)
        return found

    def read(self, key: str, length: int) -> bytes:
        with self.open(key) as stored:
            body = stored.read(0, min(length, stored.what.length))
        if len(body) < min(length, stored.what.length):
            raise StoreUnavailable("the object store does not give an object")
        return body

    def write(self, key: str, object_id: bytes, body: bytes) -> None:
        incoming = IncomingObject(self._incoming / self._random(16).hex(), self._file(key), len(body), object_id, self._names)
        try:
            incoming.write(body)
            incoming.finish()
        finally:
            incoming.discard()

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                self._file(key).unlink(missing_ok=True)
            except NoSuchObject:
                continue
            except OSError as error:
                raise _unavailable(error) from error

    def listing(self, after: str = "", limit: int = LISTED) -> Sequence[Listed]:
        try:
            return list(islice(self._listed(after), limit))
        except OSError as error:
            raise StoreUnavailable(f"the object store cannot be read: {error.strerror}") from error

    def _listed(self, after: str) -> Iterator[Listed]:
        for file in self._files(after):
            with suppress(FileNotFoundError):  # deleted meanwhile
                stat = file.stat()
                length = max(0, stat.st_size - _TRAILER.size)
                yield Listed(f"{file.parent.parent.name}/{file.name}", length, stat.st_mtime_ns)

    def _files(self, after: str) -> Iterator[Path]:
        """In the order of keys. What lies before `after` is not even opened."""
        owners = (path for path in sorted(self._folder.iterdir()) if path != self._incoming and f"{path.name}/~" > after)
        for owner in owners:
            for shard in (path for path in sorted(owner.iterdir()) if f"{owner.name}/{path.name}~" > after):
                yield from (file for file in sorted(shard.iterdir()) if f"{owner.name}/{file.name}" > after)

    def close(self) -> None:
        """There is nothing to let go of."""

    # --------------------------------------------------------------------------------------------- the data plane

    def verify(self, method: str, key: str, query: str, address: str) -> Grant:
        """What the link allows whoever comes from there; `signing.BadLink`."""
        return verify(method, key, query, self._keys, self._clock() / 10**9, address)

    def incoming(self, grant: Grant) -> IncomingObject:
        """Begin to receive the object of a PUT. `StoreUnavailable`."""
        if grant.length is None or grant.sha256 is None:
            raise ValueError("not the grant of a PUT")
        temporary, file = self._incoming / self._random(16).hex(), self._file(grant.key)
        return IncomingObject(temporary, file, grant.length, grant.sha256, self._names)

    def open(self, key: str) -> OpenObject:
        """`NoSuchObject`, `StoreUnavailable`."""
        try:
            return OpenObject(os.open(self._file(key), os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            raise NoSuchObject(key) from None
        except OSError as error:
            raise StoreUnavailable(f"the object store cannot be read: {error.strerror}") from error

    def _file(self, key: str) -> Path:
        return path_of(self._folder, key)

    def _settle(self, folder: Path) -> None:
        try:
            self._names.settle(folder)
        except OSError as error:
            raise _unavailable(error) from error

    def _url(self, base: LinkBase, grant: Grant) -> str:
        return f"{base.url}{PREFIX}{grant.key}?{sign(grant, self._keys.signing())}"

    def _expiry(self, seconds: int) -> int:
        return self._clock() // 10**9 + seconds


class IncomingObject:
    """One PUT: `write` the pieces, then `finish` or `discard`. Blocking."""

    def __init__(self, temporary: Path, file: Path, length: int, sha256: bytes, names: DurableNames) -> None:
        self._temporary = temporary
        self._file = file
        self._length = length
        self.sha256 = sha256
        self._names = names
        self._hash = hashlib.sha256()
        self._received = 0
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor: int | None = os.open(temporary, flags, 0o600)
        except OSError as error:
            raise _unavailable(error) from error

    def write(self, piece: bytes | bytearray) -> None:
        """`WrongBody` as soon as there is too much of it, `StoreUnavailable` if there is no room."""
        self._received += len(piece)
        if self._received > self._length:
            raise WrongBody(f"more than the {self._length} bytes that were signed")
        self._hash.update(piece)
        self._append(piece)
        crash_point("service.object.receiving")

    def finish(self) -> None:
        """The object is there, and stays there through a power loss. `WrongBody`, `StoreUnavailable`."""
        if self._received != self._length:
            raise WrongBody(f"{self._received} bytes instead of the {self._length} that were signed")
        if self._hash.digest() != self.sha256:
            raise WrongBody("the bytes do not have the SHA-256 that was signed")
        crash_point("service.object.verified")
        self._append(_TRAILER.pack(_MAGIC, self._length, self.sha256))
        try:
            os.fsync(self._open_descriptor())
            self._close()
            crash_point("service.object.synced")
            self._names.make(self._file.parent)
            with self._names.coming(self._file.parent):
                self._temporary.rename(self._file)
                crash_point("service.object.renamed")
            crash_point("service.object.stored")
        except OSError as error:
            raise _unavailable(error) from error

    def discard(self) -> None:
        """Leave nothing behind (where the disk refuses, until the next start); also after `finish`, where there is nothing."""
        with suppress(OSError):
            self._close()
            self._temporary.unlink(missing_ok=True)

    def _append(self, piece: bytes | bytearray) -> None:
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[os.write(self._open_descriptor(), rest) :]
        except OSError as error:
            raise _unavailable(error) from error

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError("this object is finished")
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


class OpenObject:
    """An object that is being read; `what` is what its trailer says. Blocking."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        try:
            self.what = _read_trailer(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def read(self, offset: int, length: int) -> bytes:
        """Empty: there is no more, or the disk does not give it."""
        try:
            return os.pread(self._descriptor, length, offset)
        except OSError as error:
            log.error("an object cannot be read: %s", error.strerror)
            return b""

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> OpenObject:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _read_trailer(descriptor: int) -> Stored:
    try:
        size = os.fstat(descriptor).st_size
        trailer = os.pread(descriptor, _TRAILER.size, max(0, size - _TRAILER.size))
    except OSError as error:
        raise StoreUnavailable(f"the object store cannot be read: {error.strerror}") from error
    if len(trailer) == _TRAILER.size:
        magic, length, sha256 = _TRAILER.unpack(trailer)
        if magic == _MAGIC and length == size - _TRAILER.size:
            return Stored(length, sha256, sha256.hex())
    raise NoSuchObject("the file is damaged")


def _unavailable(error: OSError) -> StoreUnavailable:
    reason = "has no room" if error.errno in _NO_ROOM else "cannot be written"
    return StoreUnavailable(f"the object store {reason}: {error.strerror}")
