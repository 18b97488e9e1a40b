"""Programs that people use, each in a loop with a check of what it did: git, tar, rsync, SQLite, fio, stress-ng.

A program that fails is excused only if its mount went away, or its network or disk was disturbed, while it ran. What it says of
contents (git's objects, SQLite's pages, fio's checksums) is believed whatever happened meanwhile.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.load.work import Disturbed, Worker, Wrong

LOOK = 0.2
COMMAND_SECONDS = 1200.0
"""However busy the machine is; one that hangs is noticed much sooner."""
NICE_OUTPUT = 1500


class ProgramWorker(Worker):
    def run_program(self, name: str, command: Sequence[str | Path], *, cwd: Path | None = None, ok: Sequence[int] = (0,)) -> str:
        """A program to its end; what it said. While any of its processes gets on, it does not hang."""
        before = self.device()
        with self.progress.operation(name):
            output, status = self._watch([str(part) for part in command], cwd or self.task.scratch)
        if status in ok:
            return output
        said = f"{' '.join(map(str, command))} exited {status}: {output[-NICE_OUTPUT:]}"
        if self.has_gone(before) or self.is_disturbed(before):
            self.progress.excused()
            raise Disturbed(said)
        raise Wrong(said)

    def _watch(self, command: Sequence[str], cwd: Path) -> tuple[str, int]:
        log = self.task.scratch / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        end, last = time.monotonic() + COMMAND_SECONDS, -1
        while True:
            try:
                status = process.wait(LOOK)
                return log.read_text(errors="replace"), status
            except subprocess.TimeoutExpired:
                now = effort(process.pid)
                if now != last:
                    last = now
                    self.progress.alive()
            if time.monotonic() > end:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise Wrong(f"{' '.join(command)} did not end within {COMMAND_SECONDS:.0f} s")


def effort(session: int) -> int:
    """Clock ticks and system calls for reading and writing, of all processes of a session: it grows while they get on."""
    total = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:
                    total += int(fields[11]) + int(fields[12])
                    io = Path(entry.path, "io").read_text().split()
                    total += int(io[5]) + int(io[7])
            except (OSError, IndexError):
                continue
    return total


# ------------------------------------------------------------------------------------------------------------------- git


class Git(ProgramWorker):
    COMMITS = 25
    """After so many the repository begins anew."""

    def prepare(self) -> None:
        self._repository, self._clone = self.folder / "repository", self.folder / "clone"
        self._commits, self._head, self._maybe = 0, "", ""
        self.clear(self._repository)
        self.clear(self._clone)
        self.run_program("git init", ["git", "init", "-q", "-b", "main", self._repository])
        for key, value in {"user.name": "a", "user.email": "a@example.org", "gc.auto": "0"}.items():
            self._git("config", key, value)
        self._commit()

    def step(self) -> None:
        if self._commits >= self.COMMITS:
            self.prepare()
            return
        self.random.choices((self._commit, self._gc, self._clone_it), (8, 1, 2))[0]()

    def settle(self) -> None:
        self._check()

    def recover(self) -> None:
        """All objects of the last commit are there; git's own lock files are left over, as after any crash."""
        self.clear(self._clone)
        if not self.do("look", (self._repository / ".git" / "HEAD").exists) or not self._head:
            self.prepare()
            return
        for lock in self.do("list", lambda: list(self._repository.rglob("*.lock"))):
            self.do("remove lock", lock.unlink)
        self._check()
        self._git("reset", "-q", "--hard")
        self._git("clean", "-q", "-fd")

    def _commit(self) -> None:
        for _ in range(self.random.randrange(1, 6)):
            file = self._repository / f"{self.random.choice('abc')}" / f"{self.random.randrange(12)}.txt"
            content = self.random.randbytes(self.random.choice((30, 3000, 90_000))).hex()
            self.do("mkdir", lambda file=file: file.parent.mkdir(exist_ok=True))  # type: ignore[misc]
            self.do("write", lambda file=file, content=content: file.write_text(content))  # type: ignore[misc]
        self._git("add", "-A")
        self._git("commit", "-q", "--allow-empty", "-m", f"number {self._commits}")
        self._commits += 1
        self._head = self._git("rev-parse", "HEAD").strip()

    def _gc(self) -> None:
        self._git("gc", "-q", "--prune=now")
        self._check()

    def _clone_it(self) -> None:
        self.run_program("git clone", ["git", "clone", "-q", "--no-hardlinks", self._repository, self._clone])
        head = self.run_program("git rev-parse", ["git", "-C", self._clone, "rev-parse", "HEAD"]).strip()
        self.must(head == self._head, f"the clone is at {head} instead of {self._head}")
        self.must(
            self.run_program("git status", ["git", "-C", self._clone, "status", "--porcelain"]) == "", "the clone is not clean"
        )
        self.clear(self._clone)

    def _check(self) -> None:
        said = self._git("fsck", "--full", "--no-dangling", "--no-progress")
        self.must("missing" not in said and "corrupt" not in said and "error" not in said, f"git fsck: {said}")
        if self._head:
            self.must("commit" in self._git("cat-file", "-t", self._head), "the last commit is not there")

    def _git(self, *arguments: str) -> str:
        return self.run_program(f"git {arguments[0]}", ["git", "-C", self._repository, *arguments])


