"""An account whose storage is used up, on a real mount: that is said, nothing is lost, and more storage lets it go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounts import Device, Service
from tests.support.waiting import wait_until

MIB = 2**20


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "aloft.toml").write_text("[tiers.free]\nquota_bytes = 4000000\n[tiers.plus]\nquota_bytes = 40000000\n")
    service = Service(tmp_path, options=("--config", str(tmp_path / "aloft.toml")))
    service.start()
    yield service
    service.stop()


def told(device: Device) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in device.json("notifications")["notifications"]:
        found.setdefault(each["topic"], []).append(each["text"])
    return found


def test_what_does_not_fit_is_told_and_goes_up_when_there_is_more_storage(service: Service, device: Device, mount: Path) -> None:
    fits, too_much = os.urandom(3 * MIB + MIB // 4), os.urandom(2 * MIB)
    (mount / "fits").write_bytes(fits)
    device.aloft("sync")
    disk = os.statvfs(mount)
    assert disk.f_blocks * disk.f_frsize == pytest.approx(4_000_000, abs=disk.f_frsize)
    assert "80 % of your storage is used" in told(device)["quota"][0]
    (mount / "too much").write_bytes(too_much)
    (mount / "small").write_bytes(b"inline, and in no chunk")
    wait_until(lambda: "upload.failed" in told(device), "what does not go up is news")
    (text,) = told(device)["upload.failed"]
    assert "/too much" in text
    assert (mount / "too much").read_bytes() == too_much
    waiting = device.run("sync", "--timeout", "1")
    assert (waiting.returncode, "too much" in waiting.stdout) == (3, True)
    assert "do not fit" in " ".join(device.aloft("status").split())
    device.aloft("tier", "plus")
    device.aloft("sync")
    assert device.json("ls", "/")["entries"][-1]["name"] == "too much"
    assert (mount / "too much").read_bytes() == too_much
