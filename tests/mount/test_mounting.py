"""The mount comes and goes: what is refused, what is cleared away, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until

ALOFT = Path(sys.executable).with_name("aloft")


def is_mounted(point: Path) -> bool:
    return any(line.split(" ")[4] == str(point) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def options_of(point: Path) -> tuple[set[str], str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == str(point):
            return set(fields[5].split(",")), fields[fields.index("-") + 1]
    pytest.fail(f"{point} is not mounted")


# ----------------------------------------------------------------------------------------------------------- beginning


def test_it_returns_when_the_folder_is_usable_and_runs_on(device: Any) -> None:
    answer = device.json("mount", str(device.point))
    assert answer["mount_point"] == str(device.point)
    (device.point / "file").write_text("at once")
    assert device.pid() == answer["pid"]
    options, kind = options_of(device.point)
    assert {"nosuid", "nodev"} <= options
    assert kind == "fuse.aloft"


def test_a_missing_folder_is_made(device: Any) -> None:
    device.point.rmdir()
    device.mount()


def test_its_files_are_for_their_owner_only(mount: Path, device: Any) -> None:
    for path, mode in ((device.home, 0o700), (device.home / "cache", 0o700), (device.home / "drafts", 0o700)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    for name in ("run/control.sock", "run/mount.log", "replica.db", "credentials.json"):
        assert stat.S_IMODE((device.home / name).stat().st_mode) == 0o600, name


def test_the_kernel_s_limits_are_raised(mount: Path) -> None:
    minor = os.minor(mount.stat().st_dev)
    assert Path(f"/sys/fs/fuse/connections/{minor}/max_background").read_text().strip() == "1024"
    if os.geteuid() == 0:
        assert Path(f"/sys/class/bdi/0:{minor}/read_ahead_kb").read_text().strip() == "1024"


def refusal(device: Any, *arguments: str, code: int = 1, **options: Any) -> str:
    done = device.run("mount", *arguments, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, f"not one line: {done.stderr}"
    return str(done.stderr)


def test_a_folder_with_something_in_it_is_refused(device: Any) -> None:
    (device.point / "file").touch()
    assert "not empty" in refusal(device, str(device.point))


def test_a_file_is_refused(device: Any) -> None:
    (device.folder / "file").touch()
    assert "not a folder" in refusal(device, str(device.folder / "file"))


def test_a_busy_mount_point_is_refused(mount: Path, devices: Any) -> None:
    other = devices.add()
    assert "in use" in refusal(other, str(mount))


def test_a_second_mount_of_one_home_is_refused(mount: Path, device: Any, folder: Path) -> None:
    message = refusal(device, str(folder / "elsewhere"))
    assert f"aloft umount {mount}" in message
    assert not (folder / "elsewhere").exists()


@pytest.mark.parametrize(
    ("point", "cache"),
    [("{home}", None), ("{home}/mnt", None), ("{folder}", None), ("{point}", "{point}/cache"), ("{point}", "{folder}")],
)
def test_places_inside_one_another_are_refused(device: Any, folder: Path, point: str, cache: str | None) -> None:
    names = {"home": device.home, "folder": folder, "point": device.point}
    options = [] if cache is None else ["--cache-dir", cache.format(**names)]
    assert "cannot be" in refusal(device, point.format(**names), *options)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a home away")
def test_a_home_of_another_user_is_refused(device: Any) -> None:
    os.chown(device.home, 65534, 65534)
    assert "another user" in refusal(device, str(device.point))
    os.chown(device.home, 0, 0)


def test_a_home_that_is_not_logged_in_is_refused(device: Any, folder: Path) -> None:
    message = refusal(device, str(device.point), code=4, env={"ALOFT_HOME": str(folder / "other")})
    assert "aloft login" in message


@pytest.mark.parametrize(
    "option", [("--cache-size", "much"), ("--upload-limit", "-1"), ("--io-timeout", "0"), ("--max-uploads", "0")]
)
def test_options_that_make_no_sense(device: Any, option: tuple[str, str]) -> None:
    refusal(device, str(device.point), *option, code=2)


def test_the_cache_may_lie_elsewhere(device: Any, folder: Path) -> None:
    device.mount("--cache-dir", str(folder / "cache"))
    assert stat.S_IMODE((folder / "cache").stat().st_mode) == 0o700
    device.umount()
    device.mount("--cache-dir", str(folder / "cache"))


def test_a_long_home(devices: Any, folder: Path) -> None:
    device = devices.add("d" * 100)
    assert len(str(device.home / "run" / "control.sock")) > 108
    device.mount()
    assert device.json("status")["mount"]["point"] == str(device.point)


def test_mounting_read_only(device: Any) -> None:
    mount = device.mount()
    (mount / "file").write_text("content")
    device.umount()
    device.mount("--read-only")
    assert (mount / "file").read_text() == "content"
    for attempt in (lambda: (mount / "file").write_text("x"), lambda: (mount / "new").touch(), lambda: (mount / "file").unlink()):
        with pytest.raises(OSError, match="Read-only file system"):
            attempt()


# --------------------------------------------------------------------------------------------------------------- the end


def test_umount_says_that_all_is_safe(mount: Path, device: Any) -> None:
    (mount / "file").write_bytes(os.urandom(3_000_000))
    assert "everything is on the server" in device.umount()
    assert not is_mounted(mount)
    assert device.run("status").returncode == 6


def test_umount_brings_what_a_mapping_still_held(mount: Path, device: Any, devices: Any) -> None:
    with (mount / "file").open("wb") as file:
        file.write(b"x" * 100_000)
    device.umount()
    other = devices.add()
    assert (other.mount() / "file").read_bytes() == b"x" * 100_000


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "fusermount3"])
def test_ways_to_end_it(mount: Path, device: Any, how: str) -> None:
    pid = device.pid()
    (mount / "file").write_text("content")
    if how == "fusermount3":
        subprocess.run(["fusermount3", "-u", str(mount)], check=True)
    else:
        os.kill(pid, signal.Signals[how])
    device.wait_for_the_end_of(pid)
    assert not is_mounted(mount)
    assert (device.mount() / "file").read_text() == "content"


def test_sigterm_does_not_wait_for_uploads(device: Any) -> None:
    mount = device.mount("--upload-limit", "50K")
    (mount / "file").write_bytes(os.urandom(5_000_000))
    pid = device.pid()
    os.kill(pid, signal.SIGTERM)
    device.wait_for_the_end_of(pid)
    device.mount()
    device.aloft("sync")
    assert (mount / "file").stat().st_size == 5_000_000


def test_files_that_are_open_when_it_ends_lose_nothing(mount: Path, device: Any) -> None:
    pid = device.pid()
    with (mount / "file").open("wb") as file:
        file.write(b"before ")
        file.flush()
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_mounted(mount))
        file.write(b"after")
    device.wait_for_the_end_of(pid)
    assert (device.mount() / "file").read_bytes() == b"before after"


def test_umount_with_open_files_says_so(mount: Path, device: Any) -> None:
    with (mount / "file").open("wb") as file:
        file.write(b"still open")
        done = device.run("umount", str(mount))
        assert "still have files" in done.stdout
        assert not is_mounted(mount)
        assert device.run("mount", str(mount)).returncode == 1, "the process is still there"
    wait_until(lambda: device.run("status").returncode == 6)
    assert (device.mount() / "file").read_bytes() == b"still open"


def test_umount_without_a_service_says_what_exists_only_here(service: Any, device: Any) -> None:
    mount = device.mount()
    device.aloft("sync")
    service.stop()
    (mount / "report.odt").write_text("only here")
    done = device.run("umount", str(mount), "--json")
    assert done.returncode == 3, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert [file["path"] for file in answer["queue"]["first"]] == ["report.odt"]
    assert not is_mounted(mount)
    service.start()
    device.mount()
    assert "everything is on the server" in device.umount()


def test_umount_without_waiting(service: Any, device: Any) -> None:
    mount = device.mount()
    service.stop()
    (mount / "file").write_text("only here")
    assert device.run("umount", str(mount), "--no-wait").returncode == 3
    assert not is_mounted(mount)
    service.start()


def test_umount_of_what_is_not_mounted(device: Any) -> None:
    assert device.run("umount", str(device.point)).returncode == 6


def test_umount_of_another_home_s_mount(mount: Path, devices: Any) -> None:
    other = devices.add()
    done = other.run("umount", str(mount))
    assert done.returncode == 1
    assert "another home" in done.stderr
    assert is_mounted(mount)


def test_umount_by_force(mount: Path, device: Any) -> None:
    pid = device.pid()
    device.umount("--force")
    assert not is_mounted(mount)
    device.wait_for_the_end_of(pid)
    device.mount()


# --------------------------------------------------------------------------------------------------------------- crashes


def test_a_dead_mount_is_cleared_by_the_next(mount: Path, device: Any) -> None:
    (mount / "file").write_text("content")
    device.kill()
    with pytest.raises(OSError, match="not connected"):
        mount.stat()
    assert (device.mount() / "file").read_text() == "content"


def test_dead_mounts_on_top_of_each_other_are_cleared(mount: Path, device: Any) -> None:
    device.kill()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(device.folder)], check=False, capture_output=True)
    subprocess.run(["umount", str(device.folder)], check=False, capture_output=True)
    device.mount()
    device.kill()
    device.mount()
    assert sum(line.split(" ")[4] == str(mount) for line in Path("/proc/self/mountinfo").read_text().splitlines()) == 1


def test_umount_clears_a_dead_mount(mount: Path, device: Any) -> None:
    device.kill()
    device.umount()
    assert not is_mounted(mount)


def test_what_was_closed_survives_a_kill(mount: Path, device: Any) -> None:
    contents = {f"file {number}": os.urandom(number * 1000) for number in range(0, 200, 7)}
    for name, content in contents.items():
        (mount / name).write_bytes(content)
    (mount / "folder").mkdir()
    (mount / "file 7").rename(mount / "folder" / "moved")
    contents["folder/moved"] = contents.pop("file 7")
    device.kill()
    device.mount()
    assert {name: (mount / name).read_bytes() for name in contents} == contents
    assert not (mount / "file 7").exists()


def test_what_was_fsynced_survives_a_kill_while_open(mount: Path, device: Any) -> None:
    fd = os.open(mount / "file", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"synced")
    os.fsync(fd)
    os.write(fd, b" and not")
    device.kill()
    with pytest.raises(OSError, match=r"."):  # P8: the application hears it
        os.fsync(fd)
    with suppress(OSError):
        os.close(fd)
    assert (device.mount() / "file").read_bytes().startswith(b"synced")


def test_in_the_foreground(device: Any) -> None:
    environment = os.environ | {"ALOFT_HOME": str(device.home)}
    command = [str(ALOFT), "mount", str(device.point), "--foreground", "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["pid"] == process.pid
        assert is_mounted(device.point)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert not is_mounted(device.point)
