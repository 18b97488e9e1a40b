"""truncate, ftruncate, posix_fallocate: sizes, zeros, times and refusals."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.calls import ALICE, acting_as, changes_times, keeps_times, make, make_for, refused, truncate_to

Resize = Callable[[Path, int], None]


def ftruncate(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


BOTH = pytest.mark.parametrize("resize", [truncate_to, ftruncate], ids=["truncate", "ftruncate"])
SIZES = (0, 1, 4095, 4096, 4097, 65536, 65537, 1_000_003)


@BOTH
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("before", [0, 1, 5000, 70_000])
def test_the_content_afterwards(place: Path, resize: Resize, before: int, size: int) -> None:
    path = place / "file"
    content = bytes(1 + number % 255 for number in range(before))
    path.write_bytes(content)
    resize(path, size)
    assert path.stat().st_size == size
    assert path.read_bytes() == content[:size].ljust(size, b"\0")


@BOTH
def test_what_was_cut_off_does_not_come_back(place: Path, resize: Resize) -> None:
    path = place / "file"
    path.write_bytes(b"x" * 10_000)
    resize(path, 100)
    resize(path, 10_000)
    assert path.read_bytes() == b"x" * 100 + bytes(9_900)


def test_through_an_open_descriptor(place: Path) -> None:
    path = place / "file"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    os.write(descriptor, b"0123456789")
    truncate_to(path, 4)
    assert os.fstat(descriptor).st_size == 4
    os.write(descriptor, b"end")
    os.close(descriptor)
    assert path.read_bytes() == b"0123" + bytes(6) + b"end"


@BOTH
@pytest.mark.parametrize("size", [2**31 - 1, 2**31, 2**32, 2**40])
def test_large_sparse_sizes(place: Path, resize: Resize, size: int) -> None:
    path = make("regular", place / "file")
    resize(path, size)
    assert path.stat().st_size == size
    with path.open("rb") as file:
        file.seek(size - 5)
        assert file.read(100) == bytes(5)
    resize(path, 0)


@BOTH
@pytest.mark.parametrize("size", [999_999_999_999_999, 2**63 - 1])
def test_absurd_sizes_are_taken_or_refused_whole(place: Path, resize: Resize, size: int) -> None:
    path = make("regular", place / "file")
    try:
        resize(path, size)
    except OSError as error:
        code, expected = error.errno, 0
    else:
        code, expected = None, size
    assert code in (None, errno.EFBIG, errno.EINVAL)
    assert path.stat().st_size == expected
    resize(path, 0)


@BOTH
@pytest.mark.parametrize("size", [-1, -(2**63)])
def test_negative_sizes(place: Path, resize: Resize, size: int) -> None:
    path = make("regular", place / "file")
    with keeps_times(path), refused(errno.EINVAL):
        resize(path, size)


@BOTH
@pytest.mark.parametrize("size", [0, 3, 100])
def test_times(place: Path, resize: Resize, size: int) -> None:
    path = place / "file"
    path.write_bytes(b"content")
    with changes_times(path, mtime=True):
        resize(path, size)


def test_times_stay_when_it_is_refused(place: Path) -> None:
    path = make_for(ALICE, "regular", place / "file", 0o444)
    with keeps_times(path), acting_as(ALICE), refused(errno.EACCES):
        truncate_to(path, 10)


def test_folders_have_no_size_to_set(place: Path) -> None:
    with refused(errno.EISDIR):
        truncate_to(place, 0)


@pytest.mark.parametrize("kind", ["fifo", "socket", "character", "block"])
def test_only_regular_files_are_truncated(place: Path, kind: str) -> None:
    with refused(errno.EINVAL, errno.EACCES):
        truncate_to(make(kind, place / "file"), 0)


def test_a_descriptor_for_reading_does_not_truncate(place: Path) -> None:
    path = make("regular", place / "file")
    descriptor = os.open(path, os.O_RDONLY)
    with refused(errno.EINVAL, errno.EBADF):
        os.ftruncate(descriptor, 10)
    os.close(descriptor)


def test_a_descriptor_keeps_the_right_that_the_file_lost(place: Path) -> None:
    path = make_for(ALICE, "regular", place / "file", 0o600)
    with acting_as(ALICE):
        descriptor = os.open(path, os.O_RDWR)
        path.chmod(0o400)
        os.ftruncate(descriptor, 10)
        os.close(descriptor)
        with refused(errno.EACCES):
            truncate_to(path, 0)
    assert path.stat().st_size == 10


def test_through_a_symlink(place: Path) -> None:
    (place / "file").write_bytes(b"content")
    (place / "link").symlink_to("file")
    truncate_to(place / "link", 3)
    assert (place / "file").read_bytes() == b"con"


@pytest.mark.parametrize(
    ("before", "offset", "length", "after"),
    [(0, 0, 567, 567), (0, 1000, 1, 1001), (567, 20000, 3456, 23456), (567, 0, 100, 567), (567, 500, 100, 600)],
)
def test_posix_fallocate(place: Path, before: int, offset: int, length: int, after: int) -> None:
    path = place / "file"
    content = bytes(1 + number % 255 for number in range(before))
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDWR)
    os.posix_fallocate(descriptor, offset, length)
    assert os.fstat(descriptor).st_size == after
    os.close(descriptor)
    assert path.read_bytes() == content.ljust(after, b"\0")


def test_posix_fallocate_changes_the_times(place: Path) -> None:
    path = make("regular", place / "file")
    descriptor = os.open(path, os.O_RDWR)
    with changes_times(path, mtime=False):
        os.posix_fallocate(descriptor, 0, 1234)
        os.close(descriptor)


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (-1, 1), (1, -1), (0, -5)])
def test_posix_fallocate_of_nothing(place: Path, offset: int, length: int) -> None:
    path = make("regular", place / "file")
    descriptor = os.open(path, os.O_RDWR)
    with keeps_times(path), refused(errno.EINVAL):
        os.posix_fallocate(descriptor, offset, length)
    os.close(descriptor)
    assert path.stat().st_size == 0


def test_posix_fallocate_of_what_cannot_have_it(place: Path) -> None:
    path = make("regular", place / "file")
    reading = os.open(path, os.O_RDONLY)
    with refused(errno.EBADF):
        os.posix_fallocate(reading, 0, 10)
    os.close(reading)
    fifo = os.open(make("fifo", place / "fifo"), os.O_RDWR)
    with refused(errno.ESPIPE):
        os.posix_fallocate(fifo, 0, 10)
    os.close(fifo)


def test_posix_fallocate_beyond_all_sizes(place: Path) -> None:
    path = make("regular", place / "file")
    descriptor = os.open(path, os.O_RDWR)
    with refused(errno.EFBIG, errno.ENOSPC):
        os.posix_fallocate(descriptor, 2**63 - 2, 100)
    os.close(descriptor)


def test_a_new_file_without_rights_is_allocated_by_its_maker(place: Path) -> None:
    place.chmod(0o777)
    with acting_as(ALICE):
        descriptor = os.open(place / "file", os.O_CREAT | os.O_RDWR, 0)
        os.posix_fallocate(descriptor, 0, 1)
        os.ftruncate(descriptor, 100)
        os.close(descriptor)
    assert (place / "file").stat().st_size == 100
