"""The embedded object store: files in folders, as many copies of each as were asked for, encrypted at rest.

A PUT is answered when every copy is durable; an interrupted one leaves files in `incoming` at most, which go at the next start.
Reads take any copy that opens, those first that lie where the object belongs. Where that is changes when folders come and go;
`check` puts copies there, and replaces the damaged. A folder that is away is no folder without objects: what is nowhere else is
unavailable, and not missing, unless there would be another copy. `files` has the format, `folders` the places, `opening` makes
a store.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, islice

from remote.crashpoints import crash_point
from remote.protocol import Link
from remote.server.folder import DataFolderError
from remote.server.keys import Keys
from remote.server.objects.files import Format, IncomingFile, IncomingObject, OpenFile, PlainFormat, SealedFormat
from remote.server.objects.folders import ObjectFolder, ranked
from remote.server.objects.masterkeys import MasterKeys
from remote.server.objects.sealing import MasterKey
from remote.server.objects.signing import Grant, sign, verify
from remote.server.objects.store import (
    LISTED,
    Checked,
    LinkBase,
    Listed,
    NoSuchObject,
    Stored,
    StoreError,
    StoreUnavailable,
)

log = logging.getLogger("aloft.server")

PREFIX = "/objects/"
AVOIDED_SECONDS = 30.0
"""A folder that could not be written to is passed over that long, if there are others."""
_ABSENT = "it is not there"
_PIECE = 2**20


class LocalStore:
    """`ObjectStore` on folders, with the data plane's side (`incoming`, `open`) for the endpoint that serves it."""

    needs_md5 = False

    def __init__(
        self,
        folders: Sequence[ObjectFolder],
        copies: int,
        masters: MasterKeys,
        keys: Keys,
        clock: Callable[[], int],
        random: Callable[[int], bytes],
        *,
        encrypt: bool,
    ) -> None:
        """`keys` sign links. See `opening.open_local`."""
        self._folders = {folder.id: folder for folder in folders}
        self._copies = copies
        self.masters = masters
        self._keys = keys
        self._clock = clock
        self._random = random
        self._encrypt = encrypt
        self._avoided: dict[str, float] = {}
        """Until when, by the monotonic clock."""

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
        lying: dict[str, list[str]] = {}
        for key in keys:
            try:
                folder, file = next(self._opened(key))
            except NoSuchObject:
                continue
            with file:
                found[key] = file.what
            lying.setdefault(folder.id, []).append(key)
        for id_, there in lying.items():
            self._folders[id_].settle(there)
        return found

    def read(self, key: str, length: int) -> bytes:
        with self.open(key) as stored:
            return stored.read(0, min(length, stored.what.length))

    def write(self, key: str, object_id: bytes, body: bytes) -> None:
        self._write(self._writable(key), key, object_id, body)

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            for folder in self._folders.values():
                folder.delete(key)
        for folder in self._folders.values():
            folder.require()  # or what lies there would be forgotten

    def listing(self, after: str = "", limit: int = LISTED) -> Sequence[Listed]:
        try:
            for folder in self._folders.values():
                folder.require()
            merged = heapq.merge(*(folder.listing(after) for folder in self._folders.values()), key=lambda listed: listed.key)
            return [next(same) for _, same in islice(groupby(merged, key=lambda listed: listed.key), limit)]
        except OSError as error:
            raise StoreUnavailable(f"the object store cannot be read: {error.strerror}") from error

    def check(self, key: str, object_id: bytes, length: int, *, mend: bool) -> Checked:
        there = {id_: folder for id_, folder in self._folders.items() if folder.is_there()}
        wrong = {id_: _what_is_wrong(there[id_], key, object_id, length) for id_ in ranked(there, key)}
        good = [id_ for id_, why in wrong.items() if why is None]
        if not good:
            for folder in self._folders.values():
                folder.require()  # or it may be there
            return Checked(next((why for why in wrong.values() if why != _ABSENT), _ABSENT))
        belongs = list(wrong)[: self._copies]
        lacking = [id_ for id_ in belongs if id_ not in good]
        surplus = [id_ for id_, why in wrong.items() if id_ not in belongs and why != _ABSENT]
        if mend and (lacking or surplus):
            try:
                self._place(key, object_id, there[good[0]], [there[id_] for id_ in lacking], [there[id_] for id_ in surplus])
            except StoreUnavailable as error:
                log.error("a copy of an object could not be put where it belongs: %s", error)
                mend = False
        return Checked(None, lacking=len(lacking), surplus=len(surplus), mended=mend)

    def _place(
        self,
        key: str,
        object_id: bytes,
        source: ObjectFolder,
        lacking: Sequence[ObjectFolder],
        surplus: Sequence[ObjectFolder],
    ) -> None:
        """Put copies where they lack, and only then take away what lies elsewhere. `StoreUnavailable`."""
        if lacking:
            with source.open(key) as file:
                body = file.read(0, file.what.length)
            for folder in lacking:
                self.write_in(folder, key, object_id, body)
                crash_point("service.object.copied")
        for folder in surplus:
            folder.delete(key)

    def replicas(self, keys: Sequence[str]) -> Mapping[str, Sequence[str]]:
        there = {id_: folder for id_, folder in self._folders.items() if folder.is_there()}
        return {key: [id_ for id_ in ranked(there, key) if there[id_].has(key)] for key in keys}

    def close(self) -> None:
        """There is nothing to let go of."""

    # -------------------------------------------------------------------------------------------------- administration

    @property
    def folders(self) -> Sequence[ObjectFolder]:
        return list(self._folders.values())

    def write_in(self, folder: ObjectFolder, key: str, object_id: bytes, body: bytes) -> None:
        """As `write`, but just this copy."""
        self._write([folder], key, object_id, body)

    # --------------------------------------------------------------------------------------------- the data plane

    def verify(self, method: str, key: str, query: str, address: str) -> Grant:
        """What the link allows whoever comes from there; `signing.BadLink`."""
        return verify(method, key, query, self._keys, self._clock() / 10**9, address)

    def incoming(self, grant: Grant) -> IncomingObject:
        """Begin to receive the object of a PUT. `StoreUnavailable`."""
        if grant.length is None or grant.sha256 is None:
            raise ValueError("not the grant of a PUT")
        return self._begin(self._writable(grant.key), grant.key, grant.length, grant.sha256)

    def open(self, key: str) -> OpenObject:
        """`NoSuchObject`, `StoreUnavailable`."""
        return OpenObject(file for _, file in self._opened(key))

    # ------------------------------------------------------------------------------------------------------- copies

    def _opened(self, key: str) -> Iterator[tuple[ObjectFolder, OpenFile]]:
        """The copies that open, best first. `NoSuchObject` if there is none. `StoreUnavailable` if there may be one all the same:
        as many folders are away as there are copies."""
        away: list[StoreUnavailable] = []
        missing = NoSuchObject(key)
        is_found = False
        for id_ in ranked(self._folders, key):
            try:
                file = self._folders[id_].open(key)
            except NoSuchObject as error:
                missing = error
                continue
            except StoreUnavailable as error:
                away.append(error)
                continue
            is_found = True
            yield self._folders[id_], file
        if not is_found:
            raise missing if len(away) < self._copies else away[0]

    def _writable(self, key: str) -> list[ObjectFolder]:
        """The folders that are to get an object now: those where it belongs, and in the place of others that cannot the next."""
        now = time.monotonic()
        order = ranked(self._folders, key)
        order.sort(key=lambda id_: self._avoided.get(id_, 0.0) > now)
        chosen: list[ObjectFolder] = []
        for id_ in order:
            if len(chosen) == self._copies:
                break
            if self._folders[id_].is_there():
                chosen.append(self._folders[id_])
            else:
                log.error("the object store's folder %s is not there: is its disk mounted?", self._folders[id_].path)
        if len(chosen) < self._copies:
            raise StoreUnavailable(
                f"{self._copies} copies are to be kept, and {len(chosen)} folders of the object store are there"
            )
        return chosen

    def _begin(self, folders: Sequence[ObjectFolder], key: str, length: int, sha256: bytes) -> IncomingObject:
        temporary = self._random(16).hex()
        files: list[IncomingFile] = []
        try:
            for folder in folders:
                files.append(folder.incoming(key, temporary, partial(self._avoid, folder.id)))
        except StoreUnavailable:
            for file in files:
                file.discard()
            raise
        return IncomingObject(files, length, sha256, self._format(length, sha256))

    def _avoid(self, id_: str) -> None:
        self._avoided[id_] = time.monotonic() + AVOIDED_SECONDS

    def _format(self, length: int, sha256: bytes) -> Format:
        if not self._encrypt:
            return PlainFormat(length, sha256)
        return SealedFormat(length, sha256, self._master, self._random)

    def _master(self) -> MasterKey:
        try:
            master = self.masters.current()
        except DataFolderError as error:
            raise StoreUnavailable(str(error)) from error
        if master is None:
            raise StoreUnavailable(f"the object store has no master key in {self.masters.file}")
        return master

    def _write(self, folders: Sequence[ObjectFolder], key: str, object_id: bytes, body: bytes) -> None:
        incoming = self._begin(folders, key, len(body), object_id)
        try:
            incoming.write(body)
            incoming.finish()
        finally:
            incoming.discard()

    def _url(self, base: LinkBase, grant: Grant) -> str:
        return f"{base.url}{PREFIX}{grant.key}?{sign(grant, self._keys.signing())}"

    def _expiry(self, seconds: int) -> int:
        return self._clock() // 10**9 + seconds


