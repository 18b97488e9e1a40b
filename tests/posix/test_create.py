"""Making files of every kind: mkdir, mkfifo, mknod, symlink, bind, open with O_CREAT."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from pathlib import Path

import pytest

from tests.posix.calls import (
    ALICE,
    KINDS,
    REALTIME_COARSE,
    User,
    acting_as,
    changes_times,
    file_type,
    keeps_times,
    make,
    mode_of,
    refused,
)

ALL_KINDS = pytest.mark.parametrize("kind", KINDS)
WITH_MODE = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "symlink"])
BY_ANYONE = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("block", "character")])


@ALL_KINDS
def test_the_kind(place: Path, kind: str) -> None:
    assert file_type(make(kind, place / "file")) == kind


@WITH_MODE
@pytest.mark.parametrize("mode", [0o000, 0o151, 0o345, 0o644, 0o755, 0o777])
def test_the_bits(place: Path, kind: str, mode: int) -> None:
    assert mode_of(make(kind, place / "file", mode)) == mode


@WITH_MODE
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077, 0o151, 0o777])
def test_the_umask(place: Path, kind: str, umask: int) -> None:
    os.umask(umask)
    assert mode_of(make(kind, place / "file", 0o777)) == 0o777 & ~umask


def test_a_symlink_has_all_bits(place: Path) -> None:
    os.umask(0o077)
    assert mode_of(make("symlink", place / "link")) == 0o777


@BY_ANYONE
def test_the_owner_is_who_makes_it(place: Path, kind: str) -> None:
    place.chmod(0o777)
    with acting_as(User(1234, 5678, (4321,))):
        status = make(kind, place / "file").lstat()
    assert (status.st_uid, status.st_gid) == (1234, 5678)


@BY_ANYONE
def test_a_folder_with_the_group_bit_gives_its_group(place: Path, kind: str) -> None:
    os.chown(place, ALICE.uid, 4242)
    place.chmod(0o2777)
    with acting_as(ALICE):
        status = make(kind, place / "file").lstat()
    assert (status.st_uid, status.st_gid) == (ALICE.uid, 4242)


def test_a_folder_with_the_group_bit_gives_the_bit_to_folders(place: Path) -> None:
    os.chown(place, ALICE.uid, 4242)
    place.chmod(0o2777)
    with acting_as(ALICE):
        assert mode_of(make("folder", place / "folder", 0o755)) == 0o2755
        assert mode_of(make("regular", place / "file", 0o755)) == 0o755


def test_a_program_made_in_a_folder_with_the_group_bit_gets_none_of_a_strangers_group(place: Path) -> None:
    os.chown(place, ALICE.uid, 4242)
    place.chmod(0o2777)
    with acting_as(ALICE):
        path = make("regular", place / "file", 0o2755)
    assert mode_of(path) == 0o755


@ALL_KINDS
def test_the_times_are_now(place: Path, kind: str) -> None:
    before = time.clock_gettime_ns(REALTIME_COARSE)
    status = make(kind, place / "file").lstat()
    after = time.clock_gettime_ns(time.CLOCK_REALTIME)
    for stamp in (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns):
        assert before <= stamp <= after


@ALL_KINDS
def test_the_folders_times_change(place: Path, kind: str) -> None:
    with changes_times(place, mtime=True):
        make(kind, place / "file")


@ALL_KINDS
def test_one_name_and_no_content(place: Path, kind: str) -> None:
    status = make(kind, place / "file").lstat()
    assert status.st_nlink == (2 if kind == "folder" else 1)
    if kind not in ("folder", "symlink"):
        assert status.st_size == 0


@ALL_KINDS
@pytest.mark.parametrize("existing", KINDS)
def test_a_name_that_is_taken(place: Path, kind: str, existing: str) -> None:
    path = make(existing, place / "file")
    number = path.lstat().st_ino
    with keeps_times(place, path), refused(errno.EEXIST):
        make(kind, path)
    assert path.lstat().st_ino == number
    assert file_type(path) == existing


@ALL_KINDS
@pytest.mark.parametrize("name", [".", ".."])
def test_the_names_of_every_folder_are_taken(place: Path, kind: str, name: str) -> None:
    with refused(errno.EEXIST):
        match kind:
            case "regular":
                os.open(f"{place}/{name}", os.O_CREAT | os.O_EXCL)
            case "folder":
                os.mkdir(f"{place}/{name}")
            case "symlink":
                os.symlink("target", f"{place}/{name}")
            case _:
                os.mknod(f"{place}/{name}", 0o644 | stat.S_IFIFO)


@pytest.mark.parametrize(("major", "minor"), [(0, 0), (1, 3), (8, 255), (255, 256), (4095, 1048575)])
@pytest.mark.parametrize("kind", [stat.S_IFBLK, stat.S_IFCHR], ids=["block", "character"])
def test_device_numbers(place: Path, kind: int, major: int, minor: int) -> None:
    path = place / "device"
    os.mknod(path, 0o600 | kind, os.makedev(major, minor))
    status = path.lstat()
    assert stat.S_IFMT(status.st_mode) == kind
    assert (os.major(status.st_rdev), os.minor(status.st_rdev)) == (major, minor)


@pytest.mark.parametrize("kind", ["block", "character"])
def test_only_root_makes_devices(place: Path, kind: str) -> None:
    place.chmod(0o777)
    with keeps_times(place), acting_as(ALICE), refused(errno.EPERM):
        make(kind, place / "device")


def test_mknod_makes_regular_files(place: Path) -> None:
    place.chmod(0o777)
    with acting_as(ALICE):
        os.mknod(place / "file", 0o640 | stat.S_IFREG)
    (place / "file").write_bytes(b"content")
    assert (place / "file").read_bytes() == b"content"
    assert mode_of(place / "file") == 0o640


def test_mknod_makes_no_folders(place: Path) -> None:
    with refused(errno.EPERM, errno.EINVAL):
        os.mknod(place / "folder", 0o755 | stat.S_IFDIR)


def test_mkdir_takes_a_slash_behind_the_name(place: Path) -> None:
    os.mkdir(f"{place}/folder/")
    assert (place / "folder").is_dir()


@pytest.mark.parametrize("kind", ["regular", "fifo", "symlink"])
def test_others_take_no_slash_behind_the_name(place: Path, kind: str) -> None:
    with refused(errno.ENOENT, errno.EISDIR, errno.ENOTDIR):
        match kind:
            case "regular":
                os.open(f"{place}/file/", os.O_CREAT | os.O_WRONLY)
            case "fifo":
                os.mkfifo(f"{place}/file/")
            case _:
                os.symlink("target", f"{place}/file/")
    assert list(place.iterdir()) == []


def test_mkdir_with_the_sticky_bit(place: Path) -> None:
    assert mode_of(make("folder", place / "folder", 0o1777)) == 0o1777


def test_a_socket_is_bound_and_answers(place: Path) -> None:
    os.chdir(place)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        server.listen()
        assert file_type(place / "socket") == "socket"
        client.connect("socket")
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"hello")
            assert accepted.recv(5) == b"hello"
        with socket.socket(socket.AF_UNIX) as second, refused(errno.EADDRINUSE):
            second.bind("socket")


def test_a_fifo_carries_bytes(place: Path) -> None:
    path = make("fifo", place / "fifo")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    os.write(writer, b"hello")
    assert os.read(reader, 100) == b"hello"
    os.close(reader)
    os.close(writer)
    assert path.lstat().st_size == 0


@pytest.mark.parametrize("target", ["x", "../up/and/away", "/an/absolute/one", "with spaces and ünïcödé", "n" * 255, "t" * 4095])
def test_symlink_targets(place: Path, target: str) -> None:
    link = place / "link"
    os.symlink(target, link)
    assert os.readlink(link) == target
    assert link.lstat().st_size == len(target.encode())


def test_a_symlink_target_of_4096_bytes(place: Path) -> None:
    with refused(errno.ENAMETOOLONG):
        os.symlink("t" * 4096, place / "link")


def test_an_empty_symlink_target(place: Path) -> None:
    with refused(errno.ENOENT):
        os.symlink("", place / "link")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "symlink"])
def test_only_symlinks_are_read_as_links(place: Path, kind: str) -> None:
    make(kind, place / "file")
    with refused(errno.EINVAL):
        os.readlink(place / "file")


def test_a_name_that_is_not_utf8(place: Path, only_aloft: None) -> None:
    with refused(errno.EILSEQ):
        os.mkdir(os.fsencode(place) + b"/\xff\xfe")
    with refused(errno.EILSEQ):
        os.symlink(b"target", os.fsencode(place) + b"/\xff")


@pytest.mark.parametrize(
    "name",
    [
        "-",
        "--help",
        " ",
        "a\nb",
        "a\\b",
        "\x01",
        "\u00e9",
        "e\u0301",
        "🛩",
        "...",
        "a" * 255,
        "名" * 85,
        "con",
        "a:b",
        'q"q',
        "*?",
    ],
)
@pytest.mark.parametrize("kind", ["regular", "folder", "symlink"])
def test_unusual_names(place: Path, kind: str, name: str) -> None:
    make(kind, place / name)
    assert os.listdir(place) == [name]
    assert file_type(place / name) == kind


def test_names_differ_by_case_and_by_composition(place: Path) -> None:
    names = ["name", "Name", "NAME", "\u00e9", "e\u0301"]
    for number, name in enumerate(names):
        (place / name).write_bytes(bytes([number]))
    assert sorted(os.listdir(place)) == sorted(names)
    assert [(place / name).read_bytes() for name in names] == [bytes([number]) for number in range(len(names))]
