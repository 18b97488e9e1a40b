"""What programs do to a mount whose disk is recorded: files of all sizes, synced and not, saved, cut, moved, deleted."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.powerloss.ledger import BLOCK, Ledger

KIB = 1024
SIZES = (300, 5 * KIB, 60 * KIB, 80 * KIB, 200 * KIB)
"""In the manifest, in a row, in a row that is nearly full, in a file, in several blocks of everything."""
DATABASE = "programs/rows.db"


class Workload:
    """`sync` in all operations: whether the program asks for an fsync."""

    def __init__(self, point: Path, ledger: Ledger, seed: int) -> None:
        self._point = point
        self._ledger = ledger
        self._dice = random.Random(seed)
        self._files: list[str] = []
        self._made = 0
        self.rows: list[tuple[int, int]] = []
        """(moment, rows of the database that were committed by then)."""

    # -------------------------------------------------------------------------------------------------------- one step

    def write_new(self, path: str, size: int, *, sync: bool) -> None:
        content = self._noise(size)
        with self._ledger.change(path, content, least=0, fresh=True) as synced, (self._point / path).open("wb") as file:
            self._write(file.fileno(), content)
            if sync:
                os.fsync(file.fileno())
                synced()
        self._files.append(path)

    def append(self, path: str, size: int, *, sync: bool) -> None:
        before = self._ledger.content(path)
        content = before + self._noise(size)
        with self._ledger.change(path, content, least=len(before)) as synced, (self._point / path).open("ab") as file:
            self._write(file.fileno(), content[len(before) :])
            if sync:
                os.fsync(file.fileno())
                synced()

    def rewrite(self, path: str, size: int, *, sync: bool) -> None:
        """As an editor does that empties the file first."""
        content = self._noise(size)
        with self._ledger.change(path, content, least=0, fresh=True) as synced, (self._point / path).open("wb") as file:
            self._write(file.fileno(), content)
            if sync:
                os.fdatasync(file.fileno())
                synced()

    def overwrite(self, path: str, *, sync: bool) -> None:
        """Some blocks in place."""
        content = bytearray(self._ledger.content(path))
        blocks = len(content) // BLOCK
        if not blocks:
            return
        first = self._dice.randrange(blocks)
        count = min(self._dice.randint(1, 40), blocks - first)
        new = self._noise(count * BLOCK)
        content[first * BLOCK : (first + count) * BLOCK] = new
        with self._ledger.change(path, bytes(content)) as synced, (self._point / path).open("r+b") as file:
            os.pwrite(file.fileno(), new, first * BLOCK)
            if sync:
                os.fsync(file.fileno())
                synced()

    def truncate(self, path: str, *, sync: bool) -> None:
        content = self._ledger.content(path)
        content = content[: self._dice.randint(0, len(content))]
        with self._ledger.change(path, content) as synced, (self._point / path).open("r+b") as file:
            file.truncate(len(content))
            if sync:
                os.fsync(file.fileno())
                synced()

    def save_over(self, path: str, size: int, *, sync: bool) -> None:
        """As an editor does that writes a new file and renames it over the old one."""
        new, content = f"{path}.new", self._noise(size)
        with self._ledger.change(new, content, least=0, fresh=True) as synced, (self._point / new).open("wb") as file:
            self._write(file.fileno(), content)
            if sync:
                os.fsync(file.fileno())
                synced()
        with self._ledger.change(new, None), self._ledger.change(path, content, fresh=True, renamed=True) as synced:
            (self._point / new).rename(self._point / path)
            if sync:
                self._sync_folder(path)
                synced()

    def move(self, path: str, *, sync: bool) -> None:
        new = self._new_name()
        with self._ledger.move(path, new) as synced:
            (self._point / path).rename(self._point / new)
            if sync:
                with (self._point / new).open("rb") as file:
                    os.fsync(file.fileno())
                synced()
        self._files[self._files.index(path)] = new

    def delete(self, path: str) -> None:
        with self._ledger.change(path, None):
            (self._point / path).unlink()
        self._files.remove(path)

    def add_rows(self, count: int) -> None:
        """What SQLite commits with `synchronous=EXTRA` is there after a power loss."""
        with closing(sqlite3.connect(self._point / DATABASE, isolation_level=None)) as sql:
            sql.execute("PRAGMA synchronous=EXTRA")
            sql.execute("CREATE TABLE IF NOT EXISTS row (data BLOB)")
            sql.execute("BEGIN")
            sql.executemany("INSERT INTO row VALUES (?)", [(self._noise(3000),) for _ in range(count)])
            sql.execute("COMMIT")
            rows = sql.execute("SELECT count(*) FROM row").fetchone()[0]
        self.rows.append((self._ledger.now(), rows))

    # ------------------------------------------------------------------------------------------------------- many steps

    def begin(self) -> None:
        for folder in ("programs", "documents", "documents/deep"):
            (self._point / folder).mkdir()

    def run(self, steps: int) -> None:
        for size in SIZES:
            self.write_new(self._new_name(), size, sync=True)
        for number in range(steps):
            self.step()
            if number % 10 == 5:
                self.add_rows(self._dice.randint(1, 30))

    def step(self) -> None:
        sync = self._dice.random() < 0.5
        size = self._dice.choice(SIZES)
        kinds = ("new", "append", "rewrite", "overwrite", "truncate", "save", "save", "move", "delete")
        kind = self._dice.choice(kinds)
        if kind == "new" or len(self._files) < 5:
            self.write_new(self._new_name(), size, sync=sync)
            return
        path = self._dice.choice(self._files)
        if kind == "append":
            self.append(path, size, sync=sync)
        elif kind == "rewrite":
            self.rewrite(path, size, sync=sync)
        elif kind == "overwrite":
            self.overwrite(path, sync=sync)
        elif kind == "truncate":
            self.truncate(path, sync=sync)
        elif kind == "save":
            self.save_over(path, size, sync=sync)
        elif kind == "move":
            self.move(path, sync=sync)
        else:
            self.delete(path)

    # ----------------------------------------------------------------------------------------------------------- inside

    def _new_name(self) -> str:
        self._made += 1
        return f"{self._dice.choice(('documents', 'documents/deep'))}/file {self._made}.bin"

    def _noise(self, size: int) -> bytes:
        return self._dice.randbytes(size)

    @staticmethod
    def _write(descriptor: int, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]

    def _sync_folder(self, path: str) -> None:
        descriptor = os.open((self._point / path).parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
