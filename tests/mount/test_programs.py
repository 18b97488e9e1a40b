"""Programs that people use, on a mount: they must find nothing odd, and a second device must find the same."""

from __future__ import annotations

import filecmp
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until

PROJECT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path | None = None, **options: Any) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=300, **options
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))} exited {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def needs(program: str) -> None:
    assert shutil.which(program), f"{program} is missing: scripts/setup installs it"


def same_trees(one: Path, two: Path) -> None:
    compared = filecmp.dircmp(one, two, ignore=[])
    assert compared.left_only + compared.right_only + compared.funny_files == []
    _, different, failed = filecmp.cmpfiles(one, two, compared.common_files, shallow=False)
    assert different + failed == []
    for name in compared.common_dirs:
        same_trees(one / name, two / name)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A real tree with what trees have: the project's own sources, links, an empty folder, odd names and times."""
    tree = tmp_path / "tree"
    for name in ("fs", "cache", "remote"):
        shutil.copytree(PROJECT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "empty folder").mkdir()
    (tree / "ünïcode – ñame").write_text("content")
    (tree / "link").symlink_to("fs/mount.py")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "second").hardlink_to(tree / "fs" / "mount.py")
    (tree / "script").write_text("#!/bin/sh\necho ran\n")
    (tree / "script").chmod(0o750)
    (tree / "large").write_bytes(os.urandom(5_000_000))
    os.utime(tree / "large", ns=(10**18 + 1, 10**18 + 123_456_789))
    os.utime(tree / "empty folder", ns=(10**18, 10**18 + 7))
    return tree


def status_of(root: Path) -> dict[str, tuple[int, int, int, int, str]]:
    """What an archive keeps of each file: mode, size, mtime, links, target."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        is_link, is_folder = path.is_symlink(), path.is_dir() and not path.is_symlink()
        found[str(path.relative_to(root))] = (
            status.st_mode,
            0 if is_folder else status.st_size,
            0 if is_link else status.st_mtime_ns,
            1 if is_folder else status.st_nlink,
            os.readlink(path) if is_link else "",
        )
    return found


def test_tar_both_ways(mount: Path, tree: Path, tmp_path: Path) -> None:
    options = ["--format=posix"]  # nanoseconds
    run("tar", *options, "-cf", tmp_path / "in.tar", "-C", tree.parent, "tree")
    run("tar", "-xf", tmp_path / "in.tar", "-C", mount)
    assert status_of(mount / "tree") == status_of(tree)
    run("tar", *options, "-cf", tmp_path / "out.tar", "-C", mount, "tree")
    (tmp_path / "back").mkdir()
    run("tar", "-xf", tmp_path / "out.tar", "-C", tmp_path / "back")
    same_trees(tree, tmp_path / "back" / "tree")
    assert status_of(tmp_path / "back" / "tree") == status_of(tree)


def test_rsync_both_ways(mount: Path, tree: Path, tmp_path: Path) -> None:
    needs("rsync")
    run("rsync", "-aH", f"{tree}/", mount / "tree")
    assert status_of(mount / "tree") == status_of(tree)
    (tree / "fs" / "errors.py").write_text("changed")
    (tree / "large").unlink()
    run("rsync", "-aH", "--delete", f"{tree}/", mount / "tree")
    assert run("rsync", "-aHi", "--delete", "--dry-run", f"{tree}/", mount / "tree") == ""
    run("rsync", "-aH", f"{mount}/tree/", tmp_path / "back")
    assert status_of(tmp_path / "back") == status_of(tree)


def test_cp_archive(mount: Path, tree: Path, devices: Any) -> None:
    run("cp", "-a", tree, mount / "tree")
    same_trees(tree, mount / "tree")
    assert status_of(mount / "tree") == status_of(tree)
    assert run(mount / "tree" / "script") == "ran\n"
    devices.made[0].aloft("sync")
    other = devices.add().mount()
    wait_until(lambda: (other / "tree").exists())
    same_trees(tree, other / "tree")
    assert status_of(other / "tree") == status_of(tree)


def test_git(mount: Path, tmp_path: Path) -> None:
    needs("git")
    source = tmp_path / "source"
    environment = {
        "env": os.environ
        | dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "a@b.c")
        | dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "A")
        | {"GIT_CONFIG_GLOBAL": "/dev/null"}
    }
    shutil.copytree(PROJECT / "fs", source, ignore=shutil.ignore_patterns("__pycache__"))
    run("git", "init", "-q", cwd=source, **environment)
    for number in range(5):
        (source / "history").write_text(f"{number}\n" * 1000)
        run("git", "add", "-A", cwd=source, **environment)
        run("git", "commit", "-qm", f"Change {number}", cwd=source, **environment)
    clone = mount / "clone"
    run("git", "clone", "-q", "--no-local", source, clone, **environment)
    (clone / "new").write_text("content")
    run("git", "add", "-A", cwd=clone, **environment)
    run("git", "commit", "-qm", "On the mount", cwd=clone, **environment)
    run("git", "gc", "-q", cwd=clone, **environment)
    run("git", "fsck", "--strict", cwd=clone, **environment)
    assert run("git", "status", "--porcelain", cwd=clone, **environment) == ""
    assert len(run("git", "log", "--oneline", cwd=clone, **environment).splitlines()) == 6


WRITER = """
import sqlite3, sys
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
db = sqlite3.connect(path, timeout=60, isolation_level=None)
for number in range(count):
    db.execute("BEGIN IMMEDIATE")
    (seen,) = db.execute("SELECT count(*) FROM t").fetchone()
    db.execute("INSERT INTO t VALUES (?, ?, ?)", (name, number, seen))
    db.execute("COMMIT")
