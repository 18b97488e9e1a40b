"""Files are files: on a real mount, with real system calls. What POSIX says in detail is held in tests/posix."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until

KIB, MIB = 1024, 2**20
LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, NO_REPLACE, EXCHANGE, WHITEOUT = -100, 1, 2, 4


def refused(code: int) -> Any:
    return pytest.raises(OSError, check=lambda error: error.errno == code)


def renameat2(old: Path, new: Path, flags: int) -> None:
    if LIBC.renameat2(AT_FDCWD, bytes(old), AT_FDCWD, bytes(new), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 64 * KIB, 64 * KIB + 1, 3 * MIB + 7])
def test_what_is_written_is_read(mount: Path, size: int) -> None:
    data = os.urandom(size)
    (mount / "file").write_bytes(data)
    assert (mount / "file").read_bytes() == data
    assert (mount / "file").stat().st_size == size
    drop_caches()
    assert (mount / "file").read_bytes() == data


def test_writes_at_any_offset(mount: Path) -> None:
    model = bytearray()
    with (mount / "file").open("wb") as file:
        for offset, length in ((5000, 100), (0, 10), (200_000, 70_000), (4090, 12), (199_990, 20)):
            data = os.urandom(length)
            file.seek(offset)
            file.write(data)
            model.extend(bytes(max(0, offset + length - len(model))))
            model[offset : offset + length] = data
    drop_caches()
    assert (mount / "file").read_bytes() == model


def test_append(mount: Path) -> None:
    for number in range(50):
        with (mount / "log").open("a") as file:
            file.write(f"line {number}\n")
    assert (mount / "log").read_text().splitlines() == [f"line {number}" for number in range(50)]


def test_a_file_opened_for_writing_only_may_start_in_the_middle_of_a_page(mount: Path) -> None:
    (mount / "file").write_bytes(b"a" * 5000)
    drop_caches()
    fd = os.open(mount / "file", os.O_WRONLY)
    os.pwrite(fd, b"b", 100)
    os.close(fd)
    assert (mount / "file").read_bytes() == b"a" * 100 + b"b" + b"a" * 4899


@pytest.mark.parametrize("size", [0, 1, 5000, 100_000, 2**40])
def test_truncate(mount: Path, size: int) -> None:
    (mount / "file").write_bytes(b"x" * 50_000)
    os.truncate(mount / "file", size)
    assert (mount / "file").stat().st_size == size
    drop_caches()
    with (mount / "file").open("rb") as file:
        assert file.read(60_000) == (b"x" * min(size, 50_000)).ljust(min(size, 60_000), b"\0")


def test_shared_mappings(mount: Path) -> None:
    with (mount / "file").open("w+b") as file:
        file.truncate(3 * mmap.PAGESIZE)
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[10:15] = b"hello"
            mapped[2 * mmap.PAGESIZE : 2 * mmap.PAGESIZE + 5] = b"world"
            assert os.pread(file.fileno(), 5, 10) == b"hello"
    drop_caches()
    data = (mount / "file").read_bytes()
    assert (data[10:15], data[2 * mmap.PAGESIZE :][:5]) == (b"hello", b"world")


def test_a_mapping_that_outlives_its_descriptor_is_kept(mount: Path) -> None:
    fd = os.open(mount / "file", os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(fd, mmap.PAGESIZE)
    mapped = mmap.mmap(fd, 0)
    os.close(fd)
    mapped[0:4] = b"late"
    mapped.close()
    drop_caches()
    wait_until(lambda: (mount / "file").read_bytes()[:4] == b"late")


def test_rename_with_flags(mount: Path) -> None:
    (mount / "a").write_text("a")
    (mount / "b").write_text("b")
    with refused(errno.EEXIST):
        renameat2(mount / "a", mount / "b", NO_REPLACE)
    renameat2(mount / "a", mount / "c", NO_REPLACE)
    renameat2(mount / "c", mount / "b", EXCHANGE)
    assert ((mount / "b").read_text(), (mount / "c").read_text()) == ("a", "b")
    with refused(errno.EINVAL):
        renameat2(mount / "b", mount / "d", WHITEOUT)


def test_links_fifos_sockets_and_nodes(mount: Path) -> None:
    (mount / "file").write_text("content")
    (mount / "second").hardlink_to(mount / "file")
    (mount / "link").symlink_to("file")
    os.mkfifo(mount / "fifo", 0o600)
    os.mknod(mount / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(mount / "sock"))
        listener.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(mount / "sock"))
    assert (mount / "file").stat().st_nlink == 2
    assert (mount / "link").read_text() == "content"
    assert (mount / "link").readlink() == Path("file")
    assert (mount / "null").stat().st_rdev == os.makedev(1, 3)
    with refused(errno.EACCES):  # the mount is nodev
        (mount / "null").open("rb")
    reader = threading.Thread(target=lambda: heard.append((mount / "fifo").read_text()))
    heard: list[str] = []
    reader.start()
    (mount / "fifo").write_text("through the pipe")
    reader.join()
    assert heard == ["through the pipe"]


def test_an_unlinked_file_stays_usable(mount: Path) -> None:
    with (mount / "file").open("w+b") as file:
        file.write(b"before ")
        file.flush()
        (mount / "file").unlink()
        assert os.listdir(mount) == []
        file.write(b"after")
        file.seek(0)
        assert file.read() == b"before after"
        assert os.fstat(file.fileno()).st_nlink == 0


def test_open_flags(mount: Path) -> None:
    fd = os.open(mount / "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o4711)
    os.write(fd, b"content")
    os.close(fd)
    with refused(errno.EEXIST):
        os.open(mount / "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.close(os.open(mount / "file", os.O_WRONLY | os.O_TRUNC))
    assert (mount / "file").stat().st_size == 0
    with refused(errno.EOPNOTSUPP):
        os.open(mount, os.O_TMPFILE | os.O_RDWR)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has other users to write as")
def test_truncating_by_opening_clears_the_set_id_bits_but_not_for_root(device: Any) -> None:
    device.folder.chmod(0o755)
    mount = device.mount("--allow-other")
    for name, user, expected in (("root", 0, 0o6777), ("user", 65534, 0o777)):
        (mount / name).write_text("content")
        (mount / name).chmod(0o6777)
        script = f"import os; os.close(os.open({str(mount / name)!r}, os.O_WRONLY | os.O_TRUNC))"
        subprocess.run(["setpriv", f"--reuid={user}", "--clear-groups", "/usr/bin/env", "python3", "-c", script], check=True)
        assert ((mount / name).stat().st_size, stat.S_IMODE((mount / name).stat().st_mode)) == (0, expected)


def test_times_have_nanoseconds_and_stay(mount: Path) -> None:
    for name in ("file", "folder"):
        path = mount / name
        path.touch() if name == "file" else path.mkdir()
        os.utime(path, ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
        drop_caches()
        status = path.stat()
        assert (status.st_atime_ns, status.st_mtime_ns) == (1_234_567_890_123_456_789, 987_654_321_987_654_321)


def test_a_mtime_set_by_copying_survives_the_close(mount: Path) -> None:
    """cp -p and rsync set the times through the descriptor, before the dirty pages are written."""
    with (mount / "file").open("wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        os.utime(file.fileno(), ns=(10**18, 10**18))
    assert (mount / "file").stat().st_mtime_ns == 10**18
    drop_caches()
    assert (mount / "file").stat().st_mtime_ns == 10**18


def test_names(mount: Path) -> None:
    longest = "ü" * 127 + "x"
    (mount / longest).touch()
    assert os.listdir(mount) == [longest]
    for path, code in ((mount / ("n" * 256), errno.ENAMETOOLONG), (mount / os.fsdecode(b"\xff\xfe"), errno.EILSEQ)):
        with refused(code):
            path.touch()
        with refused(code):
            path.stat()
        with refused(code):
            (mount / longest).rename(path)


def test_locks_between_processes(mount: Path) -> None:
    (mount / "file").touch()
    try_lock = "import fcntl, sys\nfcntl.{0}(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with (mount / "file").open("w") as file:
        for kind in ("flock", "lockf"):
            getattr(fcntl, kind)(file, fcntl.LOCK_EX)
            tried = [sys.executable, "-c", try_lock.format(kind), str(mount / "file")]
            assert b"BlockingIOError" in subprocess.run(tried, capture_output=True, check=False).stderr
            getattr(fcntl, kind)(file, fcntl.LOCK_UN)
            subprocess.run(tried, check=True)


def test_statvfs(mount: Path, device: Any) -> None:
    wait_until(lambda: device.json("status")["drive"]["quota"])
    status = os.statvfs(mount)
    assert status.f_namemax == 255
    assert 0 < status.f_bavail * status.f_frsize <= status.f_blocks * status.f_frsize


def test_extended_attributes_only_where_they_are_asked_for(device: Any) -> None:
    mount = device.mount()
    (mount / "file").touch()
    with refused(errno.EOPNOTSUPP):
        os.setxattr(mount / "file", "user.colour", b"blue")
    device.umount()
    device.mount("--enable-xattr")
    os.setxattr(mount / "file", "user.colour", b"blue")
    assert os.listxattr(mount / "file") == ["user.colour"]
    assert os.getxattr(mount / "file", "user.colour") == b"blue"
    with refused(errno.EEXIST):
        os.setxattr(mount / "file", "user.colour", b"red", os.XATTR_CREATE)
    with refused(errno.ENODATA):
        os.setxattr(mount / "file", "user.other", b"red", os.XATTR_REPLACE)
    os.removexattr(mount / "file", "user.colour")
    with refused(errno.ENODATA):
        os.getxattr(mount / "file", "user.colour")


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_large_folder_is_listed_while_it_changes(mount: Path, count: int) -> None:
    folder = mount / "folder"
    folder.mkdir()
    for number in range(count):
        os.mknod(folder / f"{number:06}")
    seen = []
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number % 1000 == 0:
                (folder / f"{number + 500:06}").rename(folder / f"{number + 500:06} moved")
    stay = {f"{number:06}" for number in range(count) if number % 1000 != 500}
    assert len(seen) == len(set(seen))
    assert stay <= set(seen)
    assert len(os.listdir(folder)) == count


def drop_caches() -> None:
    """Let the kernel forget what it knows, so that the drive is asked."""
    if os.geteuid() == 0:
        Path("/proc/sys/vm/drop_caches").write_text("3")
