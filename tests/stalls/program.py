"""A program that uses a folder, in a process of its own: whatever hangs, hangs there, and the test goes on.

Reads one call per line of JSON, `{"call": name, "arguments": […]}`, and answers with one line: `{"result": …}` or
`{"errno": …}`. Keeps open files and mappings under the names that the test gives them. Standard library only.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
from contextlib import suppress
from typing import Any

DIRECT, BUFFERED, MAPPED = "direct", "buffered", "mapped"
PAGE = 4096

files: dict[str, int] = {}
maps: dict[str, mmap.mmap] = {}
readers: dict[int, str] = {}


def stat(path: str) -> int:
    return os.stat(path).st_size


def list_folder(path: str) -> list[str]:
    return sorted(os.listdir(path))


def statfs(path: str) -> int:
    return os.statvfs(path).f_files


def make_folder(path: str) -> None:
    os.mkdir(path)


def remove_folder(path: str) -> None:
    os.rmdir(path)


def rename(old: str, new: str) -> None:
    os.rename(old, new)


def unlink(path: str) -> None:
    os.unlink(path)


def save(path: str, size: int, sync: bool = False) -> None:
    """Create, write, perhaps fsync, close."""
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
    os.write(descriptor, b"s" * size)
    if sync:
        os.fsync(descriptor)
    os.close(descriptor)


def save_noise(path: str, size: int) -> None:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644), "wb") as file:
        file.write(os.urandom(size))


def text_of(path: str) -> str:
    with os.fdopen(os.open(path, os.O_RDONLY)) as file:
        return file.read()


def read(path: str, size: int) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return len(os.read(descriptor, size))
    finally:
        os.close(descriptor)


def forget_pages(paths: list[str]) -> None:
    """Drop what the kernel's page cache holds of these files."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def open_file(name: str, path: str, flags: int = os.O_CREAT | os.O_RDWR) -> None:
    files[name] = os.open(path, flags, 0o644)


def write(name: str, text: str) -> None:
    os.write(files[name], text.encode())


def fsync(name: str) -> None:
    os.fsync(files[name])


def close(name: str) -> None:
    os.close(files.pop(name))


def map_file(name: str, path: str, text: str) -> None:
    """Put `text` into a file through a shared mapping, which stays: nothing is written out yet."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    os.ftruncate(descriptor, len(text))
    maps[name] = mmap.mmap(descriptor, len(text))
    os.close(descriptor)
    maps[name][:] = text.encode()


def unmap(name: str) -> None:
    maps.pop(name).close()


def start_readers(paths: list[str], kinds: list[str], count: int) -> dict[str, list[int]]:
    """Processes that read where nothing is cached, in turn of each kind; their pids by kind."""
    started: dict[str, list[int]] = {kind: [] for kind in kinds}
    for number in range(count):
        kind, path = kinds[number % len(kinds)], paths[number % len(paths)]
        pid = os.fork()
        if pid == 0:
            os._exit(_read_as(kind, path, number // len(paths)))
        readers[pid] = kind
        started[kind].append(pid)
    return started


def _read_as(kind: str, path: str, page: int) -> int:
    """The errno, or 0. A mapping says it with SIGBUS."""
    try:
        descriptor = os.open(path, os.O_RDONLY | (os.O_DIRECT if kind == DIRECT else 0))
        if kind == MAPPED:
            mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)[page * PAGE]
        else:
            os.preadv(descriptor, [mmap.mmap(-1, PAGE)], page * PAGE)
    except OSError as error:
        return error.errno or 1
    return 0


def ended_readers() -> list[tuple[int, str, int]]:
    """(pid, kind, errno, or minus the signal) of those that ended since the last call."""
    ended = []
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended.append((pid, readers.pop(pid), os.waitstatus_to_exitcode(status)))
    return ended


def kill_readers() -> None:
    for pid in readers:
        os.kill(pid, signal.SIGKILL)


def churn(folder: str, enough: str) -> int:
    """Names that come and go, until the file `enough` is there: the folder's lock in the kernel is taken all the time."""
    rounds = 0
    while not os.path.exists(enough):
        path = os.path.join(folder, f"busy {rounds % 7}")
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
        os.rename(path, path + " moved")
        os.unlink(path + " moved")
        rounds += 1
    return rounds


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"result": globals()[request["call"]](*request["arguments"])}
        except OSError as error:
            answer = {"errno": error.errno}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
