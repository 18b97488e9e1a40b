"""Errors of path resolution: every call that takes a path meets every way in which a path can be wrong.

Paths are plain strings here: `pathlib` would tidy away the slashes and dots that the cases are about.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.posix.calls import (
    ALICE,
    MAX_PATH,
    NOT_FOLLOWED,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    acting_as,
    make,
    refused,
    rename_with,
    set_times,
)


@dataclass(frozen=True, slots=True)
class Call:
    """A call on `path`; `other` is the path of a file that exists, or in `makes` of a new one beside it."""

    name: str
    run: Callable[[str, str], object]
    makes: bool = False
    """It creates the last component."""
    removes: bool = False
    follows: bool = True
    """It follows a symlink in the last component."""
    needs_folder: bool = False


def _open(flags: int) -> Callable[[str, str], None]:
    return lambda path, other: os.close(os.open(path, flags, 0o644))


def _list(path: str, other: str) -> None:
    with os.scandir(path) as entries:
        list(entries)


CALLS = (
    Call("stat", lambda path, other: os.stat(path)),
    Call("lstat", lambda path, other: os.lstat(path), follows=False),
    Call("chdir", lambda path, other: os.chdir(path), needs_folder=True),
    Call("statvfs", lambda path, other: os.statvfs(path)),
    Call("scandir", _list, needs_folder=True),
    Call("open", _open(os.O_RDONLY | os.O_NONBLOCK)),
    Call("open for writing", _open(os.O_WRONLY | os.O_NONBLOCK)),
    Call("open with O_CREAT", _open(os.O_WRONLY | os.O_CREAT), makes=True),
    Call("open with O_EXCL", _open(os.O_WRONLY | os.O_CREAT | os.O_EXCL), makes=True, follows=False),
    Call("chmod", lambda path, other: os.chmod(path, 0o600)),
    Call("chown", lambda path, other: os.chown(path, 0, 0)),
    Call("lchown", lambda path, other: os.lchown(path, 0, 0), follows=False),
    Call("truncate", lambda path, other: os.truncate(path, 3)),
    Call("utimensat", lambda path, other: os.utime(path, ns=(1, 1))),
    Call("utimensat without following", lambda path, other: os.utime(path, ns=(1, 1), follow_symlinks=False), follows=False),
    Call("readlink", lambda path, other: os.readlink(path), follows=False),
    Call("mkdir", lambda path, other: os.mkdir(path), makes=True, follows=False),
    Call("mkfifo", lambda path, other: os.mkfifo(path), makes=True, follows=False),
    Call("mknod", lambda path, other: os.mknod(path), makes=True, follows=False),
    Call("symlink", lambda path, other: os.symlink("target", path), makes=True, follows=False),
    Call("link from", lambda path, other: os.link(path, other + ".new", follow_symlinks=False), follows=False),
    Call("link to", lambda path, other: os.link(other, path), makes=True, follows=False),
    Call("unlink", lambda path, other: os.unlink(path), removes=True, follows=False),
    Call("rmdir", lambda path, other: os.rmdir(path), removes=True, follows=False, needs_folder=True),
    Call("rename from", lambda path, other: os.rename(path, other), removes=True, follows=False),
    Call("rename to", lambda path, other: os.rename(other, path), makes=True, follows=False),
    Call(
        "rename to, not replacing",
        lambda path, other: rename_with(other, path, RENAME_NOREPLACE),
        makes=True,
        follows=False,
    ),
    Call(
        "exchange with",
        lambda path, other: rename_with(other, path, RENAME_EXCHANGE),
        removes=True,
        follows=False,
    ),
)
BY_NAME = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
FINDERS = pytest.mark.parametrize("call", [call for call in CALLS if not call.makes], ids=lambda call: call.name)
FOLLOWERS = pytest.mark.parametrize(
    "call", [call for call in CALLS if call.follows and not call.makes], ids=lambda call: call.name
)
CHANGERS = pytest.mark.parametrize("call", [call for call in CALLS if call.makes or call.removes], ids=lambda call: call.name)


@pytest.fixture
def other(place: Path) -> str:
    """An existing file beside; `rename from` may replace it, `link from` makes a name beside it."""
    (place / "side").mkdir()
    return str(make("regular", place / "side" / "other"))


@BY_NAME
@pytest.mark.parametrize("kind", NOT_FOLLOWED)
def test_a_component_that_is_no_folder(place: Path, other: str, call: Call, kind: str) -> None:
    make(kind, place / "file")
    with refused(errno.ENOTDIR):
        call.run(str(place / "file" / "below"), other)


@BY_NAME
def test_a_component_that_is_missing(place: Path, other: str, call: Call) -> None:
    with refused(errno.ENOENT):
        call.run(str(place / "missing" / "below"), other)


@BY_NAME
def test_a_component_that_is_a_dangling_symlink(place: Path, other: str, call: Call) -> None:
    make("symlink", place / "link")
    with refused(errno.ENOENT):
        call.run(str(place / "link" / "below"), other)


@BY_NAME
def test_a_component_that_leads_in_a_circle(place: Path, other: str, call: Call) -> None:
    (place / "one").symlink_to("two")
    (place / "two").symlink_to("one")
    with refused(errno.ELOOP):
        call.run(str(place / "one" / "below"), other)


@BY_NAME
def test_a_component_that_may_not_be_searched(place: Path, other: str, call: Call) -> None:
    closed = place / "closed"
    closed.mkdir(0o777)
    make("regular", closed / "file").chmod(0o666)
    closed.chmod(0o644)
    for path in (place / "side", Path(other)):
        path.chmod(0o777)
    os.chown(other, ALICE.uid, ALICE.gid)
    with acting_as(ALICE), refused(errno.EACCES):
        call.run(str(closed / "file"), other)


@FINDERS
def test_a_name_that_is_missing(place: Path, other: str, call: Call) -> None:
    with refused(errno.ENOENT):
        call.run(str(place / "missing"), other)


@BY_NAME
def test_an_empty_path(place: Path, other: str, call: Call) -> None:
    with refused(errno.ENOENT):
        call.run("", other)


@FOLLOWERS
def test_a_name_that_is_a_dangling_symlink(place: Path, other: str, call: Call) -> None:
    make("symlink", place / "link")
    with refused(errno.ENOENT):
        call.run(str(place / "link"), other)


@FOLLOWERS
def test_a_name_that_leads_in_a_circle(place: Path, other: str, call: Call) -> None:
    (place / "one").symlink_to("two")
    (place / "two").symlink_to("one")
    with refused(errno.ELOOP):
        call.run(str(place / "one"), other)


@FINDERS
def test_a_long_name_that_is_missing(place: Path, other: str, call: Call) -> None:
    with refused(errno.ENOENT):
        call.run(str(place / ("n" * 255)), other)


@BY_NAME
def test_a_name_of_256_bytes(place: Path, other: str, call: Call) -> None:
    with refused(errno.ENAMETOOLONG):
        call.run(str(place / ("n" * 256)), other)


@BY_NAME
def test_a_name_of_86_characters_of_three_bytes(place: Path, other: str, call: Call) -> None:
    with refused(errno.ENAMETOOLONG):
        call.run(str(place / ("名" * 86)), other)


@BY_NAME
def test_a_component_of_256_bytes(place: Path, other: str, call: Call) -> None:
    with refused(errno.ENAMETOOLONG):
        call.run(str(place / ("n" * 256) / "below"), other)


@BY_NAME
def test_a_path_of_4096_bytes(place: Path, other: str, call: Call) -> None:
    with refused(errno.ENAMETOOLONG):
        call.run(long_path(place, MAX_PATH), other)


@FINDERS
def test_a_path_of_4095_bytes(place: Path, other: str, call: Call) -> None:
    with refused(errno.ENOENT):
        call.run(long_path(place, MAX_PATH - 1), other)


def long_path(place: Path, size: int) -> str:
    """A path of `size` bytes without its NUL, that goes through components that exist."""
    path = f"{place}/"
    path += "./" * ((size - len(path)) // 2 - 1)
    return path + "n" * (size - len(path))


@pytest.mark.parametrize("call", [call for call in CALLS if call.makes], ids=lambda call: call.name)
def test_the_longest_name_and_the_longest_path(place: Path, other: str, call: Call) -> None:
    longest = long_path(place, MAX_PATH - 1)
    call.run(longest, other)
    made = os.lstat(longest)
    assert [entry.name for entry in place.iterdir() if entry.name != "side"] == [longest.rsplit("/", 1)[1]]
    if not os.path.lexists(other):
        make("regular", Path(other))
    call.run(str(place / ("m" * 255)), other)
    assert (place / ("m" * 255)).lstat().st_mode == made.st_mode


@pytest.mark.parametrize(
    "call",
    [call for call in CALLS if not call.makes and call.name not in ("open for writing", "readlink")],
    ids=lambda call: call.name,
)
def test_a_file_with_a_slash_behind_it(place: Path, other: str, call: Call) -> None:
    make("regular", place / "file")
    with refused(errno.ENOTDIR):
        call.run(f"{place}/file/", other)


@CHANGERS
def test_a_folder_that_may_not_be_written(place: Path, other: str, call: Call) -> None:
    closed = place / "closed"
    closed.mkdir()
    name = "file"
    if call.removes:
        make("folder" if call.needs_folder else "regular", closed / name)
        os.chown(closed / name, ALICE.uid, ALICE.gid)
    closed.chmod(0o755)
    (place / "side").chmod(0o777)
    os.chown(other, ALICE.uid, ALICE.gid)
    with acting_as(ALICE), refused(errno.EACCES):
        call.run(str(closed / name), other)
    assert os.listdir(closed) == ([name] if call.removes else [])


@CHANGERS
def test_a_folder_that_may_be_written_through_its_group(place: Path, other: str, call: Call) -> None:
    shared = place / "shared"
    shared.mkdir()
    os.chown(shared, 0, ALICE.gid)
    shared.chmod(0o775)
    if call.removes:
        make("folder" if call.needs_folder else "regular", shared / "file")
    (place / "side").chmod(0o777)
    os.chown(other, ALICE.uid, ALICE.gid)
    with acting_as(ALICE):
        call.run(str(shared / "file"), other)


@pytest.mark.parametrize("call", [call for call in CALLS if call.follows and not call.makes], ids=lambda call: call.name)
def test_a_symlink_is_followed(place: Path, other: str, call: Call) -> None:
    make("folder" if call.needs_folder else "regular", place / "target", 0o755)
    (place / "link").symlink_to("target")
    before = os.getcwd()
    try:
        call.run(str(place / "link"), other)
    finally:
        os.chdir(before)
    assert (place / "link").is_symlink()


def test_forty_symlinks_in_a_row_are_followed_and_forty_one_are_not(place: Path) -> None:
    make("regular", place / "link0")
    for number in range(41):
        (place / f"link{number + 1}").symlink_to(f"link{number}")
    (place / "link40").stat()
    with refused(errno.ELOOP):
        (place / "link41").stat()


def test_times_through_a_dangling_symlink_leave_the_link_alone(place: Path) -> None:
    make("symlink", place / "link")
    before = (place / "link").lstat()
    with refused(errno.ENOENT):
        set_times(place / "link", (1, 0), (1, 0))
    assert (place / "link").lstat().st_mtime_ns == before.st_mtime_ns
