"""The measurements. Each takes a peer and yields figures; the order of peers and the rounds are not its concern."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench_peers import Aloft, Drive, Peer
from playground import Failed

MIB = 2**20
BLOCK = MIB


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. `wanted`: at least this many times the peer's (`more_is_better`), or an absolute limit."""

    name: str
    value: float
    unit: str
    more_is_better: bool = True
    wanted: str = ""


@dataclass(frozen=True, slots=True)
class Sizes:
    files: int
    large_mib: int
    tree: int


Part = Callable[[Peer, Sizes], Iterator[Figure]]


def drop_caches(what: int = 3) -> None:
    """1: pages, 2: names and inodes, 3: both. Root's privilege."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text(f"{what}\n")
    except PermissionError:
        raise Failed("dropping the page cache needs root: run the benchmark as root") from None


def rate(count: int, work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def small_files(peer: Peer, sizes: Sizes) -> Iterator[Figure]:
    """Files of 1 KiB, one after the other, by one process."""
    with peer.first() as drive:
        folder = drive.point / "small"
        folder.mkdir()
        paths = [str(folder / f"file {number:06}") for number in range(sizes.files)]
        contents = [os.urandom(1024) for _ in paths]

        def create() -> None:
            for path, content in zip(paths, contents, strict=True):
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
                os.write(descriptor, content)
                os.close(descriptor)

        def status() -> None:
            for path in paths:
                os.stat(path)

        def read() -> None:
            for path in paths:
                descriptor = os.open(path, os.O_RDONLY)
                if len(os.read(descriptor, 4096)) != 1024:
                    raise Failed(f"{path} is not whole")
                os.close(descriptor)

        def unlink() -> None:
            for path in paths:
                os.unlink(path)

        yield Figure("create, write, close 1 KiB", rate(sizes.files, create), "files/s", wanted="≥ 1.2 ×")
        started = time.perf_counter()
        drive.settle()
        yield Figure("… until all are on the store", time.perf_counter() - started, "s", more_is_better=False)
        drop_caches()
        yield Figure("stat, kernel's caches dropped", rate(sizes.files, status), "files/s", wanted="≥ 1.5 ×")
        yield Figure("stat, again", rate(sizes.files, status), "files/s", wanted="≥ 1.5 ×")
        drop_caches()
        yield Figure("open, read, close, caches dropped", rate(sizes.files, read), "files/s", wanted="≥ 1.5 ×")
        yield Figure("open, read, close, again", rate(sizes.files, read), "files/s", wanted="≥ 1.5 ×")
        yield Figure("unlink", rate(sizes.files, unlink), "files/s", wanted="≥ 1.5 ×")
        drive.settle()


def sequential(peer: Peer, sizes: Sizes) -> Iterator[Figure]:
    """One large file: written, read with and without the page cache, on the device that wrote it."""
    with peer.first() as drive:
        path, total = drive.point / "large", sizes.large_mib * MIB
        yield Figure("write", sizes.large_mib / write(path, total, BLOCK), "MiB/s", wanted="≥ 1 ×")
        drive.settle()
        path.unlink()
        yield Figure("write, fsync", sizes.large_mib / write(path, total, BLOCK, sync=True), "MiB/s", wanted="≥ 1 ×")
        drive.settle()
        drop_caches()
        yield Figure("read, page cache dropped", sizes.large_mib / read(path, total), "MiB/s", wanted="≥ 1 ×")
        yield Figure("read, again", sizes.large_mib / read(path, total), "MiB/s", wanted="≥ 1 ×")
        path.unlink()
        drive.settle()


def small_writes(peer: Peer, sizes: Sizes) -> Iterator[Figure]:
    total = max(1, sizes.large_mib // 4) * MIB
    with peer.first() as drive:
        path = drive.point / "small writes"
        yield Figure("write in blocks of 4 KiB", total / MIB / write(path, total, 4096), "MiB/s", wanted="≥ 5 ×")
        path.unlink()
        drive.settle()


def cold(peer: Peer, sizes: Sizes) -> Iterator[Figure]:
    """A large file on a device that has nothing of it."""
    with peer.first() as drive:
        path, total = drive.point / "cold", sizes.large_mib * MIB
        write(path, total, BLOCK)
        drive.settle()
    with peer.second() as drive:
        path = drive.point / "cold"
        os.stat(path)
        yield Figure("first byte of a cold file", 1000 * _first_byte(path, 0), "ms", more_is_better=False, wanted="one chunk")
        middle = _first_byte(path, total // 2 + 12345)
        yield Figure("4 KiB in the middle of it", 1000 * middle, "ms", more_is_better=False)
    with peer.second() as drive:
        path = drive.point / "cold"
        yield Figure("read all of it", sizes.large_mib / read(path, total), "MiB/s")
        path.unlink()
        drive.settle()


def _first_byte(path: Path, offset: int) -> float:
    started = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY)
    os.pread(descriptor, 1 if offset == 0 else 4096, offset)
    seconds = time.perf_counter() - started
    os.close(descriptor)
    return seconds


def responsiveness(peer: Peer, sizes: Sizes) -> Iterator[Figure]:
    """`stat` of a known file, beside an upload and a download at full speed."""
    with peer.first() as drive:
        known = drive.point / "known"
        known.write_bytes(b"x")
        write(drive.point / "to be read", sizes.large_mib * MIB, BLOCK)
        drive.settle()
    with peer.second() as drive:
        known, total = drive.point / "known", sizes.large_mib * MIB
        for name, work in (
            ("upload", lambda: _upload(drive, total)),
            ("download", lambda: read(drive.point / "to be read", total)),
        ):
            latencies = sorted(_stat_beside(known, work))
            for percent in (50, 99):
                value = 1000 * latencies[min(len(latencies) - 1, len(latencies) * percent // 100)]
                limit = "< 1 ms" if percent == 50 else "< 15 ms"
                yield Figure(f"stat during {name}, {percent}th percentile", value, "ms", more_is_better=False, wanted=limit)


def _upload(drive: Drive, total: int) -> None:
    write(drive.point / "written beside", total, BLOCK)
    drive.settle()


def _stat_beside(path: Path, work: Callable[[], object]) -> Iterable[float]:
    """Seconds of each `stat` while `work` runs."""
    done = threading.Event()

    def run() -> None:
        try:
            work()
        finally:
            done.set()

    thread = threading.Thread(target=run)
    thread.start()
    latencies = []
    while not done.is_set():
        started = time.perf_counter()
        fresh_stat(path)
        latencies.append(time.perf_counter() - started)
        time.sleep(0.005)
    thread.join()
    return latencies


_libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS = -100, 0x2000, 0x7FF


def fresh_stat(path: Path) -> None:
    """A `stat` that the kernel does not answer from its own cache, but asks the mount."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statx(AT_FDCWD, os.fsencode(path), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, buffer) != 0:
        raise OSError(ctypes.get_errno(), f"statx of {path}")


