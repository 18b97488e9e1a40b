"""Reading directories, and what statvfs says."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

from tests.posix.calls import KINDS, file_type, make, remove


@pytest.mark.parametrize("count", [0, 1, 2, 100, 1500])
def test_every_name_once(place: Path, count: int) -> None:
    names = {f"a name that is not short {number}" for number in range(count)}
    for name in names:
        make("regular", place / name)
    listed = os.listdir(place)
    assert len(listed) == count
    assert set(listed) == names


def test_kinds_and_numbers(place: Path) -> None:
    for kind in KINDS:
        make(kind, place / kind)
    with os.scandir(place) as entries:
        found = {entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries}
    assert found == {kind: ((place / kind).lstat().st_ino, kind == "folder", kind == "symlink") for kind in KINDS}
    assert {kind: file_type(place / kind) for kind in KINDS} == {kind: kind for kind in KINDS}


def test_long_names(place: Path) -> None:
    names = {f"{number:03}" + "n" * 252 for number in range(200)}
    for name in names:
        make("regular", place / name)
    assert set(os.listdir(place)) == names


def test_dot_and_dot_dot(place: Path) -> None:
    output = subprocess.run(["ls", "-ai", place], capture_output=True, text=True, check=True).stdout.split()
    numbers = dict(zip(output[1::2], output[0::2], strict=True))
    assert int(numbers["."]) == place.lstat().st_ino
    assert int(numbers[".."]) == place.parent.lstat().st_ino


@pytest.mark.parametrize("change", ["remove what was listed", "remove what is to come", "add"])
def test_names_that_stay_are_listed_once_while_others_change(place: Path, change: str) -> None:
    names = [f"stays {number:04}" for number in range(1000)]
    changing = [f"goes {number:04}" for number in range(1000)]
    for name in names:
        make("regular", place / name)
    if change != "add":
        for name in changing:
            make("regular", place / name)
    seen: list[str] = []
    gone: set[str] = set()
    with os.scandir(place) as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if change == "add" and number < len(changing):
                make("regular", place / changing[number])
            elif change == "remove what was listed" and entry.name in changing:
                remove(place / entry.name)
            elif change == "remove what is to come" and number == 10:
                gone = set(changing) - set(seen)
                for name in gone:
                    remove(place / name)
    stayed = [name for name in seen if name.startswith("stays")]
    assert sorted(stayed) == names
    assert len(seen) == len(set(seen))


class Directory:
    """`opendir` and its companions, which Python does not offer."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None)
        libc.opendir.restype = ctypes.c_void_p
        libc.readdir64.restype = ctypes.c_void_p
        libc.telldir.restype = ctypes.c_long
        self._libc = libc
        self._stream = ctypes.c_void_p(libc.opendir(os.fsencode(path)))

    def read(self) -> str | None:
        entry = self._libc.readdir64(self._stream)
        # ino64, off64, a length of two bytes and the type come before the name.
        return ctypes.string_at(entry + 19).decode() if entry else None

    def rest(self) -> list[str]:
        return list(iter(self.read, None))

    def tell(self) -> int:
        return int(self._libc.telldir(self._stream))

    def seek(self, position: int) -> None:
        self._libc.seekdir(self._stream, ctypes.c_long(position))

    def rewind(self) -> None:
        self._libc.rewinddir(self._stream)

    def close(self) -> None:
        self._libc.closedir(self._stream)


def test_a_position_is_found_again(place: Path) -> None:
    for number in range(300):
        make("regular", place / f"name {number:03}")
    directory = Directory(place)
    for _ in range(150):
        directory.read()
    position = directory.tell()
    rest = directory.rest()
    assert len(rest) == 152
    directory.seek(position)
    assert directory.rest() == rest
    directory.close()


def test_rewinding_shows_what_came_since(place: Path) -> None:
    make("regular", place / "one")
    directory = Directory(place)
    assert sorted(directory.rest()) == [".", "..", "one"]
    make("regular", place / "two")
    remove(place / "one")
    directory.rewind()
    assert sorted(directory.rest()) == [".", "..", "two"]
    directory.close()


def test_a_folder_opened_twice_is_read_independently(place: Path) -> None:
    for number in range(50):
        make("regular", place / str(number))
    one, two = Directory(place), Directory(place)
    one.read()
    assert len(two.rest()) == 52
    assert len(one.rest()) == 51
    one.close()
    two.close()


def test_the_size_of_the_file_system(place: Path) -> None:
    figures = os.statvfs(place)
    assert figures.f_namemax == 255
    assert 0 < figures.f_bavail <= figures.f_bfree <= figures.f_blocks
    assert 0 < figures.f_ffree <= figures.f_files
    assert figures.f_bsize >= 512
    assert figures.f_frsize >= 512
