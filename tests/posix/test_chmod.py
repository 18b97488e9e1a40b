"""chmod: which bits a file gets, who may change them, and what that does to its change time."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix.calls import (
    ALICE,
    BOB,
    KINDS,
    User,
    acting_as,
    changes_times,
    keeps_times,
    make,
    make_for,
    mode_of,
    refused,
)

CHANGEABLE = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "symlink"])


@CHANGEABLE
@pytest.mark.parametrize("mode", [0o000, 0o001, 0o020, 0o111, 0o222, 0o333, 0o444, 0o555, 0o644, 0o700, 0o751, 0o777])
def test_permission_bits(place: Path, kind: str, mode: int) -> None:
    path = make(kind, place / "file", 0o640)
    kind_bits = stat.S_IFMT(path.lstat().st_mode)
    path.chmod(mode)
    assert path.lstat().st_mode == kind_bits | mode


@CHANGEABLE
@pytest.mark.parametrize("mode", [0o1644, 0o2644, 0o4644, 0o6755, 0o7777], ids=oct)
def test_special_bits_set_by_root(place: Path, kind: str, mode: int) -> None:
    path = make(kind, place / "file")
    path.chmod(mode)
    assert mode_of(path) == mode


@CHANGEABLE
def test_the_change_time_is_set(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    with changes_times(path, mtime=False):
        path.chmod(0o600)


@CHANGEABLE
def test_the_modification_time_stays(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    os.utime(path, ns=(1_000_000_001, 1_000_000_002))
    path.chmod(0o600)
    assert path.lstat().st_mtime_ns == 1_000_000_002


@CHANGEABLE
def test_the_owner_may(place: Path, kind: str) -> None:
    path = make_for(ALICE, kind, place / "file")
    with acting_as(ALICE):
        path.chmod(0o604)
    assert mode_of(path) == 0o604


@CHANGEABLE
@pytest.mark.parametrize("user", [BOB, User(BOB.uid, ALICE.gid)], ids=["stranger", "of the group"])
def test_others_may_not(place: Path, kind: str, user: User) -> None:
    path = make_for(ALICE, kind, place / "file", 0o666)
    with keeps_times(path), acting_as(user), refused(errno.EPERM):
        path.chmod(0o600)
    assert mode_of(path) == 0o666


def test_others_may_not_change_roots_file(place: Path) -> None:
    path = make("regular", place / "file", 0o666)
    with acting_as(ALICE), refused(errno.EPERM):
        path.chmod(0o600)


@CHANGEABLE
def test_through_a_symlink(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    (place / "link").symlink_to("file")
    link = (place / "link").lstat().st_mode
    (place / "link").chmod(0o321)
    assert mode_of(path) == 0o321
    assert (place / "link").lstat().st_mode == link


def test_through_a_symlink_by_a_stranger(place: Path) -> None:
    make_for(ALICE, "regular", place / "file", 0o666)
    (place / "link").symlink_to("file")
    with acting_as(BOB), refused(errno.EPERM):
        (place / "link").chmod(0o600)


@pytest.mark.parametrize("kind", ["regular", "folder"])
def test_by_descriptor(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fchmod(descriptor, 0o1555)
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o1555
    finally:
        os.close(descriptor)
    assert mode_of(path) == 0o1555


def test_by_descriptor_of_an_unlinked_file(place: Path) -> None:
    path = make("regular", place / "file")
    descriptor = os.open(path, os.O_RDWR)
    try:
        path.unlink()
        os.fchmod(descriptor, 0o111)
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o111
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("name", ["one", "two"])
def test_all_names_of_a_file_share_its_bits(place: Path, name: str) -> None:
    make("regular", place / "one")
    (place / "two").hardlink_to(place / "one")
    (place / name).chmod(0o511)
    assert mode_of(place / "one") == mode_of(place / "two") == 0o511


@pytest.mark.parametrize("kind", ["regular", "fifo", "socket", "folder"])
def test_the_group_bit_goes_when_its_owner_is_not_of_the_group(place: Path, kind: str) -> None:
    path = make_for(User(ALICE.uid, BOB.gid), kind, place / "file", 0o755)
    with acting_as(ALICE):
        path.chmod(0o2755)
    assert mode_of(path) == 0o755


@pytest.mark.parametrize("kind", ["regular", "fifo", "socket", "folder"])
def test_the_group_bit_stays_when_its_owner_is_of_the_group(place: Path, kind: str) -> None:
    path = make_for(User(ALICE.uid, BOB.gid), kind, place / "file", 0o755)
    with acting_as(User(ALICE.uid, ALICE.gid, (BOB.gid,))):
        path.chmod(0o2755)
    assert mode_of(path) == 0o2755


@pytest.mark.parametrize("kind", ["regular", "folder", "fifo"])
@pytest.mark.parametrize("mode", [0o1755, 0o4755], ids=oct)
def test_sticky_and_set_user_bits_are_the_owners_to_set(place: Path, kind: str, mode: int) -> None:
    path = make_for(ALICE, kind, place / "file", 0o755)
    with acting_as(ALICE):
        path.chmod(mode)
    assert mode_of(path) == mode


@pytest.mark.parametrize("mode", [0o4777, 0o2777, 0o6777], ids=oct)
def test_writing_by_another_user_clears_the_set_id_bits(place: Path, mode: int) -> None:
    path = make_for(ALICE, "regular", place / "file", 0o777)
    path.chmod(mode)
    with acting_as(BOB):
        descriptor = os.open(path, os.O_WRONLY)
        os.write(descriptor, b"x")
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o777
        os.close(descriptor)
    assert mode_of(path) == 0o777


@pytest.mark.parametrize("mode", [0o4777, 0o2777, 0o6777], ids=oct)
def test_writing_by_the_owner_clears_the_set_id_bits(place: Path, mode: int) -> None:
    path = make_for(ALICE, "regular", place / "file", 0o777)
    path.chmod(mode)
    with acting_as(ALICE):
        path.write_bytes(b"x")
    assert mode_of(path) == 0o777


@pytest.mark.parametrize("mode", [0o4777, 0o2777, 0o6777], ids=oct)
def test_writing_by_root_keeps_the_set_id_bits(place: Path, mode: int) -> None:
    path = make_for(ALICE, "regular", place / "file", 0o777)
    path.chmod(mode)
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_TRUNC):
        descriptor = os.open(path, flags)
        os.write(descriptor, b"x")
        os.close(descriptor)
        assert mode_of(path) == mode


@pytest.mark.parametrize("mode", [0o4777, 0o2777, 0o6777], ids=oct)
@pytest.mark.parametrize("how", ["truncate", "ftruncate", "open with O_TRUNC"])
def test_truncating_by_another_user_clears_the_set_id_bits(place: Path, mode: int, how: str) -> None:
    path = make_for(ALICE, "regular", place / "file", 0o777)
    path.write_bytes(b"content")
    path.chmod(mode)
    with acting_as(BOB):
        match how:
            case "truncate":
                os.truncate(path, 3)
            case "ftruncate":
                descriptor = os.open(path, os.O_WRONLY)
                os.ftruncate(descriptor, 3)
                os.close(descriptor)
            case _:
                os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    assert mode_of(path) == 0o777


def test_the_special_bits_of_a_folder_survive_what_is_made_in_it(place: Path) -> None:
    folder = make("folder", place / "folder")
    folder.chmod(0o7777)
    with acting_as(ALICE):
        (folder / "file").write_bytes(b"x")
        (folder / "file").unlink()
    assert mode_of(folder) == 0o7777
