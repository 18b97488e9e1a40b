"""Reading and writing: offsets, holes, maps, copies, locks."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.calls import make, refused


def pattern(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 131_073, 1_048_575, 1_048_577, 5_000_000])
def test_what_was_written_is_read(place: Path, size: int) -> None:
    path = place / "file"
    path.write_bytes(pattern(size))
    assert path.stat().st_size == size
    assert path.read_bytes() == pattern(size)


@pytest.mark.parametrize("block", [1, 7, 512, 4096, 5000, 65536])
def test_writing_in_blocks(place: Path, block: int) -> None:
    path = place / "file"
    content = pattern(block * 20 + 3)
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(content), block):
            assert file.write(content[start : start + block]) == len(content[start : start + block])
    assert path.read_bytes() == content


@pytest.mark.parametrize("offset", [1, 4096, 5000, 1_000_000, 2**31 - 1, 2**32 + 1, 2**40])
def test_a_hole_reads_as_zeros(place: Path, offset: int) -> None:
    path = place / "file"
    with path.open("wb") as file:
        file.seek(offset)
        file.write(b"end")
    assert path.stat().st_size == offset + 3
    with path.open("rb") as file:
        assert file.read(1) == b"\0"
        file.seek(max(0, offset - 10))
        assert file.read() == bytes(min(offset, 10)) + b"end"


def test_random_writes_against_a_model(place: Path) -> None:
    path = place / "file"
    model = bytearray()
    chance = random.Random(20261120)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    for step in range(400):
        match chance.choice(["write", "write", "read", "truncate", "reopen"]):
            case "write":
                offset, data = chance.randrange(300_000), chance.randbytes(chance.choice([1, 100, 4096, 20_000]))
                os.pwrite(descriptor, data, offset)
                model.extend(bytes(max(0, offset + len(data) - len(model))))
                model[offset : offset + len(data)] = data
            case "truncate":
                size = chance.randrange(300_000)
                os.ftruncate(descriptor, size)
                del model[size:]
                model.extend(bytes(size - len(model)))
            case "reopen":
                os.close(descriptor)
                descriptor = os.open(path, os.O_RDWR)
            case _:
                offset, size = chance.randrange(300_000), chance.choice([1, 100, 4096, 100_000])
                assert os.pread(descriptor, size, offset) == model[offset : offset + size], f"step {step}"
    os.close(descriptor)
    assert path.read_bytes() == model


def test_reading_past_the_end(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"content")
    descriptor = os.open(path, os.O_RDONLY)
    assert os.pread(descriptor, 100, 4) == b"ent"
    assert os.pread(descriptor, 100, 7) == b""
    assert os.pread(descriptor, 100, 10_000) == b""
    os.close(descriptor)


@pytest.mark.parametrize("offset", [-1, -(2**40)])
def test_negative_offsets(place: Path, offset: int) -> None:
    descriptor = os.open(make("regular", place / "file"), os.O_RDWR)
    with refused(errno.EINVAL):
        os.pread(descriptor, 1, offset)
    with refused(errno.EINVAL):
        os.pwrite(descriptor, b"x", offset)
    with refused(errno.EINVAL):
        os.lseek(descriptor, offset, os.SEEK_SET)
    os.close(descriptor)


def test_writing_beyond_all_sizes(place: Path) -> None:
    descriptor = os.open(make("regular", place / "file"), os.O_RDWR)
    with refused(errno.EFBIG, errno.EINVAL):
        os.pwrite(descriptor, b"xx", 2**63 - 1)
    assert os.fstat(descriptor).st_size == 0
    os.close(descriptor)


def test_seeking_for_data_and_holes(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"x" * 10_000)
    descriptor = os.open(path, os.O_RDONLY)
    assert os.lseek(descriptor, 0, os.SEEK_DATA) == 0
    assert os.lseek(descriptor, 0, os.SEEK_HOLE) == 10_000
    with refused(errno.ENXIO):
        os.lseek(descriptor, 10_000, os.SEEK_DATA)
    os.close(descriptor)


def test_vectors(place: Path) -> None:
    descriptor = os.open(place / "file", os.O_CREAT | os.O_RDWR)
    assert os.writev(descriptor, [b"one", b"", b"two", b"three"]) == 11
    buffers = [bytearray(4), bytearray(4), bytearray(4)]
    assert os.preadv(descriptor, buffers, 0) == 11
    assert b"".join(buffers) == b"onetwothree\0"
    os.close(descriptor)


def test_two_descriptors_see_each_others_writes_at_once(place: Path) -> None:
    path = make("regular", place / "file")
    one, two = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    for number in range(100):
        os.pwrite(one, b"%03d" % number, 3 * number)
        assert os.pread(two, 3, 3 * number) == b"%03d" % number
        assert os.fstat(two).st_size == 3 * number + 3
    os.close(one)
    os.close(two)


def test_a_shared_map_is_written_through(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"a" * 10_000)
    descriptor = os.open(path, os.O_RDWR)
    with mmap.mmap(descriptor, 10_000) as view:
        view[5_000:5_004] = b"view"
        assert os.pread(descriptor, 4, 5_000) == b"view"
        os.pwrite(descriptor, b"call", 6_000)
        assert view[6_000:6_004] == b"call"
        view.flush()
    os.close(descriptor)
    assert path.read_bytes() == b"a" * 5_000 + b"view" + b"a" * 996 + b"call" + b"a" * 3_996


def test_a_shared_map_outlives_its_descriptor(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"a" * 5_000)
    descriptor = os.open(path, os.O_RDWR)
    view = mmap.mmap(descriptor, 5_000)
    os.close(descriptor)
    view[0:4] = b"late"
    view.close()
    assert path.read_bytes()[:6] == b"lateaa"


def test_a_private_map_is_not_written_through(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"a" * 5_000)
    descriptor = os.open(path, os.O_RDWR)
    with mmap.mmap(descriptor, 5_000, flags=mmap.MAP_PRIVATE) as view:
        view[0:4] = b"mine"
    os.close(descriptor)
    assert path.read_bytes() == b"a" * 5_000


def test_a_map_of_an_unlinked_file(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"a" * 5_000)
    descriptor = os.open(path, os.O_RDWR)
    path.unlink()
    with mmap.mmap(descriptor, 5_000) as view:
        view[4_000:4_004] = b"late"
    assert os.pread(descriptor, 4, 4_000) == b"late"
    os.close(descriptor)


def test_direct_io(place: Path) -> None:
    path = place / "file"
    buffer = mmap.mmap(-1, 8192)
    buffer[:] = pattern(8192)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    assert os.write(descriptor, buffer) == 8192
    back = mmap.mmap(-1, 8192)
    assert os.preadv(descriptor, [back], 0) == 8192
    assert back[:] == buffer[:]
    os.close(descriptor)
    assert path.read_bytes() == buffer[:]


@pytest.mark.parametrize("call", ["copy_file_range", "sendfile"])
def test_copying_in_the_kernel(place: Path, call: str) -> None:
    (place / "one").write_bytes(pattern(300_000))
    with (place / "one").open("rb") as source, (place / "two").open("wb") as target:
        if call == "sendfile":
            done = os.sendfile(target.fileno(), source.fileno(), 0, 300_000)
        else:
            done = os.copy_file_range(source.fileno(), target.fileno(), 300_000)
    assert done > 0
    assert (place / "two").read_bytes() == pattern(300_000)[:done]


@pytest.mark.parametrize("sync", [os.fsync, os.fdatasync])
def test_syncing(place: Path, sync: Callable[[int], None]) -> None:
    descriptor = os.open(place / "file", os.O_CREAT | os.O_RDWR)
    os.write(descriptor, b"content")
    sync(descriptor)
    os.close(descriptor)
    folder = os.open(place, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


HELPER = """
import errno, fcntl, sys
file = open(sys.argv[1], "r+b")
try:
    getattr(fcntl, sys.argv[2])(file, int(sys.argv[3]) | fcntl.LOCK_NB)
