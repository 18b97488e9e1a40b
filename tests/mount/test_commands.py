"""What the commands say about a mount: text for people, JSON for programs, exit codes for both."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until


def test_status_in_json_and_in_words(mount: Path, device: Any) -> None:
    (mount / "file").write_bytes(os.urandom(100_000))
    device.aloft("sync")
    answer = device.json("status")
    tasks = answer["mount"].pop("tasks")
    assert tasks > 0
    assert answer["mount"] == {"point": str(mount), "pid": device.pid(), "read_only": False}
    assert answer["drive"]["connection"] == "online"
    assert answer["drive"]["queue"]["files"] == 0
    assert answer["drive"]["counters"]["bytes_sent"] >= 100_000
    text = device.aloft("status")
    assert str(mount) in text
    assert "online" in text


@pytest.mark.parametrize(
    "command", [["status"], ["sync"], ["pin", "x"], ["offline"], ["pause"], ["cache"], ["confirm-deletes"], ["status", "--watch"]]
)
def test_without_a_mount_a_command_says_what_to_do(device: Any, command: list[str]) -> None:
    done = device.run(*command)
    assert done.returncode == 6
    assert "aloft mount" in done.stderr


def test_another_tier_is_seen_in_the_folder_at_once(mount: Path, device: Any) -> None:
    wait_until(lambda: device.json("status")["drive"]["quota"] == 100 * 2**30)
    assert device.json("tier", "plus")["quota_bytes"] == 2**40
    wait_until(lambda: os.statvfs(mount).f_blocks * os.statvfs(mount).f_frsize == 2**40)


def test_states_of_files(devices: Any) -> None:
    one, two = devices.add(), devices.add()
    a, b = one.mount(), two.mount()
    (a / "file").write_bytes(os.urandom(2_000_000))
    one.aloft("sync")
    wait_until(lambda: (b / "file").exists())
    assert two.state(b / "file") == "online-only"
    (b / "file").read_bytes()
    assert two.state(b / "file") == "cached"
    two.aloft("evict", str(b / "file"))
    assert two.state(b / "file") == "online-only"
    two.aloft("pin", str(b / "file"))
    wait_until(lambda: two.state(b / "file") == "pinned")
    two.aloft("offline")
    assert (b / "file").read_bytes() == (a / "file").read_bytes()
    (b / "new").write_bytes(b"written while offline")
    assert two.state(b / "new") == "draft"
    two.aloft("unpin", str(b / "file"))
    assert two.state(b / "file") == "cached"
    two.aloft("online")
    wait_until(lambda: (a / "new").exists())


def test_what_is_not_here_cannot_be_read_offline(devices: Any) -> None:
    one, two = devices.add(), devices.add()
    a, b = one.mount(), two.mount()
    (a / "file").write_bytes(os.urandom(2_000_000))
    one.aloft("sync")
    wait_until(lambda: (b / "file").exists())
    two.aloft("offline")
    with pytest.raises(OSError, match=r".") as failed:
        (b / "file").read_bytes()
    assert failed.value.errno == errno.ENETDOWN
    assert (b / "file").stat().st_size == 2_000_000
    two.aloft("online")
    wait_until(lambda: two.json("status")["drive"]["connection"] == "online")
    assert (b / "file").read_bytes() == (a / "file").read_bytes()


def test_mounting_without_the_service(service: Any, devices: Any) -> None:
    device = devices.add()
    mount = device.mount()
    (mount / "file").write_text("content")
    device.umount()
    service.stop()
    device.mount()
    assert (mount / "file").read_text() == "content"
    (mount / "other").write_text("written without a service")
    service.start()
    device.aloft("sync", "--timeout", "60")
    wait_until(lambda: device.json("status")["drive"]["queue"]["files"] == 0)


def test_mounting_offline(devices: Any) -> None:
    one, two = devices.add(), devices.add()
    a, b = one.mount(), two.mount()
    two.aloft("sync")
    two.umount()
    two.mount("--offline")
    (a / "from one").write_text("one")
    (b / "from two").write_text("two")
    assert two.json("status")["drive"]["connection"] == "offline"
    two.aloft("online")
    wait_until(lambda: sorted(os.listdir(a)) == sorted(os.listdir(b)) == ["from one", "from two"])


@pytest.mark.parametrize(("stop", "go"), [("offline", "online"), ("pause", "resume")])
def test_sync_says_at_once_what_waits(mount: Path, device: Any, stop: str, go: str) -> None:
    device.aloft("sync")
    device.aloft(stop)
    (mount / "report.odt").write_bytes(b"x" * 10_000)
    done = device.run("sync", "--json")
    assert done.returncode == 3, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["waiting"] == ["report.odt"]
    assert f"aloft {go}" in report["reason"]
    assert "report.odt" in device.run("sync").stdout
    assert device.run("sync", "--timeout", "0.2").returncode == 3
    device.aloft(go)
    device.aloft("sync")


def test_sync_skips_the_quiet_time(device: Any) -> None:
    mount = device.mount("--upload-delay", "3600")
    (mount / "file").write_bytes(os.urandom(100_000))
    assert device.json("sync")["complete"]
    assert device.counters()["bytes_sent"] >= 100_000


def test_paths_that_are_not_in_the_drive(mount: Path, device: Any, folder: Path) -> None:
    for path in (mount / "nothing", folder / "elsewhere"):
        done = device.run("status", str(path))
        assert done.returncode == 1
        assert str(path) in done.stderr


def test_a_folder_stands_for_its_files(mount: Path, device: Any) -> None:
    (mount / "folder" / "below").mkdir(parents=True)
    (mount / "folder" / "file").write_text("content")
    (mount / "folder" / "below" / "link").symlink_to("nowhere")
    device.aloft("sync")
    files = device.json("status", str(mount / "folder"))["files"]
    expected = {str(mount / "folder" / "file"): "cached", str(mount / "folder" / "below" / "link"): "cached"}
    assert {file["path"]: file["state"] for file in files} == expected


def test_a_path_through_a_link_that_leads_into_the_drive(mount: Path, device: Any, folder: Path) -> None:
    (mount / "file").write_text("content")
    (folder / "link").symlink_to(mount)
    assert device.state(folder / "link" / "file") in ("cached", "draft", "uploading")


def test_cache_and_fsck(mount: Path, device: Any) -> None:
    (mount / "file").write_bytes(os.urandom(100_000))
    assert device.json("cache")["limit"] == 20 * 2**30
    assert "all is well" in device.aloft("fsck")
    device.umount()
    report = device.json("fsck")
    assert report["clean"]
    assert report["inodes"] >= 2


def test_the_breaker_is_shown_and_obeyed(devices: Any) -> None:
    one, two = devices.add(), devices.add()
    a, b = one.mount(), two.mount()
    (a / "folder").mkdir()
    for number in range(600):
        os.mknod(a / "folder" / f"{number}")
    one.aloft("sync")
    wait_until(lambda: (b / "folder").exists() and len(os.listdir(b / "folder")) == 600)
    one.aloft("pause")  # else the first ones are on the service before they are many
    for path in (a / "folder").iterdir():
        path.unlink()
    one.aloft("resume")
    wait_until(lambda: one.json("status")["drive"]["breakers"])
    assert "confirm-deletes" in one.aloft("status")
    assert one.run("sync").returncode == 3
    one.aloft("undo-deletes")
    wait_until(lambda: len(os.listdir(a / "folder")) == 600)
    one.aloft("sync")
    assert len(os.listdir(b / "folder")) == 600
