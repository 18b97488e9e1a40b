"""Which folders of objects are known to hold their names through a power loss. Knows no objects.

A process that was killed may have left names that nobody synced, so a folder is taken for durable only once this process has
synced it; and while a name is being put into it, only after syncing it again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remote.server.folder import sync_folder

REMEMBERED = 50_000
"""Folders; beyond that all are forgotten, and synced once more when they come up."""


class DurableNames:
    """For worker threads. The folders are `<root>/<owner>/<shard>`; `root` is durable itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: set[Path] = set()
        """Folders whose own names are durable."""
        self._settled: set[Path] = set()
        """Folders of which all names are durable, but for those that come now."""
        self._coming: Counter[Path] = Counter()

    def make(self, folder: Path) -> None:
        """The shard's folder is there and stays there, and so does its owner's."""
        with self._lock:  # so that nobody takes a folder for durable that another thread has made and not yet synced
            if len(self._made) + len(self._settled) > REMEMBERED:
                self._made.clear()
                self._settled.clear()
            for path in (folder.parent, folder):
                if path not in self._made:
                    path.mkdir(mode=0o700, exist_ok=True)
                    sync_folder(path.parent)
                    self._made.add(path)

    @contextmanager
    def coming(self, folder: Path) -> Iterator[None]:
        """A name is put into `folder` inside of this, and durable at the end of it."""
        with self._lock:
            self._coming[folder] += 1
        try:
            yield
            sync_folder(folder)
            with self._lock:
                self._settled.add(folder)
        except BaseException:
            with self._lock:
                self._settled.discard(folder)
            raise
        finally:
            with self._lock:
                self._coming[folder] -= 1
                if not self._coming[folder]:
                    del self._coming[folder]

    def settle(self, folder: Path) -> None:
        """Every name that is in `folder` now survives power loss from now on."""
        with self._lock:
            if folder in self._settled and folder not in self._coming:
                return
        self.make(folder)
        sync_folder(folder)
        with self._lock:
            if folder not in self._coming:
                self._settled.add(folder)
