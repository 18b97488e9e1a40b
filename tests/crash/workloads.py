"""What programs do on the drive before, while and after it is killed: a few scripts that pass most of the points.

Each works in one folder through a ledger, and ends with `Died` where the drive was killed under it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from tests.crash.laboratory import PATIENCE, Station
from tests.crash.ledger import Died, Ledger, pages_of
from tests.support.waiting import wait_until

KIB = 1024


def bytes_for(case: str, name: str, size: int) -> bytes:
    """Noise that no other file has, the same in every run."""
    return hashlib.shake_128(f"{case} {name}".encode()).digest(size)


class Work:
    """Calls of a program in a folder of a station, each noted in a ledger."""

    def __init__(self, station: Station, case: str, ledger: Ledger | None = None) -> None:
        self.station = station
        self.case = case
        self.folder = station.point / case
        self.ledger = ledger or Ledger()

    def _old(self, name: str) -> bytes:
        content = self.ledger.state[name]
        assert content is not None
        return content

    def bytes(self, name: str, size: int) -> bytes:
        return bytes_for(self.case, f"{name} {len(self.ledger.state)}", size)

    def begin(self) -> None:
        """The folder itself, which is not in the ledger."""
        self.folder.mkdir()

    def make_folder(self, name: str) -> None:
        with self.ledger.doing(f"mkdir {name}", {name: None}):
            (self.folder / name).mkdir()

    def write(self, name: str, size: int, *, fsync: bool = False) -> None:
        """A new file, or one that is truncated and written anew."""
        content, old = self.bytes(name, size), self.ledger.state.get(name)
        partly = {name: pages_of(old or b"", content)}
        with self.ledger.doing(f"write of {name}", {name: content}, partly=partly), (self.folder / name).open("wb") as file:
            file.write(content)
            if fsync:
                file.flush()
                os.fsync(file.fileno())

    def replace(self, name: str, size: int) -> None:
        """Save by rename, as editors do."""
        self.write(f"{name}.new", size)
        self.rename(f"{name}.new", name)

    def rename(self, name: str, new: str) -> None:
        with self.ledger.doing(f"rename to {new}", {new: self.ledger.state[name]}, gone=(name,)):
            (self.folder / name).rename(self.folder / new)

    def remove(self, name: str) -> None:
        with self.ledger.doing(f"unlink of {name}", {}, gone=(name,)):
            (self.folder / name).unlink()

    def overwrite(self, name: str, offset: int, size: int) -> None:
        """In place."""
        old = self._old(name)
        new = old[:offset] + self.bytes(name, size) + old[offset + size :]
        with (
            self.ledger.doing(f"write into {name}", {name: new}, partly={name: pages_of(old, new)}),
            (self.folder / name).open("r+b") as file,
        ):
            file.seek(offset)
            file.write(new[offset : offset + size])

    def append(self, name: str, size: int) -> None:
        old = self._old(name)
        new = old + self.bytes(name, size)
        with (
            self.ledger.doing(f"append to {name}", {name: new}, partly={name: pages_of(old, new)}),
            (self.folder / name).open("ab") as file,
        ):
            file.write(new[len(old) :])

    def truncate(self, name: str, size: int) -> None:
        with self.ledger.doing(f"truncation of {name}", {name: self._old(name)[:size]}):
            os.truncate(self.folder / name, size)

    def write_and_cut(self, name: str, size: int, end: int) -> None:
        """A new file is truncated through the handle by which it was written, when the drive has its bytes."""
        content = self.bytes(name, size)
        partly = {name: pages_of(b"", content)}
        with (
            self.ledger.doing(f"write and ftruncate of {name}", {name: content[:end]}, partly=partly),
            (self.folder / name).open("wb", buffering=0) as file,
        ):
            file.write(content)
            self._wait(lambda: self._has_reached_the_draft(file.fileno(), size), "the kernel to write")
            file.truncate(end)

    def _has_reached_the_draft(self, descriptor: int, size: int) -> bool:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return any(path.stat().st_size >= size for path in (self.station.home / "drafts").iterdir())

    def chmod(self, name: str, mode: int) -> None:
        with self.ledger.doing(f"chmod of {name}", {}):
            (self.folder / name).chmod(mode)

    def read(self, name: str) -> None:
        with self.ledger.doing(f"read of {name}", {}):
            content = (self.folder / name).read_bytes()
        assert content == self.ledger.state[name], f"{name} was read with another content than it has"

    def ask(self, command: str, *names: str) -> None:
        """`pin`, `unpin`, `evict`."""
        with self.ledger.doing(command, {}):
            self.station.ask(command, paths=[str(self.folder / name) for name in names])

    def sync(self) -> None:
        with self.ledger.doing("sync", {}):
            self.station.sync()

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Until something is seen on the drive, or the drive is dead."""
        with self.ledger.doing(f"waiting for {what}", {}):
            self._wait(condition, what)

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        def is_so() -> bool:
            if not self.station.is_alive:
                raise Died(what)
            try:
                return bool(condition())
            except FileNotFoundError:
                return False

        wait_until(is_so, what, PATIENCE)


# --------------------------------------------------------------------------------------------------------------- scripts


def writing(work: Work) -> None:
    """Files of every kind are made, changed in every way, and brought to the service."""
    work.wait(work.folder.exists, "the folder")
    work.make_folder("folder")
    work.write("inline", 1000)
    work.write("packed", 20 * KIB)
    work.write("packed too", 30 * KIB)
    work.write("large", 3000 * KIB)
    work.write("fsynced", 100 * KIB, fsync=True)
    work.write_and_cut("cut", 300 * KIB, 100 * KIB)
    work.sync()
    work.replace("inline", 2000)
    work.replace("large", 2500 * KIB)
    work.overwrite("packed", 5000, 3000)
    work.overwrite("large", 1000 * KIB, 200 * KIB)
    work.truncate("large", 1500 * KIB)
    work.append("fsynced", 5000)
    work.rename("packed too", "folder/moved")
    work.chmod("packed", 0o600)
    work.remove("cut")
    work.write("short-lived", 100 * KIB)
    work.remove("short-lived")
    work.sync()
    work.write("last", 200 * KIB)
    work.sync()
