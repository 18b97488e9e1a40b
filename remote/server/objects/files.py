"""The files of the embedded store: their format, how one comes to be, how it is read, and how its key is wrapped anew.

    plain       the bytes, then a trailer of 48 bytes: magic `ALOFTOB1`, length, SHA-256
    encrypted   sealed segments (`sealing`), two slots of 68 bytes, a trailer with magic `ALOFTOB2`, the plain length, and the
                SHA-256 of the plain bytes

By the trailer the store can say what an object is without reading it all. A slot holds the object's key as a master key
wrapped it: the master key's id, a nonce, the wrapped key; zeros are no key. Wrapping anew writes the slot that is free, and
clears the other one only when that is durable, so at every moment one of them is whole. What is written here is little-endian.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from remote.crashpoints import crash_point
from remote.server.folder import DataFolderError
from remote.server.objects.masterkeys import MasterKeys
from remote.server.objects.names import DurableNames
from remote.server.objects.sealing import (
    KEY_ID,
    SECRET,
    SEGMENT,
    TAG,
    WRAP_NONCE,
    WRAPPED,
    Buffer,
    DoesNotOpen,
    MasterKey,
    ObjectKey,
    sealed_length,
)
from remote.server.objects.store import NoSuchObject, Stored, StoreUnavailable

_TRAILER = struct.Struct("<8sQ32s")
_PLAIN = b"ALOFTOB1"
_SEALED = b"ALOFTOB2"
_SLOT = struct.Struct(f"<{KEY_ID}s{WRAP_NONCE}s{WRAPPED}s")
_NO_KEY = bytes(_SLOT.size)
_SLOTS = 2
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}

Random = Callable[[int], bytes]


class WrongBody(Exception):
    """The bytes are not those that the link was signed for."""


def unavailable(error: OSError) -> StoreUnavailable:
    reason = "has no room" if error.errno in _NO_ROOM else "cannot be written"
    return StoreUnavailable(f"the object store {reason}: {error.strerror}")


def length_in(size: int, last: bytes) -> int:
    """Of an object, from its file's size and last bytes; whatever else lies there is as long as it seems."""
    with suppress(struct.error):
        magic, length, _ = _TRAILER.unpack(last[-_TRAILER.size :])
        if magic in (_PLAIN, _SEALED):
            return int(length)
    return size


# --------------------------------------------------------------------------------------------------------------- writing


class Format(Protocol):
    """What becomes of an object's bytes on their way into a file."""

    def add(self, piece: Buffer) -> Buffer: ...

    def end(self) -> bytes:
        """What the file ends with."""


class PlainFormat:
    def __init__(self, length: int, sha256: bytes) -> None:
        self._trailer = _TRAILER.pack(_PLAIN, length, sha256)

    def add(self, piece: Buffer) -> Buffer:
        return piece

    def end(self) -> bytes:
        return self._trailer


class SealedFormat:
    """`master` is asked for when the object is whole: the key that wraps then."""

    def __init__(self, length: int, sha256: bytes, master: Callable[[], MasterKey], random: Random) -> None:
        self._key = ObjectKey(random(SECRET), length)
        self._trailer = _TRAILER.pack(_SEALED, length, sha256)
        self._master = master
        self._random = random
        self._rest = bytearray()
        self._number = 0

    def add(self, piece: Buffer) -> Buffer:
        self._rest += piece
        whole = len(self._rest) // SEGMENT * SEGMENT
        return self._seal(whole) if whole else b""

    def end(self) -> bytes:
        last = self._seal(len(self._rest)) if self._rest else b""
        return last + _slot(self._key.secret, self._master(), self._trailer, self._random) + _NO_KEY + self._trailer

    def _seal(self, length: int) -> bytes:
        with memoryview(self._rest) as rest:
            sealed = []
            for begin in range(0, length, SEGMENT):
                sealed.append(self._key.seal(self._number, rest[begin : min(begin + SEGMENT, length)]))
                self._number += 1
        del self._rest[:length]
        return b"".join(sealed)


