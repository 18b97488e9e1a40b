"""open: the flags, what they make, what they refuse."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.posix.calls import (
    ALICE,
    BOB,
    KINDS,
    NOT_FOLDERS,
    acting_as,
    changes_times,
    file_type,
    keeps_times,
    make,
    make_for,
    mode_of,
    refused,
)


def opened(path: Path | str, flags: int, mode: int = 0o644) -> None:
    os.close(os.open(path, flags, mode))


@pytest.mark.parametrize("kind", ["regular", "folder"])
def test_o_creat_takes_what_is_there(place: Path, kind: str) -> None:
    path = make(kind, place / "file", 0o640)
    if kind == "folder":
        with refused(errno.EISDIR):
            opened(path, os.O_CREAT | os.O_RDONLY)
    else:
        with keeps_times(place, path):
            opened(path, os.O_CREAT | os.O_WRONLY, 0o777)
        assert mode_of(path) == 0o640


def test_o_creat_through_a_dangling_symlink_makes_its_target(place: Path) -> None:
    make("symlink", place / "link")
    opened(place / "link", os.O_CREAT | os.O_WRONLY)
    assert file_type(place / "nowhere") == "regular"
    assert file_type(place / "link") == "symlink"


@pytest.mark.parametrize("kind", KINDS)
def test_o_excl_refuses_what_is_there(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    with refused(errno.EEXIST):
        opened(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)


@pytest.mark.parametrize("kind", NOT_FOLDERS)
def test_o_directory_refuses_others(place: Path, kind: str) -> None:
    path = make(kind, place / "file")
    if kind == "symlink":
        make("regular", place / "nowhere")
    with refused(errno.ENOTDIR):
        opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)


def test_o_directory_opens_folders(place: Path) -> None:
    opened(place, os.O_RDONLY | os.O_DIRECTORY)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_TRUNC])
def test_folders_are_not_opened_for_writing(place: Path, flags: int) -> None:
    with refused(errno.EISDIR):
        opened(place, flags)


def test_a_folder_is_not_read_as_a_file(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    with refused(errno.EISDIR):
        os.read(descriptor, 10)
    os.close(descriptor)


@pytest.mark.parametrize("target", ["regular", "folder", None])
def test_o_nofollow_refuses_symlinks(place: Path, target: str | None) -> None:
    make("symlink", place / "link")
    if target:
        make(target, place / "nowhere")
    with refused(errno.ELOOP):
        opened(place / "link", os.O_RDONLY | os.O_NOFOLLOW)


def test_o_nofollow_follows_in_the_middle(place: Path) -> None:
    make("folder", place / "nowhere")
    make("symlink", place / "link")
    make("regular", place / "nowhere" / "file")
    opened(place / "link" / "file", os.O_RDONLY | os.O_NOFOLLOW)


def test_o_path_needs_no_right_to_the_file(place: Path) -> None:
    path = make("regular", place / "file", 0)
    with acting_as(ALICE):
        descriptor = os.open(path, os.O_PATH)
        assert os.fstat(descriptor).st_size == 0
        with refused(errno.EBADF):
            os.read(descriptor, 1)
        os.close(descriptor)


def test_a_fifo_without_reader(place: Path) -> None:
    path = make("fifo", place / "fifo")
    with refused(errno.ENXIO):
        opened(path, os.O_WRONLY | os.O_NONBLOCK)


def test_a_socket_is_not_opened(place: Path) -> None:
    path = make("socket", place / "socket")
    with refused(errno.ENXIO):
        opened(path, os.O_RDONLY)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY])
def test_o_trunc_empties_the_file(place: Path, flags: int) -> None:
    path = place / "file"
    path.write_bytes(b"content")
    with changes_times(path, mtime=True):
        opened(path, flags | os.O_TRUNC)
    assert path.stat().st_size == 0
    assert path.read_bytes() == b""


def test_o_trunc_of_an_empty_file_changes_its_times(place: Path) -> None:
    path = make("regular", place / "file")
    with changes_times(path, mtime=True):
        opened(path, os.O_WRONLY | os.O_TRUNC)


def test_o_trunc_needs_the_right_to_write(place: Path) -> None:
    path = make("regular", place / "file", 0o644)
    path.write_bytes(b"content")
    with acting_as(ALICE), refused(errno.EACCES):
        opened(path, os.O_RDONLY | os.O_TRUNC)
    assert path.read_bytes() == b"content"


def test_o_trunc_while_another_holds_it_open(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"content")
    descriptor = os.open(path, os.O_RDWR)
    opened(path, os.O_WRONLY | os.O_TRUNC)
    assert os.fstat(descriptor).st_size == 0
    assert os.pread(descriptor, 100, 0) == b""
    os.pwrite(descriptor, b"new", 2)
    os.close(descriptor)
    assert path.read_bytes() == b"\0\0new"


def test_o_append_writes_at_the_end(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"one")
    first, second = (os.open(path, os.O_WRONLY | os.O_APPEND) for _ in range(2))
    for number in range(50):
        os.write((first, second)[number % 2], b"%02d" % number)
    os.lseek(first, 0, os.SEEK_SET)
    os.write(first, b"end")
    os.close(first)
    os.close(second)
    assert path.read_bytes() == b"one" + b"".join(b"%02d" % number for number in range(50)) + b"end"


def test_o_append_by_two_processes(place: Path) -> None:
    path = make("regular", place / "file")
    script = f"for i in 1 2 3 4 5 6 7 8 9; do echo 123456789 >>{path}; done"
    writers = [subprocess.Popen(["sh", "-c", script]) for _ in range(2)]
    assert [writer.wait(30) for writer in writers] == [0, 0]
    assert path.read_bytes() == b"123456789\n" * 18


def test_append_can_be_switched_on_later(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"one")
    descriptor = os.open(path, os.O_WRONLY)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    os.write(descriptor, b"two")
    os.close(descriptor)
    assert path.read_bytes() == b"onetwo"


def test_a_descriptor_for_reading_does_not_write(place: Path) -> None:
    path = make("regular", place / "file")
    descriptor = os.open(path, os.O_RDONLY)
    with refused(errno.EBADF):
        os.write(descriptor, b"x")
    os.close(descriptor)


def test_a_descriptor_for_writing_does_not_read(place: Path) -> None:
    path = make("regular", place / "file")
    descriptor = os.open(path, os.O_WRONLY)
    with refused(errno.EBADF):
        os.read(descriptor, 1)
    os.close(descriptor)


def test_a_new_file_is_writable_by_its_maker_whatever_its_bits(place: Path) -> None:
    place.chmod(0o777)
    with acting_as(ALICE):
        descriptor = os.open(place / "file", os.O_CREAT | os.O_RDWR, 0)
        os.write(descriptor, b"content")
        assert os.pread(descriptor, 100, 0) == b"content"
        os.close(descriptor)
        with refused(errno.EACCES):
            opened(place / "file", os.O_RDONLY)


def test_o_creat_of_an_existing_file_needs_no_right_to_the_folder(place: Path) -> None:
    path = make_for(ALICE, "regular", place / "file", 0o600)
    with acting_as(ALICE):
        opened(path, os.O_CREAT | os.O_WRONLY)


@pytest.fixture
def program(place: Path) -> Path:
    """A program that waits until its input ends."""
    shutil.copy("/bin/cat", place / "program")
    return place / "program"


def test_a_running_program_is_not_written(place: Path, program: Path) -> None:
    with subprocess.Popen([program], stdin=subprocess.PIPE) as process:
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            with refused(errno.ETXTBSY):
                opened(program, flags)
        with refused(errno.ETXTBSY):
            os.truncate(program, 3)
        opened(program, os.O_RDONLY)
        process.communicate()
    opened(program, os.O_WRONLY)


def test_a_file_that_is_being_written_is_not_run(program: Path) -> None:
    descriptor = os.open(program, os.O_WRONLY)
    with refused(errno.ETXTBSY):
        subprocess.run([program], stdin=subprocess.DEVNULL, check=False)
    os.close(descriptor)


def test_a_running_program_may_be_unlinked_and_replaced(place: Path, program: Path) -> None:
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        program.unlink()
        program.write_bytes(b"something else")
        assert process.communicate(b"still here")[0] == b"still here"
    assert program.read_bytes() == b"something else"


def test_a_file_beyond_the_process_limit(place: Path) -> None:
    path = make("regular", place / "file")
    script = f"ulimit -f 1; trap '' {signal.SIGXFSZ.value}; dd if=/dev/zero of={path} bs=4096 count=1 2>/dev/null"
    assert subprocess.run(["bash", "-c", script], check=False).returncode != 0
    assert path.stat().st_size <= 1024


def test_o_tmpfile_is_refused_clearly(place: Path, only_aloft: None) -> None:
    with refused(errno.EOPNOTSUPP):
        os.open(place, os.O_TMPFILE | os.O_RDWR)


def test_many_descriptors_of_one_file_see_the_same(place: Path) -> None:
    path = make("regular", place / "file")
    descriptors = [os.open(path, os.O_RDWR) for _ in range(20)]
    for number, descriptor in enumerate(descriptors):
        os.pwrite(descriptor, b"%02d" % number, 2 * number)
    whole = b"".join(b"%02d" % number for number in range(20))
    assert all(os.pread(descriptor, 100, 0) == whole for descriptor in descriptors)
    for descriptor in descriptors:
        os.close(descriptor)


def test_opening_by_a_strangers_descriptor_folder(place: Path) -> None:
    """A folder's descriptor opened by root serves lookups, but rights are checked for who asks."""
    make_for(ALICE, "regular", place / "file", 0o600)
    folder = os.open(place, os.O_RDONLY)
    with acting_as(BOB), refused(errno.EACCES):
        os.open("file", os.O_RDONLY, dir_fd=folder)
    with acting_as(ALICE):
        os.close(os.open("file", os.O_RDONLY, dir_fd=folder))
    os.close(folder)
