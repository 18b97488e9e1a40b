"""What a disk could hold after a power cut, made of a log that `recorder.py` wrote. Pure: operations in, a folder out.

A file's bytes and a folder's names are two things. Bytes are on the disk after an fsync of the file, names after an fsync of
a folder that they are in; a rename is one step for both its folders. What was not synced by the cut is decided by the model:

    strict    it is gone
    ordered   as ext4 does it: any sync brings all names before it along; beyond that a beginning of what was done to names,
              and of what was written to each file, is there, the last write torn
    latest    it is there, as after the end of a process
    mixed     of names and writes (in blocks of 512 or 4096 bytes) some are there and some are not, in any order

Not covered: disks that say that they have synced and have not; sectors that are lost or damaged by the cut; another file
system's stale bytes in a file that grew (holes are zeros here).
"""

from __future__ import annotations

import pickle
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

ROOT = 1
_BLOCKS = (512, 4096)


class Operation(NamedTuple):
    """`create ino folder name mode`, `mkdir` the same, `link ino folder name`, `unlink folder name`,
    `rename folder name folder name`, `write ino offset bytes`, `truncate ino size`, `fsync ino`, `fsyncdir ino`."""

    kind: str
    arguments: tuple[Any, ...]


class Model(Enum):
    STRICT = "strict"
    ORDERED = "ordered"
    LATEST = "latest"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True)
class Log:
    """`ends[i]`: the length of the log's file when operation i was in it."""

    operations: list[Operation]
    ends: list[int]

    @classmethod
    def read(cls, path: Path) -> Log:
        operations: list[Operation] = []
        ends: list[int] = []
        with path.open("rb") as file:
            while True:
                try:
                    operations.append(pickle.load(file))
                except EOFError:
                    return cls(operations, ends)
                ends.append(file.tell())

    def until(self, position: int) -> list[Operation]:
        """What was done when the log was that long."""
        return self.operations[: bisect_right(self.ends, position)]