def _slot(secret: bytes, master: MasterKey, about: bytes, random: Random) -> bytes:
    nonce = random(WRAP_NONCE)
    return _SLOT.pack(master.id, nonce, master.wrap(secret, nonce, about))


class IncomingFile:
    """A file that gets its name when it is whole and durable. Blocking; `StoreUnavailable`, after `failed` was called."""

    def __init__(self, temporary: Path, file: Path, names: DurableNames, failed: Callable[[], None]) -> None:
        self._temporary = temporary
        self._file = file
        self._names = names
        self._failed = failed
        self._descriptor: int | None = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with self._or_unavailable():
            self._descriptor = os.open(temporary, flags, 0o600)

    def append(self, piece: Buffer) -> None:
        rest = memoryview(piece)
        with self._or_unavailable():
            while rest:
                rest = rest[os.write(self._open_descriptor(), rest) :]

    def finish(self) -> None:
        with self._or_unavailable():
            os.fsync(self._open_descriptor())
            self._close()
            crash_point("service.object.synced")
            self._names.make(self._file.parent)
            with self._names.coming(self._file.parent):
                self._temporary.rename(self._file)
                crash_point("service.object.renamed")

    @contextmanager
    def _or_unavailable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failed()
            raise unavailable(error) from error

    def discard(self) -> None:
        """Leave nothing behind (where the disk refuses, until the next start); also after `finish`, where there is nothing."""
        with suppress(OSError):
            self._close()
            self._temporary.unlink(missing_ok=True)

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError("this object is finished")
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


class IncomingObject:
    """One PUT, into one file or several: `write` the pieces, then `finish` or `discard`. Blocking."""

    def __init__(self, files: Sequence[IncomingFile], length: int, sha256: bytes, format_: Format) -> None:
        self._files = files
        self._length = length
        self.sha256 = sha256
        self._format = format_
        self._hash = hashlib.sha256()
        self._received = 0

    def write(self, piece: bytes | bytearray) -> None:
        """`WrongBody` as soon as there is too much of it, `StoreUnavailable` if there is no room."""
        self._received += len(piece)
        if self._received > self._length:
            raise WrongBody(f"more than the {self._length} bytes that were signed")
        self._hash.update(piece)
        self._append(self._format.add(piece))
        crash_point("service.object.receiving")

    def finish(self) -> None:
        """The object is there, and stays there through a power loss. `WrongBody`, `StoreUnavailable`."""
        if self._received != self._length:
            raise WrongBody(f"{self._received} bytes instead of the {self._length} that were signed")
        if self._hash.digest() != self.sha256:
            raise WrongBody("the bytes do not have the SHA-256 that was signed")
        crash_point("service.object.verified")
        self._append(self._format.end())
        for file in self._files:
            file.finish()
        crash_point("service.object.stored")

    def discard(self) -> None:
        for file in self._files:
            file.discard()

    def _append(self, piece: Buffer) -> None:
        for file in self._files:
            file.append(piece)


# --------------------------------------------------------------------------------------------------------------- reading


