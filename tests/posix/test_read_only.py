"""A mount made with --read-only: everything is seen, nothing is changed."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.posix.calls import make, refused, truncate_to
from tests.posix.conftest import Service, outside_directory


@pytest.fixture(scope="module")
def read_only(request: pytest.FixtureRequest, under_test: Path) -> Iterator[tuple[Path, Path]]:
    """A folder with a file of every sort in it, as it is written, and as it is seen without the right to write."""
    writable = under_test / "for the read-only mount"
    writable.mkdir()
    (writable / "file").write_bytes(b"content")
    (writable / "link").symlink_to("file")
    make("folder", writable / "folder")
    make("fifo", writable / "fifo")
    if outside_directory() is not None:
        view = under_test / "view"
        view.mkdir()
        subprocess.run(["mount", "--bind", writable, view], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
        yield writable, view
        subprocess.run(["umount", view], check=True)
        return
    service: Service = request.getfixturevalue("service")
    service.settle("first")
    service.aloft("reader", "login", "--server", service.url, "--email", service.email, "--device", "reader")
    point = service.mount("reader", "--read-only")
    try:
        yield writable, point / writable.name
    finally:
        service.umount("reader")


CHANGES: dict[str, Callable[[Path], object]] = {
    "chmod": lambda folder: (folder / "file").chmod(0o600),
    "chown": lambda folder: os.chown(folder / "file", 1, 1),
    "lchown": lambda folder: os.chown(folder / "link", 1, 1, follow_symlinks=False),
    "utimensat": lambda folder: os.utime(folder / "file"),
    "truncate": lambda folder: truncate_to(folder / "file", 0),
    "open for writing": lambda folder: os.open(folder / "file", os.O_WRONLY),
    "open with O_CREAT": lambda folder: os.open(folder / "new", os.O_WRONLY | os.O_CREAT),
    "open with O_TRUNC": lambda folder: os.open(folder / "file", os.O_RDONLY | os.O_TRUNC),
    "mkdir": lambda folder: (folder / "new").mkdir(),
    "mkfifo": lambda folder: os.mkfifo(folder / "new"),
    "mknod": lambda folder: os.mknod(folder / "new"),
    "symlink": lambda folder: (folder / "new").symlink_to("target"),
    "link": lambda folder: (folder / "new").hardlink_to(folder / "file"),
    "unlink": lambda folder: (folder / "file").unlink(),
    "rmdir": lambda folder: (folder / "folder").rmdir(),
    "rename": lambda folder: (folder / "file").rename(folder / "new"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_are_refused(read_only: tuple[Path, Path], change: Callable[[Path], object]) -> None:
    _, view = read_only
    with refused(errno.EROFS):
        change(view)


def test_everything_is_seen(read_only: tuple[Path, Path]) -> None:
    writable, view = read_only
    assert sorted(os.listdir(view)) == sorted(os.listdir(writable))
    assert (view / "link").read_bytes() == b"content"
    assert os.statvfs(view).f_flag & os.ST_RDONLY
