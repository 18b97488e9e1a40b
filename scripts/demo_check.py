"""The demo, played unattended: every step is checked, and a table says what was seen.

Uses the command `aloft` and the mounted folders only, and compares with the files that were copied in.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from playground import Device, Failed, Service, wait_until
from rich.console import Console
from rich.table import Table

MIB = 2**20
MOST_FILES = 3_000
MOST_BYTES = 64 * MIB
BIG = 192 * MIB
"""Size of the file whose upload is cut."""
CUT_LIMIT = "12M"
"""Upload limit per second while it is to be cut: slow enough to be met in the middle."""


def check(demo: Path) -> int:
    """0 if all held, else 1. Leaves nothing behind."""
    console = Console(soft_wrap=True)
    table = Table(title="What scripts/demo --check saw", title_justify="left")
    for heading in ("", "step", "seen"):
        table.add_column(heading, overflow="fold")
    held = False
    try:
        with contextlib.ExitStack() as stack:
            play = Play(_temporary_folder(stack, demo), stack)
            for name, step in play.steps():
                console.print(f"[dim]{name} …[/]")
                try:
                    seen = step()
                except (Failed, OSError) as failure:
                    table.add_row("✗", name, str(failure), style="red")
                    break
                table.add_row("✓", name, seen)
            else:
                held = True
    finally:
        wide = Console()
        wide.width = max(wide.width, 120)
        wide.print(table)
        console.print("All of it held." if held else "[red]Not all of it held.[/]")
    return 0 if held else 1


def _temporary_folder(stack: contextlib.ExitStack, demo: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="check-", dir=demo))
    stack.callback(shutil.rmtree, folder)
    return folder


class Play:
    """The steps in their order; each leaves behind what the next one needs, and returns what was seen."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._source = folder / "source"
        self._big = secrets.token_bytes(BIG)

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("start the service, create an account, mount", self.begin),
            ("copy a real tree in", self.copy_in),
            ("wait until it is safe", self.wait_until_safe),
            ("open a second device", self.open_second),
            ("list and stat everything there", self.list_second),
            ("compare every byte there", self.compare),
            ("edit on one, see it on the other", self.edit),
            ("rename, remove, and chmod on the other, see it on the one", self.change_back),
            ("edit one file on both at once", self.conflict),
            ("go offline, work on, come back", self.work_offline),
            ("kill -9 in the middle of an upload", self.kill),
            ("mount again: only what is missing goes up", self.resume),
            ("read the big file on the other device", self.read_big),
            ("check both devices, unmount", self.end),
        ]

    def begin(self) -> str:
        started = time.monotonic()
        service = Service(self._folder / "service")
        self._stack.callback(service.stop)
        self._service = service
        self._one = self._device("first")
        self._one.register()
        self._one.mount()
        return f"{time.monotonic() - started:.1f} s; {service.url}"

    def _device(self, name: str) -> Device:
        device = Device(self._service, name, self._folder / f"{name}-home", self._folder / name)
        self._stack.callback(device.clear_away)
        return device

    def copy_in(self) -> str:
        count, size = _gather(self._source)
        started = time.monotonic()
        shutil.copytree(self._source, self._one.point / "tree", symlinks=True)
        return f"{count:,} files, {size / MIB:.0f} MiB in {time.monotonic() - started:.1f} s"

    def wait_until_safe(self) -> str:
        started = time.monotonic()
        self._one.run("sync", "--timeout", "300", seconds=330)
        received, objects = self._one.received()
        return f"{time.monotonic() - started:.1f} s; the service received {received / MIB:.1f} MiB in {objects:,} objects"

    def open_second(self) -> str:
        started = time.monotonic()
        self._two = self._device("second")
        self._two.log_in()
        self._two.mount()
        return f"{time.monotonic() - started:.1f} s"

    def list_second(self) -> str:
        before, started = self._two.sent(), time.monotonic()
        expected, found = _describe(self._source), _describe(self._two.point / "tree")
        _same(expected, found)
        sent, seconds = self._two.sent() - before, time.monotonic() - started
        if sent:
            raise Failed(f"listing fetched {sent} bytes of contents")
        return f"{len(found):,} entries with kinds, modes, sizes and times, {seconds:.1f} s; no content was fetched"

    def compare(self) -> str:
        before, started = self._two.sent(), time.monotonic()
        files, size = _compare(self._source, self._two.point / "tree")
        fetched = self._two.sent() - before
        return f"{files:,} files, {size / MIB:.0f} MiB equal, {time.monotonic() - started:.1f} s; {fetched / MIB:.1f} MiB fetched"

    def edit(self) -> str:
        one, two = self._one.point / "note.txt", self._two.point / "note.txt"
        one.write_text("first version")
        appeared = wait_until(lambda: _text(two) == "first version", f"{two} appears")
        one.write_text("the second version, longer")
        changed = wait_until(lambda: _text(two) == "the second version, longer", f"{two} changes")
        return f"a new file after {appeared:.2f} s, an edit after {changed:.2f} s"

    def change_back(self) -> str:
        one, two = self._one.point, self._two.point
        two.joinpath("tree").rename(two / "renamed")
        moved = wait_until(lambda: (one / "renamed").is_dir() and not (one / "tree").exists(), "the folder is renamed")
        two.joinpath("note.txt").chmod(0o600)
        mode = wait_until(lambda: stat.S_IMODE((one / "note.txt").stat().st_mode) == 0o600, "the mode changes")
        two.joinpath("note.txt").unlink()
        gone = wait_until(lambda: not (one / "note.txt").exists(), "the file is removed")
        _same(_describe(self._source), _describe(one / "renamed"))
        return f"rename of the whole tree after {moved:.2f} s, mode after {mode:.2f} s, removal after {gone:.2f} s"

    def conflict(self) -> str:
        folder = "conflict"
        (self._one.point / folder).mkdir()
        (self._one.point / folder / "plan.txt").write_text("base")
        wait_until(lambda: _text(self._two.point / folder / "plan.txt") == "base", "both have the file")
        self._two.run("offline")
        (self._one.point / folder / "plan.txt").write_text("from the first")
        self._one.run("sync", "--timeout", "60")
        (self._two.point / folder / "plan.txt").write_text("from the second")
        self._two.run("online")
        both = ["from the first", "from the second"]
        for point in (self._one.point, self._two.point):
            wait_until(partial(_holds, point / folder, both), f"both contents are in {point / folder}")
        copy = next(path.name for path in (self._one.point / folder).iterdir() if path.name != "plan.txt")
        return f"both contents on both devices; beside plan.txt: {copy}"

    def work_offline(self) -> str:
        self._two.run("offline")
        (self._two.point / "made offline").mkdir()
        (self._two.point / "made offline" / "file").write_text("written without a network")
        _same(_describe(self._source), _describe(self._two.point / "renamed"))
        done = self._two.run("sync", may_fail=True)
        if done.returncode != 3:
            raise Failed(f"`aloft sync` without a network exited {done.returncode} instead of 3")
        self._two.run("online")
        seconds = wait_until(
            lambda: _text(self._one.point / "made offline" / "file") == "written without a network",
            "what was made offline arrives",
        )
        return f"everything listed, a file made; on the other device {seconds:.2f} s after going online"

    def kill(self) -> str:
        self._one.umount()
        self._received_before, self._stored_before = self._one.received(), self._stored()
        self._one.mount_in_foreground("--upload-limit", CUT_LIMIT, "--upload-delay", "0")
        with (self._one.point / "big").open("wb") as file:
            file.write(self._big)
        closed = time.monotonic()
        wait_until(lambda: self._received()[0] > BIG // 4, "a quarter of the big file has arrived")
        self._one.kill_mount()
        after = time.monotonic() - closed
        self._at_the_cut = self._settled()
        size, objects = self._at_the_cut
        if size >= BIG:
            raise Failed("the upload was over before it could be cut")
        return f"{after:.1f} s after close(); {size / MIB:.1f} of {BIG / MIB:.0f} MiB had arrived, {objects} whole objects"

    def resume(self) -> str:
        stored_at_the_cut, started = self._stored(), time.monotonic()
        self._one.mount()
        if _digest(self._one.point / "big") != hashlib.sha256(self._big).hexdigest():
            raise Failed("the file that was closed before the kill has another content")
        self._one.run("sync", "--timeout", "120")
        seconds = time.monotonic() - started
        stored, (size, objects) = self._stored(), self._received()
        missing, sent = stored[0] - stored_at_the_cut[0], size - self._at_the_cut[0]
        if objects != stored[1] - self._stored_before[1]:
            raise Failed(f"{objects} objects were received, but {stored[1] - self._stored_before[1]} are stored: some twice")
        if sent > missing:
            raise Failed(f"{missing} bytes were missing, but {sent} were sent")
        return f"{missing / MIB:.1f} MiB were missing, {sent / MIB:.1f} MiB were received, no object twice; {seconds:.1f} s"

    def _received(self) -> tuple[int, int]:
        """Bytes and objects that the service counted since before the big file."""
        size, objects = self._two.received()
        return size - self._received_before[0], objects - self._received_before[1]

    def _settled(self) -> tuple[int, int]:
        """The same, once the service has dealt with what was on its way when the sender died."""
        last = self._received()
        for _ in range(100):
            time.sleep(0.2)
            now = self._received()
            if now == last:
                return now
            last = now
        raise Failed("the service receives on although the sender is dead")

    def _stored(self) -> tuple[int, int]:
        """Bytes and number of the object files in the service's folder."""
        files = [path for path in (self._folder / "service" / "data" / "objects").glob("*/*/*") if path.is_file()]
        return sum(path.stat().st_size for path in files), len(files)

    def read_big(self) -> str:
        started = time.monotonic()
        wait_until(lambda: (self._two.point / "big").exists(), "the big file appears")
        if _digest(self._two.point / "big") != hashlib.sha256(self._big).hexdigest():
            raise Failed("the big file has another content there")
        return f"{BIG / MIB:.0f} MiB equal, {time.monotonic() - started:.1f} s"

    def end(self) -> str:
        for device in (self._one, self._two):
            device.umount()
            if device.is_mounted():
                raise Failed(f"{device.point} is still mounted")
            device.run("fsck")
        return "nothing to repair, nothing is left mounted"


# ------------------------------------------------------------------------------------------------------- trees of files


def _gather(target: Path) -> tuple[int, int]:
    """Copy a part of this system's Python library: real files, folders and symlinks. How many files and bytes."""
    roots = dict.fromkeys([*sorted(Path("/usr/lib").glob("python3*")), Path(os.__file__).parent])
    count = size = 0
    for path in (path for root in roots for path in sorted(root.rglob("*"))):
        if count >= MOST_FILES or size >= MOST_BYTES:
            break
        if not (path.is_symlink() or path.is_file()) or not os.access(path, os.R_OK):
            continue
        copy = target / path.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy, follow_symlinks=False)
        count, size = count + 1, size + path.lstat().st_size
    if count < 100:
        raise Failed(f"only {count} files found to copy")
    return count, size


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            yield Path(folder, name)


