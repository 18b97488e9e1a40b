"""Names: creating, linking, renaming and removing, compared with a model of the tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from tests.load.models import Kind, Refused, TreeModel, digest
from tests.load.work import Disturbed, Task, Worker, Wrong

NODES = 150
"""Above so many, more is removed than made."""
WALK_EVERY = 60
NAMES = ("a", "b", "c", "d", "e", "f", "ü", "a name with spaces", "x" * 60)

Described = tuple[Kind, int, str, int]


class TreeWorker(Worker):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._model = TreeModel()
        self._maybe: TreeModel | None = None
        """What the tree is if the operation under way takes place."""
        self._steps = 0

    def prepare(self) -> None:
        for path in self.do("list", lambda: list(self.folder.iterdir())):
            self.clear(path)
        self._model = TreeModel()

    def step(self) -> None:
        self._steps += 1
        if self._steps % WALK_EVERY == 0:
            self.settle()
            return
        many = len(self._model.nodes) > NODES
        kinds: dict[Callable[[], None], int] = {
            self._create: 4,
            self._write: 3,
            self._mkdir: 3,
            self._symlink: 1,
            self._link: 2,
            self._unlink: 14 if many else 3,
            self._rmdir: 8 if many else 1,
            self._rename: 4,
            self._chmod: 2,
            self._list: 2,
        }
        self.random.choices(list(kinds), list(kinds.values()))[0]()

    def settle(self) -> None:
        found = self.do("walk", lambda: walk(self.folder, self.progress.alive))
        self.must(found == self._model.describe(), f"the tree is another one: {_differences(found, self._model.describe())}")

    def recover(self) -> None:
        """All that had returned is there; the operation that was interrupted took place or not (a file that was being written
        may have any content)."""
        found = self.do("walk", lambda: walk(self.folder, self.progress.alive))
        maybe, self._maybe = self._maybe, None
        if maybe is not None and self._is_like(found, maybe):
            self._adopt(maybe, found)
        wanted = self._model.describe()
        self.must(found == wanted, f"after a fault, the tree is another one: {_differences(found, wanted)}")

    def _is_like(self, found: dict[str, Described], maybe: TreeModel) -> bool:
        """But for the content of files that the interrupted operation changed."""
        wanted, before = maybe.describe(), self._model.describe()
        if found.keys() != wanted.keys():
            return False
        changed = {path for path in wanted if wanted[path] != before.get(path)}
        return all(
            found[path] == wanted[path] or (path in changed and found[path][0] == "file" == wanted[path][0]) for path in wanted
        )

    def _adopt(self, maybe: TreeModel, found: dict[str, Described]) -> None:
        for path, (_, mode, content, _) in found.items():
            maybe.nodes[path].mode, maybe.nodes[path].content = mode, content
        self._model = maybe

    # ---------------------------------------------------------------------------------------------------------- actions

    def _create(self) -> None:
        path, mode, content = self._new_path(), self.random.choice((0o600, 0o644, 0o755)), self._content()

        def create() -> None:
            descriptor = os.open(self.folder / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            try:
                os.write(descriptor, content)
            finally:
                os.close(descriptor)

        self._both("create", lambda tree: tree.create(path, mode, content), create)

    def _write(self) -> None:
        path = self._some("file")
        if path is not None:
            content = self._content()
            self._both("write", lambda tree: tree.write(path, content), lambda: self._overwrite(path, content))

    def _overwrite(self, path: str, content: bytes) -> None:
        with open(self.folder / path, "r+b", buffering=0) as file:  # noqa: PTH123
            file.truncate(0)
            file.write(content)

    def _mkdir(self) -> None:
        path, mode = self._new_path(), self.random.choice((0o700, 0o755))
        self._both("mkdir", lambda tree: tree.mkdir(path, mode), lambda: os.mkdir(self.folder / path, mode))

    def _symlink(self) -> None:
        path, target = self._new_path(), self.random.choice(("a", "../b", "nowhere", "ü/ü"))
        self._both("symlink", lambda tree: tree.symlink(path, target), lambda: os.symlink(target, self.folder / path))

    def _link(self) -> None:
        path, new = self._some("file", "folder") if self.random.random() < 0.1 else self._some("file"), self._new_path()
        if path is not None:
            self._both("link", lambda tree: tree.link(path, new), lambda: os.link(self.folder / path, self.folder / new))

    def _unlink(self) -> None:
        path = self._some("file", "link") if self.random.random() < 0.95 else self._some("folder")
        if path is not None:
            self._both("unlink", lambda tree: tree.unlink(path), lambda: os.unlink(self.folder / path))

    def _rmdir(self) -> None:
        path = self._some("folder")
        if path is not None:
            self._both("rmdir", lambda tree: tree.rmdir(path), lambda: os.rmdir(self.folder / path))

    def _rename(self) -> None:
        old = self._some("file", "folder", "link")
        if old is None:
            return
        new = self._new_path() if self.random.random() < 0.7 else self._some("file", "folder", "link")
        assert new is not None
        self._both("rename", lambda tree: tree.rename(old, new), lambda: os.rename(self.folder / old, self.folder / new))

    def _chmod(self) -> None:
        path = self._some("file", "folder")
        if path is not None:
            mode = self.random.choice((0o700, 0o750, 0o755))
            self._both("chmod", lambda tree: tree.chmod(path, mode), lambda: os.chmod(self.folder / path, mode))

    def _list(self) -> None:
        folder = self.random.choice(self._model.folders())
        found = sorted(self.do("list", lambda: os.listdir(self.folder / folder)))
        wanted = sorted(path.rpartition("/")[2] for path in self._model.nodes if path.rpartition("/")[0] == folder)
        self.must(found == wanted, f"{folder or '.'} lists {found} instead of {wanted}")

    # ------------------------------------------------------------------------------------------------------------- parts

    def _both(self, name: str, in_model: Callable[[TreeModel], None], in_folder: Callable[[], None]) -> None:
        """The same on the model and on the drive: both do it, or both refuse with the same errno."""
        maybe, refused = self._model.copy(), 0
        try:
            in_model(maybe)
        except Refused as refusal:
            refused = refusal.errno
        self._maybe = maybe if not refused else None
        try:
            self.do(name, in_folder if not refused else lambda: _refuses(in_folder, refused))
        except Disturbed:
            raise
        except Wrong as wrong:
            raise Wrong(f"{wrong} (the model {f'refuses with {refused}' if refused else 'does it'})") from wrong
        if not refused:
            self._model = maybe
        self._maybe = None
        self.progress.checked()

    def _new_path(self) -> str:
        folder = self.random.choice(self._model.folders())
        if folder.count("/") > 5:
            folder = ""
        name = self.random.choice(NAMES)
        return f"{folder}/{name}" if folder else name

    def _some(self, *kinds: Kind) -> str | None:
        paths = self._model.of_kind(*kinds)
        return self.random.choice(paths) if paths else None

    def _content(self) -> bytes:
        return self.random.randbytes(self.random.choice((0, 10, 3_000, 20_000, 100_000)))


def _refuses(work: Callable[[], None], number: int) -> None:
    try:
        work()
    except OSError as error:
        if error.errno == number:
            return
        raise
    raise OSError(0, f"it was done, but errno {number} was expected")


def walk(root: Path, alive: Callable[[], None]) -> dict[str, Described]:
    """What `TreeModel.describe` says of it. `alive` is told that it goes on."""
    found: dict[str, Described] = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                alive()
                found[path] = _describe(root / path)
                if found[path][0] == "folder":
                    folders.append(path)
    return dict(sorted(found.items()))


def _describe(path: Path) -> Described:
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return "folder", mode, "", 0
    if stat.S_ISLNK(status.st_mode):
        return "link", mode, os.readlink(path), status.st_nlink
    return "file", mode, digest(path.read_bytes()), status.st_nlink


def _differences(found: dict[str, Described], wanted: dict[str, Described]) -> str:
    paths = sorted(path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path))
    shown = [f"{path}: {found.get(path)} instead of {wanted.get(path)}" for path in paths[:4]]
    return "; ".join(shown) + (f"; and {len(paths) - 4} more" if len(paths) > 4 else "")
