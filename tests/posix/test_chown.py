"""chown: who may give which file to whom, and which bits that takes away."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.posix.calls import (
    ALICE,
    BOB,
    KINDS,
    NOT_FOLLOWED,
    User,
    acting_as,
    changes_times,
    keeps_times,
    make,
    make_for,
    mode_of,
    refused,
)

ALL_KINDS = pytest.mark.parametrize("kind", KINDS)
MEMBER = User(ALICE.uid, ALICE.gid, (BOB.gid,))
"""Alice, who is of Bob's group too."""


def owners(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def lchown(path: Path, uid: int, gid: int) -> None:
    os.chown(path, uid, gid, follow_symlinks=False)


@ALL_KINDS
@pytest.mark.parametrize(
    ("uid", "gid", "result"),
    [
        (123, 456, (123, 456)),
        (123, -1, (123, ALICE.gid)),
        (-1, 456, (ALICE.uid, 456)),
        (-1, -1, (ALICE.uid, ALICE.gid)),
        (0, 0, (0, 0)),
    ],
)
def test_root_gives_anything_to_anyone(place: Path, kind: str, uid: int, gid: int, result: tuple[int, int]) -> None:
    path = make_for(ALICE, kind, place / "file")
    lchown(path, uid, gid)
    assert owners(path) == result


@pytest.mark.parametrize("number", [2**31 - 1, 2**31, 2**32 - 2])
def test_large_numbers(place: Path, number: int) -> None:
    path = make("regular", place / "file")
    os.chown(path, number, number)
    assert owners(path) == (number, number)


@ALL_KINDS
def test_the_change_time_is_set(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    with changes_times(path, mtime=False):
        lchown(path, 123, 456)


@ALL_KINDS
def test_the_modification_time_stays(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    os.utime(path, ns=(5_000_000_005, 6_000_000_006), follow_symlinks=False)
    lchown(path, 123, 456)
    assert path.lstat().st_mtime_ns == 6_000_000_006


@pytest.mark.parametrize("kind", [*NOT_FOLLOWED, "folder"])
def test_through_a_symlink(place: Path, kind: str) -> None:
    make(kind, place / "file")
    (place / "link").symlink_to("file")
    os.chown(place / "link", 123, 456)
    assert owners(place / "file") == (123, 456)
    assert owners(place / "link") == (0, 0)


def test_a_symlink_itself(place: Path) -> None:
    make("regular", place / "file")
    (place / "link").symlink_to("file")
    lchown(place / "link", 123, 456)
    assert owners(place / "file") == (0, 0)
    assert owners(place / "link") == (123, 456)


@pytest.mark.parametrize("kind", ["regular", "folder"])
def test_by_descriptor(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    descriptor = os.open(path, os.O_RDONLY)
    os.fchown(descriptor, 77, 88)
    os.close(descriptor)
    assert owners(path) == (77, 88)


def test_by_descriptor_of_an_unlinked_file(place: Path) -> None:
    path = make("regular", place / "file")
    descriptor = os.open(path, os.O_RDWR)
    path.unlink()
    os.fchown(descriptor, 77, 88)
    status = os.fstat(descriptor)
    os.close(descriptor)
    assert (status.st_uid, status.st_gid) == (77, 88)


@ALL_KINDS
def test_the_owner_gives_it_to_a_group_of_theirs(place: Path, kind: str) -> None:
    path = make_for(ALICE, kind, place / "file")
    with acting_as(MEMBER):
        lchown(path, -1, BOB.gid)
    assert owners(path) == (ALICE.uid, BOB.gid)


@ALL_KINDS
def test_the_owner_may_repeat_the_owner(place: Path, kind: str) -> None:
    path = make_for(ALICE, kind, place / "file")
    with acting_as(MEMBER):
        lchown(path, ALICE.uid, BOB.gid)
    assert owners(path) == (ALICE.uid, BOB.gid)


@ALL_KINDS
@pytest.mark.parametrize(
    ("user", "uid", "gid"),
    [
        (ALICE, BOB.uid, -1),
        (ALICE, -1, BOB.gid),
        (ALICE, BOB.uid, BOB.gid),
        (ALICE, 0, -1),
        (ALICE, -1, 0),
        (MEMBER, BOB.uid, BOB.gid),
        (BOB, BOB.uid, -1),
        (BOB, -1, BOB.gid),
        (BOB, BOB.uid, BOB.gid),
        (User(BOB.uid, ALICE.gid), -1, ALICE.gid),
    ],
    ids=[
        "owner gives it away",
        "owner to a group of others",
        "owner gives both away",
        "owner to root",
        "owner to root's group",
        "member gives it away",
        "stranger takes it",
        "stranger takes its group",
        "stranger takes both",
        "group member repeats the group",
    ],
)
def test_what_is_not_allowed(place: Path, kind: str, user: User, uid: int, gid: int) -> None:
    path = make_for(ALICE, kind, place / "file")
    with keeps_times(path), acting_as(user), refused(errno.EPERM):
        lchown(path, uid, gid)
    assert owners(path) == (ALICE.uid, ALICE.gid)


def test_of_a_symlinks_target_by_a_stranger(place: Path) -> None:
    make_for(ALICE, "regular", place / "file")
    make_for(BOB, "symlink", place / "link")
    (place / "link").unlink()
    (place / "link").symlink_to("file")
    with acting_as(BOB), refused(errno.EPERM):
        os.chown(place / "link", BOB.uid, BOB.gid)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6755, 0o6777, 0o6711], ids=oct)
@pytest.mark.parametrize("how", ["chown", "fchown", "through a symlink"])
def test_giving_a_program_to_another_group_clears_the_set_id_bits(place: Path, mode: int, how: str) -> None:
    path = make_for(ALICE, "regular", place / "file", 0o755)
    (place / "link").symlink_to("file")
    path.chmod(mode)
    with acting_as(MEMBER):
        match how:
            case "chown":
                os.chown(path, -1, BOB.gid)
            case "fchown":
                descriptor = os.open(path, os.O_RDONLY)
                os.fchown(descriptor, -1, BOB.gid)
                os.close(descriptor)
            case _:
                os.chown(place / "link", -1, BOB.gid)
    assert mode_of(path) == mode & 0o777
    assert owners(path) == (ALICE.uid, BOB.gid)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6755], ids=oct)
def test_root_giving_a_program_away_clears_the_set_id_bits(place: Path, mode: int) -> None:
    path = make_for(ALICE, "regular", place / "file", 0o755)
    path.chmod(mode)
    os.chown(path, BOB.uid, BOB.gid)
    assert mode_of(path) == 0o755


def test_the_group_bit_without_execution_stays_for_root(place: Path) -> None:
    path = make_for(ALICE, "regular", place / "file", 0o644)
    path.chmod(0o2644)
    os.chown(path, BOB.uid, BOB.gid)
    assert mode_of(path) == 0o2644


@pytest.mark.parametrize("mode", [0o1755, 0o2755, 0o7777], ids=oct)
def test_a_folder_keeps_its_special_bits(place: Path, mode: int) -> None:
    path = make_for(ALICE, "folder", place / "folder", 0o755)
    path.chmod(mode)
    with acting_as(MEMBER):
        os.chown(path, -1, BOB.gid)
    assert mode_of(path) == mode


def test_what_root_gives_away_its_new_owner_may_change(place: Path) -> None:
    path = make("regular", place / "file", 0o600)
    os.chown(path, ALICE.uid, ALICE.gid)
    with acting_as(ALICE):
        path.write_bytes(b"mine")
        path.chmod(0o640)
    with acting_as(BOB), refused(errno.EACCES):
        path.read_bytes()
