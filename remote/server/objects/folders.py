"""Folders of the embedded store: which they are, where in them an object lies, and in which of them it belongs.

A folder says in its `about.json` who it is, by an id that it was given when it was first used, and which master keys its objects
need. The service remembers the ids in its data folder: a folder that is known, and has lost its id, is a disk that is not
mounted, and nothing is written into the place where it was. Objects are spread over 4096 folders of each owner by their ids.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from remote.crashpoints import crash_point
from remote.server.folder import DataFolderError, write_private
from remote.server.objects.files import IncomingFile, OpenFile, length_in, unavailable
from remote.server.objects.masterkeys import MasterKeys
from remote.server.objects.names import DurableNames
from remote.server.objects.store import Listed, NoSuchObject, StoreUnavailable

INCOMING = "incoming"
ABOUT = "about.json"
_KEY = re.compile(r"([0-9a-f]{32})/(([0-9a-f]{3})[0-9a-f]{61}\.[0-9]{1,18})")
_OWNER = re.compile(r"[0-9a-f]{32}")
_END_BYTES = 48


def path_of(folder: Path, key: str) -> Path:
    """Where an object lies in a store's folder. `NoSuchObject` for a key that none has."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise NoSuchObject(key)
    owner, name, shard = match.groups()
    return folder / owner / shard / name


def ranked(ids: Collection[str], key: str) -> list[str]:
    """The folders in the order in which they are to hold an object (rendezvous hashing): a folder that comes or goes moves
    only what it takes or held."""
    return sorted(ids, key=lambda id_: hashlib.blake2b(f"{id_}/{key}".encode(), digest_size=8).digest(), reverse=True)


@dataclass(frozen=True, slots=True)
class About:
    """What a folder says of itself."""

    id: str
    master_keys: tuple[str, ...] = ()
    """Ids of those that its objects may need."""


def read_about(folder: Path) -> About | None:
    """None: it was never used. `DataFolderError`, `OSError`."""
    try:
        said = json.loads((folder / ABOUT).read_bytes())
        return About(str(said["id"]), tuple(map(str, said["master_keys"])))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataFolderError(f"{folder / ABOUT} is damaged: put it back from a backup") from error


def write_about(folder: Path, about: About) -> None:
    write_private(folder / ABOUT, json.dumps({"id": about.id, "master_keys": about.master_keys}).encode())


class ObjectFolder:
    """One of them. Blocking, for all threads; every method but `is_there` may raise `StoreUnavailable`."""

    def __init__(self, path: Path, id_: str, keys: MasterKeys) -> None:
        self.path = path
        self.id = id_
        self._keys = keys
        self._names = DurableNames()

    def is_there(self) -> bool:
        """Whether what is mounted there is this folder."""
        try:
            about = read_about(self.path)
        except (OSError, DataFolderError):
            return False
        return about is not None and about.id == self.id

    def require(self) -> None:
        if not self.is_there():
            raise StoreUnavailable(f"the object store's folder {self.path} is not there")

    def keys_needed(self) -> set[str]:
        """Ids of master keys."""
        about = read_about(self.path)
        return set() if about is None else set(about.master_keys)

    def note_keys(self, ids: Collection[bytes], *, only: bool = False) -> None:
        """Remember that objects here may need these; `only`: and no others. Before the first of them is written."""
        before = self.keys_needed()
        now = {id_.hex() for id_ in ids} | (set() if only else before)
        if now != before:
            write_about(self.path, About(self.id, tuple(sorted(now))))

    def clear(self) -> None:
        """Nobody else is using the folder: what a PUT left there goes."""
        for left_over in (self.path / INCOMING).iterdir():
            crash_point("service.start.clearing")
            left_over.unlink()

    def has(self, key: str) -> bool:
        """Whether there is a file, whole or not."""
        return path_of(self.path, key).exists()

    def incoming(self, key: str, temporary: str, failed: Callable[[], None]) -> IncomingFile:
        """`failed` is called when the folder does not take it."""
        return IncomingFile(self.path / INCOMING / temporary, path_of(self.path, key), self._names, failed)

    def open(self, key: str, *, writable: bool = False) -> OpenFile:
        """`NoSuchObject`."""
        try:
            return OpenFile(path_of(self.path, key), self._keys, writable=writable)
        except NoSuchObject:
            self.require()
            raise

    def settle(self, keys: Collection[str]) -> None:
        """These names survive power loss from now on."""
        try:
            for shard in {path_of(self.path, key).parent for key in keys}:
                self._names.settle(shard)
        except OSError as error:
            raise unavailable(error) from error

    def delete(self, key: str) -> None:
        try:
            path_of(self.path, key).unlink(missing_ok=True)
        except NoSuchObject:
            return
        except OSError as error:
            raise unavailable(error) from error

    def page(self, after: str, limit: int) -> list[Listed]:
        try:
            return list(islice(self.listing(after), limit))
        except OSError as error:
            raise StoreUnavailable(f"the object store cannot be read: {error.strerror}") from error

    def listing(self, after: str) -> Iterator[Listed]:
        """In the order of keys; whatever else lies there, too."""
        for file in self._files(after):
            with suppress(FileNotFoundError), file.open("rb") as opened:  # deleted meanwhile
                stat = file.stat()
                opened.seek(max(0, stat.st_size - _END_BYTES))
                yield Listed(f"{file.parent.parent.name}/{file.name}", length_in(stat.st_size, opened.read()), stat.st_mtime_ns)

    def _files(self, after: str) -> Iterator[Path]:
        """What lies before `after` is not even opened."""
        owners = (path for path in sorted(self.path.iterdir()) if _OWNER.fullmatch(path.name) and f"{path.name}/~" > after)
        for owner in owners:
            for shard in (path for path in sorted(owner.iterdir()) if f"{owner.name}/{path.name}~" > after):
                yield from (file for file in sorted(shard.iterdir()) if f"{owner.name}/{file.name}" > after)
