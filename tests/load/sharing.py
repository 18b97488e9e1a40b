"""Workers that share: two writers in one folder on the two devices, and readers of contents that never change."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from tests.load import ledger
from tests.load.ledger import Ledger, content, token_of
from tests.load.work import Disturbed, Task, Worker, difference, read_at

NAMES = tuple(f"shared{number}" for number in range(8))
MOST = 200_000
COPIES = 30
"""Conflicted copies that may lie about; more are read and removed."""


class SharedWriter(Worker):
    """Writes whole contents into files that the other device writes too. Only this one removes the copies of its device, which
    nobody writes."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._ledger = Ledger(task.scratch / "ledger")
        self._count = 0

    def prepare(self) -> None:
        self.do("look", lambda: os.listdir(self.folder))

    def step(self) -> None:
        if self.random.random() < 0.1:
            self._remove_copies()
        else:
            self._write(self.random.choice(NAMES))
        time.sleep(self.random.random() * 0.2)

    def settle(self) -> None:
        self.do("look", lambda: os.listdir(self.folder))

    def recover(self) -> None:
        self.settle()

    def _write(self, name: str) -> None:
        self._count += 1
        token = f"{self.task.name}-{self._count}"
        new = content(token, self.random.randrange(MOST))

        def write() -> None:
            descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                before = read_at(descriptor, ledger.HEADER + MOST, 0)
                self._ledger.say("intended", token, token_of(before))
                os.ftruncate(descriptor, 0)
                written = os.pwrite(descriptor, new, 0)
                assert written == len(new), "a short write"
            finally:
                os.close(descriptor)

        self.do("write shared", write)
        self._ledger.say("closed", token)

    def _remove_copies(self) -> None:
        """This device's own copies, and only those that hold a content that is recognised."""
        mine = f"conflicted copy, {('one', 'two')[self.task.device]}"
        names = [name for name in self.do("list", lambda: os.listdir(self.folder)) if mine in name]
        for name in sorted(names)[: max(0, len(names) - COPIES)]:
            try:
                token = token_of(self.read_whole(self.folder / name))
            except Disturbed:
                return
            if token is not None:
                self._ledger.say("removed", token)
                self.do("remove copy", (self.folder / name).unlink)


class Reader(Worker):
    """Reads files that nobody changes, whole and in pieces. `manifest.json` in `scratch` says their checksums."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._checksums: dict[str, str] = json.loads((task.scratch / "manifest.json").read_text())
        self._originals = task.scratch.parent / "static"

    def prepare(self) -> None:
        self.do("look", lambda: os.listdir(self.folder))

    def step(self) -> None:
        name = self.random.choice(list(self._checksums))
        if self.random.random() < 0.5:
            self._read_whole(name)
        else:
            self._read_piece(name)
        time.sleep(self.random.random() * 0.1)

    def settle(self) -> None:
        for name in self.random.sample(list(self._checksums), 3):
            self._read_whole(name)

    def recover(self) -> None:
        self.prepare()

    def _read_whole(self, name: str) -> None:
        found = self.read_whole(self.folder / name)
        self.must(hashlib.sha256(found).hexdigest() == self._checksums[name], f"{name} has another content than it was given")

    def _read_piece(self, name: str) -> None:
        original = self._originals / name
        offset = self.random.randrange(original.stat().st_size)
        length = self.random.randrange(1, 100_000)
        found = self.do("read piece", lambda: _piece(self.folder / name, offset, length))
        wanted = _piece(original, offset, length)
        self.must(found == wanted, f"{name} at {offset}: {difference(found, wanted) if found != wanted else ''}")


def _piece(path: Path, offset: int, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_at(descriptor, length, offset)
    finally:
        os.close(descriptor)