"""


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate"])
def test_sqlite_with_two_processes(mount: Path, mode: str) -> None:
    path, count = mount / "database", 60
    db = sqlite3.connect(path, isolation_level=None)
    assert db.execute(f"PRAGMA journal_mode={mode}").fetchone() == (mode,)
    db.execute("CREATE TABLE t (name TEXT, number INTEGER, seen INTEGER)")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name, str(count)]) for name in ("a", "b")]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert db.execute("SELECT count(*), count(DISTINCT seen) FROM t").fetchone() == (2 * count, 2 * count)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_make(mount: Path) -> None:
    needs("make")
    needs("gcc")
    (mount / "Makefile").write_text("OBJECTS = $(patsubst %.c,%.o,$(wildcard *.c))\nprogram: $(OBJECTS)\n\tgcc -o $@ $^\n")
    (mount / "main.c").write_text("".join(f"int f{n}(void);" for n in range(8)) + "int main(void){return f3() - 3;}\n")
    for number in range(8):
        (mount / f"f{number}.c").write_text(f"int f{number}(void){{return {number};}}\n")
    run("make", "-j4", cwd=mount)
    run(mount / "program")
    assert "up to date" in run("make", cwd=mount)
    (mount / "f3.c").write_text("int f3(void){return 4 - 1;}\n")
    assert run("make", cwd=mount).count("f3.c") == 1


def test_a_virtual_environment_with_a_package(mount: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "hello_from_a_mount-1-py3-none-any.whl"
    info = "hello_from_a_mount-1.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hello_from_a_mount/__main__.py", "print('hello')\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: hello-from-a-mount\nVersion: 1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    run(sys.executable, "-m", "venv", mount / "venv")
    python = mount / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-index", "--disable-pip-version-check", wheel)
    assert run(python, "-m", "hello_from_a_mount") == "hello\n"


def test_vim(mount: Path) -> None:
    needs("vim")
    (mount / "text").write_text("one\ntwo\n")
    for number, backup in enumerate(("set backupcopy=yes", "set backupcopy=no")):
        run(
            "vim",
            "-es",
            "-u",
            "NONE",
            "-c",
            backup,
            "-c",
            "set backup",
            "-c",
            f"normal Goline {number}",
            "-c",
            "wq",
            "text",
            cwd=mount,
        )
    assert (mount / "text").read_text() == "one\ntwo\nline 0\nline 1\n"


def test_saving_as_an_office_program_does(mount: Path, devices: Any) -> None:
    """A temporary file, fsync, rename over the old, fsync of the folder: one new version, and no copy, on either side."""
    other = devices.add().mount()
    for number in range(5):
        temporary = mount / f".~lock.report.odt.{number}"
        with temporary.open("wb") as file:
            file.write(f"version {number}".encode() * 1000)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(mount / "report.odt")
        folder = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
    assert os.listdir(mount) == ["report.odt"]
    expected = b"version 4" * 1000
    wait_until(lambda: os.listdir(other) == ["report.odt"] and (other / "report.odt").read_bytes() == expected)


def test_copy_file_range_and_sparse_copies(mount: Path) -> None:
    with (mount / "sparse").open("wb") as file:
        file.truncate(10_000_000)
        file.seek(5_000_000)
        file.write(b"data")
    run("cp", "--sparse=always", mount / "sparse", mount / "copy")
    run("cmp", mount / "sparse", mount / "copy")
    with (mount / "copy").open("rb") as source, (mount / "range").open("wb") as target:
        left = 10_000_000
        while left:
            left -= os.copy_file_range(source.fileno(), target.fileno(), left)
    run("cmp", mount / "sparse", mount / "range")