@dataclass(slots=True)
class _Node:
    is_folder: bool
    mode: int
    path: str
    """Where it was last, as the process saw it."""
    bytes: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Not synced: (offset, bytes), or (size, None) for a truncation."""


@dataclass(slots=True)
class _Naming:
    """One step on names: it puts an inode under a name, takes one from a name, or both."""

    top: str
    puts: tuple[int, str, int] | None
    takes: tuple[int, str, int] | None
    synced: bool = False

    def is_in(self, folder: int) -> bool:
        return any(part is not None and part[0] == folder for part in (self.puts, self.takes))


class Disk:
    """Follows a log. `top` is the first part of a path: each is a disk of its own, with a model of its own.

    `forgets(sync, path)`: this sync ("fsync", "fsyncdir") is taken for one that was never made, as if it were missing in the
    code.
    """

    def __init__(self, forgets: Callable[[str, str], bool] = lambda sync, path: False) -> None:
        self._forgets = forgets
        self._nodes: dict[int, _Node] = {ROOT: _Node(True, 0o755, "")}
        self._names: dict[tuple[int, str], int] = {}
        """As the process sees them."""
        self._namings: list[_Naming] = []
        self.syncs: list[tuple[str, str]] = []

    def follow(self, operations: list[Operation]) -> None:
        for operation in operations:
            getattr(self, f"_{operation.kind}")(*operation.arguments)

    # ------------------------------------------------------------------------------------------------------ operations

    def _create(self, ino: int, folder: int, name: str, mode: int) -> None:
        self._nodes[ino] = _Node(False, mode, self._path(folder, name))
        self._name(folder, name, ino)

    def _mkdir(self, ino: int, folder: int, name: str, mode: int) -> None:
        self._nodes[ino] = _Node(True, mode, self._path(folder, name))
        self._name(folder, name, ino)

    def _link(self, ino: int, folder: int, name: str) -> None:
        self._name(folder, name, ino)

    def _unlink(self, folder: int, name: str) -> None:
        ino = self._names.pop((folder, name), None)
        if ino is not None:
            self._note(None, (folder, name, ino))

    def _rename(self, folder: int, name: str, new_folder: int, new_name: str) -> None:
        ino = self._names.pop((folder, name), None)
        if ino is not None:
            self._names[new_folder, new_name] = ino
            self._nodes[ino].path = self._path(new_folder, new_name)
            self._note((new_folder, new_name, ino), (folder, name, ino))

    def _write(self, ino: int, offset: int, data: bytes) -> None:
        self._nodes[ino].pending.append((offset, data))

    def _truncate(self, ino: int, size: int) -> None:
        self._nodes[ino].pending.append((size, None))

    def _fsync(self, ino: int) -> None:
        node = self._nodes[ino]
        self.syncs.append(("fsync", node.path))
        if not self._forgets("fsync", node.path):
            for change in node.pending:
                _apply(node.bytes, *change)
            node.pending.clear()

    def _fsyncdir(self, folder: int) -> None:
        path = self._nodes[folder].path
        self.syncs.append(("fsyncdir", path))
        if not self._forgets("fsyncdir", path):
            for naming in self._namings:
                naming.synced = naming.synced or naming.is_in(folder)

    def _path(self, folder: int, name: str) -> str:
        return f"{self._nodes[folder].path}/{name}".lstrip("/")

    def _name(self, folder: int, name: str, ino: int) -> None:
        self._names[folder, name] = ino
        self._note((folder, name, ino), None)

    def _note(self, puts: tuple[int, str, int] | None, takes: tuple[int, str, int] | None) -> None:
        folder, name, _ = puts or takes or (ROOT, "", ROOT)
        self._namings.append(_Naming(_top(self._path(folder, name)), puts, takes))

    # --------------------------------------------------------------------------------------------------------- the cut

    def build(self, target: Path, models: Mapping[str, Model], seed: int) -> None:
        """Write what is on the disks now into `target`, which must not be there. Tops without a model are left out."""
        dice = random.Random(seed)
        names: dict[tuple[int, str], int] = {}
        for naming in self._surviving(models, dice):
            if naming.takes is not None and names.get(naming.takes[:2]) == naming.takes[2]:
                del names[naming.takes[:2]]
            if naming.puts is not None:
                names[naming.puts[:2]] = naming.puts[2]
        below: dict[int, list[tuple[str, int]]] = {}
        for (folder, name), ino in names.items():
            below.setdefault(folder, []).append((name, ino))
        target.mkdir()
        made: dict[int, Path] = {}
        folders = [(ROOT, target)]
        while folders:
            folder, path = folders.pop()
            for name, ino in sorted(below.get(folder, [])):
                node = self._nodes[ino]
                model = models.get(name) if folder == ROOT else models.get(_top(node.path))
                if model is None:
                    continue
                if node.is_folder:
                    if ino not in made:  # a folder that was moved, and is under both names: no disk would show that
                        made[ino] = path / name
                        (path / name).mkdir(mode=node.mode | 0o700)
                        folders.append((ino, path / name))
                elif ino in made:
                    (path / name).hardlink_to(made[ino])
                else:
                    made[ino] = path / name
                    (path / name).write_bytes(_content(node, model, dice))
                    (path / name).chmod(node.mode)

    def _surviving(self, models: Mapping[str, Model], dice: random.Random) -> Iterator[_Naming]:
        """The steps on names that are on the disk, in their order."""
        until: dict[str, int] = {}
        for number, naming in enumerate(self._namings):  # where an ordered disk's journal is
            if naming.synced:
                until[naming.top] = number
        for top, model in models.items():
            if model is Model.ORDERED:
                mine = [number for number, naming in enumerate(self._namings) if naming.top == top]
                later = [number for number in mine if number > until.get(top, -1)]
                until[top] = dice.choice([until.get(top, -1), *later])
        for number, naming in enumerate(self._namings):
            model = models.get(naming.top)
            if model is Model.ORDERED:
                survives = number <= until[naming.top]
            else:
                survives = naming.synced or model is Model.LATEST or (model is Model.MIXED and dice.random() < 0.5)
            if survives:
                yield naming


def _top(path: str) -> str:
    return path.partition("/")[0]


def _apply(content: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        if at < len(content):
            del content[at:]
        else:
            content.extend(bytes(at - len(content)))
        return
    if at > len(content):
        content.extend(bytes(at - len(content)))
    content[at : at + len(data)] = data


def _content(node: _Node, model: Model, dice: random.Random) -> bytes:
    content = bytearray(node.bytes)
    if model is Model.STRICT:
        return bytes(content)
    pending = node.pending
    if model is Model.ORDERED:
        pending = pending[: dice.randint(0, len(pending))]
        if pending and pending[-1][1] is not None:
            at, data = pending[-1]
            pending = [*pending[:-1], (at, data[: dice.randrange(0, len(data) + 1, 4096)])]  # type: ignore[index, arg-type]
    for at, data in pending:
        if model is not Model.MIXED:
            _apply(content, at, data)
        elif data is None:
            if dice.random() < 0.5:
                _apply(content, at, None)
        else:
            for start, block in _torn(at, data, dice.choice(_BLOCKS)):
                if dice.random() < 0.5:
                    _apply(content, start, block)
    return bytes(content)


def _torn(at: int, data: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """A write in the blocks of the disk that it meets."""
    start = at
    while start < at + len(data):
        end = min(start // size * size + size, at + len(data))
        yield start, data[start - at : end - at]
        start = end
