"""The permission bits, one by one: what owner, group and others may do with a file and in a folder."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.posix.calls import ALICE, BOB, User, acting_as, make, make_for, refused

OWNER = User(ALICE.uid, BOB.gid)
"""The owner, who is not of the file's group."""
GROUP = User(BOB.uid, ALICE.gid)
MEMBER = User(BOB.uid, BOB.gid, (ALICE.gid,))
"""Of the file's group by a supplementary group only."""
OTHER = BOB
CLASSES = pytest.mark.parametrize(
    ("user", "shift"), [(OWNER, 6), (GROUP, 3), (MEMBER, 3), (OTHER, 0)], ids=["owner", "group", "supplementary group", "others"]
)
BITS = pytest.mark.parametrize("bits", range(8), ids=["---", "--x", "-w-", "-wx", "r--", "r-x", "rw-", "rwx"])
READ, WRITE, SEARCH = 4, 2, 1


def only(bits: int, shift: int) -> int:
    """A mode that grants `bits` to the class at `shift`, and everything to the other classes."""
    return (0o777 & ~(7 << shift)) | (bits << shift)


def attempt(allowed: bool, flags: int, path: Path) -> None:
    if allowed:
        os.close(os.open(path, flags))
    else:
        with refused(errno.EACCES):
            os.open(path, flags)


@CLASSES
@BITS
def test_opening_a_file(place: Path, user: User, shift: int, bits: int) -> None:
    path = make_for(ALICE, "regular", place / "file", only(bits, shift))
    with acting_as(user):
        attempt(bool(bits & READ), os.O_RDONLY, path)
        attempt(bool(bits & WRITE), os.O_WRONLY, path)
        attempt(bits & READ != 0 and bits & WRITE != 0, os.O_RDWR, path)
        attempt(bool(bits & WRITE), os.O_WRONLY | os.O_TRUNC, path)
        attempt(bool(bits & WRITE), os.O_WRONLY | os.O_CREAT, path)


@CLASSES
@BITS
def test_access_agrees(place: Path, user: User, shift: int, bits: int) -> None:
    path = make_for(ALICE, "regular", place / "file", only(bits, shift))
    with acting_as(user):
        for wanted in (os.R_OK, os.W_OK, os.X_OK):
            assert os.access(path, wanted, effective_ids=True) == bool(bits & wanted)
        assert os.access(path, os.F_OK, effective_ids=True)


@CLASSES
@BITS
def test_truncating_a_file(place: Path, user: User, shift: int, bits: int) -> None:
    path = make_for(ALICE, "regular", place / "file", only(bits, shift))
    with acting_as(user):
        if bits & WRITE:
            os.truncate(path, 5)
        else:
            with refused(errno.EACCES):
                os.truncate(path, 5)
    assert path.stat().st_size == (5 if bits & WRITE else 0)


@CLASSES
@BITS
def test_running_a_program(place: Path, user: User, shift: int, bits: int) -> None:
    path = place / "program"
    shutil.copy("/bin/true", path)
    os.chown(path, ALICE.uid, ALICE.gid)
    path.chmod(only(bits, shift))
    identity = {"user": user.uid, "group": user.gid, "extra_groups": user.groups}
    if bits & SEARCH:
        assert subprocess.run([path], **identity, check=False).returncode == 0  # type: ignore[call-overload]
    else:
        with refused(errno.EACCES):
            subprocess.run([path], **identity, check=False)  # type: ignore[call-overload]


@CLASSES
@BITS
def test_using_a_folder(place: Path, user: User, shift: int, bits: int) -> None:
    folder = make_for(ALICE, "folder", place / "folder", 0o777)
    make("regular", folder / "old", 0o666)
    folder.chmod(only(bits, shift))
    with acting_as(user):
        if bits & READ:
            assert os.listdir(folder) == ["old"]
        else:
            with refused(errno.EACCES):
                os.listdir(folder)
        if bits & SEARCH:
            (folder / "old").stat()
            (folder / "old").read_bytes()
        else:
            with refused(errno.EACCES):
                (folder / "old").lstat()
        if bits & SEARCH and bits & WRITE:
            make("regular", folder / "new")
            (folder / "new").rename(folder / "newer")
            (folder / "old").unlink()
        else:
            with refused(errno.EACCES):
                make("regular", folder / "new")
            with refused(errno.EACCES):
                (folder / "old").unlink()


@pytest.mark.parametrize("mode", [0o000, 0o111, 0o077])
def test_root_reads_and_writes_whatever_the_bits_say(place: Path, mode: int) -> None:
    path = make_for(ALICE, "regular", place / "file", mode)
    path.write_bytes(b"content")
    assert path.read_bytes() == b"content"


def test_root_uses_folders_whatever_the_bits_say(place: Path) -> None:
    folder = make_for(ALICE, "folder", place / "folder", 0o000)
    make("regular", folder / "file")
    assert [entry.name for entry in folder.iterdir()] == ["file"]
    (folder / "file").unlink()


def test_root_runs_no_file_without_an_execution_bit(place: Path) -> None:
    shutil.copy("/bin/true", place / "program")
    (place / "program").chmod(0o666)
    with refused(errno.EACCES):
        subprocess.run([place / "program"], check=False)


def test_a_removal_needs_no_right_to_the_file(place: Path) -> None:
    folder = make_for(ALICE, "folder", place / "folder", 0o755)
    make("regular", folder / "file", 0o000)
    with acting_as(ALICE):
        (folder / "file").unlink()


def test_an_open_file_stays_usable_when_its_bits_go(place: Path) -> None:
    path = make_for(ALICE, "regular", place / "file", 0o600)
    with acting_as(ALICE):
        descriptor = os.open(path, os.O_RDWR)
        path.chmod(0)
        os.write(descriptor, b"content")
        assert os.pread(descriptor, 100, 0) == b"content"
        os.close(descriptor)
        with refused(errno.EACCES):
            os.open(path, os.O_RDONLY)


def test_a_folder_deep_in_a_closed_one(place: Path) -> None:
    (place / "closed" / "open").mkdir(parents=True)
    make("regular", place / "closed" / "open" / "file", 0o666)
    (place / "closed").chmod(0o700)
    (place / "closed" / "open").chmod(0o777)
    with acting_as(ALICE), refused(errno.EACCES):
        (place / "closed" / "open" / "file").stat()


def test_the_working_folder_stays_usable_when_a_folder_above_closes(place: Path) -> None:
    (place / "closed" / "inside").mkdir(parents=True)
    (place / "closed" / "inside").chmod(0o777)
    os.chdir(place / "closed" / "inside")
    (place / "closed").chmod(0o700)
    with acting_as(ALICE):
        make("regular", Path("file"))
        with refused(errno.EACCES):
            Path("../inside").stat()
