"""Two mounted devices of one account behind a proxy that breaks things, and what tests ask of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.mounts import Device, Service
from tests.support.waiting import PATIENCE, wait_until

IO_TIMEOUT = 5
"""Seconds, of both mounts."""


@dataclass
class Pair:
    proxy: FaultProxy
    service: Service
    one: Device
    two: Device
    a: Path
    b: Path


def read(path: Path) -> bytes | None:
    """None: there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def sync(device: Device) -> None:
    device.aloft("sync", "--timeout", "50")


def drive_status(device: Device) -> Any:
    return device.json("status")["drive"]


def said_by(device: Device) -> str:
    """Everything that the status says is wrong."""
    drive = drive_status(device)
    queued = [file["error"] for file in drive["queue"]["first"]]
    queued += [part["error"] for part in drive["failures"]]
    return " ".join(
        str(text)
        for text in (drive["last_error"], drive["stopped_because"], drive["fetch_error"], *drive["trying_again"], *queued)
        if text
    )


def wait_for_status(device: Device, text: str) -> None:
    """Until the status says so; asked at leisure, because each question is a process."""
    end = time.monotonic() + PATIENCE
    while text not in said_by(device):
        if time.monotonic() > end:
            pytest.fail(f"the status never said {text!r}:\n{drive_status(device)}")
        time.sleep(0.5)


def arrives(path: Path, content: bytes) -> None:
    wait_until(lambda: read(path) == content, f"{path} with what was written elsewhere")
