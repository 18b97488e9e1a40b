"""The file of master keys: `master.key` in the data folder, or where the configuration says.

It holds the key that wraps, and before it is dropped each that once did. It is written whole and durably, and read again when it
has changed, so that a service that runs takes a new key without being told. Whoever has lost this file has lost the objects.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from remote.server.folder import DataFolderError, make_folder, write_private
from remote.server.objects.sealing import SECRET, MasterKey


class MasterKeys:
    """For all threads."""

    def __init__(self, file: Path) -> None:
        """`DataFolderError` for a file that is there and cannot be used."""
        self.file = file
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[bytes, MasterKey] = {}
        self._refresh()

    def current(self) -> MasterKey | None:
        """The one that wraps; None: there is no file."""
        return next((key for key in self.all().values() if key.retired_ns is None), None)

    def find(self, id_: bytes) -> MasterKey | None:
        return self._keys.get(id_) or self.all().get(id_)

    def all(self) -> dict[bytes, MasterKey]:
        self._refresh()
        return self._keys

    def begin(self, now_ns: int, random: Callable[[int], bytes]) -> MasterKey:
        """A new key that wraps from now on; what wrapped before is retired."""
        fresh = MasterKey(random(SECRET), now_ns)
        former = [key if key.retired_ns is not None else replace(key, retired_ns=now_ns) for key in self.all().values()]
        self._write([fresh, *former])
        return fresh

    def adopt(self, keys: Collection[MasterKey], now_ns: int) -> None:
        """Know these, too, to read what they wrapped; the first of them wraps if none does yet."""
        known = self.all()
        others = [key for key in keys if key.id not in known]
        if known:
            others = [replace(key, retired_ns=key.retired_ns or now_ns) for key in others]
        if others:
            self._write([*known.values(), *others])

    def drop(self, ids: Collection[bytes]) -> None:
        self._write([key for key in self.all().values() if key.id not in ids])

    def _write(self, keys: list[MasterKey]) -> None:
        shown = [
            {"id": key.id.hex(), "secret": key.secret.hex(), "created_ns": key.created_ns, "retired_ns": key.retired_ns}
            for key in keys
        ]
        make_folder(self.file.parent)
        write_private(self.file, json.dumps({"keys": shown}, indent=1).encode())
        self._refresh()

    def _refresh(self) -> None:
        try:
            stat = os.stat(self.file)
        except FileNotFoundError:
            if self._keys:
                return  # what is known goes on; the next start says that the file is missing
            self._seen = None
            return
        except OSError as error:
            raise DataFolderError(f"cannot read the master key {self.file}: {error.strerror}") from error
        seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        with self._lock:
            if seen != self._seen:
                self._keys = {key.id: key for key in _read(self.file)}
                self._seen = seen


def _read(file: Path) -> list[MasterKey]:
    try:
        keys = []
        for each in json.loads(file.read_bytes())["keys"]:
            key = MasterKey(bytes.fromhex(each["secret"]), int(each["created_ns"]), each["retired_ns"])
            if len(key.secret) != SECRET or key.id.hex() != each["id"]:
                raise ValueError("a key is not the one that its id says")
            keys.append(key)
    except (ValueError, KeyError, TypeError) as error:
        raise DataFolderError(
            f"{file} is damaged: put it back from a backup, because without it the objects cannot be read"
        ) from error
    except OSError as error:
        raise DataFolderError(f"cannot read the master key {file}: {error.strerror}") from error
    return keys
