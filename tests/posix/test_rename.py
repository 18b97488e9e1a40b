"""rename and renameat2: what moves, what is replaced, and who may."""

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
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    User,
    acting_as,
    changes_times,
    file_type,
    keeps_times,
    make,
    make_for,
    refused,
    rename_with,
)

ALL_KINDS = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def folders(place: Path) -> tuple[Path, Path]:
    return make("folder", place / "from", 0o755), make("folder", place / "to", 0o755)


@ALL_KINDS
def test_a_new_name(place: Path, kind: str) -> None:
    old, new = make(kind, place / "old", 0o751), place / "new"
    before = old.lstat()
    old.rename(new)
    after = new.lstat()
    assert (after.st_ino, after.st_mode, after.st_nlink, after.st_mtime_ns) == (
        before.st_ino,
        before.st_mode,
        before.st_nlink,
        before.st_mtime_ns,
    )
    assert os.listdir(place) == ["new"]
    with refused(errno.ENOENT):
        old.lstat()


@ALL_KINDS
def test_another_folder(folders: tuple[Path, Path], kind: str) -> None:
    source, target = folders
    number = make(kind, source / "old").lstat().st_ino
    with changes_times(source, target, mtime=True):
        (source / "old").rename(target / "new")
    assert (target / "new").lstat().st_ino == number
    assert list(source.iterdir()) == []


def test_the_content_moves_along(folders: tuple[Path, Path]) -> None:
    source, target = folders
    (source / "old").write_bytes(b"content")
    (source / "old").rename(target / "new")
    assert (target / "new").read_bytes() == b"content"


@pytest.mark.parametrize("kind", ["regular", "folder"])
def test_an_open_file_moves_along(folders: tuple[Path, Path], kind: str) -> None:
    source, target = folders
    descriptor = os.open(make(kind, source / "old"), os.O_RDONLY)
    (source / "old").rename(target / "new")
    assert os.fstat(descriptor).st_ino == (target / "new").lstat().st_ino
    os.close(descriptor)


@pytest.mark.parametrize("kind", NOT_FOLDERS)
def test_one_of_two_names(place: Path, kind: str) -> None:
    make(kind, place / "one")
    os.link(place / "one", place / "two", follow_symlinks=False)
    (place / "two").rename(place / "three")
    assert (place / "one").lstat() == (place / "three").lstat()
    assert (place / "one").lstat().st_nlink == 2


@pytest.mark.parametrize("kind", NOT_FOLDERS)
def test_over_another_name_of_the_same_file_nothing_happens(place: Path, kind: str) -> None:
    make(kind, place / "one")
    os.link(place / "one", place / "two", follow_symlinks=False)
    (place / "one").rename(place / "two")
    assert sorted(os.listdir(place)) == ["one", "two"]
    assert (place / "one").lstat().st_nlink == 2