def large_tree(peer: Peer, sizes: Sizes) -> Iterator[Figure]:
    """Many files: how soon the mount is usable with a warm replica, and what it needs of memory."""
    if not isinstance(peer, Aloft):
        return
    with peer.first() as drive:
        folders = max(1, sizes.tree // 1000)
        started = time.perf_counter()
        for number in range(folders):
            folder = drive.point / "tree" / f"folder {number:04}"
            folder.mkdir(parents=True)
            for inner in range(sizes.tree // folders):
                (folder / f"file {inner:04}").write_bytes(b"%d" % inner)
        yield Figure("create a tree", sizes.tree / (time.perf_counter() - started), "files/s")
        started = time.perf_counter()
        drive.settle()
        yield Figure("… until all of it is on the store", time.perf_counter() - started, "s", more_is_better=False)
        yield Figure("memory after creating it", drive.resident_bytes() / MIB, "MiB", more_is_better=False)
        drive.umount()
        started = time.perf_counter()
        drive.mount()
        os.listdir(drive.point / "tree")
        yield Figure("mount until usable", time.perf_counter() - started, "s", more_is_better=False, wanted="< 2 s")
        started = time.perf_counter()
        count = sum(len(files) for _, _, files in os.walk(drive.point))
        yield Figure("list all of it", count / (time.perf_counter() - started), "files/s")
        started = time.perf_counter()
        for folder_name, _, files in os.walk(drive.point):
            for name in files:
                os.stat(f"{folder_name}/{name}")
        yield Figure("stat all of it", count / (time.perf_counter() - started), "files/s")
        yield Figure("memory after that", drive.resident_bytes() / MIB, "MiB", more_is_better=False, wanted="< 250 MiB")


def write(path: Path, total: int, block: int, *, sync: bool = False) -> float:
    """Seconds to write a file of new bytes that do not compress (all made before), until `close` has returned."""
    content = memoryview(os.urandom(total))
    started = time.perf_counter()
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
    for offset in range(0, total, block):
        os.write(descriptor, content[offset : offset + block])
    if sync:
        os.fsync(descriptor)
    os.close(descriptor)
    return time.perf_counter() - started


def read(path: Path, total: int) -> float:
    """Seconds to read all of a file."""
    started, count = time.perf_counter(), 0
    buffer = bytearray(BLOCK)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            count += size
    if count != total:
        raise Failed(f"{path} has {count} bytes instead of {total}")
    return time.perf_counter() - started


PARTS: dict[str, Part] = {
    "small": small_files,
    "sequential": sequential,
    "small-writes": small_writes,
    "cold": cold,
    "latency": responsiveness,
    "tree": large_tree,
}
