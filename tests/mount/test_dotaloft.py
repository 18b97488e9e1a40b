"""`.aloft` on a real mount: what was, read by real programs."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.mounts import Device, Devices, Service
from tests.support.waiting import wait_until

MIB = 2**20
STAMP = r"\d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d\.\d{3}Z "


def refused(*codes: int) -> Any:
    return pytest.raises(OSError, check=lambda error: error.errno in codes)


def save(device: Device, path: Path, content: bytes) -> None:
    """Written, and on the service."""
    path.write_bytes(content)
    device.aloft("sync")


def versions(mount: Path, path: str) -> list[Path]:
    """Of a file, the oldest first."""
    return sorted((mount / ".aloft/versions" / path).iterdir())


def wait_until_deleted(mount: Path, name: str) -> Path:
    """Where it is in the trash: an answer of some seconds ago may be shown for a moment."""
    found: list[Path] = []

    def is_there() -> bool:
        found[:] = [each for each in (mount / ".aloft/trash").iterdir() if re.fullmatch(STAMP + re.escape(name), each.name)]
        return len(found) == 1

    wait_until(is_there, f"{name} in the trash")
    return found[0]


def test_an_old_version_is_read_beside_the_new_one(mount: Path, device: Device) -> None:
    (mount / "docs").mkdir()
    save(device, mount / "docs/report.odt", b"first")
    save(device, mount / "docs/report.odt", b"the second one")
    first, second = versions(mount, "docs/report.odt")
    assert (first.read_bytes(), second.read_bytes()) == (b"first", b"the second one")
    assert (first.stat().st_size, stat.filemode(first.stat().st_mode)) == (5, "-r--r--r--")
    assert re.fullmatch(STAMP + r"report\.odt", second.name)
    shutil.copy2(first, mount / "docs/restored.odt")
    assert (mount / "docs/restored.odt").read_bytes() == b"first"
    assert os.listdir(mount / ".aloft/versions/docs") == ["report.odt", "restored.odt"]


def test_what_is_there(mount: Path) -> None:
    top = mount / ".aloft"
    assert sorted(os.listdir(top)) == ["README", "trash", "versions"]
    assert "aloft trash restore" in (top / "README").read_text()
    assert os.listdir(top / "trash") == os.listdir(top / "versions") == []
    modes = {path.name: stat.filemode(path.stat().st_mode) for path in (top, *top.iterdir())}
    assert modes == {".aloft": "dr-x------", "README": "-r--r--r--", "trash": "dr-xr-xr-x", "versions": "dr-xr-xr-x"}
    assert not (top / "nothing").exists()
    assert not (mount / "below").exists()


def test_a_deleted_file_is_in_the_trash_and_copied_out_of_it(mount: Path, device: Device) -> None:
    save(device, mount / "letter.txt", b"dear\n")
    (mount / "letter.txt").unlink()
    device.aloft("sync")
    found = wait_until_deleted(mount, "letter.txt")
    subprocess.run(["cp", "-p", found, mount / "letter.txt"], check=True)
    assert (mount / "letter.txt").read_bytes() == b"dear\n"
    device.aloft("sync")
    assert device.json("status")["drive"]["queue"]["changes"] == 0


def test_a_deleted_folder_is_entered(mount: Path, device: Device) -> None:
    (mount / "d/e").mkdir(parents=True)
    (mount / "d/e/f").write_bytes(b"deep")
    (mount / "d/g").write_bytes(os.urandom(100_000))
    (mount / "d/link").symlink_to("e/f")
    kept = {path.relative_to(mount / "d"): path.read_bytes() for path in (mount / "d").rglob("*") if path.is_file()}
    device.aloft("sync")
    shutil.rmtree(mount / "d")
    device.aloft("sync")
    found = wait_until_deleted(mount, "d")
    subprocess.run(["cp", "-a", found, mount / "back"], check=True)
    assert {path.relative_to(mount / "back"): path.read_bytes() for path in (mount / "back").rglob("*") if path.is_file()} == kept
    assert os.readlink(mount / "back/link") == "e/f"
    listed = subprocess.run(["ls", "-lR", mount / ".aloft"], check=True, capture_output=True, text=True).stdout
    assert "link -> e/f" in listed


def test_a_large_old_version_is_read_in_whole_and_in_parts_on_another_device(devices: Devices) -> None:
    one, other = devices.add(), devices.add()
    content = os.urandom(9 * MIB)
    save(one, one.mount() / "large", content)
    save(one, one.point / "large", b"small now")
    mount = other.mount()
    wait_until(lambda: (mount / "large").exists() and (mount / "large").read_bytes() == b"small now", "the file")
    before = other.counters()["bytes_fetched"]
    old, _ = versions(mount, "large")
    assert old.stat().st_size == len(content)
    with old.open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1000, 5 * MIB - 500) == content[5 * MIB - 500 :][:1000]
        assert 0 < other.counters()["bytes_fetched"] - before < len(content), "no more than is read, and a little ahead"
        assert os.pread(file.fileno(), 1000, len(content) - 10) == content[-10:]
    assert old.read_bytes() == content


def test_nothing_in_it_can_be_changed(mount: Path, device: Device) -> None:
    save(device, mount / "f", b"1")
    save(device, mount / "f", b"2")
    old, new = versions(mount, "f")
    top = mount / ".aloft"
    attempts = [
        lambda: old.write_bytes(b"x"),
        lambda: old.open("ab"),
        lambda: os.truncate(old, 0),
        old.unlink,
        lambda: old.rename(new),
        lambda: old.rename(mount / "out"),
        lambda: (mount / "f").rename(top / "trash/f"),
        lambda: os.link(old, mount / "linked"),
        lambda: os.link(mount / "f", top / "linked"),
        lambda: old.chmod(0o600),
        lambda: os.utime(old, (1, 1)),
        (top / "trash").rmdir,
        (top / "new").touch,
        (top / "trash/new").mkdir,
        lambda: (top / "versions/new").symlink_to("f"),
        lambda: os.mknod(top / "versions/f/new"),
        lambda: os.setxattr(old, "user.x", b"y"),
        lambda: top.rename(mount / "mine"),
        top.rmdir,
    ]
    codes = set()
    for attempt in attempts:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            attempt()
        codes.add(caught.value.errno)
    assert codes <= {errno.EROFS, errno.EACCES, errno.EPERM}
    assert (old.read_bytes(), new.read_bytes(), (mount / "f").read_bytes()) == (b"1", b"2", b"2")
    assert os.listdir(mount) == ["f"]


def test_the_name_is_reserved_on_the_mount(mount: Path) -> None:
    (mount / "f").write_bytes(b"x")
    (mount / "d").mkdir()
    taken = (errno.EPERM, errno.EACCES, errno.EROFS, errno.EEXIST, errno.EISDIR, errno.ENOTDIR)
    for attempt in (
        (mount / ".aloft").mkdir,
        lambda: (mount / ".aloft").write_bytes(b"x"),
        lambda: (mount / "f").rename(mount / ".aloft"),
        lambda: (mount / "d").rename(mount / ".aloft"),
        lambda: os.link(mount / "f", mount / ".aloft"),
        lambda: (mount / ".aloft").symlink_to("f"),
    ):
        with refused(*taken):
            attempt()
    (mount / "d/.aloft").mkdir()
    assert sorted(path.name for path in mount.rglob("*")) == [".aloft", "d", "f"]
    assert sorted(os.listdir(mount / ".aloft")) == ["README", "trash", "versions"]


def test_no_program_that_walks_the_tree_wanders_in(mount: Path, device: Device, tmp_path: Path) -> None:
    save(device, mount / "f", b"x")
    assert os.listdir(mount / ".aloft"), "the kernel knows the name by now"
    assert os.listdir(mount) == ["f"]
    found = subprocess.run(["find", mount, "-mindepth", "1"], check=True, capture_output=True, text=True).stdout
    assert found.split() == [str(mount / "f")]
    counted = subprocess.run(["du", "-a", "--apparent-size", mount], check=True, capture_output=True, text=True).stdout
    assert ".aloft" not in counted
    (mount / ".git").mkdir()
    (mount / ".git").rmdir()
    shutil.copytree(mount, tmp_path / "copy")
    assert os.listdir(tmp_path / "copy") == ["f"]
    subprocess.run(["tar", "-C", mount, "-cf", tmp_path / "copy.tar", "."], check=True)
    assert (
        ".aloft" not in subprocess.run(["tar", "-tf", tmp_path / "copy.tar"], check=True, capture_output=True, text=True).stdout
    )


@pytest.mark.parametrize("tool", ["rsync", "git"])
def test_other_programs_do_not_wander_in_either(mount: Path, device: Device, tmp_path: Path, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    save(device, mount / "f", b"x")
    assert os.listdir(mount / ".aloft")
    if tool == "rsync":
        subprocess.run(["rsync", "-a", f"{mount}/", tmp_path / "copy"], check=True)
        assert os.listdir(tmp_path / "copy") == ["f"]
        return
    subprocess.run(["git", "init", "-q", mount], check=True)
    subprocess.run(["git", "-C", mount, "add", "-A"], check=True)
    assert subprocess.run(["git", "-C", mount, "ls-files"], check=True, capture_output=True, text=True).stdout == "f\n"
    subprocess.run(["git", "-C", mount, "clean", "-fdxq"], check=True)


def test_offline_it_says_so_at_once_and_what_needs_no_network_is_there(mount: Path, device: Device) -> None:
    save(device, mount / "f", b"x")
    (old,) = versions(mount, "f")
    device.aloft("offline")
    assert (mount / ".aloft/README").read_bytes()
    assert os.listdir(mount / ".aloft/versions") == ["f"]
    (mount / "g").write_bytes(b"new")
    for folder in ("trash", "versions/g"):
        with refused(errno.ENETDOWN):
            os.listdir(mount / ".aloft" / folder)
    device.aloft("online")
    assert old.read_bytes() == b"x"


def test_a_service_that_dies_while_an_old_version_is_read_is_an_error(service: Service, devices: Devices) -> None:
    device, other = devices.add(), devices.add()
    content = os.urandom(20 * MIB)
    save(device, device.mount() / "large", content)
    save(device, device.point / "large", b"small")
    mount = other.mount("--io-timeout", "5")
    wait_until(lambda: (mount / "large").exists(), "the file")
    old, _ = versions(mount, "large")
    with old.open("rb", buffering=0) as file:
        assert file.read(4096) == content[:4096]
        service.kill()
        with refused(errno.ENETDOWN, errno.EIO, errno.ETIMEDOUT):
            os.pread(file.fileno(), 4096, len(content) - 4096)
    with refused(errno.ENETDOWN, errno.EIO, errno.ETIMEDOUT):
        os.listdir(mount / ".aloft/trash")
    assert (mount / "large").stat().st_size == 5, "the others go on"
    service.start()
    device.aloft("sync")
    wait_until(lambda: other.json("status")["drive"]["connection"] == "online", "the service")
    assert old.read_bytes() == content


def test_a_second_account_sees_its_own_past_only(mount: Path, device: Device, shared_service: Service, folder: Path) -> None:
    save(device, mount / "secret", b"mine")
    (mount / "secret").unlink()
    device.aloft("sync")
    others = Devices(folder / "others", shared_service)
    (folder / "others").mkdir()
    eve = others.add("eve")
    point = eve.mount()
    (point / "hers").write_bytes(b"hers")
    eve.aloft("sync")
    (point / "hers").unlink()
    eve.aloft("sync")
    assert [each.name.partition("Z ")[2] for each in (point / ".aloft/trash").iterdir()] == ["hers"]
    assert os.listdir(point / ".aloft/versions") == []
    assert wait_until_deleted(mount, "secret").read_bytes() == b"mine"
    assert others.finish() == []


def test_what_was_never_sent_has_no_versions_and_nothing_waits_because_somebody_looks(mount: Path, device: Device) -> None:
    device.aloft("pause")
    (mount / "draft").write_bytes(b"x")
    assert os.listdir(mount / ".aloft/versions/draft") == []
    before = device.json("status")["drive"]["queue"]
    subprocess.run(["ls", "-lR", mount / ".aloft"], check=True, capture_output=True)
    assert device.json("status")["drive"]["queue"] == before
    device.aloft("resume")
    device.aloft("sync")
    assert len(versions(mount, "draft")) == 1, "what was sent is seen at once"


def test_those_who_wait_for_it_hold_nobody_else_up(service: Service, devices: Devices) -> None:
    device = devices.add()
    mount = device.mount("--io-timeout", "60")
    save(device, mount / "f", b"x")
    os.listdir(mount / ".aloft")
    assert service.process is not None
    idle = device.json("status")["mount"]["tasks"]
    os.kill(service.process.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(40) as threads:
            waiting = [threads.submit(os.listdir, mount / ".aloft/trash") for _ in range(40)]
            wait_until(lambda: device.json("status")["mount"]["tasks"] > idle + 30, "requests that wait")
            (mount / "g").write_bytes(b"written meanwhile")
            (mount / "d").mkdir()
            (mount / "g").rename(mount / "d/g")
            assert sorted(os.listdir(mount)) == ["d", "f"]
            assert (mount / "f").read_bytes() == b"x"
            assert os.listdir(mount / ".aloft/versions/d") == ["g"]
            assert not any(each.done() for each in waiting)
            os.kill(service.process.pid, signal.SIGCONT)
            assert all(each.result() == [] for each in waiting)
    finally:
        os.kill(service.process.pid, signal.SIGCONT)
    device.aloft("sync")