def _describe(root: Path) -> dict[str, tuple[object, ...]]:
    """Every entry with what a listing shows of it."""
    described: dict[str, tuple[object, ...]] = {}
    for path in _walk(root):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            facts: tuple[object, ...] = (status.st_mode, status.st_mtime_ns)
        elif stat.S_ISLNK(status.st_mode):
            facts = (status.st_mode, str(path.readlink()))
        else:
            facts = (status.st_mode, status.st_mtime_ns, status.st_size)
        described[str(path.relative_to(root))] = facts
    return described


def _same(expected: dict[str, tuple[object, ...]], found: dict[str, tuple[object, ...]]) -> None:
    if expected == found:
        return
    missing, surplus = expected.keys() - found.keys(), found.keys() - expected.keys()
    other = [name for name in expected.keys() & found.keys() if expected[name] != found[name]]
    example = next(iter(sorted(missing | surplus) + sorted(other)))
    raise Failed(
        f"{len(missing)} entries are missing, {len(surplus)} too many, {len(other)} different; "
        f"for example {example}: {expected.get(example)} there, {found.get(example)} here"
    )


def _compare(expected: Path, found: Path) -> tuple[int, int]:
    """Every byte of every file. How many files and bytes."""
    count = size = 0
    for path in _walk(expected):
        if not path.is_symlink() and path.is_file():
            content = path.read_bytes()
            if found.joinpath(path.relative_to(expected)).read_bytes() != content:
                raise Failed(f"{path.relative_to(expected)} has another content")
            count, size = count + 1, size + len(content)
    return count, size


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _holds(folder: Path, contents: list[str]) -> bool:
    """Whether these are the contents of the files in a folder."""
    try:
        return sorted(path.read_text() for path in folder.iterdir()) == contents
    except FileNotFoundError:
        return False