@ALL_KINDS
def test_over_itself_nothing_happens(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    with keeps_times(place):
        path.rename(path)
    assert os.listdir(place) == ["file"]


@pytest.mark.parametrize("kind", NOT_FOLDERS)
@pytest.mark.parametrize("replaced", NOT_FOLDERS)
def test_replacing(place: Path, kind: str, replaced: str) -> None:
    old, new = make(kind, place / "old"), make(replaced, place / "new")
    number = old.lstat().st_ino
    with changes_times(place, mtime=True):
        old.rename(new)
    assert new.lstat().st_ino == number
    assert file_type(new) == kind
    assert os.listdir(place) == ["new"]


@pytest.mark.parametrize("replaced", NOT_FOLDERS)
def test_the_replaced_file_loses_a_name(place: Path, replaced: str) -> None:
    make("regular", place / "old")
    make(replaced, place / "new")
    os.link(place / "new", place / "second", follow_symlinks=False)
    with changes_times(place / "second", mtime=False):
        (place / "old").rename(place / "new")
    assert (place / "second").lstat().st_nlink == 1


def test_the_replaced_file_stays_open(place: Path) -> None:
    (place / "old").write_bytes(b"old")
    (place / "new").write_bytes(b"new")
    descriptor = os.open(place / "new", os.O_RDWR)
    (place / "old").rename(place / "new")
    assert os.fstat(descriptor).st_nlink == 0
    os.pwrite(descriptor, b"!", 3)
    assert os.pread(descriptor, 100, 0) == b"new!"
    os.close(descriptor)
    assert (place / "new").read_bytes() == b"old"


def test_a_folder_replaces_an_empty_folder(place: Path) -> None:
    make("folder", place / "old")
    make("regular", place / "old" / "file")
    make("folder", place / "new")
    number = (place / "old").lstat().st_ino
    (place / "old").rename(place / "new")
    assert (place / "new").lstat().st_ino == number
    assert os.listdir(place / "new") == ["file"]


@ALL_KINDS
def test_a_folder_that_is_not_empty_is_not_replaced(place: Path, kind: str) -> None:
    make("folder", place / "old")
    make("folder", place / "new")
    make(kind, place / "new" / "inside")
    with keeps_times(place, place / "new"), refused(errno.ENOTEMPTY, errno.EEXIST):
        (place / "old").rename(place / "new")


@pytest.mark.parametrize("kind", NOT_FOLDERS)
def test_a_folder_replaces_no_file(place: Path, kind: str) -> None:
    make("folder", place / "old")
    make(kind, place / "new")
    with keeps_times(place), refused(errno.ENOTDIR):
        (place / "old").rename(place / "new")
    assert file_type(place / "new") == kind


@pytest.mark.parametrize("kind", NOT_FOLDERS)
def test_a_file_replaces_no_folder(place: Path, kind: str) -> None:
    make(kind, place / "old")
    make("folder", place / "new")
    with keeps_times(place), refused(errno.EISDIR):
        (place / "old").rename(place / "new")
    assert file_type(place / "old") == kind


@pytest.mark.parametrize("below", ["folder/new", "folder/deep/new", "folder/deep/er/new"])
def test_a_folder_does_not_move_into_itself(place: Path, below: str) -> None:
    (place / "folder" / "deep" / "er").mkdir(parents=True)
    with refused(errno.EINVAL):
        (place / "folder").rename(place / below)


def test_a_folder_does_not_replace_one_above_it(place: Path) -> None:
    (place / "folder" / "deep").mkdir(parents=True)
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        (place / "folder" / "deep").rename(place / "folder")


@pytest.mark.parametrize("name", [".", ".."])
def test_the_names_of_every_folder_stay(place: Path, name: str) -> None:
    make("folder", place / "folder")
    with refused(errno.EINVAL, errno.EBUSY):
        os.rename(f"{place}/folder/{name}", place / "new")
    with refused(errno.EINVAL, errno.EBUSY, errno.ENOTEMPTY):
        os.rename(place / "folder", f"{place}/folder/{name}")


def test_links_of_folders_follow_their_subfolders(folders: tuple[Path, Path]) -> None:
    source, target = folders
    make("folder", source / "one")
    make("folder", source / "two")
    (source / "one").rename(target / "one")
    assert (source.lstat().st_nlink, target.lstat().st_nlink) == (3, 3)
    (source / "two").rename(target / "one")
    assert (source.lstat().st_nlink, target.lstat().st_nlink) == (2, 3)
    assert os.stat(target / "one" / "..").st_ino == target.lstat().st_ino


def test_another_file_system(place: Path, elsewhere: Path) -> None:
    make("regular", place / "file")
    make("folder", place / "folder")
    for name in ("file", "folder"):
        with refused(errno.EXDEV):
            (place / name).rename(elsewhere / name)
    make("regular", elsewhere / "outside")
    with refused(errno.EXDEV):
        (elsewhere / "outside").rename(place / "inside")


@ALL_KINDS
def test_the_change_time_of_what_moved(place: Path, kind: str) -> None:
    old = make(kind, place / "old")
    before = old.lstat().st_ctime_ns
    with changes_times(place, mtime=True):
        old.rename(place / "new")
    assert (place / "new").lstat().st_ctime_ns > before


@pytest.mark.parametrize("which", ["source", "target"])
def test_both_folders_must_be_writable(folders: tuple[Path, Path], which: str) -> None:
    source, target = folders
    make_for(ALICE, "regular", source / "file")
    for folder in folders:
        folder.chmod(0o777)
    (source if which == "source" else target).chmod(0o755)
    with keeps_times(source, target), acting_as(ALICE), refused(errno.EACCES):
        (source / "file").rename(target / "file")


def test_a_folder_that_changes_its_parent_must_be_writable(folders: tuple[Path, Path]) -> None:
    source, target = folders
    for folder in folders:
        folder.chmod(0o777)
    make_for(BOB, "folder", source / "folder", 0o755)
    with acting_as(ALICE):
        with refused(errno.EACCES):
            (source / "folder").rename(target / "folder")
        (source / "folder").rename(source / "renamed")


STICKY = pytest.mark.parametrize(
    ("folder_owner", "file_owner", "user", "allowed"),
    [
        (ALICE, ALICE, ALICE, True),
        (ALICE, BOB, ALICE, True),
        (BOB, ALICE, ALICE, True),
        (BOB, BOB, ALICE, False),
        (User(0, 0), User(0, 0), ALICE, False),
        (BOB, BOB, User(0, 0), True),
    ],
    ids=["owns both", "owns the folder", "owns the file", "owns neither", "owns neither of root's", "root"],
)


@STICKY
@ALL_KINDS
def test_out_of_a_sticky_folder(place: Path, kind: str, folder_owner: User, file_owner: User, user: User, allowed: bool) -> None:
    place.chmod(0o777)
    sticky = make_for(folder_owner, "folder", place / "sticky", 0o1777)
    make_for(file_owner, kind, sticky / "file", 0o777)
    with acting_as(user):
        if allowed:
            (sticky / "file").rename(sticky / "moved")
        else:
            with refused(errno.EPERM, errno.EACCES):
                (sticky / "file").rename(sticky / "moved")
    assert os.listdir(sticky) == (["moved"] if allowed else ["file"])


@STICKY
@ALL_KINDS
def test_over_a_file_of_a_sticky_folder(
    place: Path, kind: str, folder_owner: User, file_owner: User, user: User, allowed: bool
) -> None:
    place.chmod(0o777)
    sticky = make_for(folder_owner, "folder", place / "sticky", 0o1777)
    make_for(file_owner, kind, sticky / "file", 0o777)
    mine = make_for(user, "folder" if kind == "folder" else "regular", place / "mine", 0o755)
    number = mine.lstat().st_ino
    with acting_as(user):
        if allowed:
            mine.rename(sticky / "file")
        else:
            with refused(errno.EPERM, errno.EACCES):
                mine.rename(sticky / "file")
    assert ((sticky / "file").lstat().st_ino == number) == allowed


@ALL_KINDS
def test_no_replacing_when_asked(place: Path, kind: str) -> None:
    old, new = make("regular", place / "old"), make(kind, place / "new")
    with keeps_times(place, old, new), refused(errno.EEXIST):
        rename_with(old, new, RENAME_NOREPLACE)
    assert file_type(new) == kind


@ALL_KINDS
def test_no_replacing_where_nothing_is(place: Path, kind: str) -> None:
    old = make(kind, place / "old")
    rename_with(old, place / "new", RENAME_NOREPLACE)
    assert os.listdir(place) == ["new"]


@ALL_KINDS
@pytest.mark.parametrize("second", KINDS)
def test_exchanging(folders: tuple[Path, Path], kind: str, second: str) -> None:
    source, target = folders
    one, two = make(kind, source / "one"), make(second, target / "two")
    numbers = one.lstat().st_ino, two.lstat().st_ino
    with changes_times(source, target, mtime=True):
        rename_with(one, two, RENAME_EXCHANGE)
    assert (two.lstat().st_ino, one.lstat().st_ino) == numbers
    assert (file_type(one), file_type(two)) == (second, kind)
    assert source.lstat().st_nlink == (3 if second == "folder" else 2)
    assert target.lstat().st_nlink == (3 if kind == "folder" else 2)


def test_exchanging_contents(place: Path) -> None:
    (place / "one").write_bytes(b"one")
    (place / "two").write_bytes(b"two!")
    (place / "one").chmod(0o600)
    rename_with(place / "one", place / "two", RENAME_EXCHANGE)
    assert ((place / "one").read_bytes(), (place / "two").read_bytes()) == (b"two!", b"one")
    assert (place / "two").stat().st_mode & 0o777 == 0o600


def test_exchanging_full_folders(place: Path) -> None:
    for name in ("one", "two"):
        make("folder", place / name)
        make("regular", place / name / f"in {name}")
    rename_with(place / "one", place / "two", RENAME_EXCHANGE)
    assert os.listdir(place / "one") == ["in two"]
    assert os.listdir(place / "two") == ["in one"]


def test_exchanging_with_nothing(place: Path) -> None:
    make("regular", place / "one")
    with refused(errno.ENOENT):
        rename_with(place / "one", place / "two", RENAME_EXCHANGE)
    with refused(errno.ENOENT):
        rename_with(place / "two", place / "one", RENAME_EXCHANGE)


@pytest.mark.parametrize(
    ("first", "second"), [("folder", "folder/deep"), ("folder/deep", "folder"), ("folder", "folder/deep/er")]
)
def test_exchanging_a_folder_with_what_is_in_it(place: Path, first: str, second: str) -> None:
    (place / "folder" / "deep" / "er").mkdir(parents=True)
    with refused(errno.EINVAL):
        rename_with(place / first, place / second, RENAME_EXCHANGE)


def test_exchanging_in_a_sticky_folder(place: Path) -> None:
    sticky = make_for(BOB, "folder", place / "sticky", 0o1777)
    make_for(BOB, "regular", sticky / "bob's")
    make_for(ALICE, "regular", sticky / "alice's")
    with acting_as(ALICE), refused(errno.EPERM, errno.EACCES):
        rename_with(sticky / "alice's", sticky / "bob's", RENAME_EXCHANGE)


@pytest.mark.parametrize("flags", [RENAME_NOREPLACE | RENAME_EXCHANGE, RENAME_EXCHANGE | RENAME_WHITEOUT, 8, 1 << 31])
def test_flags_that_make_no_sense(place: Path, flags: int) -> None:
    old, new = make("regular", place / "old"), make("regular", place / "new")
    with refused(errno.EINVAL):
        rename_with(old, new, flags)


def test_whiteouts_are_refused(place: Path, only_aloft: None) -> None:
    old = make("regular", place / "old")
    with refused(errno.EINVAL):
        rename_with(old, place / "new", RENAME_WHITEOUT)


def test_the_working_folder_moves_along(folders: tuple[Path, Path]) -> None:
    source, target = folders
    make("folder", source / "here")
    make("regular", source / "here" / "file")
    os.chdir(source / "here")
    (source / "here").rename(target / "there")
    assert os.listdir(".") == ["file"]
    assert Path.cwd() == target / "there"


def test_a_save_by_rename(place: Path) -> None:
    """What editors do: write beside, sync, move over. A reader always finds a whole file."""
    path = place / "document"
    path.write_bytes(b"0")
    for number in range(1, 30):
        beside = place / ".document.tmp"
        with beside.open("wb") as file:
            file.write(b"%d" % number)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
        assert path.read_bytes() == b"%d" % number
    assert os.listdir(place) == ["document"]
