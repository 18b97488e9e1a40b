"""Single files, in the manner of fsx: everything that a program can do to one, and a comparison after each read."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.load.models import FileModel
from tests.load.work import Disturbed, Task, Worker, difference, read_at

FILES = 5
SIZES = (3_000, 60_000, 300_000, 1_500_000, 3_000_000)
"""How large each may get: inline, packed, one chunk, several chunks."""
CHANGES_OPEN = 12
"""Changes before a file is closed again: a mixture is looked for among so many contents."""
_PUNCH = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_DIFFERENT, _ERRNO = 3, 100
"""How the child that looks at a mapping ends: another content; so much more than an errno."""
_libc = ctypes.CDLL(None, use_errno=True)


class FileWorker(Worker):
    """Works on a few files, one open at a time."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._models = [FileModel() for _ in range(FILES)]
        self._names = [f"file{number}" for number in range(FILES)]
        self._current = 0
        self._fd = -1
        self._changes = 0
        self._can_punch = True
        self._renaming = ""
        self._appends = False

    def prepare(self) -> None:
        for number in range(FILES):
            self.do("create", lambda number=number: self._path(number).write_bytes(b""))  # type: ignore[misc]

    def step(self) -> None:
        if self._fd < 0:
            self._open()
        if self._changes >= CHANGES_OPEN:
            self._close()
            return
        names = list(self._actions())
        weights = [weight for weight, _ in self._actions().values()]
        name = self.random.choices(names, weights)[0]
        self._actions()[name][1]()

    def _actions(self) -> dict[str, tuple[int, Callable[[], None]]]:
        return {
            "read": (12, self._read),
            "write": (10, self._write),
            "append": (3, self._append),
            "truncate": (3, self._truncate),
            "mapped read": (2, self._read_mapped),
            "mapped write": (2, self._write_mapped),
            "punch": (1, self._punch),
            "fsync": (1, self._fsync),
            "close": (2, self._close),
            "rename": (1, self._rename),
            "stat": (2, self._stat),
        }

    def settle(self) -> None:
        self._close()
        for number in range(FILES):
            self._compare(number)

    def recover(self) -> None:
        """The open file may be a mixture; the others are as they were."""
        self._settle_name()
        for number in range(FILES):
            if self._models[number].is_closed:
                self._compare(number)
                continue
            found, model = self.read_whole(self._path(number)), self._models[number]
            why = difference(found, bytes(model.content)) if found != model.content else ""
            self.must(model.explains(found), f"{self._path(number)} is no mixture of what was written: {why}")
            model.found(found)

    # ---------------------------------------------------------------------------------------------------------- actions

    def _open(self) -> None:
        self._current = self.random.randrange(FILES)
        flags = os.O_RDWR | (os.O_APPEND if self.random.random() < 0.2 else 0)
        self._fd = self.do("open", lambda: os.open(self._path(self._current), flags))
        self._appends = bool(flags & os.O_APPEND)
        self._changes = 0

    def _close(self) -> None:
        if self._fd < 0:
            return
        descriptor, self._fd = self._fd, -1
        self.do("close", lambda: os.close(descriptor))
        self._model.closed()

    def let_go(self) -> None:
        if self._fd >= 0:
            descriptor, self._fd = self._fd, -1
            try:
                os.close(descriptor)
            except OSError:
                self.progress.excused()

    def _read(self) -> None:
        offset = self.random.randrange(len(self._model.content) + 100)
        length = self.random.randrange(1, 100_000)
        found = self.do("read", lambda: read_at(self._fd, length, offset))
        self._same(found, bytes(self._model.content[offset : offset + length]), f"read {length} at {offset}")

    def _write(self) -> None:
        if self._appends:
            return
        size = SIZES[self._current]
        offset = self.random.randrange(min(size, len(self._model.content) + 10_000))
        data = self._bytes(size - offset)
        self._change(lambda: self._model.write(offset, data))
        self._write_all("write", lambda rest: os.pwrite(self._fd, rest, offset + len(data) - len(rest)), data)

    def _append(self) -> None:
        if not self._appends or len(self._model.content) > SIZES[self._current]:
            return
        data = self._bytes(20_000)
        self._change(lambda: self._model.append(data))
        self._write_all("append", lambda rest: os.write(self._fd, rest), data)

    def _truncate(self) -> None:
        size = self.random.choice((0, self.random.randrange(SIZES[self._current]), len(self._model.content) // 2))
        self._change(lambda: self._model.truncate(size))
        self.do("truncate", lambda: os.ftruncate(self._fd, size))

    def _read_mapped(self) -> None:
        content = bytes(self._model.content)
        if content:
            offset = self.random.randrange(len(content))
            wanted = content[offset : offset + 50_000]

            def look() -> bool:
                with mmap.mmap(self._fd, len(content), prot=mmap.PROT_READ) as mapped:
                    return mapped[offset : offset + len(wanted)] == wanted

            self.must(self._in_child("mapped read", look), f"a mapping of {self._path(self._current)} has another content")

    def _write_mapped(self) -> None:
        size = len(self._model.content)
        if size == 0:
            return
        offset = self.random.randrange(size)
        data = self._bytes(min(size - offset, 30_000))

        def write() -> bool:
            with mmap.mmap(self._fd, size) as mapped:
                mapped[offset : offset + len(data)] = data
                mapped.flush()
            return True

        self._change(lambda: self._model.write(offset, data))
        self._in_child("mapped write", write)

    def _punch(self) -> None:
        if not self._can_punch or not self._model.content:
            return
        offset = self.random.randrange(len(self._model.content))
        length = self.random.randrange(1, 50_000)
        self._can_punch = self.do("punch", lambda: _punch(self._fd, offset, length))
        if self._can_punch:
            self._change(lambda: self._model.punch(offset, length))

    def _fsync(self) -> None:
        self.do("fsync", lambda: os.fsync(self._fd))

    def _rename(self) -> None:
        """Also while it is open."""
        old, name = self._path(self._current), f"file{self._current}-{self.random.randrange(100)}"
        self._renaming = name
        self.do("rename", lambda: old.rename(self.folder / name))
        self._names[self._current], self._renaming = name, ""

    def _settle_name(self) -> None:
        """Whether an interrupted rename took place."""
        if self._renaming:
            there = self.do("list", lambda: os.listdir(self.folder))
            names = {self._names[self._current], self._renaming}
            found = names.intersection(there)
            self.must(len(found) == 1, f"of {names}, {found} are there")
            self._names[self._current], self._renaming = found.pop(), ""

    def _stat(self) -> None:
        size = self.do("stat", lambda: os.fstat(self._fd)).st_size
        self.must(size == len(self._model.content), f"fstat says {size} bytes instead of {len(self._model.content)}")

    # ------------------------------------------------------------------------------------------------------------- parts

    @property
    def _model(self) -> FileModel:
        return self._models[self._current]

    def _path(self, number: int) -> Path:
        return self.folder / self._names[number]

    def _bytes(self, most: int) -> bytes:
        """Noise, a pattern that can be compressed, or zeros."""
        length = self.random.randrange(1, max(2, min(most, 200_000)))
        kind = self.random.random()
        if kind < 0.5:
            return self.random.randbytes(length)
        if kind < 0.9:
            return (self.random.randbytes(7) * (length // 7 + 1))[:length]
        return bytes(length)

    def _change(self, change: Callable[[], None]) -> None:
        """The model first: if the operation is interrupted, its outcome is one of those that are possible."""
        change()
        self._changes += 1

    def _write_all(self, name: str, write: Callable[[bytes], int], data: bytes) -> None:
        """A mount that ends in the middle of a write leaves it short; writing the rest says why."""
        while data:
            written = self.do(name, lambda rest=data: write(rest))  # type: ignore[misc]
            self.must(written > 0, "a write wrote nothing")
            data = data[written:]

    def _compare(self, number: int) -> None:
        found = self.read_whole(self._path(number))
        self._same(found, bytes(self._models[number].content), str(self._path(number)))

    def _same(self, found: bytes, wanted: bytes, what: str) -> None:
        self.must(found == wanted, f"{self._path(self._current)}, {what}: {difference(found, wanted) if found != wanted else ''}")

    def _in_child(self, name: str, work: Callable[[], bool]) -> bool:
        """A mapping whose mount goes away, or whose bytes cannot be had, is a SIGBUS."""
        before = self.device()

        def fork() -> int:
            child = os.fork()
            if child == 0:
                try:
                    os._exit(0 if work() else _DIFFERENT)
                except OSError as error:
                    os._exit(_ERRNO + (error.errno or 0))
                finally:
                    os._exit(4)
            return os.waitpid(child, 0)[1]

        code = os.waitstatus_to_exitcode(self.do(name, fork))
        if code in (0, _DIFFERENT):
            return code == 0
        number = errno.EIO if code == -signal.SIGBUS else code - _ERRNO
        self.must(self.is_excused(before, number), f"{name} of {self._path(self._current)} ended with {code}")
        self.progress.excused()
        raise Disturbed(f"{name}: {code}")


def _punch(descriptor: int, offset: int, length: int) -> bool:
    """False: holes cannot be punched here."""
    if _libc.fallocate(descriptor, _PUNCH, ctypes.c_long(offset), ctypes.c_long(length)) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.EOPNOTSUPP:
        return False
    raise OSError(number, os.strerror(number))