# ---------------------------------------------------------------------------------------------------------- tar and rsync


class Copies(ProgramWorker):
    """A real tree, copied in, changed, and copied out again."""

    def prepare(self) -> None:
        self._source, self._copy = self.task.scratch / "source", self.folder / "copy"
        if not self._source.exists():
            gather(self._source)
        self._sync()

    def step(self) -> None:
        self._change()
        self._sync()
        if self.random.random() < 0.3:
            self._tar()
        if self.random.random() < 0.05:
            self.clear(self._copy)

    def settle(self) -> None:
        self._sync()

    def recover(self) -> None:
        self._sync()

    def _change(self) -> None:
        files = [path for path in self._source.rglob("*") if path.is_file() and not path.is_symlink()]
        for path in self.random.sample(files, min(5, len(files))):
            if self.random.random() < 0.3:
                path.rename(path.with_name(f"{path.name.partition('~')[0]}~{self.random.randrange(10)}"))
            else:
                path.write_bytes(path.read_bytes()[:100_000] + self.random.randbytes(500))

    def _sync(self) -> None:
        # Else two files of one size and one second are taken for equal.
        copy = ["rsync", "-aH", "--modify-window=-1", "--delete", f"{self._source}/", f"{self._copy}/"]
        self.run_program("rsync", copy)
        self._compare()

    def _compare(self) -> None:
        """By reading: rsync's own comparison takes a file that it cannot read for one that differs."""
        wanted = names_below(self._source)
        found = self.do("list", lambda: names_below(self._copy))
        self.must(found == wanted, f"after rsync, other names: {sorted(set(found) ^ set(wanted))[:5]}")
        for path in wanted:
            source, copy = (self._source / path).lstat(), self.do("stat", (self._copy / path).lstat)
            self.must(source.st_mode == copy.st_mode, f"after rsync, {path} has the mode {copy.st_mode:o}")
            if stat.S_ISREG(source.st_mode):
                self.must(source.st_nlink == copy.st_nlink, f"after rsync, {path} has {copy.st_nlink} names")
                original, content = (self._source / path).read_bytes(), self.read_whole(self._copy / path)
                self.must(content == original, f"after rsync, {path} has another content")

    def _tar(self) -> None:
        archive, out = self.task.scratch / "archive.tar", self.task.scratch / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        self.run_program("tar", ["tar", "-C", self._copy, "-cf", archive, "."])
        self.run_program("untar", ["tar", "-C", out, "-xf", archive])
        self.run_program("diff", ["diff", "-r", "--no-dereference", self._source, out])
        self.progress.checked()


def names_below(root: Path) -> list[str]:
    """Unlike `Path.rglob`, raises if a folder cannot be read, or is not there any more."""
    found: list[str] = []
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = f"{folder}{entry.name}"
                found.append(name)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{name}/")
    return sorted(found)


def gather(target: Path, most_files: int = 250, most_bytes: int = 8 * 2**20) -> None:
    """Some of this machine's documentation and Python's library, with a link of each kind."""
    count = size = 0
    target.mkdir(parents=True)
    library = Path(os.__file__).parent
    for path in sorted(library.rglob("*.py")):
        if "site-packages" not in path.parts and count < most_files and size < most_bytes:
            there = target / path.relative_to(library)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, there)
            count, size = count + 1, size + path.stat().st_size
    (target / "link").symlink_to("os.py")
    (target / "empty").mkdir()
    first = next(target.rglob("*.py"))
    os.link(first, target / "second name")


# ---------------------------------------------------------------------------------------------------------------- SQLite


