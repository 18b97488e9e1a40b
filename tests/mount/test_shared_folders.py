"""Folders that two accounts share, on two real mounts."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until


@dataclass
class Pair:
    ada: Any
    bob: Any
    a: Path
    b: Path

    def share(self, path: str = "/plans", *options: str) -> None:
        self.ada.aloft("share", path, self.bob.email, *options)
        self.bob.aloft("invitations", "accept")


@pytest.fixture
def pair(devices: Any) -> Pair:
    ada, bob = devices.add("ada"), devices.add("bob", email=f"bob-{uuid.uuid4()}@example.org")
    pair = Pair(ada, bob, ada.mount(), bob.mount())
    (pair.a / "plans" / "deep").mkdir(parents=True)
    (pair.a / "plans" / "a.txt").write_bytes(b"alpha")
    (pair.a / "plans" / "deep" / "b.bin").write_bytes(os.urandom(3_000_000))
    ada.aloft("sync")
    return pair


def read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def refused(code: int, work: Any) -> None:
    with pytest.raises(OSError, match=rf"\[Errno {code}\]"):
        work()


def test_a_shared_folder_appears_and_is_edited_by_both(pair: Pair) -> None:
    body = read(pair.a / "plans" / "deep" / "b.bin")
    pair.share()
    wait_until(lambda: read(pair.b / "plans" / "a.txt") == b"alpha")
    assert read(pair.b / "plans" / "deep" / "b.bin") == body
    wait_until(lambda: read(pair.a / "plans" / "deep" / "b.bin") == body)
    (pair.b / "plans" / "new.txt").write_bytes(b"by bob")
    wait_until(lambda: read(pair.a / "plans" / "new.txt") == b"by bob")
    (pair.a / "plans" / "new.txt").write_bytes(b"and by ada")
    (pair.a / "plans" / "a.txt").rename(pair.a / "plans" / "deep" / "c.txt")
    wait_until(lambda: read(pair.b / "plans" / "new.txt") == b"and by ada")
    wait_until(lambda: read(pair.b / "plans" / "deep" / "c.txt") == b"alpha")
    assert sorted(os.listdir(pair.a)) == sorted(os.listdir(pair.b)) == ["plans"]


def test_a_viewer_is_told_by_the_kernel(pair: Pair) -> None:
    pair.share("/plans", "--viewer")
    file = pair.b / "plans" / "a.txt"
    wait_until(lambda: read(file) == b"alpha")
    refused(errno.EACCES, lambda: file.write_bytes(b"x"))
    refused(errno.EACCES, lambda: os.truncate(file, 0))
    refused(errno.EACCES, file.unlink)
    refused(errno.EACCES, lambda: file.rename(pair.b / "plans" / "other"))
    refused(errno.EACCES, (pair.b / "plans" / "folder").mkdir)
    refused(errno.EACCES, lambda: (pair.b / "plans" / "link").symlink_to("x"))
    refused(errno.EACCES, lambda: os.link(file, pair.b / "plans" / "hard"))
    refused(errno.EACCES, lambda: file.chmod(0o600))
    refused(errno.EACCES, (pair.b / "plans" / "deep").rmdir)
    assert read(file) == b"alpha"
    pair.ada.aloft("share", "/plans", pair.bob.email)
    wait_until(lambda: os.access(pair.b / "plans", os.R_OK) and _may_write(pair.b / "plans" / "new"))
    wait_until(lambda: (pair.a / "plans" / "new").exists())


def _may_write(path: Path) -> bool:
    try:
        path.touch()
    except PermissionError:
        return False
    return True


def test_where_it_stands_is_each_members_own(pair: Pair) -> None:
    pair.share()
    wait_until(lambda: read(pair.b / "plans" / "a.txt") == b"alpha")
    (pair.b / "work").mkdir()
    (pair.b / "plans").rename(pair.b / "work" / "from ada")
    assert read(pair.b / "work" / "from ada" / "a.txt") == b"alpha"
    refused(errno.EBUSY, (pair.b / "work" / "from ada").rmdir)
    refused(errno.ENOTEMPTY, (pair.b / "work").rmdir)
    (pair.b / "file").write_bytes(b"x")
    refused(errno.EXDEV, lambda: (pair.b / "file").rename(pair.b / "work" / "from ada" / "file"))
    refused(errno.EXDEV, lambda: os.link(pair.b / "file", pair.b / "work" / "from ada" / "file"))
    shutil.move(pair.b / "file", pair.b / "work" / "from ada" / "file")
    wait_until(lambda: read(pair.a / "plans" / "file") == b"x")
    pair.bob.aloft("sync")
    assert pair.bob.aloft("ls", "/work/from ada").split() == ["a.txt", "deep/", "file"]
    subprocess.run(["rm", "-rf", pair.b / "work"], check=False, capture_output=True)
    assert (pair.b / "work" / "from ada").is_dir(), "what is in it can be removed, it cannot"
    pair.bob.umount()
    pair.bob.mount("--offline")
    assert (pair.b / "work" / "from ada").is_dir()


def test_leaving_with_unsent_changes_loses_nothing(pair: Pair) -> None:
    pair.share()
    wait_until(lambda: read(pair.b / "plans" / "a.txt") == b"alpha")
    body = read(pair.b / "plans" / "deep" / "b.bin")
    assert body is not None
    pair.bob.aloft("pause")
    (pair.b / "plans" / "new.txt").write_bytes(b"never sent")
    with (pair.b / "plans" / "deep" / "b.bin").open("r+b") as file:
        file.seek(1_500_000)
        file.write(b"edited here")
    pair.ada.aloft("unshare", "/plans", pair.bob.email)
    pair.bob.aloft("resume")
    wait_until(lambda: not (pair.b / "plans").exists())
    found = pair.b / "Recovered files"
    wait_until(lambda: {each.name for each in found.iterdir()} == {"new.txt", "b.bin"} if found.exists() else False)
    assert read(found / "new.txt") == b"never sent"
    assert read(found / "b.bin") == body[:1_500_000] + b"edited here" + body[1_500_011:]
    pair.bob.aloft("sync")
    assert read(pair.a / "plans" / "deep" / "b.bin") == body
    assert "nothing" in next(line for line in pair.bob.aloft("status").splitlines() if "To upload" in line)


def test_a_viewer_who_was_an_editor_keeps_what_was_not_sent(pair: Pair) -> None:
    pair.share()
    file = pair.b / "plans" / "a.txt"
    wait_until(lambda: read(file) == b"alpha")
    pair.bob.aloft("pause")
    file.write_bytes(b"mine")
    (pair.b / "plans" / "folder").mkdir()
    (pair.b / "plans" / "deep" / "b.bin").rename(pair.b / "plans" / "moved.bin")
    pair.ada.aloft("share", "/plans", pair.bob.email, "--viewer")
    pair.bob.aloft("resume")
    wait_until(lambda: read(pair.b / "Recovered files" / "a.txt") == b"mine")
    wait_until(lambda: read(file) == b"alpha")
    wait_until(lambda: sorted(os.listdir(pair.b / "plans")) == ["a.txt", "deep"])
    assert os.listdir(pair.b / "plans" / "deep") == ["b.bin"]
    pair.bob.aloft("sync")


def test_another_device_of_the_owner_keeps_what_it_had_not_sent(devices: Any, pair: Pair) -> None:
    second = devices.add("second")
    mount = second.mount()
    wait_until(lambda: read(mount / "plans" / "a.txt") == b"alpha")
    second.aloft("offline")
    (mount / "plans" / "a.txt").write_bytes(b"edited offline")
    (mount / "plans" / "new.txt").write_bytes(b"made offline")
    pair.share()
    second.aloft("online")
    second.aloft("sync")
    wait_until(lambda: read(mount / "plans" / "a.txt") == b"alpha")
    (beside,) = [each for each in mount.iterdir() if each.name != "plans"]
    assert "conflicted copy" in beside.name
    assert (read(beside / "a.txt"), read(beside / "new.txt")) == (b"edited offline", b"made offline")


def test_what_is_not_shared_any_more_is_the_owners_folder_again(pair: Pair) -> None:
    pair.share()
    wait_until(lambda: read(pair.b / "plans" / "a.txt") == b"alpha")
    (pair.b / "plans" / "by bob").write_bytes(b"bob's")
    pair.bob.aloft("sync")
    pair.ada.aloft("unshare", "/plans", "--yes")
    wait_until(lambda: not (pair.b / "plans").exists())
    wait_until(lambda: read(pair.a / "plans" / "by bob") == b"bob's")
    (pair.a / "plans" / "a.txt").rename(pair.a / "a.txt")
    pair.ada.aloft("sync")
    assert pair.ada.aloft("ls", "/").split() == ["a.txt", "plans/"]


def test_who_may_not_write_sees_it_in_the_modes(pair: Pair) -> None:
    pair.share("/plans", "--viewer")
    wait_until(lambda: read(pair.b / "plans" / "a.txt") == b"alpha")
    shown = (pair.b / "plans", pair.b / "plans" / "a.txt", pair.b / "plans" / "deep")
    assert not any(each.stat().st_mode & 0o222 for each in shown)
    pair.ada.aloft("share", "/plans", pair.bob.email)
    wait_until(lambda: all(each.stat().st_mode & 0o200 for each in shown))
    pair.ada.aloft("share", "/plans", pair.bob.email, "--viewer")
    wait_until(lambda: not any(each.stat().st_mode & 0o222 for each in shown))


def test_a_repository_is_cloned_into_a_shared_folder(pair: Pair, tmp_path: Path) -> None:
    source = tmp_path / "source"
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    subprocess.run(["git", "init", "-q", source], check=True)
    (source / "text").write_bytes(b"text\n" * 1000)
    subprocess.run(["git", "-C", source, "add", "."], check=True)
    subprocess.run(["git", "-C", source, *identity, "commit", "-q", "-m", "One"], check=True)
    pair.share()
    wait_until(lambda: read(pair.b / "plans" / "a.txt") == b"alpha")
    subprocess.run(["git", "clone", "-q", source, pair.b / "plans" / "clone"], check=True)
    pair.bob.aloft("sync")
    wait_until(lambda: read(pair.a / "plans" / "clone" / "text") == b"text\n" * 1000)
    pair.ada.aloft("sync")
    done = subprocess.run(["git", "-C", pair.a / "plans" / "clone", "fsck"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("point", ["fsync.durable", "names.renaming"])
def test_whoever_dies_while_it_recovers_files_begins_that_file_again(pair: Pair, point: str) -> None:
    pair.share()
    wait_until(lambda: read(pair.b / "plans" / "a.txt") == b"alpha")
    pair.bob.aloft("pause")
    (pair.b / "plans" / "new.txt").write_bytes(b"never sent")
    (pair.b / "plans" / "empty").touch()
    pair.bob.kill()
    pair.ada.aloft("unshare", "/plans", pair.bob.email)
    pair.bob.environment["ALOFT_CRASH_AT"] = point
    pair.bob.environment["ALOFT_CRASH_NOTE"] = str(pair.bob.home / "died")
    pair.bob.mount()
    pid = pair.bob.pid()
    pair.bob.run("resume")  # of which it may die before it answers
    pair.bob.wait_for_the_end_of(pid)
    assert (pair.bob.home / "died").exists()
    del pair.bob.environment["ALOFT_CRASH_AT"]
    pair.bob.mount()
    pair.bob.aloft("sync")
    found = pair.b / "Recovered files"
    wait_until(lambda: sorted(os.listdir(found)) == ["empty", "new.txt"] if found.exists() else False)
    assert (read(found / "new.txt"), read(found / "empty")) == (b"never sent", b"")
    pair.bob.aloft("sync")


def test_versions_in_a_shared_folder_are_under_aloft(pair: Pair) -> None:
    pair.share()
    wait_until(lambda: read(pair.b / "plans" / "a.txt") == b"alpha")
    (pair.a / "plans" / "a.txt").write_bytes(b"second")
    wait_until(lambda: read(pair.b / "plans" / "a.txt") == b"second")
    versions = pair.b / ".aloft" / "versions" / "plans" / "a.txt"
    wait_until(lambda: len(os.listdir(versions)) == 2)
    assert [read(versions / name) for name in sorted(os.listdir(versions))] == [b"alpha", b"second"]


def test_whoever_comes_back_sees_all_of_it(pair: Pair) -> None:
    pair.share()
    body = read(pair.a / "plans" / "deep" / "b.bin")
    for _ in range(3):
        wait_until(lambda: read(pair.b / "plans" / "a.txt") == b"alpha")
        pair.bob.aloft("unshare", "/plans", "--yes")
        pair.share()
    wait_until(lambda: read(pair.b / "plans" / "deep" / "b.bin") == body)
    (pair.b / "plans" / "new.txt").write_bytes(b"back again")
    wait_until(lambda: read(pair.a / "plans" / "new.txt") == b"back again")
