"""link: several names for one file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.posix.calls import (
    ALICE,
    KINDS,
    NOT_FOLDERS,
    acting_as,
    changes_times,
    keeps_times,
    link_following,
    make,
    make_for,
    mode_of,
    refused,
)

ALL_KINDS = pytest.mark.parametrize("kind", NOT_FOLDERS)


def link(source: Path, target: Path) -> None:
    """Without following a symlink at the end of `source`."""
    os.link(source, target, follow_symlinks=False)


@ALL_KINDS
def test_two_names_are_one_file(place: Path, kind: str) -> None:
    one, two = make(kind, place / "one"), place / "two"
    link(one, two)
    assert one.lstat() == two.lstat()
    assert one.lstat().st_nlink == 2


@ALL_KINDS
def test_names_in_different_folders(place: Path, kind: str) -> None:
    make("folder", place / "folder")
    one, two, three = make(kind, place / "one"), place / "folder" / "two", place / "three"
    link(one, two)
    link(two, three)
    assert one.lstat() == two.lstat() == three.lstat()
    assert one.lstat().st_nlink == 3


@ALL_KINDS
def test_removing_names_one_by_one(place: Path, kind: str) -> None:
    one, two, three = make(kind, place / "one"), place / "two", place / "three"
    link(one, two)
    link(one, three)
    one.unlink()
    with refused(errno.ENOENT):
        one.lstat()
    assert two.lstat().st_nlink == three.lstat().st_nlink == 2
    with changes_times(three, mtime=False):
        two.unlink()
    assert three.lstat().st_nlink == 1


@ALL_KINDS
def test_attributes_are_shared(place: Path, kind: str) -> None:
    one, two = make(kind, place / "one"), place / "two"
    link(one, two)
    os.chown(two, 321, 654, follow_symlinks=False)
    if kind != "symlink":
        two.chmod(0o246)
    assert one.lstat() == two.lstat()
    assert (one.lstat().st_uid, one.lstat().st_gid) == (321, 654)


def test_content_is_shared(place: Path) -> None:
    one, two = make("regular", place / "one"), place / "two"
    link(one, two)
    two.write_bytes(b"content")
    assert one.read_bytes() == b"content"
    with one.open("ab") as file:
        file.write(b" and more")
    assert two.read_bytes() == b"content and more"
    one.unlink()
    assert two.read_bytes() == b"content and more"


@ALL_KINDS
def test_times(place: Path, kind: str) -> None:
    make("folder", place / "folder")
    one = make(kind, place / "one")
    with changes_times(one, mtime=False), changes_times(place / "folder", mtime=True):
        link(one, place / "folder" / "two")


@ALL_KINDS
@pytest.mark.parametrize("existing", KINDS)
def test_a_name_that_is_taken(place: Path, kind: str, existing: str) -> None:
    one = make(kind, place / "one")
    taken = make(existing, place / "taken")
    with keeps_times(place, one, taken), refused(errno.EEXIST):
        link(one, taken)
    assert one.lstat().st_nlink == 1


def test_folders_have_one_name(place: Path) -> None:
    place.chmod(0o777)
    folder = make_for(ALICE, "folder", place / "folder", 0o755)
    with refused(errno.EPERM):
        link(folder, place / "second")
    with acting_as(ALICE), refused(errno.EPERM):
        link(folder, place / "second")


def test_a_symlink_is_linked_itself(place: Path) -> None:
    make("regular", place / "nowhere")
    make("symlink", place / "link")
    link(place / "link", place / "second")
    assert (place / "second").is_symlink()
    assert (place / "nowhere").lstat().st_nlink == 1


def test_a_symlink_is_followed_when_asked(place: Path) -> None:
    make("regular", place / "nowhere")
    make("symlink", place / "link")
    link_following(place / "link", place / "second")
    assert not (place / "second").is_symlink()
    assert (place / "nowhere").lstat().st_nlink == 2


def test_another_file_system(place: Path, elsewhere: Path) -> None:
    one = make("regular", place / "one")
    outside = make("regular", elsewhere / "outside")
    with refused(errno.EXDEV):
        link(one, elsewhere / "two")
    with refused(errno.EXDEV):
        link(outside, place / "two")


def test_a_hundred_names(place: Path) -> None:
    one = make("regular", place / "one")
    for number in range(99):
        link(one, place / f"name {number}")
    assert one.lstat().st_nlink == 100
    for number in range(99):
        (place / f"name {number}").unlink()
    assert one.lstat().st_nlink == 1


def test_an_open_file_without_names_gets_none_by_its_old_path(place: Path) -> None:
    one = make("regular", place / "one")
    descriptor = os.open(one, os.O_RDWR)
    one.unlink()
    with refused(errno.ENOENT):
        link(one, place / "two")
    with refused(errno.ENOENT):
        link(Path(f"/proc/self/fd/{descriptor}").resolve(), place / "two")
    os.close(descriptor)


def test_a_link_needs_no_right_to_the_file_of_ones_own(place: Path) -> None:
    place.chmod(0o777)
    one = make_for(ALICE, "regular", place / "one", 0)
    with acting_as(ALICE):
        link(one, place / "two")
    assert mode_of(place / "two") == 0
