"""NAME.part: what counts after a crash is what the bytes say, and nothing of another version."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import xxhash

from cache.errors import NotTransferred
from cache.partfile import PartFile

VERSION, OTHER = b"v" * 32, b"o" * 32
PIECES = [os.urandom(5000), os.urandom(300), os.urandom(7000)]
WHOLE = b"".join(PIECES)
OFFSETS = [0, 5000, 5300]


def write(part: PartFile, *indices: int) -> None:
    for index in indices:
        part.write(OFFSETS[index], PIECES[index])
        part.note(OFFSETS[index], len(PIECES[index]), xxhash.xxh3_64_intdigest(PIECES[index]))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.fixture
def begun(target: Path) -> Path:
    """The part of a get that was killed after the first and the last piece."""
    part = PartFile(target, VERSION, len(WHOLE))
    write(part, 2, 0)
    part.close()
    return target.with_name("file.part")


def done(target: Path, version: bytes = VERSION, size: int = len(WHOLE)) -> dict[int, int]:
    part = PartFile(target, version, size)
    part.close()
    return part.done


def test_it_goes_on_where_it_was_and_ends_as_the_file(target: Path, begun: Path) -> None:
    part = PartFile(target, VERSION, len(WHOLE))
    assert part.done == {0: 5000, 5300: 7000}
    write(part, 1)
    assert not target.exists()
    part.finish(hashlib.sha256(WHOLE).digest(), 7 * 10**9)
    part.close()
    assert target.read_bytes() == WHOLE
    assert target.stat().st_mtime_ns == 7 * 10**9
    assert not begun.exists()


def test_bytes_that_are_not_what_was_noted_do_not_count(target: Path, begun: Path) -> None:
    with begun.open("r+b") as file:
        file.seek(6000)
        file.write(b"torn")
    assert done(target) == {0: 5000}


def test_a_record_that_was_not_finished_does_not_count_and_is_written_over(target: Path, begun: Path) -> None:
    os.truncate(begun, begun.stat().st_size - 5)
    part = PartFile(target, VERSION, len(WHOLE))
    assert part.done == {5300: 7000}
    write(part, 0, 1)
    part.close()
    assert done(target) == {0: 5000, 5000: 300, 5300: 7000}


@pytest.mark.parametrize(("version", "size"), [(OTHER, len(WHOLE)), (VERSION, len(WHOLE) + 1), (OTHER, 10)])
def test_of_another_version_nothing_is_kept(target: Path, begun: Path, version: bytes, size: int) -> None:
    part = PartFile(target, version, size)
    assert part.done == {}
    part.finish(hashlib.sha256(bytes(size)).digest(), 0)
    part.close()
    assert target.read_bytes() == bytes(size)


def test_what_has_another_sum_is_not_kept(target: Path, begun: Path) -> None:
    part = PartFile(target, VERSION, len(WHOLE))
    with pytest.raises(NotTransferred, match="SHA-256"):
        part.finish(hashlib.sha256(WHOLE).digest(), 0)
    part.close()
    assert not target.exists()
    assert not begun.exists()


def test_two_do_not_write_one_file(target: Path) -> None:
    part = PartFile(target, VERSION, 10)
    with pytest.raises(NotTransferred, match="another process"):
        PartFile(target, VERSION, 10)
    part.close()
    assert done(target, VERSION, 10) == {}


def test_a_link_in_its_place_is_not_followed(tmp_path: Path, target: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "file.part").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        PartFile(target, VERSION, 10)
    assert victim.read_bytes() == b"precious"