class OpenFile:
    """A stored object's file; `what` is what its trailer says. Blocking."""

    def __init__(self, file: Path, keys: MasterKeys, *, writable: bool = False) -> None:
        """`NoSuchObject` also for a file that is damaged. `StoreUnavailable`."""
        try:
            self._descriptor = os.open(file, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoSuchObject(file.name) from None
        except OSError as error:
            raise StoreUnavailable(f"the object store cannot be read: {error.strerror}") from error
        self._keys = keys
        self._key: ObjectKey | None = None
        try:
            self.what, self.is_sealed, self._slots = self._read_end()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _read_end(self) -> tuple[Stored, bool, list[bytes]]:
        most = _TRAILER.size + _SLOTS * _SLOT.size
        try:
            size = os.fstat(self._descriptor).st_size
            end = os.pread(self._descriptor, most, max(0, size - most))
        except OSError as error:
            raise StoreUnavailable(f"the object store cannot be read: {error.strerror}") from error
        if len(end) >= _TRAILER.size:
            magic, length, sha256 = _TRAILER.unpack(end[-_TRAILER.size :])
            what = Stored(length, sha256, sha256.hex())
            if magic == _PLAIN and length + _TRAILER.size == size:
                return what, False, []
            if magic == _SEALED and sealed_length(length) + most == size:
                return what, True, [end[: _SLOT.size], end[_SLOT.size : 2 * _SLOT.size]]
        raise NoSuchObject("its file is damaged")

    @property
    def wrapped_by(self) -> list[bytes]:
        """The ids of the master keys of which one is needed."""
        return [slot[:KEY_ID] for slot in self._slots if slot != _NO_KEY]

    @property
    def has_other_names(self) -> bool:
        """Hard links, as a backup may be: what is changed here would change there."""
        return os.fstat(self._descriptor).st_nlink > 1

    def read(self, offset: int, length: int) -> bytes:
        """Empty: there is no more. `StoreUnavailable`; `NoSuchObject`: this is not what was stored."""
        try:
            if not self.is_sealed:
                return os.pread(self._descriptor, min(length, max(0, self.what.length - offset)), offset)
            return self._read_sealed(offset, length)
        except OSError as error:
            raise StoreUnavailable(f"the object store cannot be read: {error.strerror}") from error
        except DataFolderError as error:  # the file of keys, which was looked at again for this object's
            raise StoreUnavailable(str(error)) from error
        except DoesNotOpen as error:
            raise NoSuchObject(f"its file is damaged: {error}") from error

    def _read_sealed(self, offset: int, length: int) -> bytes:
        if self._key is None:
            self._key = ObjectKey(self._unwrap(), self.what.length)
        numbers = self._key.segments(offset, length)
        if not numbers:
            return b""
        begin = numbers.start * (SEGMENT + TAG)
        end = min(numbers.stop * (SEGMENT + TAG), sealed_length(self.what.length))
        sealed = os.pread(self._descriptor, end - begin, begin)
        plain = b"".join(self._key.open(numbers, sealed))
        skipped = offset - numbers.start * SEGMENT
        return plain[skipped : skipped + length] if skipped or len(plain) > length else plain

    def _unwrap(self) -> bytes:
        for slot in self._slots:
            if (secret := self._secret_in(slot)) is not None:
                return secret
        if not any(self._keys.find(id_) for id_ in self.wrapped_by):
            wanted = ", ".join(id_.hex() for id_ in self.wrapped_by)
            raise StoreUnavailable(f"the master key ({wanted}) of an object is not in {self._keys.file}")
        raise DoesNotOpen("its wrapped key is damaged")

    def _secret_in(self, slot: bytes) -> bytes | None:
        """None: it is empty, of a key that is not there, or was being written; then the other one is whole."""
        id_, nonce, wrapped = _SLOT.unpack(slot)
        master = None if slot == _NO_KEY else self._keys.find(id_)
        if master is None:
            return None
        try:
            return master.unwrap(wrapped, nonce, self._about())
        except DoesNotOpen:
            return None

    def _about(self) -> bytes:
        return _TRAILER.pack(_SEALED, self.what.length, self.what.sha256)

    def wrap(self, master: MasterKey, random: Random) -> None:
        """Let `master` be the only one that is needed. Killed at any moment, the object opens. `DoesNotOpen`, `OSError`."""
        times = os.fstat(self._descriptor)
        secret = self._unwrap()
        usable = next(number for number, slot in enumerate(self._slots) if self._secret_in(slot) is not None)
        free, place = 1 - usable, sealed_length(self.what.length)
        if self._slots[usable][:KEY_ID] != master.id:
            self._put_slot(place, free, _slot(secret, master, self._about(), random))
            crash_point("service.rewrap.wrapped")
            free = usable
        self._put_slot(place, free, _NO_KEY)
        os.utime(self._descriptor, ns=(times.st_atime_ns, times.st_mtime_ns))

    def _put_slot(self, place: int, number: int, slot: bytes) -> None:
        if self._slots[number] != slot:
            os.pwrite(self._descriptor, slot, place + number * _SLOT.size)
            os.fdatasync(self._descriptor)
            self._slots[number] = slot

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()