except OSError as error:
    print(errno.errorcode[error.errno])
else:
    print("locked")
"""


def lock_elsewhere(path: Path, call: str, kind: int) -> str:
    """What another process is told that asks for a lock."""
    command = [sys.executable, "-c", HELPER, str(path), call, str(kind)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.parametrize("call", ["flock", "lockf"])
def test_locks_between_processes(place: Path, call: str) -> None:
    path = make("regular", place / "file")
    lock = getattr(fcntl, call)
    refusals = ("EAGAIN", "EACCES")
    with path.open("r+b") as file:
        lock(file, fcntl.LOCK_SH)
        assert lock_elsewhere(path, call, fcntl.LOCK_SH) == "locked"
        assert lock_elsewhere(path, call, fcntl.LOCK_EX) in refusals
        lock(file, fcntl.LOCK_EX)
        assert lock_elsewhere(path, call, fcntl.LOCK_SH) in refusals
        lock(file, fcntl.LOCK_UN)
        assert lock_elsewhere(path, call, fcntl.LOCK_EX) == "locked"


def test_ranges_are_locked_apart(place: Path) -> None:
    path = make("regular", place / "file")
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 100)
        script = "import fcntl,sys; f=open(sys.argv[1],'r+b'); fcntl.lockf(f, fcntl.LOCK_EX|fcntl.LOCK_NB, 10, int(sys.argv[2]))"
        for start, allowed in ((0, True), (90, True), (91, False), (109, False), (110, True)):
            done = subprocess.run([sys.executable, "-c", script, str(path), str(start)], capture_output=True, check=False)
            assert (done.returncode == 0) == allowed, start


def test_blocks_grow_with_content(place: Path) -> None:
    path = place / "file"
    path.write_bytes(pattern(100_000))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    status = path.stat()
    assert status.st_blocks * 512 >= 65_536
    assert status.st_blksize >= 512
