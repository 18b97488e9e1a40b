"""Starts and ends the recording file system of `recorder.py`, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import REPOSITORY
from tests.support.waiting import PATIENCE, wait_until


class Layer:
    """`point`: the mounted folder; `log`: what was done to it. `position` is a moment."""

    def __init__(self, folder: Path) -> None:
        self.point, self.log = folder / "disk", folder / "log"
        self._backing = folder / "backing"
        for path in (self.point, self._backing):
            path.mkdir()
        self.log.touch()
        command = [sys.executable, "-m", "tests.powerloss.recorder", str(self._backing), str(self.point), str(self.log)]
        self._errors = folder / "recorder.log"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(command, cwd=REPOSITORY, stderr=errors)
        wait_until(lambda: self._process.poll() is not None or self.point.is_mount(), "the recording file system")
        if not self.point.is_mount():
            pytest.fail(f"the recording file system did not start:\n{self._errors.read_text()}")

    @property
    def position(self) -> int:
        return os.stat(self.log).st_size

    def stop(self) -> None:
        if self.point.is_mount():
            subprocess.run(["fusermount3", "-uz", str(self.point)], check=True, capture_output=True)
        self._process.wait(PATIENCE)
        assert "Traceback" not in self._errors.read_text(), self._errors.read_text()
