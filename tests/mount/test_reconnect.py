"""`aloft reconnect` on a real mount whose service was restored."""

from __future__ import annotations

import os
import shutil
from typing import Any

from remote.server.epochs import begin_epoch
from tests.support.waiting import wait_until


def test_a_person_goes_on_with_a_restored_service(service: Any, devices: Any) -> None:
    device = devices.add()
    point = device.mount()
    assert device.json("reconnect", "--yes")["reconnected"] is False
    (point / "kept").write_bytes(b"kept")
    device.aloft("sync", "--timeout", "60")
    service.stop()
    data = service.folder / "service"
    shutil.copytree(data, service.folder / "copy")
    service.start()
    lost = os.urandom(200_000)
    (point / "folder").mkdir()
    (point / "folder" / "lost").write_bytes(lost)
    device.aloft("sync", "--timeout", "60")
    service.stop()
    shutil.rmtree(data)
    (service.folder / "copy").rename(data)
    begin_epoch(data)
    service.start()
    wait_until(lambda: device.json("status")["drive"]["connection"] == "stopped")
    assert "aloft reconnect" in device.aloft("status")
    assert (point / "folder" / "lost").read_bytes() == lost

    told = device.json("reconnect", "--dry-run")
    assert (told["by"], told["files"], told["reconnected"]) == ("service", 2, False)
    assert "conflicted copy" in told["would"]
    refused = device.run("reconnect")
    assert refused.returncode == 1
    assert "restored" in refused.stderr
    assert "--yes" in refused.stderr
    assert device.json("status")["drive"]["connection"] == "stopped"

    assert "Going on" in device.aloft("reconnect", "--yes")
    device.aloft("sync", "--timeout", "60")
    other = devices.add()
    there = other.mount()
    wait_until(lambda: (there / "folder" / "lost").exists())
    assert (there / "folder" / "lost").read_bytes() == lost
    assert (there / "kept").read_bytes() == b"kept"
