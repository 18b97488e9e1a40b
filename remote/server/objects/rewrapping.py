"""A new master key for an embedded store that may be running: every object's key is wrapped by it, and what is plain encrypted.

The former key stays in the file for what is being stored in this moment; when that is past, and no object needs it, a second run
drops it. Killed at any moment, every object opens, and a run goes on. Blocking.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from remote.crashpoints import crash_point
from remote.server.folder import DataFolderError
from remote.server.objects.folders import ObjectFolder
from remote.server.objects.local import LocalStore
from remote.server.objects.sealing import DoesNotOpen, MasterKey
from remote.server.objects.store import Listed, NoSuchObject

AT_ONCE = 8
"""Objects; each is synced."""
STEP = 1000
KEPT_NS = 3600 * 10**9
"""After that, nothing is stored any more under a key that was retired."""

Told = Callable[[int], None]
"""Hears how many files are done."""


@dataclass(slots=True)
class Rewrapped:
    key: str
    """Id of the master key that wraps now; in a dry run, too, the one that is there."""
    files: int = 0
    rewrapped: int = 0
    encrypted: int = 0
    """Files that were plain."""
    damaged: list[str] = field(default_factory=list)
    """Keys of objects that do not open; they are left as they are."""
    former: list[str] = field(default_factory=list)
    """Ids of master keys that are in the file still."""
    dropped: list[str] = field(default_factory=list)


class Rewrapping:
    def __init__(self, store: LocalStore, data: Path, clock: Callable[[], int], random: Callable[[int], bytes]) -> None:
        """`data`: the data folder, in which one of these works at a time."""
        self._store = store
        self._data = data
        self._clock = clock
        self._random = random

    def run(self, *, finish: bool = False, dry_run: bool = False, told: Told = lambda done: None) -> Rewrapped:
        """`finish`: make no new key; drop former ones. `DataFolderError`, `StoreUnavailable`, `OSError`."""
        with self._alone():
            for folder in self._store.folders:
                folder.require()
            masters = self._store.masters
            master = masters.current() if finish or dry_run else masters.begin(self._clock(), self._random)
            if master is None:
                raise DataFolderError(f"there is no master key in {masters.file}: nothing is encrypted yet")
            crash_point("service.rewrap.begun")
            report = Rewrapped(master.id.hex())
            for folder in self._store.folders:
                if not dry_run:
                    folder.note_keys([master.id])
                self._go_through(folder, master, report, told, dry_run=dry_run)
            if finish and not dry_run and not report.damaged:
                report.dropped = self._drop_former()
            report.former = [id_.hex() for id_ in masters.all() if id_ != master.id]
            return report

    def _go_through(self, folder: ObjectFolder, master: MasterKey, report: Rewrapped, told: Told, *, dry_run: bool) -> None:
        def look_at(listed: Listed) -> str | None:
            return self._rewrap(folder, listed.key, master, dry_run=dry_run)

        after = ""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            while some := folder.page(after, STEP):
                for listed, done in zip(some, threads.map(look_at, some), strict=True):
                    if done is not None:
                        report.files += 1
                    report.rewrapped += done == "rewrapped"
                    report.encrypted += done == "encrypted"
                    if done == "damaged":
                        report.damaged.append(listed.key)
                told(report.files)
                after = some[-1].key

    def _rewrap(self, folder: ObjectFolder, key: str, master: MasterKey, *, dry_run: bool) -> str | None:
        """What was (or would be) done; None: it is gone, or no object."""
        try:
            with folder.open(key, writable=not dry_run) as file:
                if file.wrapped_by == [master.id]:
                    return "right"
                done = "rewrapped" if file.is_sealed else "encrypted"
                if file.is_sealed and not file.has_other_names:
                    if not dry_run:
                        file.wrap(master, self._random)
                    return done
                body = file.read(0, file.what.length)
                object_id = file.what.sha256
        except DoesNotOpen:
            return "damaged"
        except NoSuchObject:
            return "damaged" if folder.has(key) else None
        if object_id is None or hashlib.sha256(body).digest() != object_id:
            return "damaged"
        if not dry_run:
            self._store.write_in(folder, key, object_id, body)
        return done

    def _drop_former(self) -> list[str]:
        until = self._clock() - KEPT_NS
        masters = self._store.masters
        ended = [id_ for id_, key in masters.all().items() if key.retired_ns is not None and key.retired_ns < until]
        if ended:
            for folder in self._store.folders:  # first: a folder that needs a key that is gone is refused
                folder.note_keys(masters.all().keys() - ended, only=True)
            crash_point("service.rewrap.dropping")
            masters.drop(ended)
        return [id_.hex() for id_ in ended]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._data / "rewrap.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataFolderError("the objects are being rewrapped already: wait for that") from None
            yield