class OpenObject:
    """An object that is being read; `what` is what its trailer says. Blocking.

    A copy that does not give its bytes, or not those that were stored, is left for the next one.
    """

    def __init__(self, copies: Iterator[OpenFile]) -> None:
        """`NoSuchObject`, `StoreUnavailable`."""
        self._copies = copies
        self._file = next(copies)
        self.what = self._file.what

    def read(self, offset: int, length: int) -> bytes:
        """`StoreUnavailable`; `NoSuchObject`: no copy is what was stored."""
        while True:
            try:
                piece = self._file.read(offset, length)
                if len(piece) < min(length, self.what.length - offset):
                    raise NoSuchObject("its file became shorter")
                return piece
            except StoreError as error:
                log.error("a copy of an object cannot be read: %s", error)
                if not self._take_next():
                    raise

    def _take_next(self) -> bool:
        try:
            for following in self._copies:
                if following.what == self.what:
                    self._file.close()
                    self._file = following
                    return True
                following.close()
        except StoreError as error:
            log.error("a copy of an object cannot be opened: %s", error)
        return False

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> OpenObject:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _what_is_wrong(folder: ObjectFolder, key: str, object_id: bytes, length: int) -> str | None:
    """None: the copy is there, all of it."""
    try:
        with folder.open(key) as file:
            return None if _is_whole(file, object_id, length) else "its bytes are not those that its name says"
    except NoSuchObject as error:
        return str(error) if folder.has(key) else _ABSENT
    except StoreUnavailable as error:
        return f"it cannot be read ({error})"


def _is_whole(file: OpenFile, object_id: bytes, length: int) -> bool:
    if file.what.length != length:
        return False
    hashed = hashlib.sha256()
    for offset in range(0, length, _PIECE):
        hashed.update(file.read(offset, min(_PIECE, length - offset)))
    return hashed.digest() == object_id
