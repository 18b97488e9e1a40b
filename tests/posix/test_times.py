"""utimensat: which times are set, to the nanosecond, and by whom."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from tests.posix.calls import (
    ALICE,
    BOB,
    KINDS,
    REALTIME_COARSE,
    UTIME_NOW,
    UTIME_OMIT,
    User,
    acting_as,
    changes_times,
    make,
    make_for,
    refused,
    set_times,
    tick,
)

SECOND = 1_000_000_000
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)
NOW, OMIT = (0, UTIME_NOW), (0, UTIME_OMIT)
LONG_AGO = (100_000, 5)


def times_of(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_atime_ns, status.st_mtime_ns


@ALL_KINDS
@pytest.mark.parametrize(
    ("atime", "mtime"),
    [
        ((0, 0), (0, 1)),
        ((1, 999_999_999), (1_900_000_000, 123_456_789)),
        ((2**31 - 1, 7), (2**31, 8)),
        ((2**32, 1), (2**33, 999_999_999)),
    ],
    ids=["the epoch", "this age", "2038", "2106"],
)
def test_to_the_nanosecond(place: Path, kind: str, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    path = make(kind, place / "file")
    with changes_times(path, mtime=False):
        set_times(path, atime, mtime, follow=False)
    assert times_of(path) == (atime[0] * SECOND + atime[1], mtime[0] * SECOND + mtime[1])


@ALL_KINDS
@pytest.mark.parametrize("seconds", [-1, -100_000, 1 - 2**31])
def test_before_the_epoch(place: Path, kind: str, seconds: int) -> None:
    path = make(kind, place / "file")
    set_times(path, (seconds, 250), (seconds, 750), follow=False)
    assert times_of(path) == (seconds * SECOND + 250, seconds * SECOND + 750)


@ALL_KINDS
def test_now(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    set_times(path, LONG_AGO, LONG_AGO, follow=False)
    before = time.clock_gettime_ns(REALTIME_COARSE)
    set_times(path, NOW, NOW, follow=False)
    after = time.clock_gettime_ns(time.CLOCK_REALTIME)
    atime, mtime = times_of(path)
    assert before <= atime <= after
    assert before <= mtime <= after


@ALL_KINDS
@pytest.mark.parametrize("which", ["atime", "mtime", "both"])
def test_omitted_times_stay(place: Path, kind: str, which: str) -> None:
    path = make(kind, place / "file")
    set_times(path, (111, 1), (222, 2), follow=False)
    set_times(path, OMIT if which != "mtime" else (333, 3), OMIT if which != "atime" else (444, 4), follow=False)
    expected = {
        "atime": (111 * SECOND + 1, 444 * SECOND + 4),
        "mtime": (333 * SECOND + 3, 222 * SECOND + 2),
        "both": (111 * SECOND + 1, 222 * SECOND + 2),
    }
    assert times_of(path) == expected[which]


def test_now_and_omit_together(place: Path) -> None:
    path = make("regular", place / "file")
    set_times(path, (111, 1), (222, 2))
    set_times(path, NOW, OMIT)
    atime, mtime = times_of(path)
    assert atime > 1_000_000_000 * SECOND
    assert mtime == 222 * SECOND + 2


@pytest.mark.parametrize("nanoseconds", [1_000_000_000, -1, 2**30 - 3])
def test_nanoseconds_out_of_range(place: Path, nanoseconds: int) -> None:
    path = make("regular", place / "file")
    with refused(errno.EINVAL):
        set_times(path, (1, nanoseconds), (1, 0))


def test_a_symlink_or_its_target(place: Path) -> None:
    make("regular", place / "nowhere")
    link = make("symlink", place / "link")
    set_times(place / "nowhere", (11, 0), (12, 0))
    set_times(link, (21, 0), (22, 0), follow=False)
    assert times_of(place / "nowhere") == (11 * SECOND, 12 * SECOND)
    assert link.lstat().st_mtime_ns == 22 * SECOND
    set_times(link, (31, 0), (32, 0))
    assert times_of(place / "nowhere") == (31 * SECOND, 32 * SECOND)
    assert link.lstat().st_mtime_ns == 22 * SECOND


@pytest.mark.parametrize("kind", ["regular", "folder", "fifo"])
def test_the_owner_sets_what_they_like(place: Path, kind: str) -> None:
    path = make_for(ALICE, kind, place / "file", 0)
    with acting_as(ALICE):
        set_times(path, (5, 0), (6, 0))
        assert times_of(path) == (5 * SECOND, 6 * SECOND)
        set_times(path, NOW, NOW)
        set_times(path, OMIT, (7, 0))
    assert path.lstat().st_mtime_ns == 7 * SECOND


@pytest.mark.parametrize("kind", ["regular", "folder", "fifo"])
@pytest.mark.parametrize(
    ("user", "mode"),
    [(BOB, 0o666), (User(BOB.uid, ALICE.gid), 0o664), (User(BOB.uid, BOB.gid, (ALICE.gid,)), 0o664)],
    ids=["others", "group", "supplementary group"],
)
def test_whoever_may_write_sets_the_present(place: Path, kind: str, user: User, mode: int) -> None:
    path = make_for(ALICE, kind, place / "file", mode)
    set_times(path, LONG_AGO, LONG_AGO)
    with acting_as(user):
        set_times(path, NOW, NOW)
        os.utime(path)
    assert min(times_of(path)) > 1_000_000_000 * SECOND


@pytest.mark.parametrize("kind", ["regular", "folder", "fifo"])
@pytest.mark.parametrize("times", [(OMIT, NOW), (NOW, OMIT), ((1, 0), (1, 0)), (OMIT, (1, 0)), (NOW, (1, 0))], ids=str)
def test_whoever_may_write_sets_nothing_else(place: Path, kind: str, times: tuple[tuple[int, int], tuple[int, int]]) -> None:
    path = make_for(ALICE, kind, place / "file", 0o666)
    set_times(path, LONG_AGO, LONG_AGO)
    with acting_as(BOB), refused(errno.EPERM):
        set_times(path, *times)
    assert path.lstat().st_mtime_ns == 100_000 * SECOND + 5


@pytest.mark.parametrize("kind", ["regular", "folder", "fifo"])
def test_whoever_may_not_write_sets_no_time(place: Path, kind: str) -> None:
    path = make_for(ALICE, kind, place / "file", 0o644)
    with acting_as(BOB):
        with refused(errno.EACCES):
            set_times(path, NOW, NOW)
        with refused(errno.EPERM):
            set_times(path, (1, 0), (1, 0))
        set_times(path, OMIT, OMIT)


@pytest.mark.parametrize("kind", ["regular", "folder"])
def test_by_descriptor(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    descriptor = os.open(path, os.O_RDONLY)
    os.utime(descriptor, ns=(41, 42))
    os.close(descriptor)
    assert times_of(path) == (41, 42)


def test_writing_sets_modification_and_change_time(place: Path) -> None:
    path = make("regular", place / "file")
    descriptor = os.open(path, os.O_WRONLY)
    with changes_times(path, mtime=True):
        os.write(descriptor, b"x")
    os.close(descriptor)


def test_writing_nothing_changes_no_time(place: Path) -> None:
    path = make("regular", place / "file")
    set_times(path, LONG_AGO, LONG_AGO)
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, b"")
    os.close(descriptor)
    assert path.lstat().st_mtime_ns == 100_000 * SECOND + 5


def test_a_time_set_after_writing_stays_after_closing(place: Path) -> None:
    path = place / "file"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"content")
    os.utime(descriptor, ns=(1_000, 2_000))
    os.close(descriptor)
    assert path.stat().st_mtime_ns == 2_000


def test_reading_keeps_modification_and_change_time(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"content")
    before = path.stat()
    tick(path)
    path.read_bytes()
    after = path.stat()
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "folder"])  # a folder has one name
def test_a_second_name_shares_the_times(place: Path, kind: str) -> None:
    path = make(kind, place / "one")
    os.link(path, place / "two", follow_symlinks=False)
    set_times(place / "two", (51, 1), (52, 2), follow=False)
    assert times_of(path) == (51 * SECOND + 1, 52 * SECOND + 2)
