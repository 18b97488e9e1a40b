"""unlink and rmdir: what goes, what stays reachable, and who may."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.posix.calls import (
    ALICE,
    BOB,
    KINDS,
    NOT_FOLDERS,
    User,
    acting_as,
    changes_times,
    keeps_times,
    make,
    make_for,
    refused,
    remove,
)

FILES = pytest.mark.parametrize("kind", NOT_FOLDERS)
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)


@ALL_KINDS
def test_it_is_gone(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    with changes_times(place, mtime=True):
        remove(path)
    with refused(errno.ENOENT):
        path.lstat()
    assert list(place.iterdir()) == []
    with refused(errno.ENOENT):
        (path.rmdir if kind == "folder" else path.unlink)()


@ALL_KINDS
@pytest.mark.parametrize("second", KINDS)
def test_the_name_is_free_again(place: Path, kind: str, second: str) -> None:
    path = make(kind, place / "file")
    remove(path)
    make(second, path)
    assert os.listdir(place) == ["file"]


def test_a_folder_is_not_unlinked(place: Path) -> None:
    path = make("folder", place / "folder")
    with keeps_times(place, path), refused(errno.EISDIR):
        path.unlink()


@FILES
def test_a_file_is_not_removed_as_a_folder(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    with keeps_times(place, path), refused(errno.ENOTDIR):
        path.rmdir()


def test_a_symlink_to_a_folder_is_not_removed_as_a_folder(place: Path) -> None:
    make("folder", place / "nowhere")
    link = make("symlink", place / "link")
    with refused(errno.ENOTDIR):
        link.rmdir()
    link.unlink()
    assert (place / "nowhere").is_dir()


@ALL_KINDS
def test_a_folder_that_is_not_empty_stays(place: Path, kind: str) -> None:
    folder = make("folder", place / "folder")
    make(kind, folder / "inside")
    with keeps_times(place, folder), refused(errno.ENOTEMPTY, errno.EEXIST):
        folder.rmdir()
    remove(folder / "inside")
    folder.rmdir()


def test_the_names_of_every_folder_stay(place: Path) -> None:
    make("folder", place / "folder")
    with refused(errno.EINVAL):
        os.rmdir(f"{place}/folder/.")
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        os.rmdir(f"{place}/folder/..")
    for name in (".", ".."):
        with refused(errno.EISDIR, errno.EPERM):
            os.unlink(f"{place}/folder/{name}")


def test_the_mount_point_stays(only_aloft: None, under_test: Path) -> None:
    with refused(errno.EBUSY):
        under_test.rmdir()


def test_links_of_the_folder_above(place: Path) -> None:
    assert place.lstat().st_nlink == 2
    for count in (3, 4):
        make("folder", place / f"folder {count}")
        assert place.lstat().st_nlink == count
    for count in (4, 3):
        (place / f"folder {count}").rmdir()
        assert place.lstat().st_nlink == count - 1


@FILES
def test_other_names_keep_the_file(place: Path, kind: str) -> None:
    make(kind, place / "one")
    os.link(place / "one", place / "two", follow_symlinks=False)
    with changes_times(place / "two", mtime=False):
        (place / "one").unlink()
    assert (place / "two").lstat().st_nlink == 1


def test_an_open_file_without_a_name_is_used_on(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"content")
    descriptor = os.open(path, os.O_RDWR)
    path.unlink()
    status = os.fstat(descriptor)
    assert (status.st_nlink, status.st_size) == (0, 7)
    assert os.pread(descriptor, 100, 0) == b"content"
    os.pwrite(descriptor, b"more", 7)
    os.ftruncate(descriptor, 9)
    os.fsync(descriptor)
    assert os.pread(descriptor, 100, 0) == b"contentmo"
    path.write_bytes(b"another file of that name")
    assert os.pread(descriptor, 100, 0) == b"contentmo"
    os.close(descriptor)
    assert path.read_bytes() == b"another file of that name"


def test_an_open_folder_that_is_removed_is_empty(place: Path) -> None:
    folder = make("folder", place / "folder")
    descriptor = os.open(folder, os.O_RDONLY)
    folder.rmdir()
    assert os.fstat(descriptor).st_nlink == 0
    with refused(errno.ENOENT):
        os.mkdir("inside", dir_fd=descriptor)
    os.close(descriptor)


def test_in_a_working_folder_that_is_removed_nothing_is_made(place: Path) -> None:
    folder = make("folder", place / "folder")
    os.chdir(folder)
    folder.rmdir()
    for kind in KINDS:
        with refused(errno.ENOENT):
            make(kind, Path("inside"))
    os.chdir(place)


def test_a_name_behind_a_slash(place: Path) -> None:
    make("folder", place / "folder")
    make("regular", place / "file")
    with refused(errno.ENOTDIR):
        os.unlink(f"{place}/file/")
    os.rmdir(f"{place}/folder/")
    assert os.listdir(place) == ["file"]


@ALL_KINDS
def test_the_folder_must_be_writable(place: Path, kind: str) -> None:
    folder = make_for(BOB, "folder", place / "folder", 0o755)
    path = make_for(ALICE, kind, folder / "file", 0o777)
    with keeps_times(folder), acting_as(ALICE), refused(errno.EACCES):
        (path.rmdir if kind == "folder" else path.unlink)()


@ALL_KINDS
@pytest.mark.parametrize(
    ("folder_owner", "file_owner", "user", "allowed"),
    [
        (ALICE, ALICE, ALICE, True),
        (ALICE, BOB, ALICE, True),
        (BOB, ALICE, ALICE, True),
        (BOB, BOB, ALICE, False),
        (BOB, User(0, 0), User(ALICE.uid, BOB.gid), False),
        (BOB, BOB, User(0, 0), True),
    ],
    ids=["owns both", "owns the folder", "owns the file", "owns neither", "of the group", "root"],
)
def test_from_a_sticky_folder(place: Path, kind: str, folder_owner: User, file_owner: User, user: User, allowed: bool) -> None:
    sticky = make_for(folder_owner, "folder", place / "sticky", 0o1777)
    path = make_for(file_owner, kind, sticky / "file", 0o777)
    take = path.rmdir if kind == "folder" else path.unlink
    with acting_as(user):
        if allowed:
            take()
        else:
            with refused(errno.EPERM, errno.EACCES):
                take()
    assert os.path.lexists(path) != allowed