class Sqlite(ProgramWorker):
    """Two processes add rows to one database. A row that was said to be committed is there, whatever happened since."""

    ROWS = 25
    MOST = 3000

    def prepare(self) -> None:
        self._database = self.folder / "rows.db"
        self._round = 0
        self._begin()

    def _begin(self) -> None:
        self._said: set[str] = set()
        mode = self.random.choice(("wal", "delete"))
        for path in self.do("list", lambda: list(self.folder.iterdir())):
            self.do("unlink", path.unlink)
        self.run_program("make table", [sys.executable, "-m", "tests.load.rows", "--make", self._database, mode])

    def step(self) -> None:
        if len(self._said) > self.MOST:
            self._begin()
        self._round += 1
        try:
            self._add_rows()
        finally:
            self._note_what_was_said()
        self._check()

    def settle(self) -> None:
        self._check()

    def recover(self) -> None:
        self._check()

    def _add_rows(self) -> None:
        before = self.device()
        command = [sys.executable, "-m", "tests.load.rows", "--add", str(self._database)]
        processes = []
        for name in ("left", "right"):
            said = self.task.scratch / f"said-{name}"
            with said.open("w") as output, (self.task.scratch / f"errors-{name}").open("w") as errors:
                arguments = [*command, f"{name}-{self._round}", str(self.ROWS)]
                processes.append(subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=errors))
        with self.progress.operation("add rows"):
            failed = [self._wait(process) for process in processes]
        if any(failed):
            errors = "; ".join((self.task.scratch / f"errors-{name}").read_text()[-400:] for name in ("left", "right"))
            if not (self.has_gone(before) or self.is_disturbed(before)):
                raise Wrong(f"adding rows failed ({failed}): {errors}")
            self.progress.excused()
            raise Disturbed(f"adding rows failed: {errors}")

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        last = -1
        while True:
            try:
                return process.wait(LOOK)
            except subprocess.TimeoutExpired:
                now = _effort_of(process.pid)
                if now != last:
                    last = now
                    self.progress.alive()

    def _note_what_was_said(self) -> None:
        for name in ("left", "right"):
            self._said |= set((self.task.scratch / f"said-{name}").read_text().splitlines())

    def _check(self) -> None:
        """In a process of its own: a mapping whose mount goes away ends it with SIGBUS."""
        if not self._said:
            return
        before = self.device()
        command = [sys.executable, "-m", "tests.load.rows", "--check", str(self._database)]
        with self.progress.operation("integrity check"):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
        if done.returncode != 0:
            if not (self.has_gone(before) or self.is_disturbed(before)):
                raise Wrong(f"the database cannot be read ({done.returncode}): {done.stdout[-400:]}{done.stderr[-400:]}")
            self.progress.excused()
            raise Disturbed(f"the database cannot be read: {done.stderr[-400:]}")
        verdict, *rows = done.stdout.splitlines()
        self.must(verdict == "ok", f"integrity_check: {verdict}")
        missing = self._said - set(rows)
        self.must(not missing, f"{len(missing)} committed rows are missing, such as {sorted(missing)[:3]}")


def _effort_of(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        io = Path(f"/proc/{pid}/io").read_text().split()
        return int(fields[11]) + int(fields[12]) + int(io[5]) + int(io[7])
    except (OSError, IndexError):
        return -1


# -------------------------------------------------------------------------------------------------------- fio, stress-ng


class Fio(ProgramWorker):
    def prepare(self) -> None:
        self.clear(self.folder / "fio")
        self.do("mkdir", (self.folder / "fio").mkdir)

    def step(self) -> None:
        engine = self.random.choice(("psync", "psync", "mmap"))
        direct = int(engine == "psync" and self.random.random() < 0.3)
        self.run_program(
            f"fio {engine}",
            [
                *("fio", "--name=verified", f"--directory={self.folder / 'fio'}", "--rw=randrw", "--bs=4k-64k", "--size=12m"),
                *("--verify=crc32c", "--verify_fatal=1", "--verify_backlog=64", f"--ioengine={engine}", f"--direct={direct}"),
                *(f"--randseed={self.random.randrange(2**30)}", "--verify_state_save=0", "--fsync=200", "--output-format=terse"),
            ],
        )
        self.progress.checked()
        self.prepare()

    def settle(self) -> None:
        self.prepare()

    def recover(self) -> None:
        self.prepare()


class StressNg(ProgramWorker):
    """A few of its file-system stressors at a time, for some seconds. Not `link`: it ends only after 16,000 operations."""

    SECONDS = 6
    STRESSORS = (
        ("hdd", "--hdd-bytes", "8m", "--hdd-opts", "wr-rnd,rd-rnd"),
        ("dir", "--dir-dirs", "64"),
        ("dentry", "--dentries", "128"),
        ("rename",),
        ("symlink",),
        ("chmod",),
        ("utime",),
        ("flock",),
        ("getdent",),
        ("seek", "--seek-size", "4m"),
        ("filename",),
        ("fstat",),
        ("copy-file", "--copy-file-bytes", "128m"),
        ("access",),
        ("open", "--open-max", "200"),
        ("mmap", "--mmap-file", "--mmap-bytes", "2m"),
        ("sync-file", "--sync-file-bytes", "1m"),
    )

    def prepare(self) -> None:
        self.clear(self.folder / "stress")
        self.do("mkdir", (self.folder / "stress").mkdir)

    def step(self) -> None:
        chosen = self.random.sample(self.STRESSORS, 3)
        options = [option for name, *more in chosen for option in (f"--{name}", "1", *more)]
        command = ["stress-ng", "--temp-path", self.folder / "stress", "--verify", "--timeout", str(self.SECONDS), *options]
        self.run_program("stress-ng " + ",".join(name for name, *_ in chosen), command)
        self.progress.checked()
        self.prepare()

    def settle(self) -> None:
        self.prepare()

    def recover(self) -> None:
        self.prepare()
